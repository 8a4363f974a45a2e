"""A pooled connection to the backend: aiohttp's, with its strict parser, and a way past its tasks.

aiohttp wakes a task for each piece of a body. A connection with an `on_data` calls that instead, in
the step in which the bytes arrive, which takes a third off what an event costs (docs/load.md).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial

import aiohttp
from aiohttp.client_proto import ResponseHandler
from aiohttp.http import RawResponseMessage

from gateway.chunks import SIZE_LINES
from gateway.heads import forget_head
from gateway.queues import NOTHING, ShortQueue

_SIZE_LINE_MAX = 5
#: One read. aiohttp pauses the transport at twice this, so a paused stream holds at most 64 KiB
#: here and what the event loop's last receive brought on top, another 256 KiB.
READ_BYTES = 32 * 1024


class UpstreamConnection(ResponseHandler):
    """aiohttp's protocol for answers; works as it does while `on_data` is None."""

    #: aiohttp's class has a dictionary; each event looks at these.
    __slots__ = (
        "exchanges",
        "has_answered",
        "has_waited",
        "is_between_chunks",
        "on_chunk",
        "on_data",
        "pieces",
    )

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(loop)
        self._buffer = ShortQueue()  # type: ignore[assignment]
        #: Called when the body of the answer may have got bytes, an end or an error.
        self.on_data: Callable[[], None] | None = None
        #: The body's bytes that came since then.
        self.pieces: list[bytes] = []
        #: Called instead with what one whole chunk of HTTP holds that came by itself, as nearly
        #: every event does; nothing else may wait in `pieces`.
        self.on_chunk: Callable[[bytes], None] | None = None
        self.is_between_chunks = False  #: whether the parser has read a whole chunk and no more
        self.exchanges = 0  #: requests sent on it so far
        self.has_waited = False  #: whether it was opened before there was a request for it
        self.has_answered = False  #: whether anything came since the last request

    def begin(self, *, skips_body: bool) -> None:
        """Expects the answer to one more request; one to HEAD has no body."""
        self.exchanges += 1
        self.has_answered = False
        self.is_between_chunks = False
        self.set_response_params(
            skip_payload=skips_body,
            read_until_eof=True,
            auto_decompress=False,
            read_bufsize=READ_BYTES,
        )

    def data_received(self, data: bytes) -> None:
        if self.is_between_chunks and self.on_chunk is not None:
            # RFC 9112, section 7.1: a size in hexadecimal digits, CR LF, so many bytes, CR LF. The
            # parser needn't see a whole one: it waits for the next size before it and after it.
            start = data.find(b"\r\n", 1, _SIZE_LINE_MAX) + 2
            size = len(data) - start - 2
            if (
                0 < size < len(SIZE_LINES)
                and data.startswith(SIZE_LINES[size])
                and data.endswith(b"\r\n")
            ):
                self.on_chunk(data[start:-2])
                return
        self.has_answered = True
        self.is_between_chunks = False
        payload = self._payload
        super().data_received(data)
        if self.is_between_chunks:
            # A size that has begun would have no CR LF yet, or the parser would have told of it.
            is_open = payload is not None and not payload.is_eof()
            self.is_between_chunks = is_open and data.endswith(b"\r\n")
        if self._should_close and payload is not None and self.exception() is not None:
            if self.on_data is not None:
                self.on_data()  # what came before the fault
            # aiohttp 3.14.5 tells nobody who reads a body that its chunks are malformed.
            _break_off(payload)
        if self.on_data is not None:
            self.on_data()

    def connection_lost(self, exc: BaseException | None) -> None:
        payload = self._payload
        super().connection_lost(exc)
        if payload is not None:
            _break_off(payload)
        if self.on_data is not None:
            self.on_data()

    def forget_head(self, head: RawResponseMessage) -> None:
        """Has the parser keep nothing of what it has read."""
        forget_head(self._parser, head.raw_headers)

    def hold(self) -> None:
        """Stops the transport alone: `pause_reading` would make the parser, which has nothing in
        hand now, keep back the next piece for a resumption that nobody asks for."""
        self._pause_transport_reading()

    def let_go(self) -> None:
        """The counterpart of `hold`."""
        if not self._reading_paused:
            self._resume_transport_reading()

    def resume_reading(self, resume_parser: bool = True) -> None:
        # aiohttp calls it after each read, and resuming what isn't paused runs the parser for
        # nothing.
        if self._reading_paused:
            super().resume_reading(resume_parser)


class FollowedBody(aiohttp.StreamReader):
    """A body whose bytes are left with the connection, for `on_data`.

    aiohttp's own is made by the parser, so it is turned into one of these when it begins to be
    followed. Its buffer, its marks of HTTP's chunks and its wake-ups are then not needed: a third
    of what an event costs here.
    """

    __slots__ = ()
    _protocol: UpstreamConnection

    def feed_data(self, data: bytes, size: int = 0) -> bool:
        self._protocol.pieces.append(data)
        return False

    def begin_http_chunk_receiving(self) -> None:
        self._protocol.is_between_chunks = False

    def end_http_chunk_receiving(self) -> None:
        self._protocol.is_between_chunks = True


def make_followed(payload: aiohttp.StreamReader, pieces: list[bytes]) -> None:
    """Leaves a body's bytes with its connection from now on, and what it has with `pieces`.

    Past its `read`, which takes two calls and more for each piece. Nothing may have been read.
    """
    if type(payload) is not aiohttp.StreamReader:
        return  # of an answer without a body
    pieces += payload._buffer  # noqa: SLF001
    payload.__class__ = FollowedBody
    # Half a KiB and more each.
    payload._buffer = NOTHING  # noqa: SLF001
    payload._http_chunk_splits = None  # noqa: SLF001


def _break_off(payload: aiohttp.StreamReader) -> None:
    """Ends a body that isn't whole, also for a reader that a piece has just woken."""
    if payload.is_eof():
        return
    if payload.exception() is None:
        payload.set_exception(aiohttp.ClientPayloadError("the connection was closed"))
    payload.feed_eof()


def make_connector(keepalive_s: float) -> aiohttp.TCPConnector:
    """A pool of such connections, without a limit of its own. Needs a running loop."""
    connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=keepalive_s)
    loop = asyncio.get_running_loop()
    # aiohttp has no public way.
    connector._factory = partial(UpstreamConnection, loop=loop)  # type: ignore[assignment]  # noqa: SLF001
    return connector
