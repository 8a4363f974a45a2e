"""Runs peers beside each other: rounds, each with every scenario and peer, in a rotating order."""

from __future__ import annotations

import platform
import statistics
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, field

from scripts.loading import process
from scripts.loading.meter import limits
from scripts.loading.peers import Peer
from scripts.loading.running import PeerFailed, lean_backend, running
from scripts.loading.scenarios import Scenario
from scripts.loading.start import NotInstalled


@dataclass(frozen=True, slots=True)
class Comparison:
    """What to run, and on which cores; without cores nothing is pinned."""

    peers: list[Peer]
    scenarios: list[Scenario]
    rounds: int = 3
    base: str = "bare"
    peer_cpu: int | None = 0
    load_cpu: int | None = 1

    def steps(self) -> Iterator[tuple[int, Scenario, Peer]]:
        """Within a round one scenario is done by all peers before the next; who begins rotates."""
        for number in range(self.rounds):
            for scenario in self.scenarios:
                turn = number % len(self.peers)
                for peer in [*self.peers[turn:], *self.peers[:turn]]:
                    yield number, scenario, peer


@dataclass(slots=True)
class Measurement:
    """One peer in one scenario of one round; a `problem` instead of figures where it failed."""

    round: int
    scenario: str
    peer: str
    figures: dict[str, float] = field(default_factory=dict)
    limited_by: list[str] = field(default_factory=list)
    problem: str = ""


@dataclass(frozen=True, slots=True)
class Ratio:
    """A figure divided by the base's of the same round."""

    scenario: str
    figure: str
    peer: str
    median: float
    least: float
    most: float


#: What is compared in each scenario.
_PACED = (
    "cpu_us_per_event",
    "latency_p50_us",
    "latency_p99_us",
    "first_p50_ms",
    "added_latency_p50_us",
    "added_latency_p99_us",
    "added_first_p50_ms",
)
RATIOS = {
    "pace": _PACED,
    "many": _PACED,
    "short": ("streams_per_s", "cpu_us_per_stream", "first_p50_ms"),
    "blast": ("events_per_s", "cpu_us_per_event"),
    "idle": ("kib_per_stream", "first_p50_ms"),
    "gone": ("gone_p50_ms", "gone_p99_ms"),
}


async def compare(
    plan: Comparison, tell: Callable[[Measurement], None] = lambda _: None
) -> list[Measurement]:
    """All measurements, in the order in which they were made; `tell` gets each at once."""
    process.allow_many_connections()
    if plan.load_cpu is not None:
        process.pin(process.own_pid(), {plan.load_cpu})
    made = []
    for number, scenario, peer in plan.steps():
        measurement = Measurement(number, scenario.name, peer.name)
        await _measure(measurement, scenario, peer, plan)
        made.append(measurement)
        tell(measurement)
    add_differences(made)
    return made


def add_differences(made: list[Measurement]) -> None:
    """Gives each measurement what its peer adds to `direct` of the same round, if that was run."""
    by_place = {(m.round, m.scenario, m.peer): m.figures for m in made}
    for each in made:
        direct = by_place.get((each.round, each.scenario, "direct"), {})
        for name in ("latency_p50_us", "latency_p99_us", "first_p50_ms"):
            if each.peer != "direct" and name in each.figures and name in direct:
                each.figures[f"added_{name}"] = each.figures[name] - direct[name]


def growth(measurements: Iterable[Measurement]) -> list[Ratio]:
    """CPU per event with many streams over that with few, each peer against itself."""
    name = "cpu_us_per_event"
    by_place = {(m.round, m.scenario, m.peer): m.figures for m in measurements}
    found: dict[str, list[float]] = {}
    for (number, scenario, peer), figures in by_place.items():
        few = by_place.get((number, "pace", peer), {})
        if scenario == "many" and name in figures and few.get(name):
            found.setdefault(peer, []).append(figures[name] / few[name])
    return [
        Ratio("many over pace", name, peer, statistics.median(v), min(v), max(v))
        for peer, v in found.items()
    ]


async def _measure(
    measurement: Measurement, scenario: Scenario, peer: Peer, plan: Comparison
) -> None:
    try:
        with lean_backend(plan.load_cpu) as backend:
            async with running(peer, backend, plan.peer_cpu) as what:
                measurement.figures = await scenario.run(what, scenario.size)
    except (NotInstalled, PeerFailed) as error:
        measurement.problem = str(error)
    is_shared = float(plan.load_cpu is not None)
    measurement.limited_by = limits(measurement.figures | {"is_shared": is_shared})


def ratios(measurements: Iterable[Measurement], base: str) -> list[Ratio]:
    """Each peer's figures over the base's of the same round: median, least and most."""
    by_place = {(m.round, m.scenario, m.peer): m.figures for m in measurements}
    found: dict[tuple[str, str, str], list[float]] = {}
    for (number, scenario, peer), figures in by_place.items():
        against = by_place.get((number, scenario, base), {})
        for name in RATIOS.get(scenario, ()):
            if peer != base and figures.get(name) is not None and against.get(name):
                found.setdefault((scenario, name, peer), []).append(figures[name] / against[name])
    return [
        Ratio(*key, statistics.median(values), min(values), max(values))
        for key, values in found.items()
    ]


def as_json(plan: Comparison, measurements: list[Measurement]) -> dict[str, object]:
    return {
        "schema": "sluice-load-compare/1",
        "made_at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "machine": {"python": platform.python_version(), "cpus": process.cpu_count()},
        "base": plan.base,
        "rounds": plan.rounds,
        "scenarios": {each.name: each.meaning for each in plan.scenarios},
        "measurements": [asdict(each) for each in measurements],
        "ratios": [asdict(each) for each in ratios(measurements, plan.base)],
        "growth": [asdict(each) for each in growth(measurements)],
    }
