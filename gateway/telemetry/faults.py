"""What failed lately: told in the log, retries counted, the newest remembered for diagnosis.

What is remembered says when, what and in which trace, and nothing of anybody.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from dataclasses import dataclass
from itertools import islice
from typing import Literal

from gateway.telemetry.delivery import drawn
from gateway.telemetry.metrics import Metrics

logger = logging.getLogger("sluice.fault")

Operation = Literal["backend", "store", "stream", "request"]


@dataclass(frozen=True, slots=True)
class Fault:
    """`operation` is what failed: one try at the backend or the store, else all of an answer."""

    at: float  #: Unix time
    operation: Operation
    code: str
    trace_id: str | None = None


class Faults:
    """The newest `size` failures of this process; 0 remembers none.

    Args:
        counts: Whether retries are counted.
        logs: Whether a failed try gets a line.
    """

    def __init__(self, metrics: Metrics, *, size: int, counts: bool, logs: bool) -> None:
        self._metrics = metrics
        self._counts = counts
        self._logs = logs
        self._recent: deque[Fault] = deque(maxlen=size)

    def __len__(self) -> int:
        return len(self._recent)

    def latest(self, count: int) -> list[Fault]:
        """The newest first, at most so many."""
        return list(islice(reversed(self._recent), count))

    def backend_failed(self, trace_id: str, problem: str, *, attempt: int, delay_s: float) -> None:
        """A try failed and is repeated in `delay_s`."""
        self._remember("backend", problem, trace_id)
        if self._logs:
            fields = {
                "trace_id": trace_id,
                "problem": problem,
                "attempt": attempt,
                "delay_ms": round(delay_s * 1000),
            }
            logger.warning("upstream.retried", extra=fields)

    def backend_retried(self, *, succeeded: bool) -> None:
        self._count("backend", succeeded=succeeded)

    def breaker_opened(self, *, failures: int, reset_s: float) -> None:
        """The backend failed so many questions in a row and gets none for `reset_s`."""
        self._remember("backend", "breaker_open")
        fields = {"failures": failures, "reset_seconds": reset_s}
        logger.error("upstream.breaker_opened", extra=fields)

    def breaker_closed(self) -> None:
        """It has answered again."""
        logger.info("upstream.breaker_closed")

    def store_failed(
        self, problem: str, *, is_transient: bool, streams: int, failures: int
    ) -> None:
        """A write failed that concerned so many streams, the `failures`th time in a row."""
        self._remember("store", "store_unavailable" if is_transient else "store_refused")
        if self._logs:
            fields = {"problem": problem, "streams": streams, "failures": failures}
            logger.warning("store.write_failed", extra=fields)

    def store_retried(self, *, succeeded: bool) -> None:
        self._count("store", succeeded=succeeded)

    def stream_failed(self, trace_id: str, code: str) -> None:
        self._remember("stream", code, trace_id)

    def request_failed(self, trace_id: str, code: str) -> None:
        """A request that passes as it is, which the backend failed."""
        self._remember("request", code, trace_id)

    def _remember(self, operation: Operation, code: str, trace_id: str = "") -> None:
        self._recent.append(Fault(time.time(), operation, code, drawn(trace_id)))

    def _count(self, operation: Operation, *, succeeded: bool) -> None:
        if self._counts:
            outcome = "succeeded" if succeeded else "failed"
            self._metrics.retries.labels(operation, outcome).inc()
