"""What operators may do while the gateway runs, under `/api/admin`.

The middleware for authentication has checked the token by the time that a handler runs: a route
belongs here by its name, `admin.*`. Nothing here shows a question, an answer or a person.
"""

from __future__ import annotations

import logging
import time

from aiohttp import hdrs, web

from gateway.errors import NotFound
from gateway.stream.model import CLIENT_GONE, StreamId, user_ending
from gateway.stream.store import StoreError
from gateway.web.audited import note_controls, note_stop
from gateway.web.body import parse_json_object, read_body
from gateway.web.overview import Overview
from gateway.web.response import EventStreamResponse, json_response
from gateway.web.services import SERVICES

logger = logging.getLogger("sluice")

PATH = "/api/admin"
OVERVIEW_PATH = f"{PATH}/overview"
CONTROLS_PATH = f"{PATH}/controls"
CLEANUP_PATH = f"{PATH}/cleanup"
STREAM_PATH = f"{PATH}/streams/{{stream_id}}"
OVERVIEW = web.AppKey("overview", Overview)
#: A viewer that takes nothing for so long has vanished.
_VANISHED_S = 30.0
_MAX_BODY_BYTES = 4096
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
        writer = await response.prepare(request)
        if writer is not None:
            writer.send_headers()
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


async def controls(request: web.Request) -> web.StreamResponse:
    """`GET` tells what is in force, `PATCH` changes what it names, `DELETE` resets all."""
    ours = request.app[SERVICES].controls
    match request.method:
        case hdrs.METH_GET:
            pass
        case hdrs.METH_PATCH:
            ours.change(parse_json_object(await read_body(request, _MAX_BODY_BYTES)))
            note_controls(request, ours.state)
        case hdrs.METH_DELETE:
            ours.reset()
            note_controls(request, ours.state)
        case _:
            allowed = (hdrs.METH_GET, hdrs.METH_PATCH, hdrs.METH_DELETE)
            raise web.HTTPMethodNotAllowed(request.method, allowed)
    return json_response(ours.state)


async def clean_up(request: web.Request) -> web.StreamResponse:
    """`POST` does now what is done from time to time, and ends the streams that nobody reads."""
    if request.method != hdrs.METH_POST:
        raise web.HTTPMethodNotAllowed(request.method, (hdrs.METH_POST,))
    services = request.app[SERVICES]
    detached = [one for one in services.hub.running() if not one.is_attached]
    for one in detached:
        services.hub.stop(one, CLIENT_GONE)
    max_bytes = services.settings.stream_store_max_bytes
    try:
        expired = await services.store.sweep(round(time.time() * 1000), max_bytes)
    except StoreError:
        expired = None
    idle = services.conversations.sweep()
    done = {"detached": len(detached), "expired": expired, "conversations": idle}
    logger.warning("gateway.cleaned", extra=done)
    return json_response(done)


async def nothing(request: web.Request) -> web.StreamResponse:
    """The rest under this path is never the backend's: the token must not get there."""
    raise web.HTTPNotFound
