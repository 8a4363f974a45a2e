"""What every request has to pass, in one middleware.

Each part is a function of its own. As middlewares they would be a waiting coroutine each, a quarter
of a KiB for as long as a stream runs.
"""

from __future__ import annotations

from aiohttp import web
from aiohttp.typedefs import Handler

from gateway.web.middleware.auth import authenticate
from gateway.web.middleware.cors import answer_preflight
from gateway.web.middleware.framing import check_framing
from gateway.web.middleware.limits import count_unless_resumed


@web.middleware
async def admission(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Sound HTTP first, then CORS's questions, who asks, and how often."""
    check_framing(request)
    if (preflight := answer_preflight(request)) is not None:
        return preflight
    await authenticate(request)
    await count_unless_resumed(request)
    return await handler(request)
