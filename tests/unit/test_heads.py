"""What is taken from aiohttp's parser is what it has handed out, and no more."""

from __future__ import annotations

import asyncio
import gc

import pytest
from aiohttp.base_protocol import BaseProtocol
from aiohttp.http import HttpRequestParser, HttpResponseParser, RawRequestMessage

from gateway.heads import forget_head

FIRST = b"POST /one HTTP/1.1\r\nHost: a\r\nX-Mark: first\r\nContent-Length: 2\r\n\r\nhi"
#: Each value is one character: such strings are the same objects in every request.
SECOND = b"POST /two HTTP/1.1\r\nHost: a\r\nX-Mark: b\r\nContent-Length: 0\r\n\r\n"


@pytest.fixture
async def parser() -> HttpRequestParser:
    loop = asyncio.get_running_loop()
    return HttpRequestParser(BaseProtocol(loop), loop, 2**16)


async def test_parser_holds_no_header_of_a_message_that_it_has_handed_out(
    parser: HttpRequestParser,
) -> None:
    [message] = _fed(parser, FIRST)
    assert _held(parser) >= 6
    forget_head(parser, message.raw_headers)
    assert _held(parser) == 0
    assert message.headers["X-Mark"] == "first"


@pytest.mark.parametrize("cut", range(1, len(SECOND)))
async def test_next_message_that_has_begun_loses_nothing(
    parser: HttpRequestParser, cut: int
) -> None:
    [message] = _fed(parser, FIRST + SECOND[:cut])
    forget_head(parser, message.raw_headers)
    [following] = _fed(parser, SECOND[cut:])
    assert following.path == "/two"
    assert dict(following.headers) == {"Host": "a", "X-Mark": "b", "Content-Length": "0"}
    assert [name for name, _ in following.raw_headers] == [b"Host", b"X-Mark", b"Content-Length"]


async def test_same_message_again_loses_nothing(parser: HttpRequestParser) -> None:
    head = SECOND[:-2]
    [message] = _fed(parser, SECOND + head)
    forget_head(parser, message.raw_headers)
    [following] = _fed(parser, b"\r\n")
    assert following.headers == message.headers


async def test_body_goes_on_after_the_head_is_forgotten() -> None:
    loop = asyncio.get_running_loop()
    parser = HttpResponseParser(BaseProtocol(loop), loop, 2**16, response_with_body=True)
    parts = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nX-Mark: a\r\n\r\n2\r\nhi\r\n"
    [(message, body)], _, _ = parser.feed_data(parts)
    forget_head(parser, message.raw_headers)
    parser.feed_data(b"3\r\nyou\r\n0\r\nX-Trailer: b\r\n\r\n")
    assert (body.read_nowait(), body.is_eof()) == (b"hiyou", True)


async def test_what_has_no_headers_or_is_no_parser_is_left_alone() -> None:
    forget_head(None, ((b"Host", b"a"),))
    loop = asyncio.get_running_loop()
    parser = HttpResponseParser(BaseProtocol(loop), loop, 2**16)
    [(message, _)], _, _ = parser.feed_data(
        b"HTTP/1.1 204 No Content\r\n\r\nHTTP/1.1 200 OK\r\nA: b\r\n"
    )
    forget_head(parser, message.raw_headers)
    [(following, _)], _, _ = parser.feed_data(b"\r\n")
    assert following.headers == {"A": "b"}


def _fed(parser: HttpRequestParser, data: bytes) -> list[RawRequestMessage]:
    messages, _, _ = parser.feed_data(data)
    return [message for message, _ in messages]


def _held(parser: HttpRequestParser) -> int:
    return sum(len(one) for one in gc.get_referents(parser) if type(one) is list)
