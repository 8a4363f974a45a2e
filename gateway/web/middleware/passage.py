"""The one middleware: what a request passes on its way in, and its answer on its way out.

Each part is a function of its own, in a module beside this one. As middlewares they would be a
waiting coroutine each, a quarter of a KiB for as long as a stream runs.
"""

from __future__ import annotations

import asyncio
import time

from aiohttp import web
from aiohttp.typedefs import Handler

from gateway.web.middleware.arrival import arrive, leave, log_finished
from gateway.web.middleware.audit import ended, held, note_client_gone
from gateway.web.middleware.auth import authenticate
from gateway.web.middleware.cors import answer_preflight
from gateway.web.middleware.errors import answer_to
from gateway.web.middleware.framing import check_framing
from gateway.web.middleware.limits import count_unless_resumed


@web.middleware
async def passage(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Every error before a response has begun becomes its JSON answer; whatever is answered waits
    until it is on record."""
    transport, started = arrive(request), time.monotonic()
    try:
        try:
            response = await _admit(request)
            if response is None:
                response = await handler(request)
        except ConnectionError:
            raise  # the client has gone; there is nobody to answer
        except Exception as error:
            response = answer_to(request, error)
        if not response.prepared:
            response = await held(request, response)
    except (asyncio.CancelledError, ConnectionError):
        note_client_gone(request, started)
        raise
    else:
        if (end := ended(request, response, started)) is not None:
            await asyncio.wait({end})
    finally:
        leave(request, transport)
    log_finished(request, response, started)
    return response


async def _admit(request: web.Request) -> web.StreamResponse | None:
    """Sound HTTP first, then CORS's questions, which it answers, who asks, and how often."""
    check_framing(request)
    if (preflight := answer_preflight(request)) is not None:
        return preflight
    await authenticate(request)
    await count_unless_resumed(request)
    return None
