"""The event log: append-only, bounded, numbered without gaps from 1; the one truth of a stream.

The producer appends, readers hold nothing but a cursor: the number of the last event that they
have written. What is retained may be read again; the oldest events are dropped to stay within the
bound, and a reader that is behind them is told so, never given the tail silently.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterator, Sequence
from typing import cast

from gateway.stream.model import StreamId
from gateway.stream.run import FRAME_OVERHEAD_BYTES, Run, as_they_are, lengths_of, numbered

_COMPACT_AFTER = 256
#: Fewer are kept one by one.
_FEW = 64
_MANY = 32
_NOTHING = [b""] * _MANY
#: A run that takes at most one of so many parts of a full log is dropped as a whole.
_PARTS = 8

#: Told of each addition: the number of the event before it, that of its last, and what was added,
#: joined. At the close, which may add nothing, once more.
Listener = Callable[[int, int, bytes], None]


class LogBudget:
    """The bytes of all logs of this process together; `limit_bytes` 0 is no limit.

    `evict` drops one log that can be spared and says whether there was one.
    """

    __slots__ = ("evict", "limit_bytes", "used_bytes")

    def __init__(self, limit_bytes: int) -> None:
        self.limit_bytes = limit_bytes
        self.used_bytes = 0
        self.evict: Callable[[], bool] = _nothing_to_spare

    @property
    def is_spent(self) -> bool:
        return 0 < self.limit_bytes <= self.used_bytes

    def relieve(self) -> None:
        """Drops what can be spared as long as the budget is spent."""
        while self.is_spent and self.evict():
            pass


def _nothing_to_spare() -> bool:
    return False


class CursorTrimmedError(Exception):
    """The events after this cursor are no longer in the log."""


class EventLog:
    """The events of one stream, each ready to be sent.

    Args:
        stream_id: Goes into each event's id, `<stream id>.<sequence>`.
        max_bytes: Bound on what is retained; `is_full` is true from there on.
        with_ids: Whether events get an `id:` line.
        budget: The account of all logs.
    """

    __slots__ = (
        "_base",
        "_budget",
        "_changed",
        "_format",
        "_frames",
        "_head",
        "_listeners",
        "_max_bytes",
        "_newest",
        "_newest_after",
        "_runs_end",
        "_stream_id",
        "bytes",
        "is_closed",
    )

    def __init__(
        self, stream_id: StreamId, *, max_bytes: int, with_ids: bool, budget: LogBudget
    ) -> None:
        #: Takes a number and a block; a stream id has no character that means something here.
        self._format = b"id: %b.%%d\n%%b" % stream_id.encode() if with_ids else b""
        self._stream_id = stream_id
        self._changed: set[StreamId] | None = None
        self._max_bytes = max_bytes
        self._budget = budget
        #: A place for each event: the event itself, or the run that it is in.
        self._frames: list[bytes | Run] = []
        self._head = 0  # frames before it are dropped but not yet cut off the list
        self._base = 1  # the sequence of _frames[0]
        self._runs_end = 0  # from there on no event is in a run
        self._newest = b""  # what came last, joined: most readers want just that
        self._newest_after = 0
        self._listeners: list[Listener] = []
        self.bytes = 0
        self.is_closed = False

    @property
    def has_ids(self) -> bool:
        return bool(self._format)

    @property
    def first(self) -> int:
        """The sequence of the oldest event retained; `last + 1` when there is none."""
        return self._base + self._head

    @property
    def last(self) -> int:
        """The sequence of the newest event; 0 before the first."""
        return self._base + len(self._frames) - 1

    @property
    def is_full(self) -> bool:
        return self.bytes > self._max_bytes or (self.bytes > 0 and self._budget.is_spent)

    def append(self, block: bytes) -> bool:
        """Adds one block as the next event and tells the listeners; whether it is full now.

        Each event of each stream comes through here, so calls are spared.

        Raises:
            RuntimeError: the log is closed.
        """
        if self.is_closed:
            raise RuntimeError("the log is closed")
        frames, budget = self._frames, self._budget
        last = self._base + len(frames) - 1
        newest = self._format % (last + 1, block) if self._format else block
        frames.append(newest)
        self._newest_after, self._newest = last, newest
        size = len(newest) + FRAME_OVERHEAD_BYTES
        self.bytes += size
        budget.used_bytes += size
        if self._changed is not None:
            self._changed.add(self._stream_id)
        for listener in self._listeners:
            listener(last, last + 1, newest)
        return self.bytes > self._max_bytes or 0 < budget.limit_bytes <= budget.used_bytes

    def extend(self, blocks: Sequence[bytes], *, is_end: bool = False) -> bool:
        """The same for several at once; `is_end` closes the log.

        Raises:
            RuntimeError: the log is closed.
        """
        if self.is_closed:
            raise RuntimeError("the log is closed")
        if not blocks:
            return self.is_full  # nobody is told of nothing: a chunk without bytes ends a response
        last, count = self.last, len(blocks)
        if count < _FEW:
            if self._format:
                blocks = [self._format % item for item in enumerate(blocks, last + 1)]
            newest = b"".join(blocks)
            self._frames += blocks
        else:
            newest = self._add_runs(blocks, last + 1)
        self._newest_after, self._newest = last, newest
        self._account(len(newest) + FRAME_OVERHEAD_BYTES * count)
        if self._changed is not None:
            self._changed.add(self._stream_id)
        self.is_closed = is_end
        for listener in self._listeners:
            listener(last, last + count, newest)
        return self.is_full

    def _add_runs(self, blocks: Sequence[bytes], first: int) -> bytes:
        if self._format:
            runs = numbered(blocks, first, self._stream_id.encode())
        else:
            runs = as_they_are(blocks, first)
        for run in runs:
            self._frames += [run] * len(run.lengths)
        self._runs_end = first + len(blocks)
        return b"".join([run.data for run in runs])

    def restore(self, first: int, frames: list[bytes]) -> None:
        """Fills an empty log with events as they were sent, numbered from `first`."""
        self._base = first
        self._frames += frames
        self._account(sum(len(frame) + FRAME_OVERHEAD_BYTES for frame in frames))

    def with_id(self, block: bytes, seq: int) -> bytes:
        """`block` as event `seq`, if this log's events have ids."""
        return self._format % (seq, block) if self._format else block

    def events(self, after: int = 0) -> list[bytes]:
        """Everything after event `after` that is retained."""
        start = max(self.first, after + 1)
        if start >= self._runs_end:
            return cast(list[bytes], self._frames[start - self._base :])
        events: list[bytes] = []
        for kept in self._kept(start):
            events += (kept,) if isinstance(kept, bytes) else kept.events()
        return events

    def pieces(self, after: int) -> tuple[list[bytes], array[int]]:
        """The same in pieces that are to be joined, and the length of each event."""
        start = max(self.first, after + 1)
        if start >= self._runs_end:
            frames = cast(list[bytes], self._frames[start - self._base :])
            return [b"".join(frames)], lengths_of(frames)
        pieces, alone, lengths = list[bytes](), list[bytes](), array("I")
        for kept in self._kept(start):
            if isinstance(kept, bytes):
                alone.append(kept)
                lengths.append(len(kept))
            else:
                pieces += (b"".join(alone), kept.data)
                alone.clear()
                lengths += kept.lengths
        return [*pieces, b"".join(alone)], lengths

    def _kept(self, start: int) -> Iterator[bytes | Run]:
        """What there is from event `start` on, each run once and as far as it belongs to that."""
        end = self._base + len(self._frames)
        while start < end:
            frame = self._frames[start - self._base]
            if isinstance(frame, bytes):
                yield frame
                start += 1
            else:
                yield frame.part(start, frame.end)
                start = frame.end

    def close(self, last: Sequence[bytes] = ()) -> None:
        """Adds the `last` events, after which there are no more, and tells the listeners once:
        readers that reach the end are done."""
        if last:
            self.extend(last, is_end=True)
            return
        self.is_closed = True
        for listener in self._listeners:
            listener(self.last, self.last, b"")

    def release(self) -> None:
        """Drops everything; for a log that nobody will read again."""
        self._account(-self.bytes)
        self._base, self._head = self.last + 1, 0
        self._newest, self._runs_end = b"", 0
        self._frames.clear()

    def read(self, cursor: int, max_bytes: int) -> tuple[bytes, int]:
        """What follows `cursor`: whole events joined, and the cursor behind them.

        Gives at least one event if there is any, else stays within `max_bytes`.

        Raises:
            CursorTrimmedError: the event after `cursor` has been dropped.
        """
        if cursor == self._newest_after and 0 < len(self._newest) <= max_bytes:
            return self._newest, self.last
        if cursor + 1 < self.first:
            raise CursorTrimmedError
        pieces, room = list[bytes](), max_bytes
        for kept in self._kept(cursor + 1):
            run = kept if isinstance(kept, Run) else Run(cursor + 1, kept, array("I", (len(kept),)))
            some = run.within(room)
            if some is None and not pieces:
                some = run.part(run.first, run.first + 1)
            if some is None:
                break
            pieces.append(some.data)
            room -= len(some.data)
            cursor = some.end - 1
            if some is not run:
                break
        return b"".join(pieces), cursor

    def trim(self, keep_after: int) -> None:
        """Drops the oldest events while the log is full, but none after `keep_after`, and no more
        than that takes, or an eighth of a full log.

        Logs that can be spared go before any event of this one.
        """
        budget, frames, position = self._budget, self._frames, self._head
        budget.relieve()
        excess = self.bytes - self._max_bytes
        if budget.is_spent:
            excess = max(excess, budget.used_bytes - budget.limit_bytes + 1)
        end = min(keep_after + 1 - self._base, len(frames))
        freed = 0
        while freed < excess and position < end:
            count, size = self._oldest(position, end, excess - freed)
            frames[position : position + count] = _NOTHING if count == _MANY else [b""] * count
            freed += size
            position += count
        self._head = position
        self._account(-freed)
        if self._head >= _COMPACT_AFTER and self._head * 2 >= len(self._frames):
            del self._frames[: self._head]
            self._base += self._head
            self._head = 0

    def listen(self, listener: Listener) -> None:
        """Calls `listener` after each addition and at the close."""
        self._listeners.append(listener)

    def unlisten(self, listener: Listener) -> None:
        self._listeners.remove(listener)

    def note_changes(self, changed: set[StreamId]) -> None:
        """Puts the stream's id into `changed` at each addition: cheaper than a listener."""
        self._changed = changed

    def _account(self, size: int) -> None:
        self.bytes += size
        self._budget.used_bytes += size

    def _oldest(self, position: int, end: int, excess: int) -> tuple[int, int]:
        """How many events between two places are to be dropped at once for so many bytes, and what
        that gives. The memory of a run goes when its last event does."""
        frames = self._frames
        frame = frames[position]
        if isinstance(frame, Run):
            return frame.covering(
                self._base + position, self._base + end, excess, most=self._max_bytes // _PARTS
            )
        if position + _MANY <= end and self._base + position >= self._runs_end:
            # One by one they would be a twentieth of what an event costs.
            size = sum(map(len, cast(list[bytes], frames[position : position + _MANY])))
            size += _MANY * FRAME_OVERHEAD_BYTES
            if size <= excess:
                return _MANY, size
        return 1, len(frame) + FRAME_OVERHEAD_BYTES
