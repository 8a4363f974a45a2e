"""The plain proxy: requests and answers pass as they are, streamed both ways, never buffered."""

from __future__ import annotations

from collections.abc import Awaitable, Mapping

from aiohttp import hdrs, web

from gateway.errors import BadRequest, UpstreamError
from gateway.stream.answer import Body
from gateway.upstream.client import UpstreamRequest
from gateway.upstream.headers import Headers, forwarded, returned
from gateway.web.audited import begin_proxied, note_outcome, released
from gateway.web.body import body_chunks
from gateway.web.forward import credentialed, traced
from gateway.web.middleware.limits import count
from gateway.web.outlet import Outlet
from gateway.web.services import SERVICES, TRACE


async def relay_request(request: web.Request) -> web.StreamResponse:
    """Passes a request to the backend and its answer back.

    Raises:
        TooManyRequests: `rate_limited`, if it wasn't counted before.
        UpstreamError: the backend can't be reached.
        BadRequest: `body_incomplete`, the client's own body broke off.
    """
    await begin_proxied(request)
    upstream_request = UpstreamRequest(request.method, request.raw_path, proxied_headers(request))
    if not request.can_read_body:
        return await send_to_backend(request, upstream_request)
    if request.content_length is not None:
        upstream_request.headers[hdrs.CONTENT_LENGTH] = str(request.content_length)
    upstream = request.app[SERVICES].upstream
    await count(request)
    try:
        return await _relay(request, upstream.upload(upstream_request, body_chunks(request)))
    except UpstreamError as error:
        if request.content.exception() is None:
            raise
        raise BadRequest("The body broke off.", code="body_incomplete") from error


async def send_to_backend(
    request: web.Request, upstream_request: UpstreamRequest
) -> web.StreamResponse:
    """Asks the backend and copies what it answers.

    Raises:
        TooManyRequests: `rate_limited`, if it wasn't counted before.
        UpstreamError: the backend can't be reached.
    """
    await count(request)
    return await _relay(request, request.app[SERVICES].upstream.ask(upstream_request))


async def _relay(request: web.Request, asking: Awaitable[Body]) -> web.StreamResponse:
    try:
        answer = await asking
    except UpstreamError as error:
        _note_failure(request, error)
        raise
    return await relay_answer(request, answer)


async def relay_answer(request: web.Request, answer: Body) -> web.StreamResponse:
    """Copies an answer to the client. What the backend breaks off, the client sees broken off.

    Cancelled (the client has gone), it closes the backend's connection.
    """
    response = web.StreamResponse(status=answer.status, headers=_returned_headers(answer))
    response.content_length = _content_length(answer.headers)
    try:
        await released(request)
        await _copy(request, response, answer)
    except ConnectionError:
        pass  # the client has gone, which is normal life
    finally:
        answer.close()
    return response


async def _copy(request: web.Request, response: web.StreamResponse, answer: Body) -> None:
    writer = await response.prepare(request)
    if writer is None:
        return
    outlet = Outlet(request, response, writer, request.app[SERVICES].stalls)
    try:
        outlet.begin()
        while chunk := await answer.read():
            await outlet.write_frames(chunk)
        await answer.finish()
    except UpstreamError as error:
        _note_failure(request, error)
        await outlet.flush()
        outlet.break_off()


def _note_failure(request: web.Request, error: UpstreamError) -> None:
    services = request.app[SERVICES]
    services.metrics.upstream_errors.labels(error.code).inc()
    services.faults.request_failed(request[TRACE].trace_id, error.code)
    note_outcome(request, error.code)


def proxied_headers(request: web.Request) -> Headers:
    """The headers that the backend gets of this request."""
    headers = traced(forwarded(request.headers), request[TRACE])
    is_anthropic = request.rel_url.raw_path.startswith("/v1/messages")
    return credentialed(headers, request.app[SERVICES], is_anthropic=is_anthropic)


def _returned_headers(answer: Body) -> Headers:
    headers = returned(answer.headers)
    headers.popall(hdrs.CONTENT_LENGTH, None)
    if headers.get(hdrs.CONTENT_TYPE, "").lower().startswith("text/event-stream"):
        headers["X-Accel-Buffering"] = "no"
    return headers


def _content_length(headers: Mapping[str, str]) -> int | None:
    value = headers.get(hdrs.CONTENT_LENGTH, "")
    return int(value) if value.isascii() and value.isdigit() else None
