"""What is done for every request, whatever becomes of it: a trace, a watch, a line."""

from __future__ import annotations

import asyncio
import logging
import time

from aiohttp import web
from aiohttp_sse import EventSourceResponse

from gateway.telemetry.trace import accept
from gateway.web.routes import is_public
from gateway.web.services import SERVICES, TRACE

logger = logging.getLogger("sluice.request")


def arrive(request: web.Request) -> asyncio.Transport:
    """Gives it a trace, and its client to be watched until it leaves, which is to be told.

    Raises:
        ConnectionResetError: the client has gone.
    """
    transport = request.transport
    if transport is None:
        raise ConnectionResetError("the client has gone")
    request[TRACE] = accept(request.headers.get("X-Trace-ID"), request.headers.get("traceparent"))
    request.app[SERVICES].presence.transports.add(transport)
    return transport


def leave(request: web.Request, transport: asyncio.Transport) -> None:
    """The counterpart of `arrive`."""
    request.app[SERVICES].presence.transports.discard(transport)


def log_finished(request: web.Request, response: web.StreamResponse, started: float) -> None:
    """A line for each request that was answered; a stream has its own, `stream.ended`."""
    if not isinstance(response, EventSourceResponse):
        level = logging.DEBUG if is_public(request) else logging.INFO
        logger.log(level, "request.finished", extra=_fields(request, response, started))


async def put_trace_headers(request: web.Request, response: web.StreamResponse) -> None:
    """A signal rather than the middleware: a stream's headers are sent before its handler ends."""
    if (context := request.get(TRACE)) is not None:
        response.headers["X-Trace-ID"] = context.trace_id
        response.headers["traceparent"] = context.traceparent()


def _fields(
    request: web.Request, response: web.StreamResponse, started: float
) -> dict[str, object]:
    """No path: those of the backend may name a person. The route tells what was asked for."""
    return {
        "trace_id": request[TRACE].trace_id,
        "method": request.method,
        "route": request.match_info.route.name,
        "status": response.status,
        "duration_ms": round((time.monotonic() - started) * 1000, 1),
    }
