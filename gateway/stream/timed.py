"""A store that tells how long each of its operations took, whether it succeeded or not."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from gateway.stream.model import StreamId
from gateway.stream.store import (
    Appended,
    Change,
    Created,
    Segment,
    SessionStore,
    StreamRecord,
)

Observe = Callable[[str, float], None]


class TimedStore:
    """Does what `store` does; `observe` gets an operation's name and seconds.

    A transaction counts once for each kind of change in it: `create`, `append`, `end`. The others
    are `open`, `lookup`, `read`, `interrupt`, `sweep`, `erase` and `ping`. Waiting for a claim
    isn't the store's time.
    """

    def __init__(self, store: SessionStore, observe: Observe) -> None:
        self._store = store
        self._observe = observe

    async def open(self) -> None:
        with self._timed("open"):
            await self._store.open()

    async def claim(self) -> None:
        await self._store.claim()

    async def claim_lost(self) -> None:
        await self._store.claim_lost()

    async def close(self) -> None:
        await self._store.close()

    async def write(self, batch: Sequence[Change]) -> frozenset[StreamId]:
        with self._timed(*{_operation(change) for change in batch}):
            return await self._store.write(batch)

    async def load(self, stream_id: StreamId) -> StreamRecord | None:
        with self._timed("lookup"):
            return await self._store.load(stream_id)

    async def segments(self, stream_id: StreamId, after_seq: int) -> list[Segment]:
        with self._timed("read"):
            return await self._store.segments(stream_id, after_seq)

    async def find_by_conversation(
        self, owner: str | None, conversation_id: str, limit: int
    ) -> list[StreamRecord]:
        with self._timed("lookup"):
            return await self._store.find_by_conversation(owner, conversation_id, limit)

    async def find_by_idempotency(self, owner: str, key: str) -> StreamRecord | None:
        with self._timed("lookup"):
            return await self._store.find_by_idempotency(owner, key)

    async def end_interrupted(self, now_ms: int, ttl_ms: int) -> list[StreamRecord]:
        with self._timed("interrupt"):
            return await self._store.end_interrupted(now_ms, ttl_ms)

    async def sweep(self, now_ms: int, max_bytes: int) -> int:
        with self._timed("sweep"):
            return await self._store.sweep(now_ms, max_bytes)

    async def owners(self) -> list[str]:
        with self._timed("lookup"):
            return await self._store.owners()

    async def owned(self, owner: str) -> list[StreamRecord]:
        with self._timed("lookup"):
            return await self._store.owned(owner)

    async def erase(self, streams: Sequence[StreamId]) -> int:
        with self._timed("erase"):
            return await self._store.erase(streams)

    async def ping(self) -> None:
        with self._timed("ping"):
            await self._store.ping()

    @contextmanager
    def _timed(self, *operations: str) -> Iterator[None]:
        began = time.monotonic()
        try:
            yield
        finally:
            took_s = time.monotonic() - began
            for operation in operations:
                self._observe(operation, took_s)


def _operation(change: Change) -> str:
    if isinstance(change, Created):
        return "create"
    return "append" if isinstance(change, Appended) else "end"
