"""The backend's side of the gateway: one HTTP session, requests rebuilt, answers read as bytes.

Redirects are not followed, cookies not kept, bodies not decompressed, and the address always comes
from the settings. Every failure leaves here as an `UpstreamError`.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable
from dataclasses import dataclass
from types import SimpleNamespace

import aiohttp
from aiohttp import hdrs
from multidict import CIMultiDictProxy
from yarl import URL

from gateway.errors import UpstreamError
from gateway.upstream.headers import Headers

#: Under the 5 s after which many servers close an idle connection, since a POST on a connection
#: that the backend just closed can't always be repeated.
_POOL_KEEPALIVE_S = 4
#: One read. aiohttp pauses the transport at twice this, so a paused stream holds at most 64 KiB
#: here and what the event loop's last receive brought on top, another 256 KiB.
_READ_BYTES = 32 * 1024
#: How long the end of a body is waited for whose content is complete, to reuse the connection.
_LINGER_S = 0.25
_SWITCHING_PROTOCOLS = 101


@dataclass(frozen=True, slots=True)
class UpstreamRequest:
    """`target` is the raw path and query; a `body` of bytes can be sent again, an iterable not."""

    method: str
    target: str
    headers: Headers
    body: bytes | AsyncIterable[bytes] | None = None


class UpstreamAnswer:
    """Status, headers and, piece by piece, the body of the backend's answer."""

    def __init__(self, response: aiohttp.ClientResponse) -> None:
        self._response = response
        self.status = response.status
        self.reason = response.reason
        self.headers: CIMultiDictProxy[str] = response.headers
        self._closed: asyncio.Future[None] | None = None
        if hdrs.TRANSFER_ENCODING in response.headers:
            self._watch_connection()

    async def read(self) -> bytes:
        """The next bytes, as they come, at most 32 KiB; empty at the end of the body.

        Raises:
            UpstreamError: `upstream_truncated`, the connection broke off.
        """
        content = self._response.content
        try:
            chunk = await content.read(_READ_BYTES)
            if not chunk and (error := content.exception()) is not None:
                raise error
        except (aiohttp.ClientError, OSError) as error:
            raise UpstreamError(
                "The backend's connection broke off.", code="upstream_truncated"
            ) from error
        return chunk

    async def finish(self) -> None:
        """Gives the connection back to the pool if the body ends within 250 ms, else closes it.

        What still comes is dropped: the answer was complete by its content.
        """
        try:
            async with asyncio.timeout(_LINGER_S):
                while await self.read():
                    pass
        except (TimeoutError, UpstreamError):
            self.close()
        else:
            self._forget_connection()
            self._response.release()

    def close(self) -> None:
        """Closes the connection, so that the backend sees that nobody listens. Idempotent."""
        self._forget_connection()
        self._response.close()

    def _watch_connection(self) -> None:
        """aiohttp 3.14.5 tells nobody who reads a body when its chunks turn out to be malformed;
        it only closes the connection."""
        self._closed = _closed(self._response)
        if self._closed is not None:
            self._closed.add_done_callback(self._connection_closed)
        else:
            self._break_off()

    def _forget_connection(self) -> None:
        if self._closed is not None:
            self._closed.remove_done_callback(self._connection_closed)

    def _connection_closed(self, closed: asyncio.Future[None]) -> None:
        if not closed.cancelled():
            closed.exception()  # or asyncio complains that nobody looked
        self._break_off()

    def _break_off(self) -> None:
        content = self._response.content
        if content.is_eof():
            return
        if content.exception() is None:
            content.set_exception(aiohttp.ClientPayloadError("the connection was closed"))
        content.feed_eof()  # for a reader that a piece has just woken: it would wait again


def _closed(response: aiohttp.ClientResponse) -> asyncio.Future[None] | None:
    """What tells that the connection was closed; None if it was, or has been given back."""
    connection = response.connection
    return None if connection is None or connection.protocol is None else connection.protocol.closed


class UpstreamClient:
    """The one backend of this gateway.

    Args:
        base_url: Without a trailing slash; a trailing `/v1` is dropped, since paths carry it.
        connect_s: Clock for connecting; 0 is none.
    """

    def __init__(self, base_url: str, *, connect_s: float) -> None:
        self.base_url = base_url.removesuffix("/v1")
        self._connect_s = connect_s or None
        self._session: aiohttp.ClientSession | None = None

    async def start(self) -> None:
        trace = aiohttp.TraceConfig()
        trace.on_connection_reuseconn.append(_note_reuse)
        self._session = aiohttp.ClientSession(
            # The hub's clocks end a stream; aiohttp's default would cut each at five minutes.
            timeout=aiohttp.ClientTimeout(
                total=None, connect=None, sock_connect=self._connect_s, sock_read=None
            ),
            connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=_POOL_KEEPALIVE_S),
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            trust_env=False,
            read_bufsize=_READ_BYTES,
            skip_auto_headers=("User-Agent", "Accept", "Content-Type"),
            trace_configs=[trace],
        )

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()

    async def ask(self, request: UpstreamRequest) -> UpstreamAnswer:
        """Sends a request and waits for the head of the answer; cancelled, closes the connection.

        A body of bytes is sent once more if a pooled connection turned out to be closed and
        nothing had come back on it.

        Raises:
            UpstreamError: `upstream_unavailable` or `upstream_timeout`.
        """
        try:
            return await self._send(request)
        except _StaleConnectionError:
            return await self._send(request)

    async def probe(self) -> None:
        """Connects to the backend and asks nothing of it but its head.

        Raises:
            UpstreamError: it can't be reached.
        """
        (await self.ask(UpstreamRequest("HEAD", "/", Headers()))).close()

    async def _send(self, request: UpstreamRequest) -> UpstreamAnswer:
        if self._session is None:
            raise RuntimeError("the client isn't started")
        context = SimpleNamespace(is_reused=False)
        try:
            response = await self._session.request(
                request.method,
                URL(self.base_url + request.target, encoded=True),
                headers=request.headers,
                data=request.body,
                allow_redirects=False,
                trace_request_ctx=context,
            )
        except aiohttp.ServerTimeoutError as error:
            raise UpstreamError(
                "The backend took too long to connect.", code="upstream_timeout", status=504
            ) from error
        except (aiohttp.ClientError, OSError) as error:
            if context.is_reused and _can_repeat(request, error):
                raise _StaleConnectionError from error
            raise _translated(error) from error
        if response.status == _SWITCHING_PROTOCOLS:  # never asked for: upgrades aren't passed on
            response.close()
            raise UpstreamError("The backend's answer isn't valid HTTP.", code="upstream_error")
        return UpstreamAnswer(response)


class _StaleConnectionError(Exception):
    """A pooled connection was closed before anything came back on it."""


def _can_repeat(request: UpstreamRequest, error: Exception) -> bool:
    if not isinstance(request.body, bytes | None):
        return False
    if isinstance(error, aiohttp.ServerDisconnectedError):
        return isinstance(error.message, str)  # else it is the part of a head that had come
    return isinstance(error, aiohttp.ClientOSError)


def _translated(error: Exception) -> UpstreamError:
    if isinstance(error, aiohttp.ClientResponseError):
        return UpstreamError("The backend's answer isn't valid HTTP.", code="upstream_error")
    if isinstance(error, aiohttp.ServerDisconnectedError):
        return UpstreamError("The backend closed the connection.", code="upstream_unavailable")
    return UpstreamError("The backend can't be reached.", code="upstream_unavailable")


async def _note_reuse(
    session: aiohttp.ClientSession,
    context: SimpleNamespace,
    params: aiohttp.TraceConnectionReuseconnParams,
) -> None:
    context.trace_request_ctx.is_reused = True
