"""The way out to a client: writes, back-pressure, and what becomes of one who takes nothing."""

from __future__ import annotations

import asyncio
import fcntl
import socket
import struct
import termios

from aiohttp import hdrs, web
from aiohttp.abc import AbstractStreamWriter
from aiohttp.http import HttpVersion11, StreamWriter

from gateway.chunks import SIZE_LINES
from gateway.web.compression import Encoder

#: From here on it takes longer to put a chunk together than to write it in pieces.
_LARGE_BYTES = 16 * 1024


class Outlet:
    """Writes to one prepared response; the sink of a reader.

    A write waits while the client's connection is full. Who takes nothing for longer than the
    watch allows is disconnected, and the waiting write returns or raises.

    The response's head goes out with what is pushed first, or by `begin`; its end may go with what
    is pushed last. A system call less each is a sixth of what a short stream costs (docs/load.md).
    """

    __slots__ = (
        "_encoder",
        "_has_begun",
        "_is_chunked",
        "_is_plain",
        "_protocol",
        "_request",
        "_stalls",
        "_writer",
        "last_seen",
        "stalled_since",
        "writes",
    )

    def __init__(
        self,
        request: web.Request,
        response: web.StreamResponse,
        writer: AbstractStreamWriter | None,
        stalls: StallWatch,
        encoder: Encoder | None = None,
    ) -> None:
        self._request = request
        assert isinstance(writer, StreamWriter)  # noqa: S101 - aiohttp's server has no other
        self._writer = writer
        self._stalls = stalls
        self._encoder = encoder
        self._protocol = request.protocol
        self._is_chunked = hdrs.TRANSFER_ENCODING in response.headers
        self._has_begun = False
        self._is_plain = False  # begun, with chunks and without compression: as nearly always
        self.writes = 0
        self.last_seen = (0, 0, 0)
        self.stalled_since: float | None = None

    def push(self, frames: bytes) -> bool:
        """Writes at once; whether the client has room for more.

        Past `StreamResponse.write`: a coroutine, and its bookkeeping, for each event is a fifth of
        what relaying it costs. The response must be prepared.

        Raises:
            ConnectionResetError: the client has gone.
        """
        if not self._is_plain:
            if self._encoder is not None:
                frames = self._encoder.encode(frames)
            return self._send(frames)
        protocol = self._protocol
        transport = protocol.transport
        if transport is None or transport.is_closing():
            raise ConnectionResetError("the client has gone")
        self.writes += 1
        size = len(frames)
        size_line = SIZE_LINES[size] if size < len(SIZE_LINES) else b"%x\r\n" % size
        if size < _LARGE_BYTES:
            transport.write(b"".join((size_line, frames, b"\r\n")))
        else:
            transport.writelines((size_line, frames, b"\r\n"))
        return not protocol._paused  # noqa: SLF001 - its property is a call more

    def push_last(self, frames: bytes) -> bool:
        """The same for what ends the response as it should; nothing may be pushed after it.

        Raises:
            ConnectionResetError: the client has gone.
        """
        if self._encoder is not None:
            frames = self._encoder.encode(frames) + self._encoder.finish()
        has_room = self._send(frames, is_end=True)
        self._writer._eof = True  # noqa: SLF001 - or aiohttp writes the end once more
        return has_room

    def begin(self) -> None:
        """Sends the head if it waits still: heartbeats may be the first bytes for a long time.

        Raises:
            ConnectionResetError: the client has gone.
        """
        self._writer.send_headers()
        self._note_begun()

    async def drained(self) -> None:
        """Waits until the client has room again.

        Raises:
            ConnectionResetError: the client has gone.
        """
        self._stalls.waiting.add(self)
        try:
            await self._writer.drain()
        finally:
            self._has_room()

    async def write_frames(self, frames: bytes) -> None:
        """Writes at once and waits until the client has room again.

        Raises:
            ConnectionResetError: the client has gone.
        """
        if not self.push(frames):
            await self.drained()

    def _send(self, data: bytes, *, is_end: bool = False) -> bool:
        protocol = self._protocol
        transport = protocol.transport
        if transport is None or transport.is_closing():
            raise ConnectionResetError("the client has gone")
        if self._is_chunked:
            end = b"0\r\n\r\n" if is_end else b""
            data = b"%x\r\n%b\r\n%b" % (len(data), data, end)
        if not self._has_begun:
            data = self._take_head() + data
        self._writer.output_size += len(data)
        self.writes += 1
        transport.write(data)
        return not protocol.writing_paused

    def _take_head(self) -> bytes:
        """aiohttp's own way to join it with what follows is a coroutine."""
        self._note_begun()
        writer = self._writer
        head, writer._headers_buf = writer._headers_buf, None  # noqa: SLF001
        writer._headers_written = True  # noqa: SLF001
        return head or b""

    def _note_begun(self) -> None:
        self._has_begun = True
        self._is_plain = self._is_chunked and self._encoder is None

    async def flush(self, *, is_end: bool = False) -> None:
        """Waits until the kernel has taken everything, so that a close loses nothing.

        `is_end` closes the compression too: without that, what came is seen to be broken off.

        Raises:
            ConnectionResetError: the client has gone.
        """
        if is_end and self._encoder is not None and not self._writer._eof:  # noqa: SLF001
            self._send(self._encoder.finish())
        transport = self._request.transport
        if transport is None:
            raise ConnectionResetError
        self._stalls.waiting.add(self)
        try:
            # asyncio's TLS transport calls an empty buffer full when the limit is 0.
            is_tls = transport.get_extra_info("sslcontext") is not None
            transport.set_write_buffer_limits(high=1 if is_tls else 0, low=0)
            await self._writer.drain()
            transport.set_write_buffer_limits()
        finally:
            self._has_room()

    def _has_room(self) -> None:
        self.stalled_since = None
        self._stalls.waiting.discard(self)

    def break_off(self) -> None:
        """Closes the connection without the end that HTTP asks for.

        With chunks a plain close is seen as broken and still delivers what was written; without,
        only a reset can't be taken for the end.
        """
        transport = self._request.transport
        if transport is None:
            return
        if self._request.version >= HttpVersion11:
            transport.close()
        else:
            _reset(transport)

    def abort(self) -> None:
        """Closes the connection at once; what the client hasn't taken is dropped."""
        if self._request.transport is not None:
            self._request.transport.abort()

    @property
    def transport(self) -> asyncio.Transport | None:
        return self._request.transport


class StallWatch:
    """Disconnects clients that take nothing for `stall_s` while something waits for them.

    Progress is what the client's kernel acknowledges: a client that takes a little now and then is
    slow, not stalled. `stall_s` 0 watches nothing.
    """

    def __init__(self, stall_s: float) -> None:
        self._stall_s = stall_s
        self.waiting: set[Outlet] = set()  #: those for which something waits

    def tick(self, now: float) -> None:
        if not self._stall_s:
            return
        for outlet in list(self.waiting):
            self._look(outlet, now)

    def _look(self, outlet: Outlet, now: float) -> None:
        transport = outlet.transport
        if transport is None:
            return
        seen = (outlet.writes, transport.get_write_buffer_size(), _unacknowledged_bytes(transport))
        if outlet.stalled_since is None or seen != outlet.last_seen:
            outlet.last_seen = seen
            outlet.stalled_since = now
        elif now - outlet.stalled_since >= self._stall_s:
            transport.abort()


def _reset(transport: asyncio.Transport) -> None:
    """Closes with an RST; `abort` alone sends a FIN if all is written (asyncio, `_force_close`)."""
    sock: socket.socket | None = transport.get_extra_info("socket")
    if sock is not None and sock.fileno() >= 0:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    transport.abort()


def _unacknowledged_bytes(transport: asyncio.Transport) -> int:
    """What the kernel still holds for the client; 0 where it doesn't tell.

    A kernel asks for more only when a third of its buffer is free, so that at 2 KiB/s nothing would
    leave the process for longer than the watch allows (Linux, `sk_stream_write_space`).
    """
    sock: socket.socket | None = transport.get_extra_info("socket")
    if sock is None or sock.fileno() < 0:
        return 0
    try:
        (size,) = struct.unpack("i", fcntl.ioctl(sock.fileno(), termios.TIOCOUTQ, bytes(4)))
    except OSError:
        return 0
    return int(size)
