"""CPU and counts between two moments: of what is measured, of the backend, of the load itself."""

from __future__ import annotations

import os
import time

from scripts.loading import process
from scripts.loading.tally import Tally

#: From this share of a core on, the load or the backend may be what is measured.
LIMIT = 0.85


class Meter:
    """Begins when it is made."""

    def __init__(self, tally: Tally, pid: int | None, backend_pid: int | None = None) -> None:
        self._cores = process.busy_s()
        self._tally = tally
        self._pids = {"peer": pid, "backend": backend_pid, "load": os.getpid()}
        self._began = time.monotonic()
        self._cpu = self._spent()
        self._events, self._bytes = tally.events, tally.bytes
        self._ok = tally.endings["ok"]

    def _spent(self) -> dict[str, float]:
        spent = {name: process.cpu_s(pid) for name, pid in self._pids.items() if pid}
        # Its children are the peers; and the clock is finer than the kernel's ticks.
        return spent | {"load": time.process_time()}

    def read(self) -> dict[str, float]:
        """Rates, and shares of a core, since the beginning."""
        seconds = time.monotonic() - self._began
        spent = {name: value - self._cpu[name] for name, value in self._spent().items()}
        events, streams = self._tally.events - self._events, self._tally.endings["ok"] - self._ok
        figures = {
            "seconds": seconds,
            "events": events,
            "events_per_s": events / seconds,
            "streams_per_s": streams / seconds,
            "mb_per_s": (self._tally.bytes - self._bytes) / seconds / 1e6,
            **{f"{name}_cpu": value / seconds for name, value in spent.items()},
        }
        now = process.busy_s()
        busy = [after - before for before, after in zip(self._cores, now, strict=False)]
        # What others do on the machine: without it, the figures of a shared one mislead.
        figures["others_cpu"] = max(0.0, sum(busy) - sum(spent.values())) / seconds
        if "peer" in spent and events:
            figures["cpu_us_per_event"] = spent["peer"] / events * 1e6
        if "peer" in spent and streams:
            figures["cpu_us_per_stream"] = spent["peer"] / streams * 1e6
        if events:
            figures["load_us_per_event"] = spent["load"] / events * 1e6
        return figures


def limits(figures: dict[str, float]) -> list[str]:
    """Which of the measuring parts were themselves near their limit.

    In a comparison (`is_shared`) load and backend have one core between them.
    """
    load, backend = figures.get("load_cpu", 0.0), figures.get("backend_cpu", 0.0)
    found = [name for name, share in (("load", load), ("backend", backend)) if share > LIMIT]
    if not found and figures.get("is_shared") and load + backend > LIMIT:
        return ["load + backend"]
    return found
