"""The typed route: one question in, typed events out, whatever the backend speaks."""

from __future__ import annotations

from dataclasses import replace

import orjson
from aiohttp import hdrs, web

from gateway.errors import BadRequest, Forbidden, NotFound, UpstreamError
from gateway.identity import clean_value, rollout_key
from gateway.sse.dialects import DIALECTS
from gateway.sse.event import Prompt, Thread
from gateway.stream.answer import Answer
from gateway.stream.conversations import Conversation
from gateway.stream.live import Origin
from gateway.stream.model import StreamId
from gateway.stream.plan import Plan
from gateway.stream.wires.typed import TypedWire
from gateway.upstream.client import UpstreamRequest
from gateway.upstream.headers import Headers
from gateway.web.audited import QUESTION, Question
from gateway.web.forward import asking, credentialed, traced
from gateway.web.idempotency import begin_or_attach
from gateway.web.question import read_question
from gateway.web.services import IDENTITY, SERVICES, TRACE
from gateway.web.streaming import read_manner

_MAX_REFUSAL_BYTES = 64 * 1024
_MAX_REASON_CHARS = 300
_PASSED_ON = (hdrs.AUTHORIZATION, "X-Api-Key", "X-User-Id", "X-Connection-Id")


async def chat_stream(request: web.Request) -> web.StreamResponse:
    if request.method not in (hdrs.METH_GET, hdrs.METH_POST):
        raise web.HTTPMethodNotAllowed(request.method, (hdrs.METH_GET, hdrs.METH_POST))
    if not request.app[SERVICES].controls.is_streaming:
        raise _disabled()
    _refuse_cross_site_get(request)
    _check_names(request)
    manner = read_manner(request, request.app[SERVICES].settings.detach_grace_seconds)
    prompt, asked = await read_question(request)
    user_id = request.headers.get("X-User-Id")
    key = rollout_key(request[IDENTITY], user_id, prompt.user_email)
    if not request.app[SERVICES].controls.streams_for(key):
        raise _disabled()
    request[QUESTION] = Question(
        "chat",
        prompt.query,
        prompt.conversation_id,
        request.app[SERVICES].settings.upstream_model,
        prompt.user_email,
    )
    answering = begin_or_attach(
        request, _plan(request, prompt, asked, manner.grace_s), manner, _refused
    )
    del prompt, asked  # which this would hold as long as the answer runs, as it would a plan
    return await answering


def _plan(request: web.Request, prompt: Prompt, asked: bytes, grace_s: float | None) -> Plan:
    services, trace_id = request.app[SERVICES], request[TRACE].trace_id
    settings = services.settings
    dialect = DIALECTS[settings.upstream_dialect]
    cap_s = settings.stream_max_seconds

    conversation = _conversation(request, prompt)
    conversation_id = prompt.conversation_id

    def note_thread(thread: Thread) -> None:
        if conversation is not None:
            conversation.follow(thread.chat_id, thread.message_id)

    def make_wire(stream_id: StreamId) -> TypedWire:
        return TypedWire(
            dialect,
            stream_id=stream_id,
            trace_id=trace_id,
            conversation_id=conversation_id,
            max_duration_s=cap_s,
            on_thread=note_thread,
        )

    return Plan(
        origin=Origin(request[IDENTITY].owner, trace_id, "chat", prompt.conversation_id),
        dialect=dialect,
        make_wire=make_wire,
        ask=asking(services, _upstream_request(request, prompt), request[TRACE]),
        with_ids=True,
        grace_s=grace_s,
        fingerprint=asked,
        max_duration_s=cap_s,
    )


def _conversation(request: web.Request, prompt: Prompt) -> Conversation | None:
    if prompt.conversation_id is None:
        return None
    conversations = request.app[SERVICES].conversations
    return conversations.use(request[IDENTITY].owner, prompt.conversation_id)


def _upstream_request(request: web.Request, prompt: Prompt) -> UpstreamRequest:
    services = request.app[SERVICES]
    settings = services.settings
    dialect = DIALECTS[settings.upstream_dialect]
    conversation = _conversation(request, prompt)
    asked = replace(
        prompt,
        model=settings.upstream_model,
        max_tokens=settings.upstream_max_tokens or None,
        chat_id=conversation.chat_id if conversation else None,
        parent_id=conversation.parent_id if conversation else None,
    )
    headers = Headers(dialect.request_headers(None))
    headers["Accept-Encoding"] = "identity"
    for name in _PASSED_ON:
        if name in request.headers:
            headers[name] = request.headers[name]
    credentialed(headers, services, is_anthropic=dialect.name == "anthropic")
    return UpstreamRequest(
        hdrs.METH_POST,
        settings.upstream_chat_path or dialect.chat_path,
        traced(headers, request[TRACE]),
        dialect.request_body(asked),
    )


async def _refused(request: web.Request, answer: Answer) -> web.StreamResponse:
    """The backend's refusal with its own status; an answer that isn't a stream is its failure."""
    try:
        body = await _read_some(answer)
    finally:
        answer.close()
    retry_after = answer.headers.get(hdrs.RETRY_AFTER, "")
    if answer.status < 400:
        raise UpstreamError("The backend answered, but not with a stream.")
    raise UpstreamError(
        f"The backend answered with status {answer.status}{_reason(body)}.",
        status=answer.status,
        retry_after_s=float(retry_after) if retry_after.isdecimal() else None,
    )


async def _read_some(answer: Answer) -> bytes:
    body = b""
    while len(body) < _MAX_REFUSAL_BYTES and (chunk := await answer.read()):
        body += chunk
    return body


def _reason(body: bytes) -> str:
    """The backend's own words, in the shapes that backends use; for the client only."""
    try:
        data = orjson.loads(body)
    except orjson.JSONDecodeError:
        return ""
    for key in ("error", "detail", "message"):
        if isinstance(data, dict) and data.get(key):
            data = data[key]
    if isinstance(data, dict):
        data = data.get("message")
    return f": {data[:_MAX_REASON_CHARS].rstrip('. ')}" if isinstance(data, str) and data else ""


def _refuse_cross_site_get(request: web.Request) -> None:
    """A GET needs no preflight, so another site's page could spend this user's money with it."""
    if request.method != hdrs.METH_GET:
        return
    origin = request.headers.get(hdrs.ORIGIN)
    allowed = request.app[SERVICES].settings.allowed_origins
    is_own = origin is not None and origin.partition("://")[2] == request.headers.get(hdrs.HOST)
    if origin in allowed or is_own:
        return
    if origin is not None or request.headers.get("Sec-Fetch-Site") == "cross-site":
        raise Forbidden("This site may not ask from here.", code="cross_site_refused")


def _check_names(request: web.Request) -> None:
    for name in ("X-Connection-Id", "X-User-Id"):
        value = request.headers.get(name)
        if value and clean_value(value) is None:
            raise BadRequest("This header is malformed.", code="invalid_header", param=name)


def _disabled() -> NotFound:
    return NotFound("Streaming is disabled.", code="streaming_disabled")
