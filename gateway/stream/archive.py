"""The archive: streams that are no longer in memory, made readable again from the store."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TypeGuard

import orjson

from gateway.sse.decoder import block_data
from gateway.sse.dialects.base import Dialect
from gateway.sse.event import Summary, Usage
from gateway.stream.live import LiveStream, Origin
from gateway.stream.log import EventLog, LogBudget
from gateway.stream.model import Ending, StreamId
from gateway.stream.store import Segment, SessionStore, StreamRecord
from gateway.stream.wire import Beat, encode_error

_CONVERSATION_STREAMS = 50
_CHUNK = b"\nevent: content_chunk\n"


class StoredWire:
    """The wire of a stream that has ended: it writes nothing more but the end of a crash."""

    opening = b""

    def __init__(self, record: StreamRecord, dialect: Dialect | None) -> None:
        self._record = record
        self._dialect = dialect  # None on the typed route
        self.ending: Ending | None = None
        self.total_chunks = record.total_chunks
        self.lead_events = 0

    @property
    def total_tokens(self) -> int:
        return self._record.total_tokens or 0

    @property
    def usage(self) -> Usage:
        record = self._record
        return Usage(record.input_tokens, record.total_tokens, record.estimated)

    def begin(self) -> bytes | None:
        return None

    def feed(self, blocks: list[bytes]) -> list[bytes]:
        raise RuntimeError("the stream has ended")

    def usual(self, block: bytes) -> bytes | None:
        return None

    def finish(self, ending: Ending, duration_s: float, recent: list[bytes]) -> list[bytes]:
        return [encode_error(ending, self._record.trace_id, self._dialect, recent)]

    def heartbeat(self, beat: Beat) -> bytes:
        return b":\n"

    def summary(self, events: Iterable[bytes]) -> Summary:
        if self._dialect is not None:
            return self._dialect.summarise(events)
        return Summary(_typed_text(events), self.usage, chunks=self.total_chunks)

    def snapshot(self) -> bytes | None:
        return None  # everything is in the log, or nothing is known of the rest

    def ends_cleanly(self, ending: Ending) -> bool:
        return self._dialect is None or not (ending.is_error or ending.reason == "duration_cap")


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


def _typed_text(events: Iterable[bytes]) -> str:
    chunks = (orjson.loads(block_data(event)) for event in events if _CHUNK in event)
    return "".join(chunk["content"] for chunk in chunks)


def _ignore(stream: LiveStream) -> None:
    """Its end was told when it ended."""
