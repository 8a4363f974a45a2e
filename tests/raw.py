"""Raw requests: bytes in, bytes out, with the packets cut wherever a test wants them cut."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

_READ_BYTES = 1 << 16
#: How many turns of the loop a server in it needs to accept a connection, and to read a packet.
_ACCEPT_TURNS = 10
_READ_TURNS = 2


@dataclass(frozen=True, slots=True)
class RawAnswer:
    """Everything that came until the server closed."""

    data: bytes

    @property
    def head(self) -> bytes:
        return self.data.partition(b"\r\n\r\n")[0]

    @property
    def body(self) -> bytes:
        return self.data.partition(b"\r\n\r\n")[2]

    @property
    def status(self) -> int:
        return int(self.data.split(b" ", 2)[1])

    @property
    def headers(self) -> dict[str, str]:
        """By lower-case name; the last of several wins."""
        lines = self.head.decode("latin-1").split("\r\n")[1:]
        pairs = (line.partition(":") for line in lines)
        return {name.lower(): value.strip() for name, _, value in pairs}

    @property
    def error(self) -> dict[str, Any]:
        """The error object of a JSON answer in OpenAI's shape."""
        error = json.loads(self.body)["error"]
        assert {"message", "type", "code", "param", "trace_id"} <= set(error)
        return dict(error)

    @property
    def count(self) -> int:
        """How many answers there are."""
        return self.data.count(b"\r\nContent-Type:")


async def ask_raw(port: int, packets: Iterable[bytes]) -> RawAnswer:
    """Sends each of `packets` as one, and reads until the server closes.

    A server in the same loop sees each packet before the next is sent.
    """
    loop = asyncio.get_running_loop()
    with socket.socket() as sock:
        sock.setblocking(False)
        await loop.sock_connect(sock, ("127.0.0.1", port))
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        await _turns(_ACCEPT_TURNS)
        async with asyncio.timeout(10):
            await _send(sock, packets)
            return RawAnswer(await _read(sock))


async def _send(sock: socket.socket, packets: Iterable[bytes]) -> None:
    """As far as the server lets us: it may refuse and close before the last."""
    loop = asyncio.get_running_loop()
    try:
        for packet in packets:
            await loop.sock_sendall(sock, packet)
            await _turns(_READ_TURNS)
    except ConnectionError:
        return


async def _turns(count: int) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


async def _read(sock: socket.socket) -> bytes:
    loop = asyncio.get_running_loop()
    data = b""
    try:
        while part := await loop.sock_recv(sock, _READ_BYTES):
            data += part
    except ConnectionError:
        return data
    return data


def whole(data: bytes) -> Iterator[bytes]:
    yield data


def bytewise(data: bytes) -> Iterator[bytes]:
    """One byte a packet."""
    for index in range(len(data)):
        yield data[index : index + 1]


def splits(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Every way to cut `data` in two packets."""
    for index in range(1, len(data)):
        yield data[:index], data[index:]
