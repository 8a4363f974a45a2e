"""What every request to the backend carries: the trace, and the credential that it shall see."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from gateway.stream.answer import Answer
from gateway.telemetry.trace import TraceContext
from gateway.upstream.client import UpstreamRequest
from gateway.upstream.headers import Headers, with_credential
from gateway.web.services import Services


def traced(headers: Headers, trace: TraceContext) -> Headers:
    """The request's trace, continued to the backend."""
    headers["X-Trace-ID"] = trace.trace_id
    headers["traceparent"] = trace.traceparent()
    if trace.parent_span is None:
        headers.popall("tracestate", None)  # it belongs to a traceparent that there wasn't
    return headers


def credentialed(headers: Headers, services: Services, *, is_anthropic: bool) -> Headers:
    """The gateway's credential for the backend, or the client's own where that may pass."""
    settings = services.settings
    api_key = settings.upstream_api_key
    return with_credential(
        headers,
        keep_client=settings.auth_mode == "none" or settings.upstream_forward_authorization,
        api_key=api_key.get_secret_value() if api_key is not None else None,
        is_anthropic=is_anthropic,
    )


def asking(
    services: Services, request: UpstreamRequest, trace: TraceContext
) -> Callable[[], Awaitable[Answer]]:
    """What a producer calls, once, to ask the backend, again where it can't answer just now.

    It lets go of the request then: a question with its history and files would otherwise be held
    as long as its answer runs.
    """
    held = [request]

    async def ask() -> Answer:
        return await services.retrying.ask(held.pop(), trace.trace_id)

    return ask
