"""What a stream doesn't need any more is let go while it runs."""

from __future__ import annotations

import asyncio
import gc

import pytest
from aiohttp.http import RawRequestMessage
from multidict import CIMultiDict, CIMultiDictProxy

from gateway.sse.event import Prompt
from gateway.upstream.client import UpstreamRequest
from gateway.web.audited import Question
from tests.backend import CHAT_STREAM, Exchange, ScriptedBackend
from tests.client import request
from tests.framing import blocks, chunked, sse_head
from tests.gateway import running_gateway
from tests.wire.routes import PROVIDER, TYPED, Route

_MARK = "the question of this test"
_HEADER = "a header of this test"


async def _one_event(exchange: Exchange) -> None:
    await exchange.send(sse_head(), chunked(blocks(CHAT_STREAM)[0]))
    await exchange.client_left.wait()


def _held() -> list[object]:
    """Whatever still holds a question: as it came, as it was read, as it was passed on."""
    gc.collect()
    return [
        one
        for one in gc.get_objects()
        if (isinstance(one, UpstreamRequest) and _MARK.encode() in (one.body or b""))
        or (isinstance(one, Prompt) and one.query == _MARK)
        or (isinstance(one, Question) and one.text is not None and _MARK in str(one.text))
        or (type(one) is dict and _MARK in (one.get("query"), one.get("content")))
    ]


def _holds_header(one: object) -> bool:
    match one:
        case CIMultiDict() | CIMultiDictProxy():
            return _HEADER in one.values()
        case RawRequestMessage():
            return any(value == _HEADER.encode() for _, value in one.raw_headers)
        case list():  # of aiohttp's parsers
            pairs = (pair for pair in one if type(pair) is tuple and len(pair) == 2)
            return any(value in (_HEADER, _HEADER.encode()) for _, value in pairs)
    return False


@pytest.mark.parametrize("route", [TYPED[0], PROVIDER[0]], ids=lambda route: route.path)
async def test_question_and_headers_are_not_held_while_its_answer_runs(route: Route) -> None:
    messages = [{"role": "user", "content": _MARK}]
    body = {"query": _MARK} if route is TYPED[0] else {"stream": True, "messages": messages}
    asked = request(route.path, body, {"X-Mark": _HEADER})
    async with ScriptedBackend(_one_event) as backend, running_gateway(backend.url) as gateway:
        reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
        writer.write(asked)
        await reader.readuntil(b"\n\n")
        assert len(gateway.services.hub) == 1
        assert _held() == []
        assert [one for one in gc.get_objects() if _holds_header(one)] == []
        writer.close()
        await writer.wait_closed()
