"""What operators may do while the gateway runs, under `/api/admin`.

The middleware for authentication has checked the token by the time that a handler runs: a route
belongs here by its name, `admin.*`. Nothing here shows a question, an answer or a person.
"""

from __future__ import annotations

from aiohttp import hdrs, web

from gateway.errors import NotFound
from gateway.stream.model import StreamId, user_ending
from gateway.web.audited import note_stop
from gateway.web.response import json_response
from gateway.web.services import SERVICES

PATH = "/api/admin"
STREAM_PATH = f"{PATH}/streams/{{stream_id}}"
#: The reason of a stream that an operator has stopped.
STOPPED_BY = "operator"


async def stream(request: web.Request) -> web.StreamResponse:
    """`DELETE` stops anybody's stream; its answer stays with its owner. Twice is as once."""
    if request.method != hdrs.METH_DELETE:
        raise web.HTTPMethodNotAllowed(request.method, (hdrs.METH_DELETE,))
    hub = request.app[SERVICES].hub
    found = hub.find(StreamId(request.match_info["stream_id"]))
    if found is None:
        raise NotFound("There is no such stream.", code="stream_not_found")
    if hub.stop(found, user_ending(STOPPED_BY)):
        note_stop(request, found)
    reason = found.ending.reason if found.ending is not None else None
    return json_response({"stream_id": found.id, "status": str(found.status), "reason": reason})


async def nothing(request: web.Request) -> web.StreamResponse:
    """The rest under this path is never the backend's: the token must not get there."""
    raise web.HTTPNotFound
