"""Has the client watched while its request is answered."""

from __future__ import annotations

from aiohttp import web
from aiohttp.typedefs import Handler

from gateway.web.services import SERVICES


@web.middleware
async def presence(request: web.Request, handler: Handler) -> web.StreamResponse:
    transport = request.transport
    if transport is None:
        raise ConnectionResetError("the client has gone")
    watched = request.app[SERVICES].presence.transports
    watched.add(transport)
    try:
        return await handler(request)
    finally:
        watched.discard(transport)
