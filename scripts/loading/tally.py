"""What a run has seen, in arrays of nanoseconds, and the figures that come out of it."""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

QUANTILES = {"p50": 0.5, "p95": 0.95, "p99": 0.99, "p99.9": 0.999}


def _series() -> array[int]:
    return array("q")


@dataclass(slots=True)
class Tally:
    """Counts and times of all streams; `endings` says how they ended: ok, left, failed, cut …"""

    first_ns: array[int] = field(default_factory=_series)
    gap_ns: array[int] = field(default_factory=_series)
    latency_ns: array[int] = field(default_factory=_series)
    completion_ns: array[int] = field(default_factory=_series)
    #: How much later than intended a stream was begun: the load's own delay.
    lag_ns: array[int] = field(default_factory=_series)
    events: int = 0
    bytes: int = 0
    started: int = 0
    open: int = 0
    talking: int = 0
    resumed: int = 0
    endings: Counter[str] = field(default_factory=Counter)
    #: When clients with a number left, by number.
    left_ns: dict[int, int] = field(default_factory=dict)

    @property
    def ended(self) -> int:
        return self.endings.total()

    def forget_times(self) -> None:
        """Begins the measured part: what came before was the way up."""
        for series in (self.gap_ns, self.latency_ns):
            del series[:]


def quantile(ordered: Sequence[int], share: float) -> int:
    """The nearest-rank quantile of what is ordered: a value that was seen, never one between."""
    rank = -(-len(ordered) * round(share * 1_000_000) // 1_000_000)
    return ordered[max(0, rank - 1)]


def summary(series: Sequence[int], unit_ns: float) -> dict[str, float] | None:
    """`p50` to `max` in `unit_ns`, with count and mean; nothing for nothing."""
    if not series:
        return None
    ordered = sorted(series)
    figures = {name: quantile(ordered, share) / unit_ns for name, share in QUANTILES.items()}
    mean = sum(ordered) / len(ordered) / unit_ns
    return {"count": len(ordered), "mean": mean, **figures, "max": ordered[-1] / unit_ns}
