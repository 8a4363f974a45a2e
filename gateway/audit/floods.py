"""Keeps a flood of refused requests from becoming a flood of records. Pure but for what it counts.

The first of a kind from an address is recorded at once, what follows within the window as one
number. Beyond so many records a second only the number of all of them is kept.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from gateway.audit.canonical import Json

WINDOW_MS = 10_000
PER_SECOND = 200
_MAX_KEYS = 10_000

#: Event, reason, address.
Key = tuple[str, str, str]


@dataclass(slots=True)
class Suppressed:
    """What isn't even counted by its kind."""

    count: int = 0
    from_ms: int = 0
    to_ms: int = 0


@dataclass(slots=True)
class _Window:
    from_ms: int
    count: int = 0
    owner: str = ""
    fields: Mapping[str, Json] = field(default_factory=dict)

    def is_over(self, now_ms: int) -> bool:
        """Also when the clock was put back to before it began."""
        return not self.from_ms <= now_ms < self.from_ms + WINDOW_MS


class Floods:
    """Windows by kind and address, at most ten thousand."""

    def __init__(self, per_second: int = PER_SECOND) -> None:
        self._per_second = per_second
        self._windows: dict[Key, _Window] = {}
        self._second = 0
        self._admitted = 0
        self._suppressed = Suppressed()

    @property
    def window_s(self) -> int:
        return WINDOW_MS // 1000

    def admits(self, key: Key, now_ms: int) -> bool:
        """Whether this one is recorded by itself; else it is to be counted."""
        if key in self._windows:
            return False
        if len(self._windows) >= _MAX_KEYS or not self._has_room(now_ms):
            self._suppress(1, now_ms)
            return False
        self._windows[key] = _Window(now_ms)
        return True

    def count(self, key: Key, owner: str, fields: Mapping[str, Json]) -> None:
        """Counts one that wasn't admitted."""
        window = self._windows.get(key)
        if window is not None:
            window.count += 1
            window.owner, window.fields = owner, fields

    def due(
        self, now_ms: int, *, is_last: bool = False
    ) -> Iterator[tuple[Key, str, Mapping[str, Json], int]]:
        """What was counted in windows that are over, and whom the last one was by. The last time
        it is all windows."""
        over = [key for key, one in self._windows.items() if is_last or one.is_over(now_ms)]
        for key in over:
            window = self._windows.pop(key)
            if window.count and self._has_room(now_ms):
                yield key, window.owner, window.fields, window.count
            elif window.count:
                self._suppress(window.count, now_ms)

    def take_suppressed(self) -> Suppressed | None:
        """What was left out since the last call."""
        if not self._suppressed.count:
            return None
        taken, self._suppressed = self._suppressed, Suppressed()
        return taken

    def _has_room(self, now_ms: int) -> bool:
        second = now_ms // 1000
        if second != self._second:
            self._second, self._admitted = second, 0
        self._admitted += 1
        return self._admitted <= self._per_second

    def _suppress(self, count: int, now_ms: int) -> None:
        one = self._suppressed
        one.from_ms = one.from_ms or now_ms
        one.to_ms = now_ms
        one.count += count
