"""The trace id of a request: taken from the caller where it can be, made where it can't.

Follows W3C Trace Context (level 1, and level 2's rule for unknown flags). Records no spans.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from typing import TypeGuard

_TRACE_ID = re.compile(r"[A-Za-z0-9._-]{1,128}")
_W3C_TRACE_ID = re.compile(r"(?!0{32})[0-9a-f]{32}")
_TRACEPARENT = re.compile(
    r"(?!ff)(?P<version>[0-9a-f]{2})"
    r"-(?P<trace>(?!0{32})[0-9a-f]{32})"
    r"-(?P<span>(?!0{16})[0-9a-f]{16})"
    r"-(?P<flags>[0-9a-f]{2})"
    r"(?P<rest>-.*)?"
)
_SAMPLED = 0x01


@dataclass(frozen=True, slots=True)
class TraceContext:
    """Where a request stands in its trace.

    `trace_id` is what clients and log lines see; `w3c_trace_id` is the 32 hex digits that tracing
    systems share, the same unless the caller chose an `X-Trace-ID` of another form. `parent_span`
    is the caller's span; without one the trace begins here, and a `tracestate` must not be passed.
    """

    trace_id: str
    w3c_trace_id: str
    span_id: str
    parent_span: str | None = None
    flags: int = _SAMPLED

    def traceparent(self) -> str:
        """The header for the backend and for the answer: the caller's trace, our span."""
        return f"00-{self.w3c_trace_id}-{self.span_id}-{self.flags:02x}"


def accept(x_trace_id: str | None, traceparent: str | None) -> TraceContext:
    """The context of a request from its `X-Trace-ID` and `traceparent`; bad values are ignored.

    A trace that begins here is marked as sampled: a backend with OpenTelemetry's default sampler
    would otherwise stop recording as soon as a gateway stands in front of it.
    """
    parent = _parse_traceparent(traceparent)
    w3c_trace_id = parent["trace"] if parent else _trace_id_for(x_trace_id)
    return TraceContext(
        trace_id=x_trace_id if _is_trace_id(x_trace_id) else w3c_trace_id,
        w3c_trace_id=w3c_trace_id,
        span_id=os.urandom(8).hex(),
        parent_span=parent["span"] if parent else None,
        flags=int(parent["flags"], 16) & _SAMPLED if parent else _SAMPLED,
    )


def _parse_traceparent(value: str | None) -> re.Match[str] | None:
    """A later version may be longer, and is read as far as this version goes."""
    match = _TRACEPARENT.fullmatch(value) if value else None
    if match and match["version"] == "00" and match["rest"] is not None:
        return None
    return match


def _trace_id_for(x_trace_id: str | None) -> str:
    if x_trace_id and _W3C_TRACE_ID.fullmatch(x_trace_id):
        return x_trace_id
    return os.urandom(16).hex()


def _is_trace_id(value: str | None) -> TypeGuard[str]:
    return value is not None and _TRACE_ID.fullmatch(value) is not None
