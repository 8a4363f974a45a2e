"""The backend's side of the gateway: one HTTP session, requests rebuilt, answers read as bytes.

Redirects are not followed, cookies not kept, bodies not decompressed, and the address always comes
from the settings. Every failure leaves here as an `UpstreamError`.
"""

from __future__ import annotations

from collections.abc import AsyncIterable
from contextlib import suppress
from dataclasses import dataclass
from http import HTTPStatus

import aiohttp
from aiohttp.http import HttpProcessingError
from multidict import CIMultiDictProxy
from yarl import URL

from gateway.errors import UpstreamError
from gateway.upstream.connection import READ_BYTES, make_connector
from gateway.upstream.exchange import Asker, Exchange, StaleConnectionError, read_body
from gateway.upstream.headers import Headers

#: Under the 5 s after which many servers close an idle connection, since a POST on a connection
#: that the backend just closed can't always be repeated.
_POOL_KEEPALIVE_S = 4
_FAILURES = (aiohttp.ClientError, HttpProcessingError, OSError)


@dataclass(frozen=True, slots=True)
class UpstreamRequest:
    """`target` is the raw path and query."""

    method: str
    target: str
    headers: Headers
    body: bytes | None = None


class SessionAnswer:
    """The answer to a request whose body was streamed, or that had none."""

    def __init__(self, response: aiohttp.ClientResponse) -> None:
        self._response = response
        self.status = response.status
        self.reason = response.reason
        self.headers: CIMultiDictProxy[str] = response.headers

    async def read(self) -> bytes:
        """The next bytes, as they come, at most 32 KiB; empty at the end of the body.

        Raises:
            UpstreamError: `upstream_truncated`, the connection broke off.
        """
        return await read_body(self._response.content)

    async def finish(self) -> None:
        """Gives the connection back to the pool; the body must be read to its end."""
        self._response.release()

    def close(self) -> None:
        """Closes the connection, so that the backend sees that nobody listens. Idempotent."""
        self._response.close()


class UpstreamClient:
    """The one backend of this gateway.

    Args:
        base_url: Without a trailing slash; a trailing `/v1` is dropped, since paths carry it.
        connect_s: Clock for connecting; 0 is none.
        spares: How many connections are opened ahead, while questions come.
    """

    def __init__(self, base_url: str, *, connect_s: float, spares: int = 0) -> None:
        self.base_url = base_url.removesuffix("/v1")
        self._connect_s = connect_s or None
        self._spares = spares
        self._session: aiohttp.ClientSession | None = None
        self._asker: Asker | None = None

    async def start(self) -> None:
        connector = make_connector(_POOL_KEEPALIVE_S)
        self._session = aiohttp.ClientSession(
            # The hub's clocks end a stream; aiohttp's default would cut each at five minutes.
            timeout=aiohttp.ClientTimeout(
                total=None, connect=None, sock_connect=self._connect_s, sock_read=None
            ),
            connector=connector,
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            trust_env=False,
            read_bufsize=READ_BYTES,
            skip_auto_headers=("User-Agent", "Accept", "Content-Type"),
        )
        self._asker = Asker(
            self.base_url,
            self._session,
            connector,
            connect_s=self._connect_s,
            spares=self._spares,
        )

    async def close(self) -> None:
        if self._asker is not None:
            await self._asker.close()
        if self._session is not None:
            await self._session.close()

    async def ask(self, request: UpstreamRequest) -> Exchange:
        """Sends a request and waits for the head of the answer; cancelled, closes the connection.

        It is sent again if a pooled connection turned out to be closed and nothing had come back on
        it, as long as there are such.

        Raises:
            UpstreamError: `upstream_unavailable` or `upstream_timeout`.
        """
        while True:
            with suppress(StaleConnectionError):  # it has left the pool, which has an end
                return await self._send(request)

    async def upload(self, request: UpstreamRequest, body: AsyncIterable[bytes]) -> SessionAnswer:
        """Sends a request with a body that comes piece by piece; never twice.

        Raises:
            UpstreamError: `upstream_unavailable` or `upstream_timeout`.
        """
        if self._session is None:
            raise RuntimeError("the client isn't started")
        try:
            response = await self._session.request(
                request.method,
                URL(self.base_url + request.target, encoded=True),
                headers=request.headers,
                data=body,
                allow_redirects=False,
            )
        except _FAILURES as error:
            raise _translated(error) from error
        answer = SessionAnswer(response)
        _refuse_upgrade(answer)
        return answer

    async def probe(self) -> None:
        """Connects to the backend and asks nothing of it but its head.

        Raises:
            UpstreamError: it can't be reached.
        """
        (await self.ask(UpstreamRequest("HEAD", "/", Headers()))).close()

    async def _send(self, request: UpstreamRequest) -> Exchange:
        if self._asker is None:
            raise RuntimeError("the client isn't started")
        try:
            answer = await self._asker.ask(
                request.method, request.target, request.headers, request.body
            )
        except _FAILURES as error:
            raise _translated(error) from error
        _refuse_upgrade(answer)
        return answer


def _refuse_upgrade(answer: Exchange | SessionAnswer) -> None:
    """Upgrades are never asked for."""
    if answer.status == HTTPStatus.SWITCHING_PROTOCOLS:
        answer.close()
        raise UpstreamError("The backend's answer isn't valid HTTP.", code="upstream_error")


def _translated(error: Exception) -> UpstreamError:
    match error:
        case TimeoutError():
            return UpstreamError(
                "The backend took too long to connect.", code="upstream_timeout", status=504
            )
        case aiohttp.ClientResponseError() | HttpProcessingError():
            return UpstreamError("The backend's answer isn't valid HTTP.", code="upstream_error")
        case aiohttp.ServerDisconnectedError():
            message = "The backend closed the connection."
        case _:
            message = "The backend can't be reached."
    return UpstreamError(message, code="upstream_unavailable")
