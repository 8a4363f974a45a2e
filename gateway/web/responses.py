"""OpenAI's own resume and cancel calls on `/v1/responses/{id}`, for any backend.

`responses.retrieve(id, stream=True, starting_after=n)` and `responses.cancel(id)` of the official
SDKs work on the streams that this gateway still holds; other ids are the backend's. An id that is
held here for somebody else never gets there: the backend can't tell this gateway's clients apart.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from itertools import chain

import orjson
from aiohttp import hdrs, web

from gateway.errors import BadRequest, GatewayError, NotFound
from gateway.sse.decoder import block_data
from gateway.stream.live import LiveStream
from gateway.stream.model import USER_REQUESTED, Status
from gateway.web.response import json_response
from gateway.web.resume import attach, may_read
from gateway.web.services import SERVICES
from gateway.web.streaming import read_manner

_ROUTE = "/v1/responses"
_PATH = re.compile(r"/v1/responses/([A-Za-z0-9_-]+)(/.*)?")
_CALLS = ((hdrs.METH_GET, None), (hdrs.METH_POST, "/cancel"))


async def answer_response_call(request: web.Request) -> web.StreamResponse | None:
    """The answer to a call about a response that is held here; None where it is the backend's.

    Raises:
        BadRequest: `invalid_parameter`, `starting_after` isn't a number.
        GatewayError: `cursor_expired`, there is no event `starting_after`.
        NotFound: the response is somebody else's.
    """
    match = _PATH.fullmatch(request.rel_url.raw_path)
    stream = _find(request, match[1]) if match is not None else None
    if match is None or stream is None or (request.method, match[2]) not in _CALLS:
        return None
    if match[2]:
        request.app[SERVICES].hub.stop(stream, USER_REQUESTED)
        return json_response(_response_now(stream))
    if request.query.get("stream") != "true":
        return json_response(_response_now(stream))
    manner = read_manner(request, default_grace_s=0)
    return await attach(request, stream, _cursor(request, stream), manner)


def _find(request: web.Request, response_id: str) -> LiveStream | None:
    held = [
        stream
        for stream in reversed(request.app[SERVICES].hub.streams())
        if stream.origin.route == _ROUTE and _first_response(stream).get("id") == response_id
    ]
    own = next((stream for stream in held if may_read(request, stream)), None)
    if own is None and held:
        raise NotFound("There is no such response.", code="stream_not_found")
    return own


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


def _response_now(stream: LiveStream) -> Mapping[str, object]:
    """The newest `response` object in the stream, and how the stream has ended since."""
    response = next(_responses(reversed(stream.log.events())), {})
    ending = stream.ending
    if ending is None or ending.status is Status.COMPLETED:
        return response
    return {**response, "status": "failed" if ending.is_error else "cancelled"}


def _first_response(stream: LiveStream) -> Mapping[str, object]:
    return next(_responses(chain((stream.wire.opening,), stream.log.events())), {})


def _responses(blocks: Iterable[bytes]) -> Iterator[Mapping[str, object]]:
    for block in blocks:
        if b'"response"' in block:
            response = _payload(block).get("response")
            if isinstance(response, dict):
                yield response


def _payload(block: bytes) -> Mapping[str, object]:
    try:
        payload = orjson.loads(block_data(block))
    except orjson.JSONDecodeError:
        return {}
    return payload if isinstance(payload, dict) else {}
