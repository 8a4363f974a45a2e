"""The last hour in memory: a point every few seconds, for the dashboard's charts."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

from gateway.telemetry.metrics import Metrics
from gateway.telemetry.timings import Percentiles, Stream, Timings

STEP_S = 5
#: At so many streams in one go, which takes some 4 ms.
MAX_LOOKS = 1000
_POINTS = 3600 // STEP_S
_COUNTERS = ("started", "ended", "failed", "limited", "events")


@dataclass(frozen=True, slots=True)
class Point:
    """`started` to `events` count what has happened since the point before; percentiles are of
    the last minute, and None where there was nothing to measure."""

    at: int  #: Unix time in milliseconds
    active: int
    started: int
    ended: int
    failed: int
    limited: int
    events: int
    first_token: Percentiles | None
    gap: Percentiles | None


class History:
    """Points at most an hour old. Counts come from the metrics, so both say the same."""

    def __init__(self, metrics: Metrics, timings: Timings, failures: frozenset[str]) -> None:
        """`failures` are the endings that are errors."""
        self._metrics = metrics
        self._timings = timings
        self._failures = failures
        self._points: deque[Point] = deque(maxlen=_POINTS)
        self._totals = self._read()

    @property
    def latest(self) -> Point | None:
        return self._points[-1] if self._points else None

    def add(self, active: int, now: float, at: float) -> None:
        """Makes the next point, with so many streams."""
        totals = self._read()
        counts = {name: totals[name] - self._totals[name] for name in _COUNTERS}
        self._totals = totals
        self._points.append(
            Point(
                at=round(at * 1000),
                active=active,
                **counts,
                first_token=self._timings.first_tokens.percentiles(now),
                gap=self._timings.gaps.percentiles(now),
            )
        )

    def points(self) -> list[Point]:
        """All, oldest first."""
        return list(self._points)

    def _read(self) -> dict[str, int]:
        ended = self._metrics.counts("sluice_streams_total")
        return {
            "started": sum(self._metrics.counts("sluice_sessions_created_total").values()),
            "ended": sum(ended.values()),
            "failed": sum(count for word, count in ended.items() if word in self._failures),
            "limited": sum(self._metrics.counts("sluice_rate_limited_total").values()),
            "events": self._timings.events,
        }


class Watch:
    """Looks at the streams whenever it is told to and makes a point every `STEP_S`. The hub tells
    it of each end."""

    def __init__(self, metrics: Metrics, failures: frozenset[str]) -> None:
        self.timings = Timings()
        self.history = History(metrics, self.timings, failures)
        self._next = 0.0
        self._begin = 0

    def _some(self, streams: Sequence[Stream]) -> Sequence[Stream]:
        """All, or where they are very many the next of them, so that a look is short."""
        if len(streams) <= MAX_LOOKS:
            return streams
        begin = self._begin if self._begin < len(streams) else 0
        self._begin = begin + MAX_LOOKS
        return streams[begin : self._begin]

    def stream_started(self, stream: Stream) -> None:
        """Nothing is known of it yet."""

    def stream_ended(self, stream: Stream) -> None:
        self.timings.forget(stream, time.monotonic())

    def tick(self, streams: Sequence[Stream], now: float, at: float) -> None:
        """`now` is of `time.monotonic`, `at` of `time.time`."""
        self.timings.look(self._some(streams), now)
        if now >= self._next:
            self._next = now + STEP_S
            self.history.add(len(streams), now, at)
