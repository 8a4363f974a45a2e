"""What the typed and the provider routes share: start a stream, wait for the backend, relay it."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass

from aiohttp import web

from gateway.errors import BadRequest, Unavailable
from gateway.settings import Settings
from gateway.stream.answer import Answer, Opening
from gateway.stream.live import LiveStream
from gateway.stream.plan import Plan
from gateway.tasks import wait_at_most
from gateway.upstream.headers import Headers, returned_with_stream
from gateway.web.audited import hand_over, hold_for, recorded, released, stop_unrecorded
from gateway.web.body import let_go
from gateway.web.compression import choose_encoder
from gateway.web.connections import note_declined, note_opened
from gateway.web.outlet import Outlet
from gateway.web.response import EventStreamResponse
from gateway.web.services import IDENTITY, SERVICES, TRACE

_MODES_S = {"realtime": 0.0, "high_performance": 0.004, "balanced": 0.008, "battery_saver": 0.033}
#: How long an answer may wait for its record; a store that is known to be away isn't waited for.
_STORE_WAIT_S = 2.0
STREAMS_PATH = "/api/v2/streams"
_ON_DISCONNECT = re.compile(r"cancel|finish|grace=(\d{1,6})")

Declined = Callable[[web.Request, Answer], Awaitable[web.StreamResponse]]


@dataclass(frozen=True, slots=True)
class Manner:
    """How this request wants its stream, beside what it asks."""

    interval_s: float
    grace_s: float | None


def read_manner(request: web.Request, default_grace_s: float) -> Manner:
    """Reads `X-Performance-Mode` and `X-Stream-On-Disconnect`.

    Raises:
        BadRequest: `invalid_header`.
    """
    services = request.app[SERVICES]
    mode = request.headers.get("X-Performance-Mode", services.controls.state.performance_mode)
    if mode not in _MODES_S:
        raise BadRequest(
            "There is no such mode.", code="invalid_header", param="X-Performance-Mode"
        )
    return Manner(
        interval_s=max(_MODES_S[mode], services.settings.chunk_delay_ms / 1000),
        grace_s=_grace(request.headers.get("X-Stream-On-Disconnect"), default_grace_s),
    )


def stream_to_client(
    request: web.Request, plan: Plan, manner: Manner, declined: Declined
) -> Awaitable[web.StreamResponse]:
    """Runs a stream and relays it. `declined` answers with what the backend said instead of one.

    The 200 waits until the backend has answered or the commit delay is over, so that an early
    failure keeps its status. Cancelled (the client has gone), it leaves the stream to its policy.

    Raises:
        GatewayError: there is no room for the stream, or the backend failed before the 200.
    """
    services = request.app[SERVICES]
    plan = recorded(request, plan)
    lease = services.leases.acquire(request[IDENTITY].owner)
    stream = services.hub.start(plan, lease)
    if services.spans is not None:
        services.spans.began(stream, request[TRACE])
    hand_over(request)
    # Not a coroutine itself: each is memory for as long as the stream runs.
    return serve_from_start(request, stream, manner, declined)


async def serve_from_start(
    request: web.Request,
    stream: LiveStream,
    manner: Manner,
    declined: Declined,
    marks: Mapping[str, str] | None = None,
) -> web.StreamResponse:
    """Relays an attached stream that nobody has read, and leaves it; see `stream_to_client`.

    `marks` are headers that go with the stream's own.
    """
    services = request.app[SERVICES]
    delay_s = services.settings.commit_delay_ms / 1000
    try:
        opening = await await_opening(stream, max(0.0, delay_s - stream.duration_s))
        if opening.error is not None and not stream.is_committed:
            raise opening.error
        if opening.declined is not None:
            if not stream.is_typed:  # there it is an error, counted as such
                note_declined(request)
            return await declined(request, opening.declined)
        if stream.kept is not None:
            # What a client has heard of can be read after a crash.
            await wait_at_most(stream.kept, _STORE_WAIT_S)
        response, relaying = await begin_relay(
            request, stream, manner, passed=_passed(stream, opening, marks)
        )
        del opening
        await relaying
    except Unavailable as error:
        stop_unrecorded(request, stream, error)
        raise
    else:
        return response
    finally:
        services.hub.leave(stream)


def _passed(stream: LiveStream, opening: Opening, marks: Mapping[str, str] | None) -> Headers:
    passed = Headers() if stream.is_typed else returned_with_stream(opening.headers)
    passed.update(marks or {})
    return passed


async def await_opening(stream: LiveStream, delay_s: float) -> Opening:
    """The opening, or an empty one when the delay is over: then the stream is committed."""
    if delay_s:
        await wait_at_most(stream.opened, delay_s)
    if stream.opened.done():
        opening = stream.opened.result()
        if opening.error is None and opening.declined is None:
            stream.commit()
        return opening
    stream.commit()
    return Opening()


async def begin_relay(
    request: web.Request,
    stream: LiveStream,
    manner: Manner,
    *,
    seq: int = 0,
    first: bytes = b"",
    passed: Headers | None = None,
) -> tuple[web.StreamResponse, Awaitable[None]]:
    """Begins to answer with an attached stream from after event `seq`, `first` in front of it.

    The response, and what copies the stream to it, to be awaited at once: what it took to begin
    isn't held then. `passed` are the backend's headers that ride along; they are used up.

    Raises:
        Unavailable: `audit_unavailable`.
        ConnectionResetError: the client has gone.
    """
    services = request.app[SERVICES]
    hold_for(request, stream)
    await released(request)
    if request.transport is None:
        raise ConnectionResetError("the client has gone")
    headers = _stream_headers(stream, services.settings, passed or Headers())
    encoder = None
    if services.settings.stream_compression == "auto":
        headers["Vary"] = "Accept-Encoding"
        encoder = choose_encoder(request)
    if encoder is not None:
        headers["Content-Encoding"] = encoder.name
    response = EventStreamResponse(headers)
    writer = await response.prepare(request)
    note_opened(request)
    outlet = Outlet(request, response, writer, services.stalls, encoder)
    for written in (headers, response.headers):
        written.clear()  # the head is bytes by now; these are 3 KiB for as long as the stream runs
    let_go(request)
    if first:
        await outlet.write_frames(first)
    return response, services.hub.read(stream, outlet, interval_s=manner.interval_s, cursor=seq)


def _stream_headers(stream: LiveStream, settings: Settings, headers: Headers) -> Headers:
    headers["X-Stream-Id"] = stream.id
    headers["Location"] = f"{STREAMS_PATH}/{stream.id}"
    headers["X-Stream-Replay-Window"] = f"{settings.resume_ttl_seconds:g}"
    if stream.max_duration_s:
        headers["X-Stream-Max-Seconds"] = f"{stream.max_duration_s:g}"
    headers["X-Heartbeat-Interval"] = f"{settings.heartbeat_interval:g}"
    headers["X-Silence-Threshold"] = f"{settings.silence_threshold:g}"
    return headers


def _grace(value: str | None, default_s: float) -> float | None:
    if value is None:
        return default_s
    match = _ON_DISCONNECT.fullmatch(value.strip().lower())
    if match is None:
        raise BadRequest(
            "Say cancel, finish or grace=SECONDS.",
            code="invalid_header",
            param="X-Stream-On-Disconnect",
        )
    if match[1] is not None:
        return float(match[1])
    return 0.0 if match[0] == "cancel" else None
