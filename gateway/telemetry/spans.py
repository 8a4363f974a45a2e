"""OpenTelemetry traces: one span for each stream, sent by OTLP over HTTP.

Needs the extra `otel`, and is imported only where `OTLP_TRACES_URL` is set. A span is made when its
stream has ended, of what is known by then: the stream itself pays nothing. Its id is the one that
the backend and the client were told in `traceparent`, so that theirs become its children.

Attribute names are those of the GenAI conventions (2026, in development), as far as they go.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from typing import Protocol

from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.id_generator import IdGenerator
from opentelemetry.trace import (
    NonRecordingSpan,
    SpanContext,
    SpanKind,
    Status,
    StatusCode,
    TraceFlags,
    set_span_in_context,
)

import gateway
from gateway.telemetry.trace import TraceContext

logger = logging.getLogger("sluice.traces")

#: How long the collector may take; at the end of the process nobody waits longer for it.
_PATIENCE_S = 3.0
_NS = 1_000_000_000


class Moment(Protocol):
    @property
    def what(self) -> str: ...
    @property
    def at(self) -> float: ...


class Origin(Protocol):
    @property
    def route(self) -> str: ...


class Ending(Protocol):
    @property
    def status(self) -> str: ...
    @property
    def reason(self) -> str: ...
    @property
    def is_error(self) -> bool: ...


class Usage(Protocol):
    @property
    def input_tokens(self) -> int | None: ...
    @property
    def output_tokens(self) -> int | None: ...
    @property
    def estimated(self) -> bool: ...


class Wire(Protocol):
    @property
    def total_chunks(self) -> int: ...
    @property
    def usage(self) -> Usage: ...


class Stream(Protocol):
    """A stream that has ended; times are of `time.monotonic`, `created_at` is of `time.time`."""

    created_at: float
    started: float

    @property
    def id(self) -> str: ...
    @property
    def moments(self) -> Sequence[Moment]: ...
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


class Spans:
    """Is told by the web where each stream stands in its trace, and by the hub how it ended.

    `reasons` are the endings that are no user's own words.
    """

    def __init__(self, url: str, reasons: frozenset[str]) -> None:
        # Its messages can quote what a collector sent.
        logging.getLogger("opentelemetry").setLevel(logging.CRITICAL)
        self._reasons = reasons
        self._traces: dict[str, TraceContext] = {}
        self._ids = _GivenIds()
        self._provider = TracerProvider(
            resource=_resource(), id_generator=self._ids, shutdown_on_exit=False
        )
        exporter = _Watched(OTLPSpanExporter(url, timeout=_PATIENCE_S))
        self._provider.add_span_processor(BatchSpanProcessor(exporter))
        self._tracer = self._provider.get_tracer("sluice", gateway.__version__)

    def began(self, stream: Stream, trace: TraceContext) -> None:
        """The request whose stream this is stands in `trace`."""
        if stream.ending is None:
            self._traces[stream.id] = trace

    def stream_started(self, stream: Stream) -> None:
        """Its place in the trace is told by `began`."""

    def stream_ended(self, stream: Stream) -> None:
        trace = self._traces.pop(stream.id, None)
        if trace is None or stream.ending is None:
            return
        self._ids.trace_id, self._ids.span_id = int(trace.w3c_trace_id, 16), int(trace.span_id, 16)
        span = self._tracer.start_span(
            _operation(stream),
            context=_parent(trace),
            kind=SpanKind.SERVER,
            attributes={
                **_attributes(stream),
                "sluice.status": str(stream.ending.status),
                "sluice.reason": self._word(stream.ending),
            },
            start_time=_at(stream, 0),
        )
        for name, seconds in _events(stream):
            span.add_event(name, timestamp=_at(stream, seconds))
        if stream.ending.is_error:
            span.set_attribute("error.type", stream.ending.reason)
            span.set_status(Status(StatusCode.ERROR))
        span.end(_at(stream, stream.duration_s))

    async def close(self) -> None:
        """Sends what is left, in a thread."""
        await asyncio.to_thread(self._provider.shutdown)

    def _word(self, ending: Ending) -> str:
        return ending.reason if ending.reason in self._reasons else "custom"


class _GivenIds(IdGenerator):
    """The ids that have gone out in headers; drawn by `gateway.telemetry.trace`."""

    trace_id = 0
    span_id = 0

    def generate_trace_id(self) -> int:
        return self.trace_id

    def generate_span_id(self) -> int:
        return self.span_id


class _Watched(SpanExporter):
    """Says in the log when spans can't be sent, once until it works again. Runs in a thread."""

    def __init__(self, exporter: SpanExporter) -> None:
        self._exporter = exporter
        self._has_failed = False

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        result = self._exporter.export(spans)
        has_failed = result is not SpanExportResult.SUCCESS
        if has_failed and not self._has_failed:
            logger.warning("traces.failed", extra={"spans": len(spans)})
        self._has_failed = has_failed
        return result

    def shutdown(self) -> None:
        self._exporter.shutdown()

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        return self._exporter.force_flush(timeout_millis)


def _resource() -> Resource:
    """`OTEL_SERVICE_NAME` and `OTEL_RESOURCE_ATTRIBUTES` win."""
    ours = Resource({"service.name": "sluice", "service.version": gateway.__version__})
    return ours.merge(OTELResourceDetector().detect())


def _parent(trace: TraceContext) -> Context:
    """The caller's span, or nothing for a trace that begins here."""
    if trace.parent_span is None:
        return Context()
    caller = SpanContext(
        int(trace.w3c_trace_id, 16),
        int(trace.parent_span, 16),
        is_remote=True,
        trace_flags=TraceFlags(trace.flags),
    )
    return set_span_in_context(NonRecordingSpan(caller), Context())


def _operation(stream: Stream) -> str:
    return "text_completion" if stream.origin.route == "/v1/completions" else "chat"


def _attributes(stream: Stream) -> dict[str, str | int | float]:
    usage, first_s = stream.wire.usage, stream.first_token_s
    found: dict[str, str | int | float | None] = {
        "gen_ai.operation.name": _operation(stream),
        "gen_ai.response.time_to_first_chunk": first_s,
        "gen_ai.usage.input_tokens": usage.input_tokens,
        "gen_ai.usage.output_tokens": None if usage.estimated else usage.output_tokens,
        "sluice.route": stream.origin.route,
        "sluice.stream_id": stream.id,
        "sluice.events": stream.wire.total_chunks,
    }
    return {name: value for name, value in found.items() if value is not None}


def _events(stream: Stream) -> list[tuple[str, float]]:
    """What happened and when, in seconds from the start."""
    told = [(moment.what, moment.at - stream.started) for moment in stream.moments]
    if stream.first_token_s is not None:
        told.append(("first_token", stream.first_token_s))
    told.append(("end", stream.duration_s))
    return sorted(told, key=lambda event: event[1])


def _at(stream: Stream, seconds: float) -> int:
    """Nanoseconds of Unix time, so long after the stream's start."""
    return int((stream.created_at + seconds) * _NS)
