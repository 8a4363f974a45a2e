"""The two responses that begin before they are complete, and the JSON of an error."""

from __future__ import annotations

import math
from collections.abc import Mapping

import orjson
from aiohttp import hdrs, web
from aiohttp.abc import AbstractStreamWriter
from aiohttp_sse import EventSourceResponse

from gateway.errors import GatewayError
from gateway.sse.dialects import provider_dialect
from gateway.sse.dialects.openai_chat import OpenAIChat

_DEFAULT_DIALECT = OpenAIChat()


class EventStreamResponse(EventSourceResponse):
    """An event stream whose bytes an `Outlet` writes.

    The library gives the headers and, with `vanished_s`, a time-out on TCP for a peer that has
    vanished, where that of the server's connections (`gateway.web.server`) isn't enough. Its ping
    stays off: `: ping` with a blank line breaks openai-python once events carry ids.
    """

    #: The head waits for the outlet, which sends it with the first events, if there are any.
    _send_headers_immediately = False

    def __init__(self, headers: Mapping[str, str], *, vanished_s: float | None = None) -> None:
        super().__init__(
            headers=headers,
            allow_all_methods=True,
            send_timeout=vanished_s,
        )
        self.headers[hdrs.CONTENT_TYPE] = "text/event-stream; charset=utf-8"
        self.headers[hdrs.CACHE_CONTROL] = "no-cache, no-transform"
        # The library's `keep-alive` would be a lie on HTTP/1.0; aiohttp knows when it's true.
        self.headers.popall(hdrs.CONNECTION)

    async def prepare(self, request: web.BaseRequest) -> AbstractStreamWriter | None:
        # The library's own begins a task for its ping, only to have it cancelled here.
        self._set_tcp_user_timeout(request)
        return await web.StreamResponse.prepare(self, request)


def error_response(error: GatewayError, *, path: str, trace_id: str) -> web.Response:
    """The JSON answer for an error before the stream, in the shape that the path's SDKs read."""
    dialect = provider_dialect(path) or _DEFAULT_DIALECT
    response = json_response(dialect.error_body(error, trace_id), status=error.status)
    if error.retry_after_s is not None:
        response.headers[hdrs.RETRY_AFTER] = str(max(1, math.ceil(error.retry_after_s)))
    return response


def json_response(data: object, *, status: int = 200) -> web.Response:
    return web.Response(
        body=orjson.dumps(data),
        status=status,
        content_type="application/json",
        headers={"X-Content-Type-Options": "nosniff", hdrs.CACHE_CONTROL: "no-store"},
    )
