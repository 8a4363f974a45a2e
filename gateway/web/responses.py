"""OpenAI's own resume and cancel calls on `/v1/responses/{id}`, for any backend.

`responses.retrieve(id, stream=True, starting_after=n)` and `responses.cancel(id)` of the official
SDKs work on the streams that this gateway still holds; other ids are the backend's.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import orjson
from aiohttp import hdrs, web

from gateway.errors import BadRequest, GatewayError
from gateway.sse.decoder import block_data
from gateway.stream.live import LiveStream
from gateway.stream.model import USER_REQUESTED
from gateway.web.response import json_response
from gateway.web.resume import attach, may_read
from gateway.web.services import SERVICES
from gateway.web.streaming import read_manner

_ROUTE = "/v1/responses"
_PATH = re.compile(r"/v1/responses/([A-Za-z0-9_-]+)(/cancel)?")


async def answer_response_call(request: web.Request) -> web.StreamResponse | None:
    """The answer to a call about a response that is held here; None where it is the backend's.

    Raises:
        BadRequest: `invalid_parameter`, `starting_after` isn't a number.
        GatewayError: `cursor_expired`, there is no event `starting_after`.
    """
    match = _PATH.fullmatch(request.rel_url.raw_path)
    if match is None:
        return None
    wanted = hdrs.METH_POST if match[2] else hdrs.METH_GET
    stream = _find(request, match[1]) if request.method == wanted else None
    if stream is None:
        return None
    if match[2]:
        request.app[SERVICES].hub.stop(stream, USER_REQUESTED)
        return json_response({**_response_of(stream), "status": "cancelled"})
    if request.query.get("stream") != "true":
        return json_response(_response_of(stream))
    manner = read_manner(request, default_grace_s=0)
    return await attach(request, stream, _cursor(request, stream), manner)


def _find(request: web.Request, response_id: str) -> LiveStream | None:
    for stream in reversed(request.app[SERVICES].hub.streams()):
        is_readable = stream.origin.route == _ROUTE and may_read(request, stream)
        if is_readable and _response_of(stream).get("id") == response_id:
            return stream
    return None


def _cursor(request: web.Request, stream: LiveStream) -> int:
    """The event with the number `starting_after`; the payload's numbers decide, not ours."""
    text = request.query.get("starting_after")
    if text is None:
        return 0
    if not text.isascii() or not text.isdigit():
        raise BadRequest("This must be a number.", code="invalid_parameter", param="starting_after")
    for seq, block in enumerate(stream.log.events(), start=stream.log.first):
        if _payload(block).get("sequence_number") == int(text):
            return seq
    raise GatewayError("There is no event with this number.", code="cursor_expired", status=410)


def _response_of(stream: LiveStream) -> dict[str, object]:
    """The newest `response` object in the stream."""
    for block in reversed(stream.log.events()):
        response = _payload(block).get("response")
        if isinstance(response, dict):
            return response
    return {}


def _payload(block: bytes) -> Mapping[str, object]:
    try:
        payload = orjson.loads(block_data(block))
    except orjson.JSONDecodeError:
        return {}
    return payload if isinstance(payload, dict) else {}
