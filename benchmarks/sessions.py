"""What it costs to create, look up and stop a session: in the hub, with a store, over HTTP.

A session is created when its stream runs, its backend was asked and, with a store, its record is
committed. It is stopped when the backend's connection is closed and, with a store, the end is
committed. The hub and the keeper are the gateway's own; only the backend's answer is scripted.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks.http_sessions import measure_http
from benchmarks.timing import Amount, Timings
from gateway.sse.dialects import provider_dialect
from gateway.stream.archive import Archive
from gateway.stream.cipher import Cipher
from gateway.stream.hub import Hub
from gateway.stream.keeper import Keeper
from gateway.stream.limits import Bounds, Clocks, Limits
from gateway.stream.live import LiveStream
from gateway.stream.log import LogBudget
from gateway.stream.model import ENDING_REASONS, USER_REQUESTED
from gateway.stream.sql import make_store
from gateway.stream.store import SessionStore
from gateway.telemetry.faults import Faults
from gateway.telemetry.metrics import Metrics
from gateway.telemetry.observer import StreamObserver
from tests.servers import new_database, postgres_server
from tests.unit.stream.parts import EVENT, Lease, NoStore, ScriptedAnswer, plan

#: "A session created in 0.26 ms, ended in 0.17 ms", in milliseconds and a second.
_ASKED = {"create": (0.26, 3846), "stop": (0.17, 5882)}
_ASKED_STORED = {"create": (0.90, None), "stop": (0.54, None)}


class _Answer(ScriptedAnswer):
    """One event, then silence until it is closed."""

    def __init__(self) -> None:
        super().__init__([EVENT], endless=True)
        self.closed = asyncio.Event()

    def close(self) -> None:
        super().close()
        self.closed.set()


@dataclass(frozen=True, slots=True)
class _Session:
    stream: LiveStream
    answer: _Answer


@dataclass(frozen=True, slots=True)
class _Place:
    """A hub, and the keeper of its store if it has one."""

    hub: Hub
    keeper: Keeper | None = None

    async def create(self) -> _Session:
        answer = _Answer()
        stream = self.hub.start(plan(answer), Lease())
        await stream.opened
        if self.keeper is not None:
            assert stream.kept is not None
            assert await stream.kept
        return _Session(stream, answer)

    async def look_up(self, session: _Session) -> None:
        assert await self.hub.recall(session.stream.id) is session.stream

    async def stop(self, session: _Session) -> None:
        assert self.hub.stop(session.stream, USER_REQUESTED)
        await session.answer.closed.wait()
        if self.keeper is not None:
            await self.keeper.flush(5)
            assert not self.keeper.is_behind(session.stream)
        self.hub.leave(session.stream)


async def measure_sessions(place: _Place, where: str, amount: Amount) -> list[Timings]:
    """Creates, looks up and stops sessions one at a time, then many at once."""
    asked = _ASKED if place.keeper is None else _ASKED_STORED
    create, look_up, stop = (
        Timings(f"{name}, {where}", *asked.get(name, (None, None)))
        for name in ("create", "look up", "stop")
    )
    for number in range(-amount.warm_up, amount.one_by_one):
        if number == 0:
            for timings in (create, look_up, stop):
                timings.restart()
        async with create.timing():
            session = await place.create()
        async with look_up.timing():
            await place.look_up(session)
        async with stop.timing():
            await place.stop(session)
    for _ in range(amount.bursts):
        sessions = await create.burst([place.create] * amount.at_once)
        await stop.burst([partial(place.stop, session) for session in sessions])
    return [create, look_up, stop]


async def measure_recall(store: SessionStore, place: _Place, where: str, count: int) -> Timings:
    """Looks up sessions that are no longer in memory."""
    archive = Archive(store, provider_dialect, LogBudget(0))
    timings = Timings(f"look up, ended, {where}")
    session = await place.create()
    await place.stop(session)
    for _ in range(count):
        async with timings.timing():
            assert await archive.find(session.stream.id) is not None
    return timings


async def all_sessions(amount: Amount) -> list[Timings]:
    """Everything: without a store, on each store and over HTTP."""
    rows = await measure_sessions(_Place(_hub(NoStore(), NoStore())), "no store", amount)
    with TemporaryDirectory() as folder, postgres_server() as server:
        url = await new_database(server)
        for where, database_url in (("SQLite", None), ("PostgreSQL", url)):
            async with _stored(database_url, Path(folder)) as (store, place):
                rows += await measure_sessions(place, where, amount)
                rows.append(await measure_recall(store, place, where, amount.one_by_one))
        for where, database_url in (("SQLite", None), ("PostgreSQL", url)):
            rows += await measure_http(f"HTTP, {where}", Path(folder) / where, database_url, amount)
    return rows


@asynccontextmanager
async def _stored(
    database_url: str | None, folder: Path
) -> AsyncIterator[tuple[SessionStore, _Place]]:
    store = make_store(database_url, folder, Cipher(), instance="bench")
    await store.open()
    keeper = Keeper(store)
    keeper.start()
    try:
        archive = Archive(store, provider_dialect, LogBudget(0))
        yield store, _Place(_hub(keeper, archive), keeper)
    finally:
        await keeper.close()
        await store.close()


def _hub(keeper: object, archive: object) -> Hub:
    metrics = Metrics()
    faults = Faults(metrics, size=0, counts=True, logs=False)
    return Hub(
        clocks=Clocks(first_token_s=30, idle_s=30, heartbeat_s=5),
        limits=Limits(0, 1 << 20, Bounds(event_max_bytes=1 << 20, pauses=True)),
        budget=LogBudget(0),
        observer=StreamObserver(metrics, faults, ENDING_REASONS),
        keeper=keeper,  # type: ignore[arg-type]
        archive=archive,  # type: ignore[arg-type]
    )
