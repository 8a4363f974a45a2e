"""The application and its server."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from aiohttp import web

from scripts.mock.behaviour import Behaviour
from scripts.mock.chat import DEFAULTS, ROUTES, STATS, Chat
from scripts.mock.dialects.base import openai_failure
from scripts.mock.replies import reply
from scripts.mock.routes import routes
from scripts.mock.stats import Stats

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

MAX_BODY = 64 << 20
BACKLOG = 4096
UNCOUNTED = frozenset({"/stats", "/health"})


def make_app(defaults: Behaviour | None = None) -> web.Application:
    """The demo backend; serve it with `handler_cancellation=True`, or it notices no disconnect."""
    app = web.Application(middlewares=[_record, _not_found], client_max_size=MAX_BODY)
    app[DEFAULTS] = defaults or Behaviour()
    app[STATS] = Stats()
    app.add_routes(routes)
    for path, dialect in ROUTES.items():
        app.router.add_post(path, Chat(dialect).answer)
    return app


@asynccontextmanager
async def serving(
    defaults: Behaviour | None = None,
    *,
    host: str = "127.0.0.1",
    port: int = 0,
    access_log: bool = False,
) -> AsyncIterator[str]:
    """Serves the demo backend; yields its URL. Leaving ends everything at once.

    Raises:
        OSError: the port is taken.
    """
    runner = web.AppRunner(
        make_app(defaults),
        handler_cancellation=True,
        access_log=_access_log() if access_log else None,
        shutdown_timeout=0.01,  # at once; with 0, aiohttp waits for ever
    )
    await runner.setup()
    try:
        site = web.TCPSite(runner, host, port, backlog=BACKLOG)
        await site.start()
        name = f"[{host}]" if ":" in host else host
        yield f"http://{name}:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


def _access_log() -> logging.Logger:
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    return logging.getLogger("mock.access")


@web.middleware
async def _record(request: web.Request, handler: Handler) -> web.StreamResponse:
    if request.path not in UNCOUNTED:
        headers = {name.decode(): value.decode() for name, value in request.raw_headers}
        request.app[STATS].record(request.path, headers)
    return await handler(request)


@web.middleware
async def _not_found(request: web.Request, handler: Handler) -> web.StreamResponse:
    try:
        return await handler(request)
    except web.HTTPException as error:
        if error.status < 400:
            raise
        message = f"{error.reason}: {request.method} {request.path}"
        return reply(openai_failure(error.status, message), status=error.status)
