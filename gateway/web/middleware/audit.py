"""Holds every response until what it answers is on record, and records how requests end."""

from __future__ import annotations

import asyncio
import time

from aiohttp import web
from aiohttp.typedefs import Handler

from gateway.audit.bundle import RECEIPT_HEADER
from gateway.audit.canonical import Json
from gateway.audit.event import OUTCOMES
from gateway.errors import Unavailable
from gateway.web.audited import GATES, OUTCOME, TICKET, StreamRecording
from gateway.web.middleware.errors import answer
from gateway.web.services import SERVICES


@web.middleware
async def audit(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Stands outside of `errors`: its answers are held too."""
    if request.app[SERVICES].recorder is None:
        return await handler(request)
    started = time.monotonic()
    try:
        response = await handler(request)
        if not response.prepared:
            response = await _held(request, response)
    except (asyncio.CancelledError, ConnectionError):
        _end(request, "client_gone", {}, started)
        raise
    held = _end(request, _outcome(request, response), _figures(response), started)
    if held is not None:
        await asyncio.wait({held})
    return response


async def hold_response(request: web.Request, response: web.StreamResponse) -> None:
    """A signal: before the first byte of any response, those included that begin in their handler.

    Raises:
        Unavailable: `audit_unavailable`.
    """
    gates = request.get(GATES)
    if not gates:
        return
    try:
        for gate in gates:
            await gate.durable()
    except Unavailable:
        gates.clear()  # the error that this becomes may go out
        ticket = request.get(TICKET)
        if ticket is not None and not ticket.is_handed_over:
            ticket.refuse()
        raise
    first = gates[0]
    receipt = first.ticket.receipt if isinstance(first, StreamRecording) else None
    if receipt is not None:
        response.headers[RECEIPT_HEADER] = str(receipt)


async def _held(request: web.Request, response: web.StreamResponse) -> web.StreamResponse:
    try:
        await hold_response(request, response)
    except Unavailable as error:
        return answer(request, error)
    return response


def _end(
    request: web.Request, outcome: str, figures: dict[str, Json], started: float
) -> asyncio.Future[None] | None:
    """Ends the record of a request that didn't become a stream."""
    ticket, recorder = request.get(TICKET), request.app[SERVICES].recorder
    if ticket is None or recorder is None or ticket.is_handed_over:
        return None
    took_ms = round((time.monotonic() - started) * 1000)
    return recorder.held(ticket.end(outcome, {**figures, "dur_ms": took_ms}))


def _figures(response: web.StreamResponse) -> dict[str, Json]:
    body = response.body if isinstance(response, web.Response) else None
    size = len(body) if isinstance(body, bytes | bytearray) else response.body_length
    return {"status": response.status, "bytes": size}


def _outcome(request: web.Request, response: web.StreamResponse) -> str:
    noted = request.get(OUTCOME)
    if noted is not None:
        return noted if noted in OUTCOMES else "refused"
    return "completed" if response.status < 400 else "upstream_error"
