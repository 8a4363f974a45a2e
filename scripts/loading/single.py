"""One endpoint under load: the command `run`."""

from __future__ import annotations

import asyncio
import platform
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass, field

from scripts.loading import process
from scripts.loading.crowd import Crowd, Manners, Plan
from scripts.loading.meter import Meter, limits
from scripts.loading.tally import Tally, summary
from scripts.loading.targets import Target

SCHEMA = "sluice-load-run/1"


@dataclass(frozen=True, slots=True)
class Load:
    """What to do. With a `rate` streams arrive at it for `seconds`, whether or not the others have
    ended; without one, `streams` run at any time."""

    target: Target
    question: str
    streams: int = 10
    rate: float = 0.0
    arrivals: str = "even"
    seconds: float = 10.0
    expected: int = 0
    is_stamped: bool = False
    manners: Manners = field(default_factory=Manners)
    pid: int | None = None
    backend_pid: int | None = None
    #: Load and backend have one core between them.
    is_shared: bool = False
    #: How long streams may go on after the last has begun.
    drain_s: float = 30.0
    seed: int = 1


@dataclass(frozen=True, slots=True)
class Result:
    """Figures of one run. Times are in milliseconds, the latency of an event in microseconds."""

    figures: dict[str, float]
    endings: dict[str, int]
    times: dict[str, dict[str, float]]
    #: The times themselves, for plots: in the units of `times`, in order.
    samples: dict[str, list[float]]
    limited_by: list[str]
    success_rate: float | None
    resumed: int = 0
    made_at: str = field(default_factory=lambda: time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()))

    def as_json(self, load: Load) -> dict[str, object]:
        """Without the samples, and without headers, which may hold a key."""
        fields = asdict(self)
        del fields["samples"]
        return {
            "schema": SCHEMA,
            "machine": {"python": platform.python_version(), "cpus": process.cpu_count()},
            "load": {
                "url": load.target.url,
                "dialect": load.target.dialect,
                "question": load.question,
                "streams": load.streams,
                "rate": load.rate,
                "arrivals": load.arrivals,
                "seconds": load.seconds,
                "manners": asdict(load.manners),
            },
            **fields,
        }


async def run(load: Load, tell: Callable[[Tally, float], None] = lambda *_: None) -> Result:
    """Drives the load to its end; `tell` hears ten times a second how far it is, from 0 to 1."""
    process.allow_many_connections()
    crowd = Crowd(
        Plan(
            load.target,
            load.question,
            expected=load.expected,
            is_stamped=load.is_stamped,
            is_timed=True,
            manners=load.manners,
            seed=load.seed,
        )
    )
    empty = process.memory_bytes(load.pid) if load.pid else 0
    meter = Meter(crowd.tally, load.pid, load.backend_pid)
    watch = _Watch(load, crowd.tally, tell, empty)
    watching = asyncio.get_running_loop().create_task(watch.look_on())
    try:
        await _drive(crowd, load)
        await crowd.until(lambda tally: tally.ended >= tally.started, load.drain_s)
    finally:
        watching.cancel()
        with suppress(asyncio.CancelledError):
            await watching
    figures = meter.read() | watch.figures() | {"is_shared": float(load.is_shared)}
    await crowd.close()
    return _result(crowd.tally, figures)


async def _drive(crowd: Crowd, load: Load) -> None:
    if load.rate:
        await crowd.open_loop(load.rate, max(1, round(load.rate * load.seconds)), load.arrivals)
    else:
        await crowd.closed_loop(load.streams, load.seconds)


class _Watch:
    """Looks at progress and memory while the load runs."""

    def __init__(
        self, load: Load, tally: Tally, tell: Callable[[Tally, float], None], empty: int
    ) -> None:
        self._load = load
        self._tally = tally
        self._tell = tell
        self._empty = empty
        self._most_open = 0
        self._memory_then = 0

    async def look_on(self) -> None:
        start = time.monotonic()
        while True:
            await asyncio.sleep(0.1)
            if self._tally.open > self._most_open:
                self._most_open = self._tally.open
                if self._load.pid:
                    self._memory_then = process.memory_bytes(self._load.pid)
            self._tell(self._tally, min(1.0, (time.monotonic() - start) / self._load.seconds))

    def figures(self) -> dict[str, float]:
        found: dict[str, float] = {"most_open": self._most_open}
        if self._load.pid and self._most_open:
            grown = max(0, self._memory_then - self._empty)
            found["kib_per_open_stream"] = grown / self._most_open / 1024
        return found


def _result(tally: Tally, figures: dict[str, float]) -> Result:
    series = {
        "first_token_ms": (tally.first_ns, 1e6),
        "gap_ms": (tally.gap_ns, 1e6),
        "event_latency_us": (tally.latency_ns, 1e3),
        "completion_ms": (tally.completion_ns, 1e6),
        "start_lag_ms": (tally.lag_ns, 1e6),
    }
    times = {
        name: found for name, (values, unit) in series.items() if (found := summary(values, unit))
    }
    samples = {
        name: [value / series[name][1] for value in sorted(series[name][0])] for name in times
    }
    endings = dict(tally.endings)
    stayed = tally.ended - endings.get("left", 0)
    return Result(
        figures=figures,
        endings=endings,
        times=times,
        samples=samples,
        limited_by=limits(figures),
        success_rate=endings.get("ok", 0) / stayed if stayed else None,
        resumed=tally.resumed,
    )
