"""CORS by exact origin, for the routes that are the gateway's own or `/v1/*`.

Other paths are the backend's, its CORS included. Headers go out by signal, since a stream's are
sent long before its handler ends.
"""

from __future__ import annotations

from aiohttp import hdrs, web

from gateway.web.routes import is_proxied_as_is
from gateway.web.services import SERVICES

_EXPOSED = ", ".join(
    (
        "X-Trace-ID",
        "traceparent",
        "X-Stream-Id",
        "Location",
        "X-Stream-Replay-Window",
        "Idempotent-Replayed",
        "X-Stream-Max-Seconds",
        "X-Heartbeat-Interval",
        "X-Silence-Threshold",
        "RateLimit",
        "RateLimit-Policy",
        "x-ratelimit-limit-requests",
        "x-ratelimit-remaining-requests",
        "x-ratelimit-reset-requests",
        "X-Audit-Receipt",
        "Retry-After",
    )
)
_ALLOWED_METHODS = "GET, POST, DELETE, OPTIONS"
_MAX_AGE_S = 7200


def answer_preflight(request: web.Request) -> web.Response | None:
    """The answer to a browser's question whether it may ask; None for any other request."""
    is_preflight = (
        request.method == hdrs.METH_OPTIONS
        and hdrs.ORIGIN in request.headers
        and hdrs.ACCESS_CONTROL_REQUEST_METHOD in request.headers
    )
    if not is_preflight or not _concerns(request):
        return None
    response = web.Response(status=204)
    if _is_allowed(request):
        response.headers[hdrs.ACCESS_CONTROL_ALLOW_METHODS] = _ALLOWED_METHODS
        response.headers[hdrs.ACCESS_CONTROL_MAX_AGE] = str(_MAX_AGE_S)
        wanted = request.headers.get(hdrs.ACCESS_CONTROL_REQUEST_HEADERS)
        if wanted is not None and wanted.isascii() and wanted.isprintable():
            response.headers[hdrs.ACCESS_CONTROL_ALLOW_HEADERS] = wanted
    return response


async def put_cors_headers(request: web.Request, response: web.StreamResponse) -> None:
    if hdrs.ORIGIN not in request.headers or not _concerns(request):
        return
    response.headers.add(hdrs.VARY, hdrs.ORIGIN)
    if _is_allowed(request):
        response.headers[hdrs.ACCESS_CONTROL_ALLOW_ORIGIN] = request.headers[hdrs.ORIGIN]
        response.headers[hdrs.ACCESS_CONTROL_ALLOW_CREDENTIALS] = "true"
        response.headers[hdrs.ACCESS_CONTROL_EXPOSE_HEADERS] = _EXPOSED


def _concerns(request: web.Request) -> bool:
    return bool(request.app[SERVICES].settings.allowed_origins) and not is_proxied_as_is(request)


def _is_allowed(request: web.Request) -> bool:
    return request.headers.get(hdrs.ORIGIN) in request.app[SERVICES].settings.allowed_origins
