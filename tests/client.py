"""A client that reads only when it is told to, on a raw socket, and leaves as clients leave.

async with connected(port) as client:
    await client.ask("/v1/chat/completions", {"stream": True})
    await client.head()
    ... await client.chunk() ... client.leave(reset=True)
"""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from tests.connection import NO_LINGER

_READ_BYTES = 1 << 16


class BrokenOffError(Exception):
    """The connection ended before the answer did; `got` is the part of the body that came."""

    def __init__(self, got: bytes = b"") -> None:
        super().__init__(f"after {len(got)} bytes")
        self.got = got


class Client:
    """One connection. Nothing is read ahead: what isn't asked for stays in the kernel."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self._received = bytearray()

    async def send(self, data: bytes) -> None:
        await asyncio.get_running_loop().sock_sendall(self.sock, data)

    async def ask(
        self, path: str, body: object = None, headers: Mapping[str, str] | None = None
    ) -> None:
        """Sends a request: a POST with `body` as JSON, or without one a GET."""
        await self.send(request(path, body, headers))

    async def head(self) -> bytes:
        """The answer's status line and headers."""
        return await self._until(b"\r\n\r\n")

    async def chunk(self) -> bytes:
        """The next chunk of a chunked body, that is the next write of a gateway; empty at the end.

        Raises:
            BrokenOffError: the connection ended within the body.
        """
        size = int(await self._until(b"\r\n"), 16)
        return (await self.exactly(size + 2))[:-2]

    async def body(self, most: int | None = None) -> bytes:
        """The rest of a chunked body, or of it so many bytes at least.

        Raises:
            BrokenOffError: the connection ended within the body.
        """
        got = bytearray()
        try:
            while (most is None or len(got) < most) and (chunk := await self.chunk()):
                got += chunk
        except BrokenOffError as error:
            raise BrokenOffError(bytes(got)) from error
        return bytes(got)

    async def first(self, count: int) -> bytes:
        """The first `count` bytes of a chunked body, fewer if it ends before; then leave.

        What else has come stays unread, so that nothing more can be read in order.

        Raises:
            BrokenOffError: the connection ended within the body.
        """
        got = bytearray()
        while len(got) < count and (size := int(await self._until(b"\r\n"), 16)):
            part = min(size, count - len(got))
            got += await self.exactly(part)
            if part == size:
                await self.exactly(2)
        return bytes(got)

    async def exactly(self, size: int) -> bytes:
        """So many bytes, whatever they are.

        Raises:
            BrokenOffError: the connection ended before.
        """
        while len(self._received) < size:
            await self._more()
        return self._take(size)

    async def some(self, size: int = _READ_BYTES) -> bytes:
        """What one read gives.

        Raises:
            BrokenOffError: the connection has ended.
        """
        if not self._received:
            await self._more(size)
        return self._take(size)

    def leave(self, *, reset: bool = False) -> None:
        """Closes: with a reset, or a FIN if nothing unread is left."""
        if reset and self.sock.fileno() >= 0:
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, NO_LINGER)
        self.sock.close()

    async def _until(self, mark: bytes) -> bytes:
        while (at := self._received.find(mark)) < 0:
            await self._more()
        return self._take(at + len(mark))

    async def _more(self, size: int = _READ_BYTES) -> None:
        try:
            data = await asyncio.get_running_loop().sock_recv(self.sock, size)
        except ConnectionError as error:
            raise BrokenOffError(bytes(self._received)) from error
        if not data:
            raise BrokenOffError(bytes(self._received))
        self._received += data

    def _take(self, size: int) -> bytes:
        data = bytes(self._received[:size])
        del self._received[:size]
        return data


def request(path: str, body: object = None, headers: Mapping[str, str] | None = None) -> bytes:
    """The bytes of a request: a POST with `body` as JSON, or without one a GET."""
    method, content = ("GET", b"") if body is None else ("POST", json.dumps(body).encode())
    lines = [f"{method} {path} HTTP/1.1", "Host: gateway"]
    if body is not None:
        lines += ["Content-Type: application/json", f"Content-Length: {len(content)}"]
    lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
    return "".join(f"{line}\r\n" for line in (*lines, "")).encode() + content


@asynccontextmanager
async def connected(port: int, *, rcvbuf: int | None = None) -> AsyncIterator[Client]:
    """A connection to a port of 127.0.0.1, closed with the context."""
    client = Client(socket.socket())
    client.sock.setblocking(False)
    if rcvbuf is not None:
        client.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, rcvbuf)
        client.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, 1400)
    try:
        await asyncio.get_running_loop().sock_connect(client.sock, ("127.0.0.1", port))
        yield client
    finally:
        client.leave()


@dataclass(frozen=True, slots=True)
class Event:
    """One event as it came; `id` is empty where there is none."""

    id: str
    name: str
    data: str

    @property
    def json(self) -> dict[str, Any]:
        """The data as the object that they are."""
        return dict(json.loads(self.data))


def events(body: bytes) -> list[Event]:
    """The events of a stream with plain line feeds, without its comments."""
    found = []
    for block in body.decode().split("\n\n"):
        lines = [line.partition(":") for line in block.split("\n")]
        fields = {name: value.removeprefix(" ") for name, _, value in lines if name}
        if "data" in fields:
            found.append(Event(fields.get("id", ""), fields.get("event", ""), fields["data"]))
    return found


def said(stream: list[Event]) -> str:
    """The text of a typed stream, whose ids and indexes must have no gap."""
    numbered = [event for event in stream if event.name != "heartbeat"]
    assert [event.id.partition(".")[2] for event in numbered] == [
        str(number) for number in range(1, len(numbered) + 1)
    ]
    chunks = [event.json for event in stream if event.name == "content_chunk"]
    assert [chunk["index"] for chunk in chunks] == list(range(len(chunks)))
    return "".join(chunk["content"] for chunk in chunks)
