"""What the hub tells of its streams, as log lines and metrics: the same word in both."""

from __future__ import annotations

import logging
from typing import Protocol

from gateway.telemetry.faults import Faults
from gateway.telemetry.metrics import Metrics

logger = logging.getLogger("sluice.stream")


class Origin(Protocol):
    @property
    def trace_id(self) -> str: ...
    @property
    def route(self) -> str: ...


class Ending(Protocol):
    @property
    def status(self) -> str: ...
    @property
    def reason(self) -> str: ...
    @property
    def is_error(self) -> bool: ...


class Wire(Protocol):
    @property
    def total_chunks(self) -> int: ...
    @property
    def total_tokens(self) -> int: ...


class Stream(Protocol):
    """What this module wants to know of a stream."""

    first_event: float | None
    last_event: float

    @property
    def id(self) -> str: ...
    @property
    def origin(self) -> Origin: ...
    @property
    def ending(self) -> Ending | None: ...
    @property
    def wire(self) -> Wire: ...
    @property
    def duration_s(self) -> float: ...
    @property
    def first_token_s(self) -> float | None: ...


class Record(Protocol):
    """A stream of an earlier process, as the store has it."""

    @property
    def id(self) -> str: ...
    @property
    def trace_id(self) -> str: ...
    @property
    def route(self) -> str: ...
    @property
    def status(self) -> str: ...
    @property
    def reason(self) -> str | None: ...
    @property
    def created_at_ms(self) -> int: ...
    @property
    def ended_at_ms(self) -> int | None: ...
    @property
    def total_chunks(self) -> int: ...
    @property
    def total_tokens(self) -> int | None: ...


class StreamObserver:
    """Writes one line at the start and one at the end of each stream, and counts."""

    def __init__(self, metrics: Metrics, faults: Faults, reasons: frozenset[str]) -> None:
        """`reasons` are the words of ours; a user's own would be labels without a bound."""
        self._metrics = metrics
        self._faults = faults
        self._reasons = reasons

    def stream_started(self, stream: Stream) -> None:
        self._metrics.sessions_created.inc()
        self._metrics.streams_active.inc()
        logger.info("stream.started", extra=_identity(stream))

    def stream_ended(self, stream: Stream) -> None:
        ending = stream.ending
        if ending is None:
            raise ValueError("the stream hasn't ended")
        self._metrics.streams_active.dec()
        is_ours = ending.reason in self._reasons
        self._metrics.streams.labels(ending.reason if is_ours else "custom").inc()
        if _is_the_backends_fault(ending.reason):
            self._metrics.upstream_errors.labels(ending.reason).inc()
        if ending.is_error:
            self._faults.stream_failed(stream.origin.trace_id, ending.reason)
        self._metrics.deliveries.observe(stream)
        logger.info("stream.ended", extra=_identity(stream) | _result(stream, ending))

    def stream_interrupted(self, record: Record) -> None:
        """An earlier process died while it ran: its end is told where it is found."""
        self._metrics.streams.labels(record.reason).inc()
        self._faults.stream_failed(record.trace_id, record.reason or "interrupted")
        fields = {
            "trace_id": record.trace_id,
            "stream_id": record.id,
            "route": record.route,
            "status": str(record.status),
            "reason": record.reason,
            "duration_ms": (record.ended_at_ms or record.created_at_ms) - record.created_at_ms,
            "first_token_ms": None,
            "chunks": record.total_chunks,
            "tokens": record.total_tokens,
        }
        logger.info("stream.ended", extra=fields)


def _is_the_backends_fault(reason: str) -> bool:
    """An event over the bound is what the backend sent; `interrupted` is the gateway's own."""
    return reason.startswith("upstream_") or reason == "event_too_large"


def _identity(stream: Stream) -> dict[str, object]:
    origin = stream.origin
    return {"trace_id": origin.trace_id, "stream_id": stream.id, "route": origin.route}


def _result(stream: Stream, ending: Ending) -> dict[str, object]:
    first = stream.first_token_s
    return {
        "status": str(ending.status),
        "reason": ending.reason,
        "duration_ms": round(stream.duration_s * 1000, 1),
        "first_token_ms": None if first is None else round(first * 1000, 1),
        "chunks": stream.wire.total_chunks,
        "tokens": stream.wire.total_tokens,
    }
