"""The process itself, by the names that Prometheus's clients use for it.

Their own collector opens files in /proc, which would hold up the event loop.
"""

from __future__ import annotations

import resource
import time
from collections.abc import Iterator

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from gateway.telemetry.memory import resident_bytes

_STARTED = time.time() - time.process_time()


class ProcessState(Collector):
    """Read whenever somebody asks for the metrics."""

    def collect(self) -> Iterator[Metric]:
        yield GaugeMetricFamily(
            "process_resident_memory_bytes", "Memory that is resident.", resident_bytes()
        )
        yield CounterMetricFamily(
            "process_cpu_seconds", "Processor time of user and system.", time.process_time()
        )
        yield GaugeMetricFamily("process_start_time_seconds", "When it started.", _STARTED)
        most, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        yield GaugeMetricFamily("process_max_fds", "Files that it may open.", most)
