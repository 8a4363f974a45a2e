"""A TCP proxy that breaks what passes through it: the network's faults, for tests.

    async with FaultProxy(port) as proxy:
        proxy.down.cut_after = 1000      # bytes from the target to the client
        ... proxy.url ...

Every fault may be set, changed or taken back while connections are open.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from contextlib import suppress
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

_NO_LINGER = struct.pack("ii", 1, 0)
_READ = 1 << 14


@dataclass(eq=False)
class Direction:
    """One way through the proxy, for all connections; `cut_after` counts per connection."""

    #: Seconds that each piece is held.
    latency: float = 0.0
    #: Bytes a second; 0 has no limit.
    bandwidth: float = 0.0
    #: Ends the connection, both ways, after so many bytes; by RST with `reset`, else by FIN.
    cut_after: int | None = None
    reset: bool = False
    #: Every byte travels in a packet of its own.
    split: bool = False
    bytes_passed: int = 0
    _flowing: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        self._flowing.set()

    def stall(self) -> None:
        """From now on nothing passes; the connection stays open."""
        self._flowing.clear()

    def resume(self) -> None:
        self._flowing.set()

    async def carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """Carries until the sender's FIN; whether the connection is to be cut."""
        carried = 0
        while data := await reader.read(1 if self.split else _READ):
            allowed = None if self.cut_after is None else max(0, self.cut_after - carried)
            await self._pass(data[:allowed], writer)
            carried += len(data)
            if self.cut_after is not None and carried >= self.cut_after:
                return True
        if writer.can_write_eof():
            writer.write_eof()
        return False

    async def _pass(self, data: bytes, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(self.latency + (len(data) / self.bandwidth if self.bandwidth else 0))
        await self._flowing.wait()
        writer.write(data)
        await writer.drain()
        self.bytes_passed += len(data)


class FaultProxy:
    """Listens on a free port of 127.0.0.1 and connects to `target`, a port there too.

    `up` is the way from the client to the target, `down` the way back.
    """

    def __init__(self, target: int) -> None:
        self.target = target
        self.up = Direction()
        self.down = Direction()
        #: New connections are reset as soon as they are made.
        self.refuse = False
        self.connections = 0
        self.refused = 0
        self.cuts = 0
        self._open: dict[asyncio.Task[None], list[asyncio.StreamWriter]] = {}

    @property
    def port(self) -> int:
        return int(self._server.sockets[0].getsockname()[1])

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def open_connections(self) -> int:
        return len(self._open)

    def cut_all(self, *, reset: bool = False) -> None:
        """Ends every open connection now, by FIN or by RST; new ones are welcome."""
        for writers in list(self._open.values()):
            self._cut(writers, reset=reset)

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0, backlog=1024)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        self._server.close()
        self.cut_all()
        tasks = list(self._open)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._server.wait_closed()

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self.refuse:
            self.refused += 1
            _end(writer, reset=True)
            return
        self.connections += 1
        writers = [writer]
        task = asyncio.create_task(self._connect(reader, writers), name="fault proxy connection")
        self._open[task] = writers
        task.add_done_callback(self._open.pop)

    async def _connect(
        self, reader: asyncio.StreamReader, writers: list[asyncio.StreamWriter]
    ) -> None:
        try:
            with suppress(OSError):
                their_reader, their_writer = await asyncio.open_connection("127.0.0.1", self.target)
                writers.append(their_writer)
                async with asyncio.TaskGroup() as ways:
                    ways.create_task(self._carry(self.up, reader, their_writer, writers))
                    ways.create_task(self._carry(self.down, their_reader, writers[0], writers))
        finally:
            for writer in writers:
                _end(writer, reset=False)

    async def _carry(
        self,
        way: Direction,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        writers: list[asyncio.StreamWriter],
    ) -> None:
        with suppress(OSError):
            if not await way.carry(reader, writer):
                return
        self._cut(writers, reset=way.reset)

    def _cut(self, writers: list[asyncio.StreamWriter], *, reset: bool) -> None:
        if not all(writer.is_closing() for writer in writers):
            self.cuts += 1
        for writer in writers:
            _end(writer, reset=reset)


def _end(writer: asyncio.StreamWriter, *, reset: bool) -> None:
    """By FIN after what was written, or by RST."""
    if writer.is_closing():
        return
    if not reset:
        writer.close()
        return
    sock = writer.get_extra_info("socket")
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NO_LINGER)
    writer.transport.abort()
