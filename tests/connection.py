"""One raw connection of a scripted backend: requests read, bytes sent, both without buffering.

Parsing is as simple as requests from a well-behaved gateway allow: a length or chunks, no trailers.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from contextlib import suppress
from dataclasses import dataclass, field
from urllib.parse import unquote

#: `SO_LINGER` on, for no time: closing sends a reset.
NO_LINGER = struct.pack("ii", 1, 0)


class ClientLeft(ConnectionError):
    """The client closed the connection; a script need not catch it."""


@dataclass(eq=False)
class Exchange:
    """One request, and the means to answer it."""

    head: bytes
    body: bytes
    _connection: Connection

    @property
    def method(self) -> str:
        return self._request_line[0]

    @property
    def target(self) -> str:
        """The path with its query, as it was sent."""
        return self._request_line[1]

    @property
    def path(self) -> str:
        return unquote(self.target.partition("?")[0])

    @property
    def _request_line(self) -> list[str]:
        return self.head.split(b"\r\n", 1)[0].decode("latin-1").split(" ")

    @property
    def raw_headers(self) -> list[tuple[str, str]]:
        """Names and values as they were sent, in their order."""
        lines = self.head.decode("latin-1").rstrip("\r\n").split("\r\n")[1:]
        pairs = (line.partition(":") for line in lines)
        return [(name, value.strip()) for name, _, value in pairs]

    @property
    def headers(self) -> dict[str, str]:
        """By lower-case name; the last of several wins."""
        return {name.lower(): value for name, value in self.raw_headers}

    @property
    def client_left(self) -> asyncio.Event:
        """Set once the client has closed or reset the connection, also while the script sleeps."""
        return self._connection.client_left

    @property
    def bytes_accepted(self) -> int:
        """How much of this connection's answers the kernel has taken."""
        return self._connection.bytes_accepted

    async def send(self, *parts: bytes) -> None:
        """Hands bytes to the kernel, each part in a write of its own; waits while it takes none.

        Raises:
            ClientLeft: nobody reads them any more.
        """
        for part in parts:
            await self._connection.send(part)

    async def close(self) -> None:
        """Ends the connection with a FIN, after what was sent."""
        self._connection.finish()

    def reset(self) -> None:
        """Ends the connection with an RST."""
        self._connection.reset()

    async def stall(self) -> None:
        """Says nothing more until the client leaves."""
        await self.client_left.wait()


@dataclass(eq=False)
class Connection:
    """A socket without buffers of ours, so that what was accepted is what the kernel took."""

    sock: socket.socket
    client_left: asyncio.Event = field(default_factory=asyncio.Event)
    bytes_accepted: int = 0
    has_begun: bool = False  #: whether the client has said anything on it
    has_ended: bool = False
    _received: bytearray = field(default_factory=bytearray)
    _stirred: asyncio.Event = field(default_factory=asyncio.Event)

    async def receive(self) -> None:
        """Reads until the client has closed, so that its leaving is noticed at once."""
        loop = asyncio.get_running_loop()
        with suppress(OSError):
            while data := await loop.sock_recv(self.sock, 1 << 16):
                self.has_begun = True
                self._received += data
                self._stirred.set()
        self.client_left.set()
        self._stirred.set()

    async def send(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            if self.has_ended or self.client_left.is_set():
                raise ClientLeft
            try:
                sent = self.sock.send(view)
            except BlockingIOError:
                await self._until_writable()
                continue
            except OSError as error:
                self.client_left.set()
                raise ClientLeft from error
            self.bytes_accepted += sent
            view = view[sent:]

    async def _until_writable(self) -> None:
        """Or until the client has left: then sending says so."""
        loop = asyncio.get_running_loop()
        self._stirred.clear()
        loop.add_writer(self.sock, self._stirred.set)
        try:
            await self._stirred.wait()
        finally:
            loop.remove_writer(self.sock)

    def finish(self) -> None:
        if not self.has_ended:
            self.has_ended = True
            with suppress(OSError):
                self.sock.shutdown(socket.SHUT_WR)

    def reset(self) -> None:
        self.has_ended = True
        asyncio.get_running_loop().remove_reader(self.sock)
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, NO_LINGER)
        self.sock.close()

    async def next_exchange(self) -> Exchange | None:
        """The next request; `None` when the client is gone or the connection has ended."""
        head = await self._until(b"\r\n\r\n")
        if head is None:
            return None
        exchange = Exchange(head, b"", self)
        body = await self._body(exchange.headers)
        if body is None:
            return None
        exchange.body = body
        return exchange

    async def _body(self, headers: dict[str, str]) -> bytes | None:
        if headers.get("expect", "").lower() == "100-continue":
            await self.send(b"HTTP/1.1 100 Continue\r\n\r\n")
        if headers.get("transfer-encoding", "").lower() == "chunked":
            return await self._chunks()
        return await self._exactly(int(headers.get("content-length", "0")))

    async def _chunks(self) -> bytes | None:
        body = bytearray()
        while line := await self._until(b"\r\n"):
            size = int(line.partition(b";")[0], 16)
            data = await self._exactly(size + 2)
            if data is None:
                return None
            if size == 0:
                return bytes(body)
            body += data[:-2]
        return None

    async def _until(self, mark: bytes) -> bytes | None:
        while (at := self._received.find(mark)) < 0:
            if not await self._more():
                return None
        return self._take(at + len(mark))

    async def _exactly(self, size: int) -> bytes | None:
        while len(self._received) < size:
            if not await self._more():
                return None
        return self._take(size)

    async def _more(self) -> bool:
        if self.client_left.is_set() or self.has_ended:
            return False
        self._stirred.clear()
        await self._stirred.wait()
        return True

    def _take(self, size: int) -> bytes:
        data = bytes(self._received[:size])
        del self._received[:size]
        return data
