"""How often and how fast: many timings of one operation, as the figures that people ask for."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from statistics import fmean, median
from typing import TypeVar

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Amount:
    """How many sessions are measured; those one by one follow some that aren't."""

    one_by_one: int = 500
    warm_up: int = 50
    at_once: int = 1000
    http_burst: int = 200
    bursts: int = 5


@dataclass(slots=True)
class Timings:
    """One operation, measured one at a time and many at once. Times in milliseconds."""

    name: str
    asked_ms: float | None = None
    asked_per_s: float | None = None
    samples_ms: list[float] = field(default_factory=list)
    #: Of this process, all its threads, which the machine's other work hardly changes. Or None,
    #: where another process does the work.
    cpu_ms: float | None = 0
    bursts_per_s: list[float] = field(default_factory=list)

    def restart(self) -> None:
        """Forgets what was measured while all warmed up."""
        self.samples_ms.clear()
        self.cpu_ms = None if self.cpu_ms is None else 0

    @asynccontextmanager
    async def timing(self) -> AsyncIterator[None]:
        """Adds the time of the block as one sample."""
        cpu, wall = time.process_time(), time.perf_counter()
        yield
        self.samples_ms.append((time.perf_counter() - wall) * 1000)
        if self.cpu_ms is not None:
            self.cpu_ms += (time.process_time() - cpu) * 1000

    async def burst(self, operations: Sequence[Callable[[], Awaitable[_T]]]) -> list[_T]:
        """Runs all of them at once and notes how many were done a second."""
        began = time.perf_counter()
        results = await asyncio.gather(*(operation() for operation in operations))
        self.bursts_per_s.append(len(operations) / (time.perf_counter() - began))
        return results

    def figures(self) -> dict[str, object]:
        """What the table and the JSON say of it."""
        ordered = sorted(self.samples_ms)
        return {
            "name": self.name,
            "samples": len(ordered),
            "p50_ms": _percentile(ordered, 0.50),
            "p99_ms": _percentile(ordered, 0.99),
            "mean_ms": fmean(ordered),
            "cpu_ms": None if self.cpu_ms is None else self.cpu_ms / len(ordered),
            "one_at_a_time_per_s": 1000 / fmean(ordered),
            "at_once_per_s": median(self.bursts_per_s) if self.bursts_per_s else None,
            "asked_ms": self.asked_ms,
            "asked_per_s": self.asked_per_s,
        }


def _percentile(ordered: Sequence[float], share: float) -> float:
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]
