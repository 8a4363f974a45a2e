"""A backend for tests whose answers are scripted byte by byte, on a raw socket.

    async def script(exchange: Exchange) -> None:
        await exchange.send(sse_head() + chunked(CHAT_STREAM) + LAST_CHUNK)

    async with ScriptedBackend(script) as backend:
        ... backend.url ...

The script runs once for each request; when it returns, the next request on the connection is read.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

from tests.connection import ClientLeft, Connection, Exchange
from tests.framing import (
    LAST_CHUNK,
    Framing,
    blocks,
    chunked,
    json_response,
    response_head,
    sse_head,
)
from tests.recordings import (
    ANTHROPIC_STREAM,
    CHAT_STREAM,
    OLLAMA_STREAM,
    RAG_STREAM,
    RESPONSES_STREAM,
)

__all__ = [
    "ANTHROPIC_STREAM",
    "CHAT_STREAM",
    "LAST_CHUNK",
    "OLLAMA_STREAM",
    "RAG_STREAM",
    "RESPONSES_STREAM",
    "ClientLeft",
    "Exchange",
    "OnDemand",
    "Script",
    "ScriptedBackend",
    "blocks",
    "chunked",
    "json_response",
    "response_head",
    "sse_head",
    "streaming",
]

Script = Callable[[Exchange], Awaitable[None]]


class ScriptedBackend:
    """Serves `script` on a free port of 127.0.0.1.

    `exchanges` has every request in the order of their arrival. An error in a script fails the test
    when the context is left. `sndbuf` makes the kernel's buffer small, for tests of back-pressure.

    `accepted` counts all connections, `connections` those on which something was asked; `spares`
    are the sockets of the others, which the gateway has opened ahead.
    """

    def __init__(self, script: Script, *, sndbuf: int | None = None, port: int = 0) -> None:
        self.script = script
        self.exchanges: list[Exchange] = []
        self.accepted = 0
        self._gone = 0  # connections on which something was asked
        self._serving: dict[asyncio.Task[None], Connection] = {}
        self._changed = asyncio.Condition()
        self._errors: list[BaseException] = []
        self._listener = socket.socket()
        self._sndbuf = sndbuf
        self._port = port

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def port(self) -> int:
        return int(self._listener.getsockname()[1])

    @property
    def open_connections(self) -> int:
        return sum(connection.has_begun for connection in self._serving.values())

    @property
    def connections(self) -> int:
        return self._gone + self.open_connections

    @property
    def spares(self) -> list[socket.socket]:
        return [one.sock for one in self._serving.values() if not one.has_begun]

    async def wait_until_idle(self, seconds: float = 5) -> None:
        """Returns once no connection is open on which something was asked.

        Raises:
            TimeoutError: one still is.
        """
        async with asyncio.timeout(seconds), self._changed:
            await self._changed.wait_for(lambda: not self.open_connections)

    async def wait_for_exchanges(self, count: int = 1, seconds: float = 5) -> Exchange:
        """The latest exchange, once there are `count`.

        Raises:
            TimeoutError: so many don't come.
        """
        async with asyncio.timeout(seconds), self._changed:
            await self._changed.wait_for(lambda: len(self.exchanges) >= count)
        return self.exchanges[count - 1]

    async def __aenter__(self) -> Self:
        self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if self._sndbuf is not None:
            self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, self._sndbuf)
        self._listener.bind(("127.0.0.1", self._port))
        self._listener.listen(1024)
        self._listener.setblocking(False)
        self._accepting = asyncio.create_task(self._accept(), name="scripted backend")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        tasks = [self._accepting, *self._serving]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._listener.close()
        if self._errors and error is None:
            raise self._errors[0]

    async def _accept(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            sock, _ = await loop.sock_accept(self._listener)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self.accepted += 1
            connection = Connection(sock)
            task = asyncio.create_task(self._serve(connection), name="scripted connection")
            self._serving[task] = connection

    async def _serve(self, connection: Connection) -> None:
        receiving = asyncio.create_task(connection.receive(), name="scripted connection's reader")
        try:
            while exchange := await connection.next_exchange():
                self.exchanges.append(exchange)
                await self._notify()
                await self.script(exchange)
        except ClientLeft:
            pass
        except Exception as error:
            self._errors.append(error)
        finally:
            receiving.cancel()
            await asyncio.gather(receiving, return_exceptions=True)
            connection.sock.close()
            self._gone += connection.has_begun
            self._serving = {t: c for t, c in self._serving.items() if c is not connection}
            await self._notify()

    async def _notify(self) -> None:
        async with self._changed:
            self._changed.notify_all()


@dataclass
class OnDemand:
    """A script that answers at once, and a question that says `slow` block by block, as it is let.

    `has_begun` is set with the first block; each release of `may_go_on` lets another one go.
    """

    has_begun: asyncio.Event = field(default_factory=asyncio.Event)
    may_go_on: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(0))

    def let_end(self) -> None:
        """Lets all that is left go."""
        for _ in blocks(CHAT_STREAM):
            self.may_go_on.release()

    async def __call__(self, exchange: Exchange) -> None:
        await exchange.send(sse_head())
        for block in blocks(CHAT_STREAM):
            await exchange.send(chunked(block))
            if b"slow" in exchange.body:
                self.has_begun.set()
                await self.may_go_on.acquire()
        await exchange.send(LAST_CHUNK)


def streaming(stream: bytes, *, framing: Framing = "chunked") -> Script:
    """A script that sends `stream` block by block and ends it as `framing` demands."""

    async def script(exchange: Exchange) -> None:
        await exchange.send(sse_head(framing=framing, length=len(stream)))
        for block in blocks(stream):
            await exchange.send(chunked(block) if framing == "chunked" else block)
        if framing == "chunked":
            await exchange.send(LAST_CHUNK)
        elif framing == "close":
            await exchange.close()

    return script
