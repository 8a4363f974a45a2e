"""Gives each request its trace and puts it on the answer."""

from __future__ import annotations

from aiohttp import web
from aiohttp.typedefs import Handler

from gateway.telemetry.trace import accept
from gateway.web.services import TRACE


@web.middleware
async def trace(request: web.Request, handler: Handler) -> web.StreamResponse:
    request[TRACE] = accept(request.headers.get("X-Trace-ID"), request.headers.get("traceparent"))
    return await handler(request)


async def put_trace_headers(request: web.Request, response: web.StreamResponse) -> None:
    """A signal rather than the middleware: a stream's headers are sent before its handler ends."""
    if (context := request.get(TRACE)) is not None:
        response.headers["X-Trace-ID"] = context.trace_id
        response.headers["traceparent"] = context.traceparent()
