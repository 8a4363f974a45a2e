"""Whose turn it is to be written: each changed stream's once in an interval, at a time of its own.

All at once they would hold the event loop for as long as a hundred events take; one after the other
nobody notices.
"""

from __future__ import annotations

import math
from itertools import islice

from gateway.stream.model import StreamId

_STEPS = 20
_SHORTEST_STEP_S = 0.01
#: Writing what one stream has said costs as much as relaying several events, however little it is.
#: So that many slow streams don't cost more than few fast ones, so many are written in a second.
_PER_S = 1000


class Turns:
    """Streams that have something new. What can't be written in time goes first the next time."""

    def __init__(self, interval_s: float) -> None:
        #: Who appends puts a stream's id in. No call, since it is done for each event.
        self.changed: set[StreamId] = set()
        steps = max(1, min(_STEPS, math.floor(interval_s / _SHORTEST_STEP_S)))
        self.step_s = interval_s / steps  #: how often to `step`
        self._at_a_step = max(1, math.ceil(_PER_S * self.step_s))
        self._waiting: list[set[StreamId]] = [set() for _ in range(steps)]
        self._now = 0
        self._due: dict[StreamId, None] = {}  # the longest first

    def __bool__(self) -> bool:
        return bool(self.changed or self._due) or any(self._waiting)

    def step(self) -> set[StreamId]:
        """Goes on to the next moment and takes those whose turn it is."""
        waiting, steps = self._waiting, len(self._waiting)
        for stream_id in self.changed:
            waiting[hash(stream_id) % steps].add(stream_id)
        self.changed.clear()
        self._now = (self._now + 1) % steps
        self._due.update(dict.fromkeys(waiting[self._now]))
        waiting[self._now].clear()
        taken = set(islice(self._due, self._at_a_step))
        for stream_id in taken:
            del self._due[stream_id]
        return taken

    def everybody(self) -> set[StreamId]:
        """All of them, who stay."""
        return self.changed.union(self._due, *self._waiting)

    def take(self, taken: set[StreamId]) -> None:
        """These are written out of turn."""
        self.changed -= taken
        for stream_id in taken:
            self._waiting[hash(stream_id) % len(self._waiting)].discard(stream_id)
            self._due.pop(stream_id, None)
