"""Each recorded answer, broken off after every byte in every way: never a false end.

What the client must see follows from where the cut is. Within the head: an HTTP error. Up to the
last byte of the terminal event: a stream that says it failed. From there on: the whole answer.
"""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections import Counter
from typing import Literal

import pytest

from tests.backend import Exchange, ScriptedBackend
from tests.framing import Framing
from tests.gateway import running_gateway
from tests.wire.answers import Answer, ask, events, without_ids
from tests.wire.routes import ROUTES, SAID, Route

Cut = Literal["fin", "reset", "stall"]
_OFFSET = re.compile(rb"cut at ([0-9]+)")
#: Enough to keep the gateway busy. Those that stall wait for the clock, all of them together.
_AT_ONCE = {"fin": 16, "reset": 16, "stall": 1000}
_CLOCK_S = 30
_ERROR_CODES = {
    "fin": {"upstream_unavailable", "upstream_truncated"},
    "reset": {"upstream_unavailable", "upstream_truncated"},
    "stall": {"upstream_timeout", "upstream_idle"},
}


@pytest.mark.parametrize("cut", ["fin", "reset", "stall"])
@pytest.mark.parametrize("framing", ["chunked", "length", "close"])
@pytest.mark.parametrize("route", ROUTES, ids=str)
async def test_answer_cut_anywhere_is_complete_or_an_error(
    route: Route, framing: Framing, cut: Cut
) -> None:
    await _cut_everywhere(route, framing, cut, "1.1")


@pytest.mark.parametrize("cut", ["fin", "stall"])
@pytest.mark.parametrize("route", ROUTES, ids=str)
async def test_http_1_0_client_is_told_too(route: Route, cut: Cut) -> None:
    await _cut_everywhere(route, "close", cut, "1.0")


async def _cut_everywhere(route: Route, framing: Framing, cut: Cut, version: str) -> None:
    head, body = route.recording.answer(framing)
    answer = head + body
    requests: Counter[int] = Counter()

    async def script(exchange: Exchange) -> None:
        offset = _offset(exchange.body)
        requests[offset] += 1
        await exchange.send(answer[:offset])
        if cut == "stall":
            await exchange.stall()
        elif cut == "reset":
            exchange.reset()
        else:
            await exchange.close()

    clocks = {
        "upstream_connect_seconds": 0,  # hundreds connect at once, in one loop with their backend
        "upstream_first_token_seconds": _CLOCK_S,
        "upstream_idle_seconds": _CLOCK_S,
    }
    at_once = asyncio.Semaphore(_AT_ONCE[cut])
    async with (
        ScriptedBackend(script) as backend,
        running_gateway(
            backend.url,
            upstream_dialect=route.recording.dialect,
            commit_delay_ms=_CLOCK_S * 1000,
            **clocks,
        ) as gateway,
    ):

        async def verdict(offset: int) -> str:
            async with at_once:
                question = route.question(f"cut at {offset}")
                got = await ask(gateway.port, route.path, question, version=version)
            return _judge(route, got, _ERROR_CODES[cut])

        offsets = range(len(answer) + 1)
        judging = asyncio.gather(*map(verdict, offsets))
        if cut == "stall":
            asked = asyncio.create_task(backend.wait_for_exchanges(len(offsets), seconds=60))
            await asyncio.wait({judging, asked}, return_when=asyncio.FIRST_COMPLETED)
            if judging.done():
                judging.result()  # what came too early, if it wasn't a failure, is judged below
            await asked
            await _let_the_loop_turn()
            gateway.services.hub.tick(time.monotonic() + _CLOCK_S)
        verdicts = await judging

    assert list(zip(offsets, verdicts, strict=True)) == [
        (offset, _expected(route, head, body, offset)) for offset in offsets
    ]
    # A pooled connection that closes before a byte has come may be a stale one; else ask but once.
    assert {offset: count for offset, count in requests.items() if offset and count != 1} == {}
    assert set(requests) == set(offsets)


async def _let_the_loop_turn() -> None:
    """Until what was sent is read: everything here runs in this one loop."""
    for _ in range(50):
        await asyncio.sleep(0)


def _offset(body: bytes) -> int:
    found = _OFFSET.search(body)
    assert found is not None
    return int(found[1])


def _expected(route: Route, head: bytes, body: bytes, offset: int) -> str:
    terminal = route.recording.blocks[-1]
    if offset < len(head):
        return "refused"
    return "complete" if offset >= len(head) + body.index(terminal) + len(terminal) else "error"


def _judge(route: Route, answer: Answer, codes: set[str]) -> str:
    """What a client makes of an answer that it reads strictly."""
    if answer.status >= 400:
        assert answer.is_whole
        assert answer.status in (502, 504)
        return _refusal(route, answer, codes)
    assert answer.status == 200
    return (_judge_typed if route.is_typed else _judge_provider)(route, answer, codes)


def _refusal(route: Route, answer: Answer, codes: set[str]) -> str:
    error = answer.json["error"]
    assert error["code"] in codes, error
    assert error["message"]
    assert (answer.json.get("type") == "error") == (route.path == "/v1/messages")
    return "refused"


def _judge_typed(route: Route, answer: Answer, codes: set[str]) -> str:
    assert answer.is_whole
    without_ids(answer.body)
    first, *middle, last = events(answer.body)
    assert first.name == "start"
    assert {event.name for event in middle} <= {"content_chunk"}
    text = "".join(event.data["content"] for event in middle)
    assert SAID.startswith(text)
    if last.name == "complete":
        assert text == SAID
        assert last.data["reason"] == "completed"
        return "complete"
    assert last.name == "error"
    assert last.data["code"] in codes
    assert last.data["partial"] == bool(text)
    return "error"


def _judge_provider(route: Route, answer: Answer, codes: set[str]) -> str:
    whole = b"".join(route.recording.blocks)
    body = without_ids(answer.body)
    if answer.is_whole:
        assert body == whole
        return "complete"
    assert body.endswith(b"\n\n")
    *sent, last = [block + b"\n\n" for block in body.split(b"\n\n")[:-1]]
    assert whole.startswith(b"".join(sent))
    assert len(sent) < len(route.recording.blocks)
    data = json.loads(last.rpartition(b"data: ")[2])
    if route.recording.dialect == "openai-responses":
        assert last.startswith(b"event: error\n")
        assert data["type"] == "error"
        assert data["code"] in codes
    else:
        assert last.startswith(b"event: error\n") == (route.recording.dialect == "anthropic")
        assert data["error"]["code"] in codes
    return "error"
