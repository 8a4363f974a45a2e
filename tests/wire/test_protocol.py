"""A client's connection around its requests: our faults, bodies that nobody wants, who leaves."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest
from aiohttp import web

from gateway.stream.hub import Hub
from gateway.web import protocol
from gateway.web.outlet import Outlet
from tests.backend import Exchange, ScriptedBackend, json_response
from tests.framing import chunked, sse_head
from tests.gateway import Gateway, running_gateway
from tests.raw import ask_raw, whole

GET = b"GET /models HTTP/1.1\r\nHost: gateway\r\n\r\n"
UPLOAD = b"POST /api/v2/chat-stream HTTP/1.1\r\nHost: gateway\r\nX-User-Id: \xff\r\n"
BODY = b'{"model":"m","stream":true,"messages":[{"role":"user","content":"how?"}]}'
ASKED = (
    b"POST /v1/chat/completions HTTP/1.1\r\nHost: gateway\r\nContent-Type: application/json\r\n"
    b"Content-Length: %d\r\n\r\n" % len(BODY)
) + BODY


async def answer_well(exchange: Exchange) -> None:
    if exchange.target == "/models":
        await exchange.send(json_response(b"{}"))
    else:
        await exchange.send(sse_head() + chunked(b"data: [DONE]\n\n") + b"0\r\n\r\n")


@asynccontextmanager
async def gateway() -> AsyncIterator[Gateway]:
    async with ScriptedBackend(answer_well) as backend, running_gateway(backend.url) as running:
        yield running


@pytest.mark.parametrize("name", ["passage", "_route"])
async def test_fault_of_ours_is_answered_logged_and_ends_the_connection(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, name: str
) -> None:
    async def fail(*_: object) -> None:
        raise RuntimeError("ours")

    async with gateway() as running:
        with monkeypatch.context() as patch:
            patch.setattr(protocol, name, fail)
            answer = await ask_raw(running.port, whole(GET + GET))
        assert (answer.status, answer.count) == (500, 1)
        assert answer.error["code"] == "internal_error"
        assert "ours" not in answer.data.decode()
        [line] = [one for one in caplog.records if one.getMessage() == "request.failed"]
        assert (line.levelno, str(line.exc_info and line.exc_info[1])) == (logging.ERROR, "ours")
        assert (await _ask(running, GET)).startswith(b"HTTP/1.1 200 ")


@pytest.mark.parametrize("has_begun", [False, True], ids=["before", "after"])
async def test_fault_of_ours_in_a_stream_is_no_second_answer(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, has_begun: bool
) -> None:
    async def fail(_hub: Hub, _stream: object, outlet: Outlet, **_: object) -> None:
        if has_begun:
            await outlet.write_frames(b"data: first\n\n")
        raise RuntimeError("ours")

    async with gateway() as running:
        with monkeypatch.context() as patch:
            patch.setattr(Hub, "read", fail)
            asked = ASKED.replace(b"Host", b"Connection: close\r\nHost")
            answer = await ask_raw(running.port, whole(asked))
        assert [one.getMessage() for one in caplog.records].count("request.failed") == 1
    assert answer.data.count(b"HTTP/1.1 ") == 1
    assert answer.status == (200 if has_begun else 500)
    assert (b"data: first" in answer.data) == has_begun
    assert not has_begun or not answer.data.endswith(b"0\r\n\r\n")


async def _wait_for_the_rest(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"x" * 500_000)
    await writer.drain()
    assert await reader.read() == b""


async def _break_the_chunks(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"zz\r\n" + GET)
    assert await reader.read() == b""


async def _leave(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.close()
    await writer.wait_closed()


@pytest.mark.parametrize(
    ("framing", "after"),
    [
        (b"Content-Length: 500001\r\n\r\nx", _wait_for_the_rest),
        (b"Transfer-Encoding: chunked\r\n\r\n1\r\nx\r\n", _break_the_chunks),
        (b"Content-Length: 500001\r\n\r\nx", _leave),
    ],
    ids=["sent", "malformed", "gone"],
)
async def test_body_that_nobody_wants_is_read_until_the_client_is_through(
    framing: bytes,
    after: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]],
) -> None:
    async with gateway() as running:
        reader, writer = await asyncio.open_connection("127.0.0.1", running.port)
        writer.write(UPLOAD + framing)
        head = await reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 400 ")
        assert b"bad_header" in await reader.readuntil(b"}}")
        await after(reader, writer)
        writer.close()
        await _until_nobody_is_left(running)


async def test_body_that_never_comes_isnt_waited_for_for_ever(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(protocol, "_LINGER_S", 0.05)
    async with gateway() as running:
        answer = await ask_raw(running.port, whole(UPLOAD + b"Content-Length: 9\r\n\r\nx"))
        assert (answer.status, answer.count) == (400, 1)
        await _until_nobody_is_left(running)


async def test_request_that_comes_while_a_stream_runs_is_answered_after_it() -> None:
    is_over = asyncio.Event()

    async def wait(exchange: Exchange) -> None:
        if exchange.target == "/models":
            await exchange.send(json_response(b"{}"))
            return
        await exchange.send(sse_head() + chunked(b"data: 1\n\n"))
        await is_over.wait()
        await exchange.send(chunked(b"data: [DONE]\n\n") + b"0\r\n\r\n")

    async with ScriptedBackend(wait) as backend, running_gateway(backend.url) as running:
        reader, writer = await asyncio.open_connection("127.0.0.1", running.port)
        # The head of the next request has begun when the headers of this one are let go.
        writer.write(ASKED + GET[:30])
        await reader.readuntil(b"data: 1\n\n")
        writer.write(GET[30:])
        await asyncio.sleep(0)
        is_over.set()
        await reader.readuntil(b"0\r\n\r\n")
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200 ")
        assert await reader.readexactly(2) == b"{}"
        writer.close()
        await writer.wait_closed()
        assert [one.target for one in backend.exchanges] == ["/v1/chat/completions", "/models"]


async def _ask(running: Gateway, request: bytes) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", running.port)
    writer.write(request)
    head = await reader.readuntil(b"\r\n\r\n")
    writer.close()
    return head


async def _until_nobody_is_left(running: Gateway) -> None:
    server = running.runner.server
    assert isinstance(server, web.Server)
    async with asyncio.timeout(10):
        while server.connections:
            await asyncio.sleep(0.01)
