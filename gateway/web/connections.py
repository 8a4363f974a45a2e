"""Counts what becomes of requests for an event stream, and the errors of all requests."""

from __future__ import annotations

from aiohttp import hdrs, web

from gateway.errors import GatewayError
from gateway.web.routes import is_generation
from gateway.web.services import SERVICES


def note_opened(request: web.Request) -> None:
    """The event stream has begun."""
    _count(request, "opened")


def note_declined(request: web.Request) -> None:
    """The backend answered with something else than a stream, which passes as it is."""
    _count(request, "declined")


def note_error(request: web.Request, error: GatewayError) -> None:
    """The request gets an error: the caller's fault (`refused`), or not (`failed`)."""
    request.app[SERVICES].metrics.request_refused(error.code)
    if is_generation(request) or _wants_events(request):
        _count(request, "refused" if error.status < 500 else "failed")


def _wants_events(request: web.Request) -> bool:
    return "text/event-stream" in request.headers.get(hdrs.ACCEPT, "")


def _count(request: web.Request, result: str) -> None:
    request.app[SERVICES].metrics.connections.labels(result).inc()
