"""Turns every error that happens before a response has begun into its JSON answer."""

from __future__ import annotations

import logging

from aiohttp import hdrs, web

from gateway.errors import BadFraming, GatewayError, NotFound, Unauthorized
from gateway.web.audited import note_refusal
from gateway.web.connections import note_error
from gateway.web.response import error_response
from gateway.web.services import TRACE

logger = logging.getLogger("sluice.request")


def answer_to(request: web.Request, error: Exception) -> web.Response:
    """To be called where the error was caught, if it isn't that the client has gone."""
    match error:
        case GatewayError():
            return answer(request, error)
        case web.HTTPMethodNotAllowed():
            response = answer(
                request,
                # CONNECT changes what the rest of the connection means.
                BadFraming(
                    "This path doesn't take that method.", code="method_not_allowed", status=405
                ),
            )
            response.headers["Allow"] = error.headers["Allow"]
            return response
        case web.HTTPNotFound():
            return answer(request, NotFound("There is nothing at this path."))
        case _:
            trace_id = request[TRACE].trace_id
            logger.exception("request.failed", extra={"trace_id": trace_id})
            return answer(request, GatewayError("Something went wrong in the gateway."))


def answer(request: web.Request, error: GatewayError) -> web.Response:
    """The error as an answer, logged."""
    trace_id = request[TRACE].trace_id
    fields = {"trace_id": trace_id, "status": error.status, "code": error.code}
    logger.info("request.refused", extra=fields)
    note_error(request, error)
    note_refusal(request, error)
    response = error_response(error, path=request.path, trace_id=trace_id)
    if isinstance(error, Unauthorized):
        response.headers[hdrs.WWW_AUTHENTICATE] = "Bearer"
    has_unread_body = request.can_read_body and not request.content.at_eof()
    if has_unread_body or isinstance(error, BadFraming):
        response.force_close()  # rather than to read a body that nobody wants
    return response
