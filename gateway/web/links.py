"""Links that let somebody without a credential read or stop one stream: how to get and use one."""

from __future__ import annotations

import logging
from datetime import UTC, datetime

from aiohttp import hdrs, web

from gateway.errors import BadRequest, NotFound
from gateway.stream.live import LiveStream
from gateway.stream.model import StreamId
from gateway.tokens.links import SCOPES, Scope
from gateway.web.audited import hold_for, note_link
from gateway.web.body import is_json, parse_json_object, read_body
from gateway.web.response import json_response
from gateway.web.resume import find_owned
from gateway.web.routes import LINK
from gateway.web.services import SERVICES, TRACE
from gateway.web.streaming import STREAMS_PATH

PATH = STREAMS_PATH + "/{stream_id}/links"
_MAX_BODY_BYTES = 1024

logger = logging.getLogger("sluice.request")


async def make_link(request: web.Request) -> web.StreamResponse:
    """Gives the stream's owner a link to it: a path of this gateway, for `ttl_seconds` at most."""
    if request.method != hdrs.METH_POST:
        raise web.HTTPMethodNotAllowed(request.method, (hdrs.METH_POST,))
    if not is_json(request):
        raise BadRequest("Send application/json.", code="unsupported_media_type", status=415)
    asked = parse_json_object(await read_body(request, _MAX_BODY_BYTES))
    services = request.app[SERVICES]
    scope = _scope(asked.get("scope"))
    ttl_s = _ttl_s(asked.get("ttl_seconds"), services.settings.stream_link_seconds)
    found = await find_owned(request, request.match_info["stream_id"])
    token, expires_at = services.links.sign(found.id, scope, ttl_s)
    trace_id = request[TRACE].trace_id
    fields = {"trace_id": trace_id, "stream_id": found.id, "scope": scope, "seconds": ttl_s}
    logger.info("link.made", extra=fields)
    note_link(request)
    answer = {
        "url": f"{STREAMS_PATH}/{found.id}?{LINK}={token}",
        "expires_at": datetime.fromtimestamp(expires_at, UTC).isoformat(),
    }
    return json_response(answer, status=201)


async def find_permitted(request: web.Request, stream_id: str, scope: Scope) -> LiveStream:
    """A stream that this client may read or stop, as its owner or by the link of the request.

    Raises:
        Forbidden: the link isn't good for that.
        NotFound: `stream_not_found`.
        StoreError: it isn't in memory, and the store is away.
    """
    token = request.query.get(LINK)
    if token is None:
        return await find_owned(request, stream_id)
    services = request.app[SERVICES]
    services.links.check(token, stream_id, scope)
    stream = await services.hub.recall(StreamId(stream_id))
    if stream is None:
        raise NotFound("There is no such stream.", code="stream_not_found")
    hold_for(request, stream)
    return stream


def _scope(value: object) -> Scope:
    if value not in SCOPES:
        raise BadRequest("A scope is read or stop.", code="invalid_parameter", param="scope")
    return value


def _ttl_s(value: object, most_s: int) -> int:
    if value is None:
        return most_s
    if type(value) is not int or not 0 < value <= most_s:
        raise BadRequest(
            f"This must be a number of seconds from 1 to {most_s}.",
            code="invalid_parameter",
            param="ttl_seconds",
        )
    return value
