"""Going on with a stream: from a cursor, with a repeated request, or from the beginning."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

from aiohttp import hdrs, web

from gateway.errors import BadRequest, GatewayError, NotFound
from gateway.stream.cursor import Cursor
from gateway.stream.live import LiveStream
from gateway.stream.model import StreamId
from gateway.upstream.headers import Headers
from gateway.web.audited import hold_for, note_resume, note_violation
from gateway.web.services import IDENTITY, SERVICES
from gateway.web.streaming import Manner, begin_relay

LAST_EVENT_ID = "Last-Event-ID"


def read_cursor(request: web.Request) -> Cursor | None:
    """The cursor of a request. The header wins, since an `EventSource` keeps its first query.

    Raises:
        BadRequest: `bad_cursor`.
    """
    text = request.headers.get(LAST_EVENT_ID) or request.query.get("last_event_id")
    return Cursor.parse(text) if text else None


def fingerprint(request: web.Request, body: bytes) -> bytes:
    """What makes two requests the same question: the path and everything that was asked."""
    asked = body
    if request.method == hdrs.METH_GET:
        pairs = sorted(item for item in request.query.items() if item[0] != "last_event_id")
        asked = repr(pairs).encode("utf-8", "surrogatepass")
    return hashlib.sha256(b"%b\0%b" % (request.path.encode(), asked)).digest()


async def find_owned(request: web.Request, stream_id: str) -> LiveStream:
    """A stream that this client may read and stop. Not owned looks exactly like not found.

    Raises:
        NotFound: `stream_not_found`.
        StoreError: it isn't in memory, and the store is away.
    """
    services = request.app[SERVICES]
    stream = await services.hub.recall(StreamId(stream_id))
    if stream is not None and not may_read(request, stream):
        note_violation(request, "security.forbidden", "not_owner", 404)
        stream = None
    if stream is None:
        raise NotFound("There is no such stream.", code="stream_not_found")
    hold_for(request, stream)
    return stream


async def owned_streams(request: web.Request, conversation_id: str) -> list[LiveStream]:
    """The client's streams of one conversation that can be read, oldest first."""
    found = await request.app[SERVICES].hub.recall_conversation(conversation_id)
    mine = [stream for stream in found if may_read(request, stream)]
    for stream in mine:
        hold_for(request, stream)
    return mine


async def resume_question(
    request: web.Request, cursor: Cursor, asked: bytes, manner: Manner
) -> web.StreamResponse:
    """Answers a question that carries a cursor: it goes on with its stream, never starts another.

    Raises:
        GatewayError: `stream_expired` (a POST whose stream is gone) or `stream_mismatch`.
    """
    try:
        stream = await find_owned(request, cursor.stream_id)
    except NotFound:
        count_resume(request, "unknown")
        if request.method == hdrs.METH_GET:
            return web.Response(status=204)  # tells an EventSource to stop for good
        raise GatewayError(
            "The stream of this cursor has expired.", code="stream_expired", status=410
        ) from None
    if stream.fingerprint != asked:
        count_resume(request, "refused")
        raise BadRequest(
            "The cursor belongs to another question.", code="stream_mismatch", status=409
        )
    return await attach(request, stream, cursor.seq, manner)


async def attach(
    request: web.Request,
    stream: LiveStream,
    seq: int,
    manner: Manner,
    headers: Mapping[str, str] | None = None,
) -> web.StreamResponse:
    """Reads a stream from after event `seq`: what the log holds, then live.

    204 when nothing can follow. A cursor older than the log gets a snapshot on the typed route.

    Raises:
        GatewayError: `cursor_ahead`, or `cursor_expired` on a provider route.
    """
    log = stream.log
    if seq > log.last:
        count_resume(request, "refused")
        raise BadRequest("The cursor is ahead of the stream.", code="cursor_ahead", status=409)
    if not stream.is_active and seq == log.last:
        count_resume(request, "done")
        return web.Response(status=204)
    result = "live" if seq == log.last else "replayed"
    first = b""
    if seq + 1 < log.first:
        snapshot = stream.wire.snapshot()
        if snapshot is None:
            count_resume(request, "gone")
            raise GatewayError(
                "The events after this cursor are no longer kept.",
                code="cursor_expired",
                status=410,
            )
        result, seq = "snapshot", log.last if stream.is_active else log.last - 1
        first = log.with_id(snapshot, seq)
    hub = request.app[SERVICES].hub
    hub.attach(stream)
    count_resume(request, result)
    note_resume(request, stream, seq)
    try:
        passed = Headers(headers or {})
        response, relaying = await begin_relay(
            request, stream, manner, seq=seq, first=first, passed=passed
        )
        await relaying
        return response
    finally:
        hub.leave(stream)


def count_resume(request: web.Request, result: str) -> None:
    """Notes what became of a wish to go on with a stream; docs/metrics.md lists the results."""
    request.app[SERVICES].metrics.resumes.labels(result).inc()


def may_read(request: web.Request, stream: LiveStream) -> bool:
    """Without authentication the id, which can't be guessed, is the proof."""
    if request.app[SERVICES].settings.auth_mode == "none":
        return True
    return stream.origin.owner == request[IDENTITY].owner
