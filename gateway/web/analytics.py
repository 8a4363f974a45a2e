"""What is kept of how streams lived, for an operator, as NDJSON."""

from __future__ import annotations

import asyncio

from aiohttp import hdrs, web

from gateway.web.admin import PATH as ADMIN_PATH
from gateway.web.services import SERVICES

PATH = f"{ADMIN_PATH}/analytics"


async def analytics(request: web.Request) -> web.StreamResponse:
    """Everything up to now, the oldest first; a thread reads it."""
    if request.method != hdrs.METH_GET:
        raise web.HTTPMethodNotAllowed(request.method, (hdrs.METH_GET,))
    kept = request.app[SERVICES].analytics
    if kept is None:
        raise web.HTTPNotFound
    await kept.flush()
    headers = {hdrs.CONTENT_TYPE: "application/x-ndjson", hdrs.CACHE_CONTROL: "no-store"}
    response = web.StreamResponse(headers=headers)
    await response.prepare(request)
    pieces = kept.pages.read()
    while (piece := await asyncio.to_thread(next, pieces, None)) is not None:
        await response.write(piece)
    await response.write_eof()
    return response
