"""How long nothing may come before a connection counts as dead."""

from __future__ import annotations

from typing import Literal

_DEFAULT_S = 60.0
_FACTOR = 2.5
_LEAST_S = 10.0
_MOST_S = 120.0


class Silence:
    """The limit: a fixed one (0 has none), or `auto` from the heartbeats that were seen.

    An interval is that of two heartbeats with nothing between them, and the longest one counts: a
    heartbeat that follows an event closely, or was read late, would make it look shorter.
    """

    def __init__(self, setting: float | Literal["auto"]) -> None:
        self._fixed_s = None if setting == "auto" else setting
        self._before_s = _DEFAULT_S
        self._interval_s = 0.0
        self._last_beat: float | None = None

    @property
    def limit_s(self) -> float | None:
        """Seconds without a byte; None is no limit."""
        if self._fixed_s is not None:
            return self._fixed_s or None
        if not self._interval_s:
            return self._before_s
        return min(max(_FACTOR * self._interval_s, _LEAST_S), _MOST_S)

    def connected(self, advice: str | None) -> None:
        """A connection begins; `advice` is its `X-Silence-Threshold`."""
        self._last_beat = None
        try:
            advised_s = float(advice or "")
        except ValueError:
            return
        if 0 < advised_s < float("inf"):
            self._before_s = advised_s

    def heard(self, now: float, *, is_beat: bool) -> None:
        """Bytes came; `is_beat` if there was a heartbeat in them and no event."""
        if is_beat and self._last_beat is not None:
            self._interval_s = max(self._interval_s, now - self._last_beat)
        self._last_beat = now if is_beat else None
