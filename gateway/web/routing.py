"""The routing table: which handler answers which path.

A route's name tells its kind, see `gateway.web.routes`.
"""

from __future__ import annotations

from aiohttp import hdrs, web
from aiohttp.typedefs import Handler

from gateway.settings import Settings
from gateway.web import (
    admin,
    analytics,
    conversations,
    diagnostics,
    graphql,
    health,
    links,
    openapi,
    pages,
    streams,
)
from gateway.web.chat import chat_stream
from gateway.web.middleware.framing import expect
from gateway.web.provider import provider
from gateway.web.proxy import relay_request
from gateway.web.streaming import STREAMS_PATH

_CHAT_PATH = "/api/v2/chat-stream"
#: Not `.*`, which ends at an encoded line feed.
_REST = r"{path:[\s\S]*}"
_PROBES = {
    "/livez": health.live,
    "/readyz": health.ready,
    "/health": health.health,
    "/healthz": health.health,
    "/health/liveliness": health.live,
    "/health/readiness": health.ready,
    "/metrics": health.metrics,
    openapi.PATH: openapi.description,
    "/playground": pages.playground,
    "/dashboard": pages.dashboard,
    "/static/{name}": pages.static,
}

_STREAM_ROUTES = {
    STREAMS_PATH: streams.list_streams,
    links.PATH: links.make_link,
    streams.CONVERSATION_PATH: streams.conversation_stream,
    conversations.PATH: conversations.conversation,
}
_ONE_STREAM_ROUTES = {
    STREAMS_PATH + "/{stream_id}": streams.stream,
    streams.TERMINATE_PATH: streams.terminate,
}
_ADMIN_ROUTES = {
    admin.OVERVIEW_PATH: admin.overview,
    admin.STREAM_PATH: admin.stream,
    admin.CONTROLS_PATH: admin.controls,
    admin.CLEANUP_PATH: admin.clean_up,
    analytics.PATH: analytics.analytics,
    diagnostics.PATH: diagnostics.diagnostics,
    f"{admin.PATH}/{_REST}": admin.nothing,
}


def add_routes(app: web.Application, settings: Settings) -> None:
    """Adds every route; that of the backend's other paths only with `PROXY_PASSTHROUGH`."""

    def add(method: str, path: str, handler: Handler, name: str) -> None:
        app.router.add_route(method, path, handler, name=name, expect_handler=expect)

    for path, handler in _PROBES.items():
        name = f"public.{_as_name(path)}"
        app.router.add_get(path, handler, name=name, expect_handler=expect)
        add("*", path, _read_only, name)
    for path, handler in _STREAM_ROUTES.items():
        add("*", path, handler, f"streams.{_as_name(path)}")
    for path, handler in _ONE_STREAM_ROUTES.items():
        add("*", path, handler, f"streams.one.{_as_name(path)}")
    for path, handler in _ADMIN_ROUTES.items():
        add("*", path, handler, f"admin.{_as_name(path)}")
    add("*", graphql.PATH, graphql.GraphQL().handle, "streams.graphql")
    for path in (_CHAT_PATH, *settings.chat_stream_aliases):
        add("*", path, chat_stream, f"chat.{_as_name(path)}")
    add("*", f"/v1/{_REST}", provider, "provider")
    if settings.proxy_passthrough:
        add("*", f"/{_REST}", relay_request, "backend")


async def _read_only(request: web.Request) -> web.StreamResponse:
    """These paths are ours with every method, so none of them reaches the backend."""
    raise web.HTTPMethodNotAllowed(request.method, (hdrs.METH_GET, hdrs.METH_HEAD))


def _as_name(path: str) -> str:
    return "p" + "".join(c if c.isalnum() else "_" for c in path)
