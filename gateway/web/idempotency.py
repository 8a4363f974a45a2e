"""Repeated requests: a key that a client gives twice attaches to the stream that it began.

draft-ietf-httpapi-idempotency-key-header-07, but a repeat that comes while the first still runs is
attached instead of refused: the SDKs would retry a 409 anyway, and this costs nothing.
"""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable
from dataclasses import replace

from aiohttp import hdrs, web

from gateway.errors import BadRequest, UpstreamError
from gateway.stream.live import LiveStream
from gateway.stream.plan import Claim, Plan
from gateway.web.audited import note_resume
from gateway.web.resume import attach, count_resume, read_cursor, resume_question
from gateway.web.services import IDENTITY, SERVICES
from gateway.web.streaming import (
    Declined,
    Manner,
    await_opening,
    serve_from_start,
    stream_to_client,
)

_MAX_KEY_CHARS = 255
_REPLAYED = {"Idempotent-Replayed": "true"}
_RETRY_COUNT = "X-Stainless-Retry-Count"
_ON_DISCONNECT = "X-Stream-On-Disconnect"
_CREDENTIALS = (hdrs.AUTHORIZATION, "X-Api-Key")


def begin_or_attach(
    request: web.Request, plan: Plan, manner: Manner, declined: Declined
) -> Awaitable[web.StreamResponse]:
    """Answers a question: with its stream where it has one already, else with a new one.

    Raises:
        GatewayError: the cursor or the key belong to another question, or see `stream_to_client`.
    """
    # Not a coroutine itself: each is memory for as long as the stream runs.
    cursor = read_cursor(request)
    if cursor is not None:
        return resume_question(request, cursor, plan.fingerprint, manner)
    claim = _read_claim(request)
    if retry_key := _retry_key(request, plan):
        plan = replace(plan, retry_key=retry_key)
    if claim is not None:
        return _begin_or_replay(request, replace(plan, claim=claim), claim, manner, declined)
    return _begin_or_take_over(request, plan, manner, declined)


async def _begin_or_replay(
    request: web.Request, plan: Plan, claim: Claim, manner: Manner, declined: Declined
) -> web.StreamResponse:
    repeated = await _find_repeated(request, claim, plan.fingerprint)
    if repeated is not None:
        return await _replay(request, repeated, manner)
    return await stream_to_client(request, plan, manner, declined)


def _begin_or_take_over(
    request: web.Request, plan: Plan, manner: Manner, declined: Declined
) -> Awaitable[web.StreamResponse]:
    """A new stream, unless an SDK asks again for the one that it has abandoned."""
    hub = request.app[SERVICES].hub
    stream = hub.take_abandoned(plan.retry_key) if _retry_count(request) else None
    if stream is None:
        return stream_to_client(request, plan, manner, declined)
    hub.attach(stream)
    count_resume(request, "replayed")
    note_resume(request, stream, 0)
    return serve_from_start(request, stream, manner, declined, _REPLAYED)


def _retry_count(request: web.Request) -> int | None:
    """How often an SDK has asked this before; None if it is none of those that tell."""
    value = request.headers.get(_RETRY_COUNT, "")
    return int(value) if value.isascii() and value.isdigit() and len(value) < 10 else None


def _retry_key(request: web.Request, plan: Plan) -> bytes:
    """The same for the same question of the same client; empty if the client won't ask again.

    The credential counts too: where the backend checks it, the owner is but an address.
    """
    is_cancelled = _ON_DISCONNECT in request.headers and plan.grace_s == 0
    if _retry_count(request) is None or is_cancelled:
        return b""
    credentials = [request.headers.get(name, "") for name in _CREDENTIALS]
    asked = repr((plan.origin.owner, *credentials)).encode("utf-8", "surrogatepass")
    return hashlib.sha256(plan.fingerprint + asked).digest()


def _read_claim(request: web.Request) -> Claim | None:
    """
    Raises:
        BadRequest: `invalid_header`.
    """
    key = request.headers.get("Idempotency-Key")
    if key is None:
        return None
    is_valid = 0 < len(key) <= _MAX_KEY_CHARS and key.isascii() and key.isprintable()
    if not is_valid:
        raise BadRequest(
            "A key has 1 to 255 printable ASCII characters.",
            code="invalid_header",
            param="Idempotency-Key",
        )
    return Claim(request[IDENTITY].owner, request.path, key)


async def _find_repeated(request: web.Request, claim: Claim, asked: bytes) -> LiveStream | None:
    """The stream that this claim has begun.

    Raises:
        BadRequest: `idempotency_mismatch`, the key was used for another question.
    """
    hub = request.app[SERVICES].hub
    # The second look is for those that asked while the first one was waiting for the store.
    stream = hub.claimed(claim) or await hub.recall_claimed(claim) or hub.claimed(claim)
    if stream is not None and stream.fingerprint != asked:
        raise BadRequest(
            "This key was used for another question.", code="idempotency_mismatch", status=422
        )
    return stream


async def _replay(request: web.Request, stream: LiveStream, manner: Manner) -> web.StreamResponse:
    """The whole stream again, and live from there on; the backend isn't asked.

    Raises:
        UpstreamError: the first attempt was refused by the backend.
    """
    services = request.app[SERVICES]
    services.hub.attach(stream)
    try:
        opening = await await_opening(stream, services.settings.commit_delay_ms / 1000)
        if opening.error is not None:
            raise opening.error
        if opening.declined is not None:
            raise UpstreamError("The backend refused.", status=opening.declined.status)
        return await attach(request, stream, 0, manner, _REPLAYED)
    finally:
        services.hub.leave(stream)
