"""Speaking HTTP with one client: aiohttp's protocol, and a short way from its parser to the routes.

aiohttp makes a task and two coroutines more for each request: a KiB for as long as a stream runs,
and two of the event loop's turns. docs/load.md. What it does with what its parser refuses, and what
its parser keeps, is different here too.
"""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress
from http import HTTPStatus

from aiohttp import StreamReader, hdrs, web
from aiohttp.http import StreamWriter
from aiohttp.typedefs import Handler
from aiohttp.web_protocol import ERROR, _ErrInfo

from gateway.errors import BadRequest, GatewayError
from gateway.heads import forget_head
from gateway.queues import ShortQueue
from gateway.telemetry.trace import accept
from gateway.web.audited import note_malformed
from gateway.web.middleware.passage import passage
from gateway.web.response import error_response
from gateway.web.services import SERVICES

logger = logging.getLogger("sluice.request")

#: How long what a client still sends is read after its answer.
_LINGER_S = 10.0
_BODY_IS_OVER = web.PayloadAccessError()


class Server(web.Server):
    """Makes a `ClientProtocol` for each connection."""

    app: web.Application

    def __call__(self) -> web.RequestHandler:
        handler = ClientProtocol(self, loop=self._loop, **self._kwargs)
        handler._messages = ShortQueue()  # type: ignore[assignment]  # noqa: SLF001
        return handler


class ClientProtocol(web.RequestHandler):
    """One connection."""

    __slots__ = ()
    _manager: Server | None

    async def start(self) -> None:
        """Answers one request after the other, for as long as the connection is kept.

        It differs from aiohttp's in that the handler runs in this very task, which is cancelled
        when the client goes, and in what is left out: access log and legacy middlewares.
        """
        server, is_kept = self._manager, True
        while server is not None and is_kept and not self._force_close:
            if not self._messages:
                await self._arrived()
            request, response = self._next(server)
            is_kept = False
            try:
                if response is None:
                    response = await passage(request, await _route(server.app, request))
                is_kept = await self._finish(request, response)
            except ConnectionError:
                pass  # the client has gone
            except asyncio.CancelledError:
                self.force_close()
                raise
            except Exception as error:
                await self._fail(request, error)
            finally:
                self._leave(request)
            del request, response
        if not self._force_close:
            self._task_handler = None
            if self.transport is not None:
                self.transport.close()

    async def _arrived(self) -> None:
        self._waiter = self._loop.create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None

    def _next(self, server: Server) -> tuple[web.Request, web.StreamResponse | None]:
        """The next request, and its answer if it isn't HTTP."""
        message, body = self._messages.popleft()
        if self._parser is not None:
            self._parser.message_consumed()
        if self._buffer_paused and len(self._messages) <= self._msg_queue_resume_size:
            self._resume_reading_if_drained()
        server.requests_count += 1
        refused = message if isinstance(message, _ErrInfo) else None
        request = server.app._make_request(  # noqa: SLF001
            ERROR if isinstance(message, _ErrInfo) else message,
            body,
            self,
            StreamWriter(self, self._loop),
            self._task_handler or asyncio.current_task(),  # type: ignore[arg-type]
        )
        self._current_request, self._request_in_progress = request, True
        if refused is None:
            return request, None
        return request, self.handle_error(request, refused.status, refused.exc, refused.message)

    async def _finish(self, request: web.Request, response: web.StreamResponse) -> bool:
        """Sends what is left of an answer, and takes what is left of its question; whether the
        connection is kept.

        Raises:
            ConnectionError: the client has gone.
        """
        if request.writer.output_size and not response.prepared:
            return False  # the answer that had begun can't become this one
        _, is_reset = await self.finish_response(request, response, None)
        if is_reset:
            return False
        body = request.content
        if not body.is_eof():
            await self._linger(body)
        body.set_exception(_BODY_IS_OVER)
        self._keepalive = bool(response.keep_alive)
        if not self._keepalive or self._close or self._force_close:
            return False
        self._next_keepalive_close_time = self._loop.time() + self._keepalive_timeout
        if self._keepalive_handle is None:
            self._keepalive_handle = self._loop.call_at(
                self._next_keepalive_close_time, self._process_keepalive
            )
        return True

    async def _fail(self, request: web.Request, error: Exception) -> None:
        with suppress(ConnectionError):
            await self._finish(request, self.handle_error(request, 500, error))

    def _leave(self, request: web.Request) -> None:
        self._current_request, self._request_in_progress = None, False
        request._task = None  # type: ignore[assignment]  # noqa: SLF001 - it is a cycle
        if self._handler_waiter is not None:
            self._handler_waiter.set_result(None)

    async def _linger(self, body: StreamReader) -> None:
        """Reads on for a while: who still sends doesn't see the answer if the connection closes."""
        try:
            async with asyncio.timeout(_LINGER_S):
                while not body.is_eof() and not self._force_close:
                    await body.readany()
        except (TimeoutError, web.RequestPayloadError):
            pass
        if not body.is_eof() and not self._force_close:
            self.close()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if not self._messages:
            return
        message, body = self._messages[-1]
        if isinstance(message, _ErrInfo):
            self._fail_open_body()
        elif message.raw_headers:
            forget_head(self._parser, message.raw_headers)
            self._messages[-1] = message._replace(raw_headers=()), body

    def _fail_open_body(self) -> None:
        """Fails the body in which the HTTP goes wrong.

        aiohttp 3.14.5 only queues an answer for after it, and whoever reads the body waits for
        ever. The connection is closed after the reader's own answer.
        """
        bodies = [body for message, body in self._messages if not isinstance(message, _ErrInfo)]
        if self._current_request is not None:
            bodies.append(self._current_request.content)
        for body in bodies:
            if not body.is_eof():
                body.set_exception(web.RequestPayloadError("malformed"))
                body.feed_eof()
                self._messages.pop()
                self.close()
                return

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """Answers what the parser refused, without quoting it as aiohttp would."""
        trace_id = accept(None, None).trace_id
        error: GatewayError
        if status < HTTPStatus.INTERNAL_SERVER_ERROR:
            error = BadRequest("The request isn't valid HTTP.", code="bad_http", status=status)
        else:
            error = GatewayError("Something went wrong in the gateway.")
            logger.error("request.failed", exc_info=exc, extra={"trace_id": trace_id})
        if request.writer.output_size > 0:
            raise ConnectionError("the response has begun")
        fields = {"trace_id": trace_id, "status": error.status, "code": error.code}
        logger.info("request.refused", extra=fields)
        if isinstance(error, BadRequest) and self._manager is not None:
            note_malformed(self._manager.app[SERVICES], request, error)
        response = error_response(error, path="", trace_id=trace_id)
        response.headers["X-Trace-ID"] = trace_id
        response.force_close()
        return response


async def _route(app: web.Application, request: web.Request) -> Handler:
    """What aiohttp's application does before it calls a handler."""
    found = await app.router.resolve(request)
    found.add_app(app)
    found.freeze()
    request._match_info = found  # noqa: SLF001
    if hdrs.EXPECT in request.headers:
        await found.expect_handler(request)
        await request.writer.drain()
    return found.handler
