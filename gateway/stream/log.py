"""The event log: append-only, bounded, numbered without gaps from 1; the one truth of a stream.

The producer appends, readers hold nothing but a cursor: the number of the last event that they
have written. What is retained may be read again; the oldest events are dropped to stay within the
bound, and a reader that is behind them is told so, never given the tail silently.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import repeat

from gateway.stream.model import StreamId

#: What an event costs beside its bytes: the object's header and its place in the list.
FRAME_OVERHEAD_BYTES = 64
_COMPACT_AFTER = 256
#: Fewer are formatted one by one.
_FEW = 16
#: The ends of lines with a number: below a thousand, and of any other.
_NUMBERS = tuple(b"%d\n" % number for number in range(1000))
_LAST_DIGITS = tuple(b"%03d\n" % number for number in range(1000))
_MANY = 32
_NOTHING = [b""] * _MANY

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
        self._frames: list[bytes] = []
        self._head = 0  # frames before it are dropped but not yet cut off the list
        self._base = 1  # the sequence of _frames[0]
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
        last, count = self.last, len(blocks)
        if self._format:
            blocks = self._numbered(blocks, last + 1)
        newest = b"".join(blocks)
        self._frames += blocks
        self._newest_after, self._newest = last, newest
        self._account(len(newest) + FRAME_OVERHEAD_BYTES * count)
        if self._changed is not None:
            self._changed.add(self._stream_id)
        self.is_closed = is_end
        for listener in self._listeners:
            listener(last, last + count, newest)
        return self.is_full

    def _numbered(self, blocks: Sequence[bytes], first: int) -> list[bytes]:
        """The blocks with their ids. Formatting each by itself takes three times as long."""
        if len(blocks) < _FEW:
            return [self._format % item for item in enumerate(blocks, first)]
        frames: list[bytes] = []
        while (done := len(frames)) < len(blocks):
            thousands, rest = divmod(first + done, 1000)
            head = b"id: %b.%b" % (
                self._stream_id.encode(),
                b"%d" % thousands if thousands else b"",
            )
            ends = (_LAST_DIGITS if thousands else _NUMBERS)[rest : rest + len(blocks) - done]
            frames += map(b"".join, zip(repeat(head), ends, blocks[done:]))
        return frames

    def restore(self, first: int, frames: list[bytes]) -> None:
        """Fills an empty log with events as they were sent, numbered from `first`."""
        self._base, self._frames = first, frames
        self._account(sum(len(frame) + FRAME_OVERHEAD_BYTES for frame in frames))

    def with_id(self, block: bytes, seq: int) -> bytes:
        """`block` as event `seq`, if this log's events have ids."""
        return self._format % (seq, block) if self._format else block

    def events(self, after: int = 0) -> list[bytes]:
        """Everything after event `after` that is retained."""
        return self._frames[max(self._head, after + 1 - self._base) :]

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
        self._newest = b""
        self._frames.clear()

    def read(self, cursor: int, max_bytes: int) -> tuple[bytes, int]:
        """What follows `cursor`: whole events joined, and the cursor behind them.

        Gives at least one event if there is any, else stays within `max_bytes`.

        Raises:
            CursorTrimmedError: the event after `cursor` has been dropped.
        """
        frames = self._frames
        if cursor == self._newest_after and 0 < len(self._newest) <= max_bytes:
            return self._newest, self._base + len(frames) - 1
        start = cursor + 1 - self._base
        if start < self._head:
            raise CursorTrimmedError
        if self.bytes <= max_bytes and start < len(frames):
            return b"".join(frames[start:]), self._base + len(frames) - 1
        end, size = start, 0
        while end < len(frames) and (end == start or size + len(frames[end]) <= max_bytes):
            size += len(frames[end])
            end += 1
        if end == start:
            return b"", cursor
        return b"".join(frames[start:end]), self._base + end - 1

    def trim(self, keep_after: int) -> None:
        """Drops the oldest events while the log is full, but none after `keep_after`.

        Logs that can be spared go before any event of this one.
        """
        budget, frames, position = self._budget, self._frames, self._head
        budget.relieve()
        excess = self.bytes - self._max_bytes
        if budget.is_spent:
            excess = max(excess, budget.used_bytes - budget.limit_bytes + 1)
        end = min(keep_after + 1 - self._base, len(frames))
        freed = 0
        # One by one they would be a twentieth of what an event costs.
        while excess - freed > _MANY * FRAME_OVERHEAD_BYTES and position + _MANY <= end:
            size = sum(map(len, frames[position : position + _MANY]))
            size += _MANY * FRAME_OVERHEAD_BYTES
            if freed + size > excess:
                break
            frames[position : position + _MANY] = _NOTHING
            freed += size
            position += _MANY
        while freed < excess and position < end:
            freed += len(frames[position]) + FRAME_OVERHEAD_BYTES
            frames[position] = b""
            position += 1
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
