"""The archive: streams that are no longer in memory, made readable again from the store."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeGuard

from gateway.sse.dialects.base import Dialect
from gateway.stream.live import LiveStream, Origin
from gateway.stream.log import EventLog, LogBudget
from gateway.stream.model import Ending, StreamId
from gateway.stream.store import Segment, SessionStore, StreamRecord
from gateway.stream.wires.stored import StoredWire

_CONVERSATION_STREAMS = 50


@dataclass(frozen=True, slots=True)
class Archive:
    """Reads the store.

    Args:
        dialect_of: The dialect of a provider route by its path; None for the typed route.
    """

    store: SessionStore
    dialect_of: Callable[[str], Dialect | None]
    budget: LogBudget

    async def find(self, stream_id: StreamId) -> LiveStream | None:
        """
        Raises:
            StoreError: the store is away.
        """
        record = await self.store.load(stream_id)
        return await self._revive(record) if _is_readable(record) else None

    async def of_conversation(self, conversation_id: str) -> list[LiveStream]:
        """Those that have ended, oldest first, with their events; at most the newest 50."""
        records = await self.store.find_by_conversation(
            None, conversation_id, _CONVERSATION_STREAMS
        )
        return [await self._revive(one) for one in reversed(records) if _is_readable(one)]

    async def owned(self, owner: str) -> list[LiveStream]:
        """Everything that is stored of an owner, oldest first: what runs now as far as it is.

        Raises:
            StoreError: the store is away.
        """
        return [await self._revive(one) for one in await self.store.owned(owner)]

    async def claimed(self, owner: str, key: str) -> LiveStream | None:
        record = await self.store.find_by_idempotency(owner, key)
        return await self._revive(record) if _is_readable(record) else None

    async def _revive(self, record: StreamRecord) -> LiveStream:
        segments = await self.store.segments(record.id, 0)
        wire = StoredWire(record, self.dialect_of(record.route))
        # Its size is what it is. A bound would have the first reader who leaves trim it.
        log = EventLog(
            record.id, max_bytes=sys.maxsize, with_ids=record.with_ids, budget=self.budget
        )
        first, frames = _events(segments)
        log.restore(first, frames)
        origin = Origin(record.owner, record.trace_id, record.route, record.conversation_id)
        stream = LiveStream(
            record.id,
            origin,
            log=log,
            wire=wire,
            grace_s=None,
            max_duration_s=0,
            on_end=_ignore,
            fingerprint=record.fingerprint,
        )
        stream.restore(
            _ending_of(record), record.created_at_ms / 1000, (record.ended_at_ms or 0) / 1000
        )
        return stream


def _is_readable(record: StreamRecord | None) -> TypeGuard[StreamRecord]:
    """Whether it has ended, and not longer ago than the replay window."""
    if record is None or record.is_active:
        return False
    return record.expires_at_ms is None or record.expires_at_ms > time.time() * 1000


def _events(segments: list[Segment]) -> tuple[int, list[bytes]]:
    """The events after the last gap, and the number of the first of them."""
    frames: list[bytes] = []
    first = 1
    for segment in segments:
        if segment.first != first + len(frames):
            frames, first = [], segment.first
        frames += segment.after(0)
    return first, frames


def _ending_of(record: StreamRecord) -> Ending:
    return Ending(record.status, record.reason or "", record.message, record.retryable)


def _ignore(stream: LiveStream) -> None:
    """Its end was told when it ended."""
