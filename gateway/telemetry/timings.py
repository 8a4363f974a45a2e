"""How fast answers come just now: first tokens, gaps and rates of the last minute.

Learnt by looking at the running streams once in a while and at each stream when it ends, so that
an event costs nothing. The histograms of `gateway.telemetry.metrics` keep the long memory.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

WINDOW_S = 60.0
#: Of each kind; more streams than that in a minute are known by the newest.
_MAX_VALUES = 2000


class Wire(Protocol):
    @property
    def total_chunks(self) -> int: ...


class Stream(Protocol):
    """What this module wants to know of a stream; times are of `time.monotonic`."""

    started: float
    first_event: float | None
    last_event: float

    @property
    def id(self) -> str: ...
    @property
    def wire(self) -> Wire: ...


@dataclass(frozen=True, slots=True)
class Percentiles:
    """In milliseconds."""

    p50: float
    p95: float
    p99: float


@dataclass(frozen=True, slots=True)
class _Look:
    at: float
    chunks: int
    last_event: float
    rate: float = 0.0


class Recent:
    """Values of the last `WINDOW_S`, in seconds, oldest first."""

    def __init__(self) -> None:
        self._values: deque[tuple[float, float]] = deque(maxlen=_MAX_VALUES)

    def add(self, now: float, value: float) -> None:
        self._values.append((now, value))

    def percentiles(self, now: float) -> Percentiles | None:
        """By nearest rank; None if there was nothing in the last minute."""
        while self._values and self._values[0][0] < now - WINDOW_S:
            self._values.popleft()
        if not self._values:
            return None
        ordered = sorted(value for _, value in self._values)
        last = len(ordered) - 1
        shares = (ordered[round(share * last)] for share in (0.5, 0.95, 0.99))
        return Percentiles(*(round(value * 1000, 1) for value in shares))


class Timings:
    """Looks at streams. `first_tokens` has a value for each stream, `gaps` one for each stream
    and look: the mean time from event to event since the look before."""

    def __init__(self) -> None:
        self.first_tokens = Recent()
        self.gaps = Recent()
        self.events = 0  #: that all streams have got, since the start
        self._looks: dict[str, _Look] = {}

    def look(self, streams: Iterable[Stream], now: float) -> None:
        """At all streams that run."""
        for stream in streams:
            self._look_at(stream, now)

    def forget(self, stream: Stream, now: float) -> None:
        """Looks a last time at a stream that has ended."""
        self._look_at(stream, now)
        self._looks.pop(stream.id, None)

    def rate(self, stream_id: str) -> float:
        """Events per second between the two latest looks at this stream."""
        look = self._looks.get(stream_id)
        return look.rate if look is not None else 0.0

    def _look_at(self, stream: Stream, now: float) -> None:
        if stream.first_event is None:
            return
        before = self._looks.get(stream.id)
        if before is None:
            self.first_tokens.add(now, stream.first_event - stream.started)
            before = _Look(stream.first_event, 1, stream.first_event)
            self.events += min(1, stream.wire.total_chunks)
        chunks = max(before.chunks, stream.wire.total_chunks)
        new, rate, last = chunks - before.chunks, 0.0, before.last_event
        if new:
            last = stream.last_event
            self.gaps.add(now, (last - before.last_event) / new)
            rate = new / (now - before.at) if now > before.at else 0.0
        self.events += new
        self._looks[stream.id] = _Look(now, chunks, last, rate)
