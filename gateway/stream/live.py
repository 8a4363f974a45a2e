"""A stream while it runs: its record, its log, who reads it and how it ended.

The producer fills it, readers drain it, the hub watches its clocks. Whoever ends it first decides
how it ended.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol

from gateway.errors import UpstreamError
from gateway.stream.answer import Opening
from gateway.stream.log import EventLog
from gateway.stream.model import Ending, Status, StreamId
from gateway.stream.store import Progress, Segment, StreamRecord
from gateway.stream.wires.base import Wire

if TYPE_CHECKING:
    from gateway.stream.reader import Reader

#: The official SDKs wait for half a second before they first ask again, then 1, 2 and 4 s.
RETRY_GRACE_S = 5.0
Happening = Literal["paused", "resumed", "client_left", "client_returned"]
_MAX_MOMENTS = 64


class Recording(Protocol):
    """A stream's place in the audit log."""

    async def durable(self) -> None:
        """Returns once the beginning is on record.

        Raises:
            Unavailable: it can't be recorded, so nothing of the stream may be shown.
        """
        ...

    def stream_ended(self, stream: LiveStream) -> asyncio.Future[None] | None:
        """Records the end; what the last event has to wait for, if for anything."""
        ...


@dataclass(frozen=True, slots=True)
class Moment:
    """`paused` and `resumed` tell of reading the backend, the others of the last reader."""

    what: Happening
    at: float  #: of `time.monotonic`


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a stream comes from: what is known of it before it runs."""

    owner: str
    trace_id: str
    route: str
    conversation_id: str | None = None


class LiveStream:
    """One generation.

    Args:
        grace_s: How long it goes on when the last reader has gone; 0 ends it at once, None lets
            it finish.
        max_duration_s: The duration cap; 0 is none.
        retry_key: What a client that vanishes before its first byte would ask again with; empty
            if it wouldn't. See `gateway.stream.abandoned`.
        on_end: Called once, when it has ended.
    """

    #: More attributes than a shared dictionary takes would cost each stream 1.3 KiB.
    __slots__ = (
        "_attached",
        "_on_end",
        "created_at",
        "detached_since",
        "ended",
        "ended_at",
        "ending",
        "fingerprint",
        "first_event",
        "grace_s",
        "id",
        "idempotency_key",
        "is_committed",
        "is_paused",
        "is_unrecorded",
        "kept",
        "last_event",
        "log",
        "max_duration_s",
        "moments",
        "opened",
        "origin",
        "quiet_until",
        "readers",
        "recording",
        "resume_ttl_s",
        "retry_key",
        "started",
        "stored",
        "was_read",
        "wire",
    )

    def __init__(  # noqa: PLR0913 - the record of a stream
        self,
        stream_id: StreamId,
        origin: Origin,
        *,
        log: EventLog,
        wire: Wire,
        grace_s: float | None,
        max_duration_s: float,
        on_end: Callable[[LiveStream], None],
        fingerprint: bytes = b"",
        idempotency_key: str | None = None,
        retry_key: bytes = b"",
        resume_ttl_s: float = 600,
        recording: Recording | None = None,
    ) -> None:
        self.id = stream_id
        self.origin = origin
        self.log = log
        self.wire = wire
        self.grace_s = grace_s
        self.max_duration_s = max_duration_s
        self.fingerprint = fingerprint
        self.idempotency_key = idempotency_key
        self.retry_key = retry_key
        self.resume_ttl_s = resume_ttl_s
        self.recording = recording
        self.is_unrecorded = False
        self.ending: Ending | None = None
        self.ended_at: float | None = None
        self.readers: list[Reader] = []
        self.opened: asyncio.Future[Opening] = asyncio.get_running_loop().create_future()
        self.is_committed = False
        self.was_read = False
        self.created_at = time.time()
        self.started = time.monotonic()
        #: Of `time.monotonic`: when the backend said something that counts; its comments don't.
        self.first_event: float | None = None
        self.ended: float | None = None
        self.last_event = self.started
        self.is_paused = False
        self.detached_since: float | None = None
        #: Before this none of its clocks can run out, unless it is told to `look_again`.
        self.quiet_until = 0.0
        self.moments: list[Moment] = []
        self.kept: asyncio.Future[bool] | None = None  #: its coming into the store
        #: How far the log may be trimmed for the store's sake; asking makes the store hurry.
        self.stored: Callable[[LiveStream], int] | None = None
        self._attached = 0
        self._on_end = on_end
        if (begin := wire.begin()) is not None:
            log.append(begin)

    @property
    def is_active(self) -> bool:
        return self.ending is None

    @property
    def is_typed(self) -> bool:
        """Whether its events are the gateway's own, not a provider's."""
        return self.origin.route == "chat"

    @property
    def status(self) -> Status:
        return Status.ACTIVE if self.ending is None else self.ending.status

    @property
    def failed_unheard(self) -> bool:
        """Whether it failed before the client was told anything, so that it may ask again."""
        is_unheard = self.first_event is None or self.is_unrecorded
        return is_unheard and self.ending is not None and self.ending.is_error

    @property
    def is_attached(self) -> bool:
        return self._attached > 0

    @property
    def duration_s(self) -> float:
        """How long it ran, or has been running."""
        return (time.monotonic() if self.ended is None else self.ended) - self.started

    @property
    def first_token_s(self) -> float | None:
        """From the start to the backend's first event; None before it."""
        return None if self.first_event is None else self.first_event - self.started

    @property
    def remaining_s(self) -> float | None:
        if not self.max_duration_s:
            return None
        return max(0.0, self.max_duration_s - self.duration_s)

    @property
    def awaits_reader(self) -> bool:
        """Whether its first reader has announced itself but doesn't read yet."""
        return self.is_attached and not self.was_read

    @property
    def patience_s(self) -> float | None:
        """How long it goes on without a reader; None lets it finish."""
        if self.grace_s is None or self.was_read or not self.retry_key:
            return self.grace_s
        return max(self.grace_s, RETRY_GRACE_S)

    @property
    def lead_cursor(self) -> int:
        """The last event that the most advanced reader has taken, and the store as well; readers
        behind the first slow nobody."""
        lead = 0 if self.awaits_reader else self.log.last
        if self.readers:
            lead = max(reader.cursor for reader in self.readers)
        return lead if self.stored is None else min(lead, self.stored(self))

    def mark(self, what: Happening) -> None:
        """Remembers what happens now and then while it runs, for who wants to tell of it later."""
        if self.ending is None and len(self.moments) < _MAX_MOMENTS:
            self.moments.append(Moment(what, time.monotonic()))

    def look_again(self) -> None:
        """Something has changed that may make a clock run out sooner."""
        self.quiet_until = 0.0

    def attach(self) -> None:
        """Somebody is going to read: a response, also while it waits for its first byte."""
        self._attached += 1
        if self.detached_since is not None:
            self.mark("client_returned")
        self.detached_since = None

    def detach(self) -> None:
        """The counterpart of `attach`."""
        self._attached -= 1
        if not self._attached:
            self.detached_since = time.monotonic()
            self.look_again()
            self.mark("client_left")
            if self.opened.done() and (declined := self.opened.result().declined):
                declined.close()

    def note_read(self) -> None:
        """Somebody reads: what the response's head was made of isn't needed any more."""
        self.was_read = True
        if self.opened.done():
            self.opened.result().headers = {}

    def drop_lapsed(self) -> None:
        """Disconnects the readers whose next event is no longer in the log."""
        for reader in self.readers:
            if reader.cursor + 1 < self.log.first:
                reader.lapse()

    def open(self, opening: Opening) -> None:
        """Tells the request how the backend took it; only the first call counts."""
        if not self.opened.done():
            self.opened.set_result(opening)

    def commit(self) -> None:
        """The response has begun: from now on a failure is an event, not a status."""
        self.is_committed = True

    def restore(self, ending: Ending, created_at: float, ended_at: float) -> None:
        """Makes a stream of the store's what it was. A crash left it without a last event."""
        self.created_at, self.ended_at = created_at, ended_at
        self.ended = time.monotonic()
        self.is_committed = self.was_read = True
        self.first_event = self.started if self.wire.total_chunks else None
        self.ending = ending
        if ending.reason == "interrupted":
            for last in self.wire.finish(ending, 0, self.log.events()):
                self.log.append(last)
        self.log.close()
        self.opened.set_result(Opening())

    def record(self) -> StreamRecord:
        """What the store keeps of it, as it is now."""
        ending, usage = self.ending, self.wire.usage
        ended_at_ms = None if self.ended_at is None else round(self.ended_at * 1000)
        expires_at_ms = None
        if ended_at_ms is not None:
            expires_at_ms = ended_at_ms + round(self.resume_ttl_s * 1000)
        return StreamRecord(
            id=self.id,
            owner=self.origin.owner,
            trace_id=self.origin.trace_id,
            route=self.origin.route,
            created_at_ms=round(self.created_at * 1000),
            with_ids=self.log.has_ids,
            conversation_id=self.origin.conversation_id,
            fingerprint=self.fingerprint,
            idempotency_key=self.idempotency_key,
            status=self.status,
            reason=None if ending is None else ending.reason,
            message="" if ending is None else ending.message,
            retryable=ending is not None and ending.retryable,
            ended_at_ms=ended_at_ms,
            expires_at_ms=expires_at_ms,
            total_chunks=self.wire.total_chunks,
            total_tokens=self.wire.total_tokens,
            input_tokens=usage.input_tokens,
            estimated=usage.estimated,
            last_seq=self.log.last,
        )

    def progress(self) -> Progress:
        """The part of the record that grows with every event."""
        wire = self.wire
        usage = wire.usage
        return Progress(
            self.id,
            wire.total_chunks,
            wire.total_tokens,
            usage.input_tokens,
            usage.estimated,
            self.log.last,
        )

    def pending(self, after_seq: int) -> tuple[Segment | None, int]:
        """What the store doesn't have yet, if it has everything up to `after_seq`; and the number
        of the last event."""
        last = self.log.last
        pieces, lengths = self.log.pieces(after_seq)
        if not lengths:
            return None, last
        return Segment(self.id, last - len(lengths) + 1, last, pieces, lengths), last

    def end(self, ending: Ending, last: Sequence[bytes] = ()) -> bool:
        """Ends the stream; the first call decides, later ones do nothing and return False.

        `last` are the events that brought the end: they needn't wait for its record.
        """
        if self.ending is not None:
            return False
        self.ending = ending
        self.ended = time.monotonic()
        self.ended_at = time.time()
        held = self.recording.stream_ended(self) if self.recording is not None else None
        if held is None:
            self._finish(ending, last)
        else:
            if last:
                self.log.extend(last)
            held.add_done_callback(lambda _: self._finish(ending))
        return True

    def _finish(self, ending: Ending, last: Sequence[bytes] = ()) -> None:
        recent = [*self.log.events(), *last] if self.wire.ending is None else []
        self.log.close([*last, *self.wire.finish(ending, self.duration_s, recent)])
        self.open(Opening(error=_error_of(ending) if ending.is_error else None))
        self._on_end(self)


def _error_of(ending: Ending) -> UpstreamError:
    status = 504 if ending.reason in ("upstream_timeout", "upstream_idle") else 502
    return UpstreamError(
        ending.message, code=ending.reason, status=status, retryable=ending.retryable
    )
