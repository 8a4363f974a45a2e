"""What operators may do while the gateway runs, under `/api/admin`.

The middleware for authentication has checked the token by the time that a handler runs: a route
belongs here by its name, `admin.*`. Nothing here shows a question, an answer or a person.
"""

from __future__ import annotations

from aiohttp import hdrs, web

from gateway.errors import NotFound
from gateway.stream.model import StreamId, user_ending
from gateway.web.audited import note_stop
from gateway.web.overview import Overview
from gateway.web.response import EventStreamResponse, json_response
from gateway.web.services import SERVICES

PATH = "/api/admin"
OVERVIEW_PATH = f"{PATH}/overview"
STREAM_PATH = f"{PATH}/streams/{{stream_id}}"
OVERVIEW = web.AppKey("overview", Overview)
#: A viewer that takes nothing for so long has vanished.
_VANISHED_S = 30.0
#: The reason of a stream that an operator has stopped.
STOPPED_BY = "operator"


async def overview(request: web.Request) -> web.StreamResponse:
    """The state of everything: as JSON, or by `Accept` as an event stream."""
    if request.method != hdrs.METH_GET:
        raise web.HTTPMethodNotAllowed(request.method, (hdrs.METH_GET,))
    seen = request.app[OVERVIEW]
    if "text/event-stream" not in request.headers.get(hdrs.ACCEPT, ""):
        return json_response({**seen.snapshot(), "history": seen.history()})
    response = EventStreamResponse({"X-Accel-Buffering": "no"}, vanished_s=_VANISHED_S)
    with seen.viewing():
        await response.prepare(request)
        async for frame in seen.frames():
            await response.write(frame)
    return response


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
