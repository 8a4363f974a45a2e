"""One line for each request that was answered; a stream has its own, `stream.ended`."""

from __future__ import annotations

import logging
import time

from aiohttp import web
from aiohttp.typedefs import Handler
from aiohttp_sse import EventSourceResponse

from gateway.web.routes import is_public
from gateway.web.services import TRACE

logger = logging.getLogger("sluice.request")


@web.middleware
async def access(request: web.Request, handler: Handler) -> web.StreamResponse:
    started = time.monotonic()
    response = await handler(request)
    if not isinstance(response, EventSourceResponse):
        level = logging.DEBUG if is_public(request) else logging.INFO
        logger.log(level, "request.finished", extra=_fields(request, response, started))
    return response


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
