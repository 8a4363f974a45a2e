"""How streams were delivered: measured once a stream, at its end, so that an event costs nothing.

The names are those of `docs/metrics.md`; what each is called in OpenTelemetry's conventions for
generative AI stands there too. Buckets are those that the conventions advise, as far as they reach.
"""

from __future__ import annotations

import re
from typing import Protocol

from prometheus_client import CollectorRegistry, Counter, Histogram

FIRST_TOKEN_BUCKETS = (
    *(0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10),
    *(20, 30, 60),
)
INTER_TOKEN_BUCKETS = (
    *(0.0025, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1, 2.5),
    *(5, 10, 30),
)
DURATION_BUCKETS = (
    *(0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92),
    *(163.84, 327.68, 655.36),
)
RATE_BUCKETS = (1, 2, 5, 10, 20, 30, 50, 75, 100, 150, 200, 300, 500, 1000)

#: The form of a trace id that was drawn; a client's own might be a name.
_DRAWN = re.compile(r"[0-9a-f]{32}")


def drawn(trace_id: str) -> str | None:
    """A trace id that tells nothing of anybody, or None for one that a client has made up."""
    return trace_id if _DRAWN.fullmatch(trace_id) else None


class Origin(Protocol):
    @property
    def trace_id(self) -> str: ...


class Wire(Protocol):
    @property
    def total_chunks(self) -> int: ...
    @property
    def total_tokens(self) -> int: ...


class Stream(Protocol):
    """A stream that has ended. Times are of `time.monotonic`."""

    first_event: float | None
    last_event: float

    @property
    def origin(self) -> Origin: ...
    @property
    def wire(self) -> Wire: ...
    @property
    def duration_s(self) -> float: ...
    @property
    def first_token_s(self) -> float | None: ...


class Deliveries:
    """Observes ended streams; each value carries its trace as an exemplar, where that was drawn."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._first_token = Histogram(
            "sluice_time_to_first_token_seconds",
            "From the request's admission to the backend's first event.",
            buckets=FIRST_TOKEN_BUCKETS,
            registry=registry,
        )
        self._inter_token = Histogram(
            "sluice_inter_token_seconds",
            "Mean time from event to event within a stream, once a stream.",
            buckets=INTER_TOKEN_BUCKETS,
            registry=registry,
        )
        self._duration = Histogram(
            "sluice_stream_duration_seconds",
            "From the request's admission to the stream's end.",
            buckets=DURATION_BUCKETS,
            registry=registry,
        )
        self._rate = Histogram(
            "sluice_stream_events_per_second",
            "Delivery rate: a stream's events from the first to the last, by the second.",
            buckets=RATE_BUCKETS,
            registry=registry,
        )
        self._events = Counter("sluice_events", "Events of ended streams.", registry=registry)
        self._tokens = Counter(
            "sluice_output_tokens",
            "Tokens of ended streams, as the backend counts them, else estimated.",
            registry=registry,
        )

    def observe(self, stream: Stream) -> None:
        trace_id = drawn(stream.origin.trace_id)
        exemplar = {"trace_id": trace_id} if trace_id else None
        self._duration.observe(stream.duration_s, exemplar)
        first_s, first = stream.first_token_s, stream.first_event
        if first_s is None or first is None:
            return
        self._first_token.observe(first_s, exemplar)
        events = stream.wire.total_chunks
        self._events.inc(events)
        self._tokens.inc(stream.wire.total_tokens)
        flow_s = stream.last_event - first
        if events > 1 and flow_s > 0:
            self._inter_token.observe(flow_s / (events - 1), exemplar)
            self._rate.observe((events - 1) / flow_s, exemplar)
