"""One request whose body is in memory or empty, and its answer, on a connection of the pool.

What aiohttp's session does besides (cookies, redirects, hooks, a task for the body, its own copies
of the headers) is a third of the cost of a short stream and nothing that a generation needs. Pool,
TLS, name resolution and the HTTP parser are aiohttp's own.
"""

from __future__ import annotations

import asyncio
from http import HTTPStatus
from typing import Protocol

import aiohttp
from aiohttp import hdrs
from aiohttp.connector import Connection
from aiohttp.http import HttpProcessingError, RawResponseMessage, StreamWriter
from multidict import CIMultiDictProxy
from yarl import URL

from gateway.errors import UpstreamError
from gateway.heads import NO_HEADERS
from gateway.upstream.connection import (
    READ_BYTES,
    FollowedBody,
    UpstreamConnection,
    make_followed,
)
from gateway.upstream.headers import Headers
from gateway.upstream.spares import Spares

#: How long the end of a body is waited for whose content is complete, to reuse the connection.
LINGER_S = 0.25
#: What is fed at once; a log may be so much over its bound. Twice as much doesn't stay in the
#: processor's caches until all is done with it, and half as much costs more calls (docs/load.md).
FEED_BYTES = 48 * 1024


class Follower(Protocol):
    """Takes an answer's bytes in the step in which they arrive."""

    def feed(self, chunk: bytes) -> None: ...

    def feed_many(self, chunks: list[bytes], joined: bytes) -> None:
        """The same for several, and these joined; each is one of HTTP's, so that it may be
        something whole."""
        ...

    def feed_end(self, error: UpstreamError | None) -> None: ...


class StaleConnectionError(Exception):
    """A pooled connection was closed before anything came back on it."""


class Exchange:
    """The answer to one request: its head, and its body to be read or to be followed."""

    __slots__ = (
        "_connection",
        "_follower",
        "_is_paused",
        "_is_taking",
        "_payload",
        "_protocol",
        "headers",
        "reason",
        "status",
    )

    def __init__(
        self,
        connection: Connection,
        protocol: UpstreamConnection,
        head: RawResponseMessage,
        payload: aiohttp.StreamReader,
    ) -> None:
        self._connection = connection
        self._protocol = protocol
        self._payload = payload
        self._follower: Follower | None = None
        self._is_paused = False
        self._is_taking = False
        self.status = head.code
        self.reason = head.reason
        self.headers: CIMultiDictProxy[str] = head.headers

    async def read(self) -> bytes:
        """The next bytes, as they come, at most 32 KiB; empty at the end of the body.

        Raises:
            UpstreamError: `upstream_truncated`, the connection broke off.
        """
        return await read_body(self._payload)

    def follow(self, follower: Follower) -> None:
        """Gives the body to `follower` from now on; nobody may `read` any more."""
        self._follower = follower
        self.headers = NO_HEADERS  # a KiB and a half; whoever needs them has them
        protocol, payload = self._protocol, self._payload
        make_followed(payload, protocol.pieces)
        protocol.on_data = self._take
        protocol.resume_reading()  # a parser that was paused goes on, which adds more
        self._take()

    def pause(self) -> None:
        """Stops reading, so that TCP stops the backend."""
        self._is_paused = True
        self._protocol.on_chunk = None
        if not self._payload.is_eof():
            self._protocol.hold()

    def resume(self) -> None:
        """The counterpart of `pause`; may feed the follower before it returns."""
        self._is_paused = False
        self._protocol.let_go()
        self._take()

    def release(self) -> bool:
        """Gives the connection back to the pool if the body has ended; False if it hasn't yet."""
        if not self._payload.at_eof():
            return False
        self._unfollow()
        self._connection.release()
        return True

    async def finish(self) -> None:
        """Gives the connection back to the pool if the body ends within 250 ms, else closes it.

        What still comes is dropped: the answer was complete by its content.
        """
        self._unfollow()
        self._protocol.on_data = self._protocol.pieces.clear
        try:
            if not self._payload.at_eof():
                async with asyncio.timeout(LINGER_S):
                    await self._ended()
        except (TimeoutError, UpstreamError, aiohttp.ClientError):
            self.close()
        except BaseException:
            self.close()
            raise
        else:
            self.release()

    async def _ended(self) -> None:
        if isinstance(self._payload, FollowedBody):
            await self._payload.wait_eof()
        else:
            while await self.read():
                pass

    def close(self) -> None:
        """Closes the connection, so that the backend sees that nobody listens. Idempotent."""
        self._unfollow()
        self._connection.close()

    def _unfollow(self) -> None:
        self._follower = None
        self._protocol.on_data = self._protocol.on_chunk = None
        self._protocol.pieces.clear()

    def _take(self) -> None:
        """Hands on what has come. The follower may pause, resume or close within."""
        if self._is_taking:
            return
        self._is_taking = True
        pieces = self._protocol.pieces
        while pieces and not self._is_paused and (follower := self._follower) is not None:
            follower.feed_many(*_next(pieces))
        self._is_taking = False
        follower, payload = self._follower, self._payload
        if follower is None or self._is_paused:
            return
        if payload.exception() is not None:
            self._end(follower, _truncated())
        elif payload.is_eof():
            self._end(follower, None)
        else:
            self._protocol.on_chunk = follower.feed

    def _end(self, follower: Follower, error: UpstreamError | None) -> None:
        self._follower = self._protocol.on_chunk = None
        follower.feed_end(error)


class Asker:
    """Sends requests to one backend on connections of a pool.

    Args:
        base_url: Without a trailing slash; its path comes in front of each target.
        connect_s: Clock for connecting; None is none.
        spares: How many connections are opened ahead, while requests with a body come.
    """

    def __init__(
        self,
        base_url: str,
        session: aiohttp.ClientSession,
        connector: aiohttp.TCPConnector,
        *,
        connect_s: float | None,
        spares: int,
    ) -> None:
        url = URL(base_url)
        self._loop = asyncio.get_running_loop()
        self._connector = connector
        self._route = aiohttp.ClientRequest("POST", url, loop=self._loop, session=session)
        self._timeout = aiohttp.ClientTimeout(total=None, sock_connect=connect_s)
        self._spares = Spares(self._connect, spares)
        self._path = url.raw_path.rstrip("/")
        own = self._route.headers
        names = (hdrs.HOST, hdrs.AUTHORIZATION)  # the latter of an address with a password
        self._headers = {name: own[name] for name in names if name in own}

    async def ask(self, method: str, target: str, headers: Headers, body: bytes | None) -> Exchange:
        """Waits for the head of the answer; cancelled, closes the connection.

        Raises:
            StaleConnectionError: the connection was closed; nothing had come back on it.
            aiohttp.ClientError, OSError: there is no connection, or it broke off.
            HttpProcessingError: the answer isn't valid HTTP.
        """
        connection = await self._connect()
        protocol = connection.protocol
        if not isinstance(protocol, UpstreamConnection):
            raise TypeError("the pool isn't made by `make_connector`")
        is_reused = protocol.exchanges > 0 or protocol.has_waited
        if is_reused and protocol.should_close:
            connection.close()  # what came on it, 408 perhaps, isn't the answer to this
            raise StaleConnectionError
        is_first = body is not None and not protocol.exchanges
        try:
            answer = await self._send(connection, protocol, (method, target, headers, body))
        except (aiohttp.ClientError, OSError) as error:
            connection.close()
            if is_reused and not protocol.has_answered:
                raise StaleConnectionError from error
            raise
        except BaseException:
            connection.close()
            raise
        if is_first:
            self._spares.refill()
        return answer

    async def close(self) -> None:
        """Opens nothing ahead any more."""
        await self._spares.close()

    async def _connect(self) -> Connection:
        return await self._connector.connect(self._route, [], self._timeout)

    async def _send(
        self,
        connection: Connection,
        protocol: UpstreamConnection,
        request: tuple[str, str, Headers, bytes | None],
    ) -> Exchange:
        method, target, headers, body = request
        protocol.begin(skips_body=method == hdrs.METH_HEAD)
        writer = StreamWriter(protocol, self._loop)
        sent = Headers(self._headers)
        sent.update(headers)
        if body is not None:
            sent[hdrs.CONTENT_LENGTH] = str(len(body))
        await writer.write_headers(f"{method} {self._path}{target} HTTP/1.1", sent)
        if body:
            await writer.write(body, drain=False)
        writer.send_headers()
        head, payload = await protocol.read()
        while HTTPStatus.CONTINUE <= head.code < HTTPStatus.OK and head.code != 101:
            head, payload = await protocol.read()  # an interim answer
        protocol.forget_head(head)
        return Exchange(connection, protocol, head, payload)


def _next(pieces: list[bytes]) -> tuple[list[bytes], bytes]:
    """Takes as many as may be fed at once; and the same joined."""
    size = len(pieces[0]) or 1
    if size > FEED_BYTES:
        starts = range(0, size, FEED_BYTES)
        pieces[:1] = [pieces[0][start : start + FEED_BYTES] for start in starts]
        size = FEED_BYTES
    taken = pieces[: max(1, FEED_BYTES // size)]  # events are much of a size
    while len(joined := b"".join(taken)) > FEED_BYTES:
        del taken[len(taken) // 2 :]
    del pieces[: len(taken)]
    return taken, joined


async def read_body(payload: aiohttp.StreamReader) -> bytes:
    """The next bytes of a body; empty at its end.

    Raises:
        UpstreamError: `upstream_truncated`, the connection broke off.
    """
    try:
        chunk = await payload.read(READ_BYTES)
        if not chunk and (error := payload.exception()) is not None:
            raise error
    except (aiohttp.ClientError, OSError, HttpProcessingError) as error:
        raise _truncated() from error
    return chunk


def _truncated() -> UpstreamError:
    return UpstreamError("The backend's connection broke off.", code="upstream_truncated")
