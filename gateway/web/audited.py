"""What the routes and middlewares report for the audit log, and what they hold back for it.

A request has a ticket once it asks for an answer; whatever shows something of a stream holds its
response until that stream's beginning is on record. The holding itself is done in
`gateway.web.middleware.audit`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, replace

from aiohttp import web

from gateway.audit.bundle import Receipt
from gateway.audit.canonical import Json
from gateway.audit.recorder import Asked, Recorder, Ticket, Who
from gateway.errors import (
    BadFraming,
    Forbidden,
    GatewayError,
    TooManyRequests,
    Unauthorized,
    Unavailable,
)
from gateway.identity import client_address
from gateway.sse.dialects import provider_dialect
from gateway.stream.answer import Answer
from gateway.stream.live import LiveStream, Recording
from gateway.stream.model import error_ending, new_stream_id
from gateway.stream.plan import Plan
from gateway.web.controls import State
from gateway.web.routes import is_admin, is_generation, is_proxied_as_is, takes_link
from gateway.web.services import IDENTITY, SERVICES, Services

UNAVAILABLE = "audit_unavailable"
_REASONS = {
    "missing_credential": "missing",
    "invalid_authorization": "malformed",
    "invalid_api_key": "unknown_key",
    "invalid_token": "bad_signature",
    "token_expired": "expired",
    "invalid_admin_token": "admin_token",
    "rate_limited": "requests",
    "too_many_streams": "streams",
    "bad_host": "bad_host",
    "misdirected_request": "bad_host",
    "cross_site_refused": "cross_site",
    "invalid_link": "link",
    "link_expired": "link",
    "link_scope": "link",
}


@dataclass(frozen=True, slots=True)
class Question:
    """What a request asks, in clear: it goes no further than to the recorder."""

    route: str
    text: str | bytes | None = None
    conversation: str | None = None
    model: str | None = None
    email: str | None = None


QUESTION = web.RequestKey("question", Question)
TICKET = web.RequestKey("ticket", Ticket)
#: What the response waits for.
GATES = web.RequestKey("gates", list[Recording])
OUTCOME = web.RequestKey("outcome", str)


class StreamRecording:
    """The `Recording` of a stream."""

    def __init__(self, recorder: Recorder, ticket: Ticket) -> None:
        self._recorder = recorder
        self.ticket = ticket

    async def durable(self) -> None:
        await self.ticket.durable()

    def stream_ended(self, stream: LiveStream) -> asyncio.Future[None] | None:
        ending, usage, first_s = stream.ending, stream.wire.usage, stream.first_token_s
        fields: dict[str, Json] = {
            "dur_ms": round(stream.duration_s * 1000),
            "events": stream.wire.total_chunks,
            "terminal": ending is not None and not ending.is_error,
            "status": 200,
        }
        if first_s is not None:
            fields["ttft_ms"] = round(first_s * 1000)
        if usage.output_tokens is not None:
            fields |= {"tok_out": usage.output_tokens, "estimated": usage.estimated}
        if usage.input_tokens is not None:
            fields["tok_in"] = usage.input_tokens
        reason = ending.reason if ending is not None else "unknown"
        return self._recorder.held(self.ticket.end(reason, fields))


def who(request: web.Request, email: str | None = None) -> Who:
    """Who asks, as far as that is known by now."""
    settings = request.app[SERVICES].settings
    identity = request.get(IDENTITY)
    if identity is None:
        address = _address(request)
        return Who(f"addr:{address}", "none", address)
    auth = "none"
    if identity.subject is not None:
        auth = settings.auth_mode
        email = email or (identity.subject if "@" in identity.subject else None)
    elif is_admin(request):
        auth = "admin"
    elif takes_link(request):
        auth = "link"
    elif identity.kind == "user":
        auth = "proxy"
    return Who(identity.owner, auth, identity.address, email)


async def begin(request: web.Request, *, stream_id: str | None = None) -> Ticket | None:
    """Records the request's question, once; with `dispatch` it returns only when that is durable.

    Raises:
        Unavailable: `audit_unavailable`.
    """
    ticket = _begin(request, stream_id)
    recorder = request.app[SERVICES].recorder
    if ticket is not None and recorder is not None and recorder.holds_dispatch:
        await ticket.durable()
    return ticket


async def begin_proxied(request: web.Request) -> None:
    """A request whose body isn't read here: if it asks for an answer, or if all are recorded."""
    services = request.app[SERVICES]
    settings = services.settings
    is_asking = services.controls.is_streaming and is_generation(request)
    if QUESTION not in request and (is_asking or settings.audit_proxied):
        request[QUESTION] = Question(request.path if is_asking else "proxied")
        await begin(request)


def recorded(request: web.Request, plan: Plan) -> Plan:
    """The plan of a stream that is on record, or will be.

    Raises:
        Unavailable: `audit_unavailable`: the log is known to be away.
    """
    recorder = request.app[SERVICES].recorder
    stream_id = new_stream_id()
    ticket = _begin(request, stream_id)
    if recorder is None or ticket is None:
        return plan
    ask = plan.ask

    async def ask_recorded() -> Answer:
        try:
            await ticket.durable()
        except Unavailable:
            ticket.refuse()  # before the stream ends, for which this would be the backend's failure
            raise
        return await ask()

    return replace(
        plan,
        stream_id=stream_id,
        recording=StreamRecording(recorder, ticket),
        ask=ask_recorded if recorder.holds_dispatch else ask,
    )


def hand_over(request: web.Request) -> None:
    """From now on the stream ends the record, not the request."""
    if (ticket := request.get(TICKET)) is not None:
        ticket.is_handed_over = True


def hold_for(request: web.Request, stream: LiveStream) -> None:
    """The response waits until the stream's beginning is durable."""
    if stream.recording is not None:
        gates = request.get(GATES)
        if gates is None:
            gates = request[GATES] = []
        if stream.recording not in gates:
            gates.append(stream.recording)


async def released(request: web.Request) -> None:
    """Returns when the response may begin. To be awaited before it is prepared.

    Raises:
        Unavailable: `audit_unavailable`; the error that this becomes may go out.
    """
    gates = request.get(GATES, [])
    try:
        for gate in gates:
            await gate.durable()
    except Unavailable:
        gates.clear()
        ticket = request.get(TICKET)
        if ticket is not None and not ticket.is_handed_over:
            ticket.refuse()
        raise


def receipt_of(request: web.Request) -> Receipt | None:
    """The record of what is answered, if it is durable."""
    for gate in request.get(GATES, []):
        if isinstance(gate, StreamRecording):
            return gate.ticket.receipt
    return None


def stop_unrecorded(request: web.Request, stream: LiveStream, error: Unavailable) -> None:
    """Ends a stream that couldn't be recorded in time; nobody has seen anything of it."""
    ticket = request.get(TICKET)
    if error.code != UNAVAILABLE or ticket is None:
        return
    stream.is_unrecorded = True
    ticket.refuse()
    ending = error_ending("interrupted").because("The request can't be recorded now.")
    request.app[SERVICES].hub.stop(stream, ending)


def note_outcome(request: web.Request, outcome: str) -> None:
    """How a request that isn't a stream has ended, if not well."""
    request[OUTCOME] = outcome


def note_login(request: web.Request) -> None:
    recorder = request.app[SERVICES].recorder
    if recorder is not None and request[IDENTITY].subject is not None:
        recorder.login(who(request), route(request))


def note_stop(request: web.Request, stream: LiveStream) -> None:
    if (recorder := request.app[SERVICES].recorder) is not None:
        by = "admin" if is_admin(request) else "holder" if takes_link(request) else "owner"
        recorder.stopped(who(request), route(request), stream.id, by)


def note_resume(request: web.Request, stream: LiveStream, after: int) -> None:
    if (recorder := request.app[SERVICES].recorder) is not None:
        recorder.resumed(who(request), route(request), stream.id, after)


def note_link(request: web.Request) -> None:
    if (recorder := request.app[SERVICES].recorder) is not None:
        recorder.linked(who(request))


def note_controls(request: web.Request, state: State) -> None:
    """An operator has changed how the gateway works."""
    if (recorder := request.app[SERVICES].recorder) is not None:
        recorder.configured(
            {
                "streaming": state.streaming_enabled,
                "rollout_bp": round(state.rollout_percent * 100),
                "mode": state.performance_mode,
                "debug": state.debug,
                "emergency": state.emergency,
            }
        )


def note_refusal(request: web.Request, error: GatewayError) -> None:
    """A request is answered with an error: which of them the log wants to know."""
    note_outcome(request, error.code)
    reason = _REASONS.get(error.code, "other")
    match error:
        case Unauthorized():
            note_violation(request, "security.auth_failed", reason, error.status)
        case TooManyRequests():
            note_violation(request, "security.rate_limited", reason, error.status)
        case Forbidden() if reason == "cross_site":
            note_violation(request, "security.origin_denied", reason, error.status)
        case Forbidden():
            note_violation(request, "security.forbidden", reason, error.status)
        case BadFraming():
            reason = reason if reason != "other" else "bad_framing"
            note_violation(request, "security.smuggling", reason, error.status)


def note_malformed(services: Services, request: web.BaseRequest, error: GatewayError) -> None:
    """What isn't HTTP is refused by the parser, before there is a route or a header to believe."""
    if services.recorder is None:
        return
    address = client_address(_peer(request), [], ())
    fields: dict[str, Json] = {"status": error.status, "route": "other"}
    someone = Who(f"addr:{address}", "none", address)
    services.recorder.violated("security.smuggling", "bad_framing", someone, fields)


def note_violation(request: web.Request, type_: str, reason: str, status: int) -> None:
    if (recorder := request.app[SERVICES].recorder) is not None:
        fields: Mapping[str, Json] = {"status": status, "route": route(request)}
        recorder.violated(type_, reason, who(request), fields)


def route(request: web.Request) -> str:
    """The route in a word of the log's; never a path that somebody made up."""
    name = request.match_info.route.name or ""
    if name.startswith("chat."):
        return "chat"
    if name.startswith("streams."):
        return "stream"
    if name == "provider" and provider_dialect(request.rel_url.raw_path) is not None:
        return request.path
    return "proxied" if is_proxied_as_is(request) or name == "provider" else "other"


def _begin(request: web.Request, stream_id: str | None) -> Ticket | None:
    recorder, question = request.app[SERVICES].recorder, request.get(QUESTION)
    if question is None:
        return None
    request[QUESTION] = Question(question.route)  # its text isn't held while the answer runs
    if recorder is None:
        return None
    ticket = recorder.begin(
        Asked(
            who(request, question.email),
            question.route,
            question.text,
            question.conversation,
            question.model,
            stream=stream_id,
            is_streaming=stream_id is not None,
        )
    )
    request[TICKET] = ticket
    gates: list[Recording] = [StreamRecording(recorder, ticket)]
    request[GATES] = gates
    return ticket


def _address(request: web.Request) -> str:
    trusted = request.app[SERVICES].settings.trusted_proxies
    forwarded = request.headers.getall("X-Forwarded-For", [])
    return client_address(_peer(request), forwarded, trusted)


def _peer(request: web.BaseRequest) -> str | None:
    name = request.transport.get_extra_info("peername") if request.transport else None
    return name[0] if isinstance(name, tuple) else None
