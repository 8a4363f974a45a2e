"""Streams as a resource: read one again, look at it, list a conversation's, stop one."""

from __future__ import annotations

import re
from datetime import UTC, datetime

from aiohttp import hdrs, web

from gateway.errors import BadRequest, GatewayError, NotFound
from gateway.sse.event import Usage
from gateway.stream.live import LiveStream
from gateway.stream.model import Ending, user_ending
from gateway.web.audited import note_stop
from gateway.web.body import is_json, parse_json_object, read_body
from gateway.web.links import find_permitted
from gateway.web.response import json_response
from gateway.web.resume import attach, count_resume, owned_streams, read_cursor
from gateway.web.services import SERVICES
from gateway.web.streaming import read_manner

CONVERSATION_PATH = "/api/v2/conversations/{conversation_id}/stream"
TERMINATE_PATH = "/api/terminate-stream"
_MAX_BODY_BYTES = 64 * 1024
_REASON = re.compile(r"[A-Za-z][A-Za-z0-9_.-]{0,63}")


async def stream(request: web.Request) -> web.StreamResponse:
    """`GET` replays as an event stream or tells as JSON, by `Accept`; `DELETE` stops."""
    if request.method not in (hdrs.METH_GET, hdrs.METH_DELETE):
        raise web.HTTPMethodNotAllowed(request.method, (hdrs.METH_GET, hdrs.METH_DELETE))
    stream_id = request.match_info["stream_id"]
    if request.method == hdrs.METH_DELETE:
        found = await find_permitted(request, stream_id, "stop")
        _stop(request, found, user_ending(None))
        return json_response(describe(found))
    if "text/event-stream" not in request.headers.get(hdrs.ACCEPT, ""):
        return json_response(describe(await find_permitted(request, stream_id, "read")))
    return await _read_again(request, stream_id)


async def _read_again(request: web.Request, stream_id: str) -> web.StreamResponse:
    try:
        found = await find_permitted(request, stream_id, "read")
    except NotFound:
        count_resume(request, "unknown")
        raise
    cursor = read_cursor(request)
    if cursor is not None and cursor.stream_id != found.id:
        count_resume(request, "refused")
        raise BadRequest(
            "The cursor belongs to another stream.", code="stream_mismatch", status=409
        )
    manner = read_manner(request, request.app[SERVICES].settings.detach_grace_seconds)
    return await attach(request, found, cursor.seq if cursor else 0, manner)


async def list_streams(request: web.Request) -> web.StreamResponse:
    """The streams of one conversation, newest first; the ended ones while they can be read."""
    if request.method != hdrs.METH_GET:
        raise web.HTTPMethodNotAllowed(request.method, (hdrs.METH_GET,))
    conversation_id = request.query.get("conversation_id")
    if not conversation_id:
        raise BadRequest(
            "Name a conversation.", code="missing_conversation", param="conversation_id"
        )
    found = await owned_streams(request, conversation_id)
    return json_response({"streams": [describe(one) for one in reversed(found)]})


async def conversation_stream(request: web.Request) -> web.StreamResponse:
    """What runs in a conversation, from its beginning, as the AI SDK resumes; else 204."""
    if request.method != hdrs.METH_GET:
        raise web.HTTPMethodNotAllowed(request.method, (hdrs.METH_GET,))
    found = await owned_streams(request, request.match_info["conversation_id"])
    active = [one for one in found if one.is_active]
    if not active:
        return web.Response(status=204)
    cursor = read_cursor(request)
    is_same = cursor is not None and cursor.stream_id == active[-1].id
    manner = read_manner(request, request.app[SERVICES].settings.detach_grace_seconds)
    return await attach(request, active[-1], cursor.seq if cursor and is_same else 0, manner)


async def terminate(request: web.Request) -> web.StreamResponse:
    """Stops a stream and gives what was said; twice is the same as once."""
    if request.method != hdrs.METH_POST:
        raise web.HTTPMethodNotAllowed(request.method, (hdrs.METH_POST,))
    if not is_json(request):
        raise BadRequest("Send application/json.", code="unsupported_media_type", status=415)
    body = parse_json_object(await read_body(request, _MAX_BODY_BYTES))
    try:
        return _stop_answer(await stop_as_asked(request, body), None)
    except NotFound as error:
        return _stop_answer(None, error)


async def stop_as_asked(request: web.Request, asked: dict[str, object]) -> LiveStream:
    """Stops the stream that `sessionId` and `conversationId` name, for a `reason` or none.

    Raises:
        BadRequest: one of them is malformed.
        NotFound: there is no such stream, or it isn't the client's.
    """
    ending = user_ending(_reason(asked.get("reason")))
    found = await _find_to_stop(request, asked)
    _stop(request, found, ending)
    return found


def describe(stream: LiveStream) -> dict[str, object]:
    """A stream as JSON, the same everywhere."""
    summary = stream.wire.summary(stream.log.events())
    ending, log = stream.ending, stream.log
    return {
        "stream_id": stream.id,
        "status": str(stream.status),
        "reason": ending.reason if ending else None,
        "conversation_id": stream.origin.conversation_id,
        "trace_id": stream.origin.trace_id,
        "text": summary.text,
        "total_chunks": stream.wire.total_chunks,
        "total_tokens": summary.usage.output_tokens if summary.usage else None,
        "usage": _usage(summary.usage),
        "first_event_id": f"{stream.id}.{log.first}" if log.last else None,
        "last_event_id": f"{stream.id}.{log.last}" if log.last else None,
        "created_at": _time(stream.created_at),
        "ended_at": _time(stream.ended_at),
        "error": _error(ending),
    }


async def _find_to_stop(request: web.Request, body: dict[str, object]) -> LiveStream:
    """By stream, by conversation, or by both: then a late stop never hits the next answer."""
    stream_id, conversation_id = body.get("sessionId"), body.get("conversationId")
    for name, value in (("sessionId", stream_id), ("conversationId", conversation_id)):
        if value is not None and not isinstance(value, str):
            raise BadRequest("This must be a string.", code="invalid_type", param=name)
    if isinstance(stream_id, str):
        found = await find_permitted(request, stream_id, "stop")
        if conversation_id is not None and found.origin.conversation_id != conversation_id:
            raise NotFound("There is no such stream.", code="stream_not_found")
        return found
    if not isinstance(conversation_id, str):
        raise BadRequest("Name a session or a conversation.", code="missing_session")
    active = [one for one in await owned_streams(request, conversation_id) if one.is_active]
    if not active:
        raise NotFound("Nothing runs in this conversation.", code="stream_not_found")
    return active[-1]


def _stop(request: web.Request, stream: LiveStream, ending: Ending) -> None:
    if request.app[SERVICES].hub.stop(stream, ending):
        note_stop(request, stream)


def _stop_answer(stream: LiveStream | None, error: GatewayError | None) -> web.Response:
    described = describe(stream) if stream is not None else {}
    answer = {
        "success": error is None,
        "sessionId": described.get("stream_id"),
        "partialResponse": described.get("text"),
        "tokenCount": described.get("total_tokens"),
        "error": error.message if error else None,
    }
    return json_response(answer, status=error.status if error else 200)


def _reason(value: object) -> str | None:
    if value is None:
        return None
    if not isinstance(value, str) or not _REASON.fullmatch(value):
        raise BadRequest(
            "A reason is a word of up to 64 letters, digits and _.-",
            code="invalid_reason",
            param="reason",
        )
    return value


def _usage(usage: Usage | None) -> dict[str, object] | None:
    if usage is None:
        return None
    total = (usage.input_tokens or 0) + (usage.output_tokens or 0)
    counted: dict[str, object] = {
        "input_tokens": usage.input_tokens,
        "output_tokens": usage.output_tokens,
        "total_tokens": total,
    }
    return {**counted, "estimated": True} if usage.estimated else counted


def _error(ending: Ending | None) -> dict[str, object] | None:
    if ending is None or not ending.is_error:
        return None
    return {
        "code": ending.reason,
        "message": ending.message,
        "retryable": ending.retryable,
    }


def _time(timestamp: float | None) -> str | None:
    """To the millisecond, as the store keeps it."""
    if timestamp is None:
        return None
    return datetime.fromtimestamp(round(timestamp, 3), UTC).isoformat(timespec="milliseconds")
