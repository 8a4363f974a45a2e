"""The demo backend speaks every dialect and misbehaves exactly as it is asked to."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from time import perf_counter

import aiohttp
import pytest

from gateway.sse.dialects import DIALECTS
from gateway.sse.dialects.openai_completions import OpenAICompletions
from gateway.sse.event import End, Failure, Signal, Sources, Text
from scripts.mock.answers import answer_to
from scripts.mock.behaviour import BadOption, Behaviour, requested, without_options
from scripts.mock.server import serving

SCRIPT = Path(__file__).parents[3] / "scripts" / "mock_upstream.py"
QUICK = Behaviour(first=0, pace=0, seed=1)
QUESTION = "What is SSE?"


def asking(name: str, question: str, *, stream: bool = True) -> tuple[str, dict[str, object]]:
    turns = [{"role": "user", "content": question}]
    bodies: dict[str, tuple[str, dict[str, object]]] = {
        "openai": ("/v1/chat/completions", {"model": "m", "messages": turns}),
        "openai-completions": ("/v1/completions", {"model": "m", "prompt": question}),
        "openai-responses": ("/v1/responses", {"model": "m", "input": question}),
        "anthropic": ("/v1/messages", {"model": "m", "max_tokens": 9999, "messages": turns}),
        "ollama": ("/api/chat", {"model": "m", "messages": turns}),
        "rag": ("/chat/stream", {"query": question}),
    }
    path, body = bodies[name]
    return path, {**body, "stream": stream}


each_dialect = pytest.mark.parametrize(
    "name",
    ["openai", "openai-completions", "openai-responses", "anthropic", "ollama", "rag"],
)


@pytest.fixture
async def url() -> AsyncIterator[str]:
    async with serving(QUICK) as url:
        yield url


@pytest.fixture
async def session(url: str) -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(url) as session:
        yield session


async def fetch(
    session: aiohttp.ClientSession, name: str, question: str, **headers: str
) -> tuple[int, bytes]:
    path, body = asking(name, question)
    async with session.post(path, json=body, headers=headers) as response:
        return response.status, await response.read()


def signals(name: str, data: bytes) -> list[Signal]:
    dialect = DIALECTS.get(name, OpenAICompletions())
    translator = dialect.translator()
    return [
        said for block in dialect.decoder(1 << 20).feed(data) for said in translator.feed(block)
    ]


def text(name: str, data: bytes) -> str:
    return "".join(said.content for said in signals(name, data) if isinstance(said, Text))


def expected(question: str) -> str:
    return answer_to(question, QUICK, None, None).whole


@each_dialect
async def test_gateway_reads_the_whole_answer(session: aiohttp.ClientSession, name: str) -> None:
    status, data = await fetch(session, name, QUESTION)
    assert status == 200
    assert text(name, data) == expected(QUESTION)
    assert isinstance(signals(name, data)[-1], End)


@each_dialect
async def test_answer_without_stream_says_the_same(
    session: aiohttp.ClientSession, name: str
) -> None:
    path, body = asking(name, QUESTION, stream=False)
    async with session.post(path, json=body) as response:
        assert response.content_type == "application/json"
        assert json.dumps(expected(QUESTION)) in json.dumps(await response.json())


@each_dialect
async def test_seed_makes_the_same_bytes(session: aiohttp.ClientSession, name: str) -> None:
    first = await fetch(session, name, "coffee", **{"X-Mock": "seed=7"})
    assert first == await fetch(session, name, "coffee", **{"X-Mock": "seed=7"})
    assert first != await fetch(session, name, "coffee", **{"X-Mock": "seed=8"}) or name == "rag"


@each_dialect
async def test_error_in_mid_stream_is_the_dialects_own(
    session: aiohttp.ClientSession, name: str
) -> None:
    _, data = await fetch(session, name, "[mock: error=3]")
    said = signals(name, data)
    assert isinstance(said[-1], Failure)
    assert sum(isinstance(one, Text) for one in said) == 3


@each_dialect
async def test_cut_ends_the_body_cleanly_without_a_terminal_event(
    session: aiohttp.ClientSession, name: str
) -> None:
    _, data = await fetch(session, name, "[mock: cut=3]")
    assert sum(isinstance(one, Text) for one in signals(name, data)) == 3
    assert not any(isinstance(one, End) for one in signals(name, data))


@pytest.mark.parametrize(
    ("trouble", "error"),
    [("drop=2", aiohttp.ClientPayloadError), ("reset=2", aiohttp.ClientError)],
)
async def test_broken_connection_breaks_the_body(
    session: aiohttp.ClientSession, trouble: str, error: type[Exception]
) -> None:
    with pytest.raises(error):
        await fetch(session, "openai", f"[mock: {trouble}]")


async def test_reset_is_an_rst(url: str) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", int(url.rsplit(":", 1)[1]))
    body = b'{"query": "[mock: reset=1]"}'
    writer.write(b"POST /chat/stream HTTP/1.1\r\nHost: m\r\nContent-Length: %d\r\n\r\n" % len(body))
    writer.write(body)
    with pytest.raises(ConnectionResetError):
        await read_to_the_end(reader)
    writer.close()


async def read_to_the_end(reader: asyncio.StreamReader) -> None:
    # One read would return what came before the reset.
    while await reader.read(1 << 16):
        pass


async def test_rag_has_sources_after_its_text(session: aiohttp.ClientSession) -> None:
    _, data = await fetch(session, "rag", "GDPR")
    kinds = [type(said) for said in signals("rag", data)]
    assert kinds.index(Sources) > max(i for i, kind in enumerate(kinds) if kind is Text)


async def test_status_is_answered_in_the_dialects_shape(session: aiohttp.ClientSession) -> None:
    path, body = asking("anthropic", "[limit]")
    async with session.post(path, json=body) as response:
        assert (response.status, response.headers["Retry-After"]) == (429, "1")
        assert (await response.json())["error"]["type"] == "rate_limit_error"


async def test_unknown_option_is_refused(session: aiohttp.ClientSession) -> None:
    status, data = await fetch(session, "openai", "hi", **{"X-Mock": "stahl=3"})
    assert status == 400
    assert b"there is no mock option 'stahl'" in data


async def test_header_wins_over_query_and_query_over_question() -> None:
    asked = requested(QUICK, "[mock: tokens=1 size=1; seed=1]", "tokens=2,size=2", "tokens=3")
    assert (asked.tokens, asked.size, asked.seed) == (3, 2, 1)


@pytest.mark.parametrize(
    "question", ["why is it slow", "stall, fail and limit", "[other] mock: a=1"]
)
def test_ordinary_words_change_nothing(question: str) -> None:
    assert requested(QUICK, question, "", "") == QUICK
    assert without_options(question) == question


@pytest.mark.parametrize("options", ["stall", "stall=-1", "status=200", "first=nan", "crlf=2"])
def test_senseless_option_is_refused(options: str) -> None:
    with pytest.raises(BadOption):
        QUICK.having(options)


@pytest.mark.parametrize("question", ["coffee", "poem", "gdpr", "sse", "resume", "slow", "hello"])
def test_answers_have_60_to_200_words_and_sources(question: str) -> None:
    answer = answer_to(question, QUICK, None, None)
    assert 60 <= len(answer.pieces) <= 200
    assert answer.sources
    assert all("example.org/" in source.url for source in answer.sources)


def test_tokens_and_size_are_exact() -> None:
    answer = answer_to("", QUICK.having("tokens=500 size=33"), None, None)
    assert [len(piece.encode()) for piece in answer.pieces] == [33] * 500


async def test_crlf_and_stamps_change_the_bytes(session: aiohttp.ClientSession) -> None:
    _, data = await fetch(session, "rag", "[mock: crlf=1 stamp=text tokens=2]")
    assert data.count(b"\r\n\r\n") == 4
    assert data.count(b"\n") == data.count(b"\r\n")
    assert data.count(b"x_emitted_ns") == 2
    assert text("rag", data).count("@") == 2


async def test_comments_fill_the_silence(session: aiohttp.ClientSession) -> None:
    _, data = await fetch(session, "openai", "[mock: first=0.05 comments=0.01 tokens=1]")
    assert 3 <= data.count(b": keep-alive\n\n") <= 5
    assert data.startswith(b": keep-alive")


async def test_first_token_and_pace_take_their_time(session: aiohttp.ClientSession) -> None:
    begun = perf_counter()
    await fetch(session, "openai", "[mock: first=0.05 pace=10 jitter=0 tokens=5]")
    assert 0.09 <= perf_counter() - begun < 1


async def test_client_that_leaves_a_stalled_stream_is_counted(
    session: aiohttp.ClientSession,
) -> None:
    path, body = asking("openai", "[mock: stall=2]")
    response = await session.post(path, json=body)
    await response.content.readany()
    assert (await stats(session))["active"] == 1
    response.close()
    while (seen := await stats(session))["active"]:
        pass
    assert (seen["left"], seen["completed"], seen["chunks"]) == (1, 0, 2)


async def stats(session: aiohttp.ClientSession) -> dict[str, object]:
    async with session.get("/stats") as response:
        answer: dict[str, object] = await response.json()
        return answer


async def test_stats_show_the_last_headers_and_can_be_reset(session: aiohttp.ClientSession) -> None:
    await fetch(session, "rag", "hi", **{"X-Odd-Case": "1"})
    seen = await stats(session)
    assert seen["requests_by_path"] == {"/chat/stream": 1}
    assert seen["last_headers"]["/chat/stream"]["X-Odd-Case"] == "1"  # type: ignore[index]
    async with session.delete("/stats") as response:
        assert response.status == 204
    assert (await stats(session))["requests"] == 0


async def test_echo_shows_the_request_as_it_arrived(session: aiohttp.ClientSession) -> None:
    async with session.patch("/echo/x?a=1&a=%20", data=b"body", headers={"X-A": "b"}) as response:
        seen = await response.json()
    assert (seen["method"], seen["path"]) == ("PATCH", "/echo/x?a=1&a=%20")
    assert (seen["body_bytes"], seen["body_sha256"]) == (4, hashlib.sha256(b"body").hexdigest())
    assert ["X-A", "b"] in seen["headers"]


async def test_download_has_exactly_so_many_bytes(session: aiohttp.ClientSession) -> None:
    for query in ("bytes=200001", "bytes=200001&chunked=1"):
        async with session.get(f"/download?{query}") as response:
            assert len(await response.read()) == 200_001


async def test_unknown_path_is_a_json_404(session: aiohttp.ClientSession) -> None:
    async with session.get("/v1/nothing") as response:
        assert (response.status, (await response.json())["error"]["code"]) == (404, "not_found")


@asynccontextmanager
async def process(*options: str) -> AsyncIterator[asyncio.subprocess.Process]:
    pipe = asyncio.subprocess.PIPE
    command = (sys.executable, str(SCRIPT), *options)
    child = await asyncio.create_subprocess_exec(*command, stdout=pipe, stderr=pipe, cwd=os.sep)
    try:
        yield child
    finally:
        if child.returncode is None:
            child.kill()
        await child.communicate()


async def test_script_announces_its_address_and_stops_at_once_in_mid_stream() -> None:
    async with process("--port", "0", "--quiet", "--mock", "stall=1") as child:
        assert child.stdout is not None
        line = (await child.stdout.readline()).decode()
        url = line.removeprefix("listening on ").strip()
        async with aiohttp.ClientSession(url) as session:
            response = await session.post("/chat/stream", json={"query": "hi"})
            await response.content.readany()
            begun = perf_counter()
            child.send_signal(signal.SIGTERM)
            assert await child.wait() == 0
            assert perf_counter() - begun < 1
            response.close()


async def test_script_says_in_one_line_that_its_port_is_taken() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        async with process("--port", str(port)) as child:
            output, errors = await child.communicate()
    assert (child.returncode, output) == (1, b"")
    wanted = f"error: can't listen on 127.0.0.1:{port}: Address already in use\n"
    assert errors.decode() == wanted
