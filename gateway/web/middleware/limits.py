"""Counts generation requests against the rate limit and tells the client where it stands."""

from __future__ import annotations

from aiohttp import web

from gateway.errors import TooManyRequests
from gateway.web.resume import LAST_EVENT_ID
from gateway.web.routes import is_generation
from gateway.web.services import IDENTITY, RATE, SERVICES


async def count_unless_resumed(request: web.Request) -> None:
    """A request with a cursor costs nothing as long as it goes on with a stream or is refused; the
    plain proxy, which knows no cursors, counts it after all.

    Raises:
        TooManyRequests: `rate_limited`.
    """
    if not request.headers.get(LAST_EVENT_ID):
        await count(request)


async def count(request: web.Request) -> None:
    """Counts a request that asks a model for an answer; each request once, others never.

    Raises:
        TooManyRequests: `rate_limited`.
    """
    services = request.app[SERVICES]
    is_limited = services.controls.is_streaming and is_generation(request)
    if not is_limited or RATE in request:
        return
    verdict = request[RATE] = await services.rate.hit(request[IDENTITY].limit_key)
    if not verdict.allowed:
        services.metrics.rate_limited.inc()
        raise TooManyRequests(
            "Too many requests; try again later.", retry_after_s=verdict.retry_after_s
        )


async def put_rate_headers(request: web.Request, response: web.StreamResponse) -> None:
    if (verdict := request.get(RATE)) is not None:
        response.headers.update(verdict.headers())
