"""How many streams have failed lately: a ring of counts, bounded whatever the load."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

_SLOTS = 60


class Ending(Protocol):
    @property
    def status(self) -> str: ...


class Stream(Protocol):
    ended: float | None

    @property
    def ending(self) -> Ending | None: ...


@dataclass(slots=True)
class _Slot:
    number: int = -1
    ended: int = 0
    failed: int = 0


@dataclass(frozen=True, slots=True)
class Share:
    """`failed` of `ended` streams of the window."""

    ended: int
    failed: int

    @property
    def percent(self) -> float:
        return 100 * self.failed / self.ended if self.ended else 0.0


class Outcomes:
    """The streams that have ended in the last `window_s`, to a sixtieth of that.

    A stream has failed if its status is `ERROR`: one that its user, a limit or a restart has ended
    hasn't.
    """

    def __init__(self, window_s: float) -> None:
        self.window_s = window_s
        self._slots = [_Slot() for _ in range(_SLOTS)]

    def stream_started(self, stream: Stream) -> None:
        """It may yet end well."""

    def stream_ended(self, stream: Stream) -> None:
        if stream.ending is not None and stream.ended is not None:
            self.note(stream.ended, failed=stream.ending.status == "ERROR")

    def note(self, now: float, *, failed: bool) -> None:
        slot = self._slot(now)
        slot.ended += 1
        slot.failed += failed

    def share(self, now: float) -> Share:
        """`now` is of `time.monotonic`, as that of `note`."""
        newest = self._number(now)
        recent = [slot for slot in self._slots if newest - _SLOTS < slot.number <= newest]
        return Share(sum(one.ended for one in recent), sum(one.failed for one in recent))

    def _slot(self, now: float) -> _Slot:
        number = self._number(now)
        slot = self._slots[number % _SLOTS]
        if slot.number != number:
            slot.number, slot.ended, slot.failed = number, 0, 0
        return slot

    def _number(self, now: float) -> int:
        return int(now / self.window_s * _SLOTS)
