"""Drafts of a transaction: what it shall say of each stream, taken from the streams themselves.

The keeper tells when and of which streams; how much fits into one transaction is told here.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from gateway.stream.model import StreamId
from gateway.stream.store import (
    Appended,
    Change,
    Created,
    Ended,
    Progress,
    Segment,
    StreamRecord,
)

logger = logging.getLogger(__name__)

#: One transaction is closed when it holds so much, so that it neither takes long nor much memory.
_BATCH_BYTES = 4 * 1024 * 1024
_BATCH_STREAMS = 256
#: Nor holds the event loop: of so many streams what they have said is put together in one step.
_BATCH_SEGMENTS = 32


class Source(Protocol):
    """A stream, as the keeper sees it."""

    @property
    def id(self) -> StreamId: ...

    @property
    def is_active(self) -> bool: ...

    def record(self) -> StreamRecord:
        """How it is now."""
        ...

    def progress(self) -> Progress:
        """How far it is: a part of its record."""
        ...

    def pending(self, after_seq: int) -> tuple[Segment | None, int]:
        """The events after `after_seq` that the log still has, if there are any, and the number of
        the log's last event."""
        ...


@dataclass(slots=True, eq=False)
class Kept:
    """How far a stream is in the store."""

    source: Source
    durable: asyncio.Future[bool]
    seq: int = 0
    is_created: bool = False
    #: Who waits for more of it to be written, and since when.
    wake: Callable[[], None] | None = None
    awaited_since: float | None = None


@dataclass(slots=True)
class Draft:
    """What one transaction will say of one stream."""

    kept: Kept
    changes: list[Change]
    last: int
    bytes: int
    has_ended: bool


def take_drafts(waiting: list[Kept]) -> list[Draft]:
    """Takes as many as fit in one transaction."""
    drafts: list[Draft] = []
    size = segments = 0
    while (
        waiting
        and size < _BATCH_BYTES
        and segments < _BATCH_SEGMENTS
        and len(drafts) < _BATCH_STREAMS
    ):
        draft = _draft(waiting.pop())
        size += draft.bytes
        segments += draft.bytes > 0
        drafts.append(draft)
    return drafts


def _draft(kept: Kept) -> Draft:
    source, has_ended = kept.source, not kept.source.is_active
    segment, last = source.pending(kept.seq)
    record = source.record() if has_ended or not kept.is_created else None
    changes: list[Change] = []
    if record is not None and not kept.is_created:
        changes.append(Created(record))
    size = 0
    if segment is not None:
        size = segment.size
        changes.append(Appended(record or source.progress(), segment))
        if segment.first > kept.seq + 1:
            missing = segment.first - kept.seq - 1
            logger.warning("store.gap", extra={"stream_id": source.id, "events": missing})
    if record is not None and has_ended:
        changes.append(Ended(record))
    return Draft(kept, changes, last, size, has_ended)
