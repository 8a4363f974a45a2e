"""Events that came at once, kept in one piece.

Each as an object of its own would cost more to make, to store and to drop again than all else that
is done with it (docs/load.md).
"""

from __future__ import annotations

from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate

#: What an event counts beside its bytes: an object's header and its place in a list.
FRAME_OVERHEAD_BYTES = 64
#: The ends of lines with a number: below a thousand, and of any other.
_NUMBERS = tuple(b"%d\n" % number for number in range(1000))
_LAST_DIGITS = tuple(b"%03d\n" % number for number in range(1000))


class Run:
    """Events with the numbers from `first` on: their bytes joined, and the length of each."""

    __slots__ = ("data", "first", "lengths")

    def __init__(self, first: int, data: bytes, lengths: array[int]) -> None:
        self.first = first
        self.data = data
        self.lengths = lengths

    @property
    def end(self) -> int:
        """The number after the last."""
        return self.first + len(self.lengths)

    def part(self, start: int, end: int) -> Run:
        """Those from number `start` to before `end`."""
        if start == self.first and end == self.end:
            return self
        lengths = self.lengths[start - self.first : end - self.first]
        position = sum(self.lengths[: start - self.first])
        return Run(start, self.data[position : position + sum(lengths)], lengths)

    def within(self, size: int) -> Run | None:
        """As many of the first as stay within `size`, if any do."""
        if len(self.data) <= size:
            return self
        count = bisect_right(list(accumulate(self.lengths)), size)
        return self.part(self.first, self.first + count) if count else None

    def covering(self, start: int, end: int, size: int, *, most: int) -> tuple[int, int]:
        """How many from number `start` to before `end` it takes to come to `size` with what they
        count beside, and to what that comes; all if they don't, or if all are no more than `most`.
        """
        lengths = self.lengths
        if start > self.first or end < self.end:
            lengths = lengths[start - self.first : end - self.first]
        total = len(self.data) if lengths is self.lengths else sum(lengths)
        total += FRAME_OVERHEAD_BYTES * len(lengths)
        if total <= max(size, most):
            return len(lengths), total
        sums = list(accumulate(map(FRAME_OVERHEAD_BYTES.__add__, lengths)))
        place = bisect_left(sums, size)
        return place + 1, sums[place]

    def events(self) -> Iterator[bytes]:
        """Each by itself."""
        position = 0
        for length in self.lengths:
            yield self.data[position : position + length]
            position += length


def lengths_of(events: Iterable[bytes]) -> array[int]:
    """In bytes, 32 bits each."""
    return array("I", map(len, events))


def as_they_are(blocks: Sequence[bytes], first: int) -> list[Run]:
    """The blocks as events."""
    return [Run(first, b"".join(blocks), lengths_of(blocks))]


def numbered(blocks: Sequence[bytes], first: int, stream_id: bytes) -> list[Run]:
    """The blocks as events with their ids: one run for all numbers with the same beginning."""
    runs: list[Run] = []
    done = 0
    while done < len(blocks):
        number = first + done
        thousands, rest = divmod(number, 1000)
        if thousands:
            head, ends, most = b"id: %b.%d" % (stream_id, thousands), _LAST_DIGITS, 1000
        else:
            head, ends, most = b"id: %b." % stream_id, _NUMBERS, 10 ** len(str(rest))
        some = blocks[done : done + most - rest]
        count = len(some)
        # Joining all at once takes half of formatting one by one, with the numbers ready made.
        pieces = [head] * (3 * count)
        pieces[1::3], pieces[2::3] = ends[rest : rest + count], some
        extra = len(head) + len(ends[rest])
        lengths = array("I", [extra + len(block) for block in some])
        runs.append(Run(number, b"".join(pieces), lengths))
        done += count
    return runs
