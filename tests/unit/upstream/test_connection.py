"""A chunk that comes by itself goes past the parser, and nobody can tell."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from gateway.errors import UpstreamError
from gateway.upstream.connection import UpstreamConnection
from gateway.upstream.exchange import FEED_BYTES, Exchange

_HEAD = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
_EVENT = b"data: word\n\n"


@dataclass
class Heard:
    """A follower that keeps what it is fed."""

    pieces: list[bytes] = field(default_factory=list)
    ends: list[str | None] = field(default_factory=list)

    def feed(self, chunk: bytes) -> None:
        self.pieces.append(chunk)

    def feed_many(self, chunks: list[bytes], joined: bytes) -> None:
        assert b"".join(chunks) == joined
        self.pieces += chunks

    def feed_end(self, error: UpstreamError | None) -> None:
        self.ends.append(None if error is None else error.code)


class Transport(asyncio.Transport):
    def __init__(self) -> None:
        super().__init__()
        self.is_closed = False

    def close(self) -> None:
        self.is_closed = True

    def pause_reading(self) -> None: ...
    def resume_reading(self) -> None: ...


class Pooled:
    def close(self) -> None: ...
    def release(self) -> None: ...


@pytest.fixture
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    loop = asyncio.new_event_loop()
    yield loop
    loop.close()


def _followed(loop: asyncio.AbstractEventLoop) -> tuple[UpstreamConnection, Exchange, Heard]:
    connection = UpstreamConnection(loop)
    connection.connection_made(Transport())
    connection.begin(skips_body=False)
    connection.data_received(_HEAD)
    head, payload = loop.run_until_complete(connection.read())
    exchange = Exchange(Pooled(), connection, head, payload)  # type: ignore[arg-type]
    heard = Heard()
    exchange.follow(heard)
    return connection, exchange, heard


def _chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


def _takes_shortcut(connection: UpstreamConnection) -> bool:
    return connection.is_between_chunks and connection.on_chunk is not None


def test_second_chunk_takes_the_shortcut(loop: asyncio.AbstractEventLoop) -> None:
    connection, _, heard = _followed(loop)
    assert not _takes_shortcut(connection)
    connection.data_received(_chunk(_EVENT))
    assert _takes_shortcut(connection)
    parser, connection._parser = connection._parser, None  # it isn't asked
    connection.data_received(_chunk(_EVENT * 2))
    connection._parser = parser
    connection.data_received(b"0\r\n\r\n")
    assert (heard.pieces, heard.ends) == ([_EVENT, _EVENT * 2], [None])
    assert not _takes_shortcut(connection)


_pieces = st.lists(
    st.sampled_from(
        [
            *(_chunk(b"x" * size) for size in (1, 9, 10, 15, 16, 255, 4095, 4096, 40_000)),
            *(_chunk(data) for data in (b"\r\n", b"0\r\n\r\n", b"5\r\nhello\r\n")),
            *(b"5;name=value\r\nhello\r\n", b"05\r\nhello\r\n", b"A\r\n0123456789\r\n"),
            *(b"0\r\n\r\n", b"0\r\nTrailer: x\r\n\r\n"),
            *(b"5\r\nhello\n", b"+5\r\nhello\r\n", b"0x5\r\nhello\r\n", b"-1\r\n\r\n", b"\r\n"),
            *(
                b"5\r\nhell\r\n",
                b"5\r\nhelloo\r\n",
                b" 5\r\nhello\r\n",
                b"1_0\r\n0123456789abcdef\r\n",
            ),
        ]
    ),
    max_size=8,
)


@settings(max_examples=1500)
@given(pieces=_pieces, cuts=st.lists(st.integers(0, 300), max_size=4), whole=st.booleans())
@example(pieces=[_chunk(b"a"), b"5\r\nhello\r\n0\r\n\r\n"], cuts=[], whole=True)
def test_shortcut_reads_what_the_parser_reads(
    pieces: list[bytes], cuts: list[int], whole: bool
) -> None:
    if not whole:
        sent = b"".join(pieces)
        ends = sorted({*(cut for cut in cuts if cut < len(sent)), len(sent)})
        starts = [0, *ends[:-1]]
        pieces = [sent[start:end] for start, end in zip(starts, ends, strict=True) if end > start]
    loop = asyncio.new_event_loop()
    try:
        assert _read(loop, pieces, shortcut=True) == _read(loop, pieces, shortcut=False)
    finally:
        loop.close()


def _read(
    loop: asyncio.AbstractEventLoop, pieces: list[bytes], *, shortcut: bool
) -> tuple[bytes, list[str | None], bool]:
    connection, _, heard = _followed(loop)
    transport = connection.transport
    assert isinstance(transport, Transport)
    for piece in pieces:
        if transport.is_closed:
            break
        if not shortcut:
            connection.is_between_chunks = False
        connection.data_received(piece)
    return b"".join(heard.pieces), heard.ends, transport.is_closed


def test_nothing_is_fed_while_paused(loop: asyncio.AbstractEventLoop) -> None:
    connection, exchange, heard = _followed(loop)
    connection.data_received(_chunk(b"one"))
    exchange.pause()
    connection.data_received(_chunk(b"two"))
    connection.data_received(_chunk(b"three"))
    assert heard.pieces == [b"one"]
    exchange.resume()
    connection.data_received(_chunk(b"four"))
    assert b"".join(heard.pieces) == b"onetwothreefour"
    assert _takes_shortcut(connection)


@given(st.lists(st.sampled_from([0, 1, 53, 4000, 20_000, 32_768, 40_000, 70_000]), max_size=8))
def test_what_waited_is_fed_in_pieces_of_a_bounded_size(sizes: list[int]) -> None:
    loop = asyncio.new_event_loop()
    try:
        connection, exchange, heard = _followed(loop)
        exchange.pause()
        waiting = [bytes([number]) * size for number, size in enumerate(sizes)]
        connection.pieces += waiting
        fed: list[list[bytes]] = []
        heard.feed_many = lambda chunks, _: fed.append(chunks)  # type: ignore[method-assign]
        exchange.resume()
    finally:
        loop.close()
    assert b"".join(itertools.chain.from_iterable(fed)) == b"".join(waiting)
    assert all(sum(map(len, some)) <= FEED_BYTES for some in fed)
