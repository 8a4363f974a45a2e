"""What each store costs: one change a transaction, and as many as the keeper writes at once."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest

from benchmarks.conftest import MeasureAsync
from gateway.stream.model import Status, new_stream_id
from gateway.stream.store import (
    Appended,
    Change,
    Created,
    Ended,
    Segment,
    SessionStore,
    StreamRecord,
)
from tests.unit.stream.parts import EVENT

_EACH = 20
_BATCH = 256
_LONG_AGO_MS = 1
#: A transaction is waiting more than work.
pytestmark = pytest.mark.benchmark(timer=time.perf_counter)
batch_sizes = pytest.mark.parametrize("batch", [1, _BATCH], ids=["alone", "batch of 256"])


def _new_record() -> StreamRecord:
    return StreamRecord(new_stream_id(), "me", "t", "chat", round(time.time() * 1000))


def _ended(record: StreamRecord) -> Ended:
    return Ended(
        replace(
            record,
            status=Status.COMPLETED,
            reason="completed",
            ended_at_ms=record.created_at_ms,
            expires_at_ms=_LONG_AGO_MS,
        )
    )


def _appended(record: StreamRecord) -> Appended:
    last = record.last_seq + 20
    segment = Segment.of(record.id, record.last_seq + 1, [EVENT] * 20)
    return Appended(replace(record, last_seq=last), segment)


def _rest_of(record: StreamRecord) -> tuple[Change, Change]:
    appended = _appended(record)
    return appended, _ended(appended.record)


class _Writes:
    """Writes a change for each of some streams, `_EACH` transactions or one large one a call."""

    def __init__(self, store: SessionStore, batch: int) -> None:
        self._store = store
        self._batch = batch
        self.count = max(_EACH, batch)

    async def write(self, changes: Sequence[Change]) -> None:
        for start in range(0, len(changes), self._batch):
            await self._store.write(changes[start : start + self._batch])

    async def create(self) -> list[StreamRecord]:
        records = [_new_record() for _ in range(self.count)]
        await self.write([Created(record) for record in records])
        return records


@batch_sizes
def bench_store_create(store: SessionStore, measure_async: MeasureAsync, batch: int) -> None:
    writes = _Writes(store, batch)
    measure_async(writes.create, "stream", writes.count)


@batch_sizes
def bench_store_append_20_events(
    store: SessionStore, measure_async: MeasureAsync, batch: int, runner: asyncio.Runner
) -> None:
    writes = _Writes(store, batch)
    records = runner.run(writes.create())

    async def append() -> None:
        changes = [_appended(record) for record in records]
        records[:] = [change.record for change in changes]
        await writes.write(changes)

    measure_async(append, "segment", writes.count)


@batch_sizes
def bench_store_whole_stream(store: SessionStore, measure_async: MeasureAsync, batch: int) -> None:
    """Begun and, later, appended to and ended: the two transactions of a short answer."""
    writes = _Writes(store, batch)

    async def live() -> None:
        records = await writes.create()
        for start in range(0, len(records), batch):
            changes = [_rest_of(record) for record in records[start : start + batch]]
            await store.write([change for both in changes for change in both])

    measure_async(live, "stream", writes.count)


@pytest.mark.parametrize("look", ["record", "events", "conversation"])
def bench_store_look_up(
    store: SessionStore, measure_async: MeasureAsync, runner: asyncio.Runner, look: str
) -> None:
    writes = _Writes(store, _BATCH)
    records = [replace(_new_record(), conversation_id=new_stream_id()) for _ in range(_BATCH)]
    runner.run(writes.write([Created(record) for record in records]))
    runner.run(writes.write([_appended(record) for record in records]))
    lookers: dict[str, Callable[[StreamRecord], object]] = {
        "record": lambda record: store.load(record.id),
        "events": lambda record: store.segments(record.id, 0),
        "conversation": lambda record: store.find_by_conversation(
            None, record.conversation_id or "", 50
        ),
    }

    async def look_up() -> None:
        for record in records[:_EACH]:
            assert await lookers[look](record)  # type: ignore[misc]

    measure_async(look_up, "look-up", _EACH)


def bench_store_sweep(
    store: SessionStore, measure_async: MeasureAsync, runner: asyncio.Runner
) -> None:
    """With the writing of what is swept, which `whole_stream` in a batch shows by itself."""
    writes = _Writes(store, _BATCH)

    async def fill_and_sweep() -> None:
        records = await writes.create()
        await store.write([change for record in records for change in _rest_of(record)])
        assert await store.sweep(_LONG_AGO_MS + 1, 0) == _BATCH

    measure_async(fill_and_sweep, "stream", _BATCH)
