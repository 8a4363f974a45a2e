"""Holds every response until what it answers is on record, and records how requests end."""

from __future__ import annotations

import asyncio
import time

from aiohttp import web

from gateway.audit.bundle import RECEIPT_HEADER
from gateway.audit.canonical import Json
from gateway.audit.event import OUTCOMES
from gateway.errors import Unavailable
from gateway.web.audited import OUTCOME, TICKET, receipt_of, released
from gateway.web.middleware.errors import answer
from gateway.web.services import SERVICES


async def held(request: web.Request, response: web.StreamResponse) -> web.StreamResponse:
    """The response that may begin: this one once its request is on record, or an error's."""
    try:
        await released(request)
    except Unavailable as error:
        return answer(request, error)
    return response


def ended(
    request: web.Request, response: web.StreamResponse, started: float
) -> asyncio.Future[None] | None:
    """Records how a request was answered; what its end has to wait for, if for anything."""
    if request.get(TICKET) is None:
        return None
    return _end(request, _outcome(request, response), _figures(response), started)


def note_client_gone(request: web.Request, started: float) -> None:
    _end(request, "client_gone", {}, started)


async def hold_response(request: web.Request, response: web.StreamResponse) -> None:
    """A signal: before the first byte of any response. Who begins one in their handler has waited
    by then; for who hasn't, it is too late for another answer.

    Raises:
        ConnectionResetError: it can't be recorded; the connection is closed, without a byte.
    """
    try:
        await released(request)
    except Unavailable as error:
        if request.transport is not None:
            request.transport.abort()
        raise ConnectionResetError("the request couldn't be recorded") from error
    receipt = receipt_of(request)
    if receipt is not None:
        response.headers[RECEIPT_HEADER] = str(receipt)


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
