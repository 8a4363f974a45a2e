"""The scripted backend says exactly what it is told, and sees what its client does."""

from __future__ import annotations

import asyncio
import socket

import aiohttp
import pytest

from gateway.sse.dialects import DIALECTS
from tests.backend import (
    ANTHROPIC_STREAM,
    CHAT_STREAM,
    LAST_CHUNK,
    OLLAMA_STREAM,
    RAG_STREAM,
    RESPONSES_STREAM,
    Exchange,
    Script,
    ScriptedBackend,
    chunked,
    json_response,
    sse_head,
    streaming,
)
from tests.framing import Framing
from tests.recordings import SAID, TOKENS

BIG = b"x" * (1 << 22)


async def ask(url: str, **options: object) -> bytes:
    async with aiohttp.ClientSession() as session, session.post(url, **options) as response:  # type: ignore[arg-type]
        return await response.read()


@pytest.mark.parametrize("framing", ["chunked", "length", "close"])
async def test_recorded_stream_arrives_whole_in_every_framing(framing: Framing) -> None:
    async with ScriptedBackend(streaming(CHAT_STREAM, framing=framing)) as backend:
        assert await ask(backend.url) == CHAT_STREAM


@pytest.mark.parametrize(
    ("name", "stream"),
    [
        ("openai", CHAT_STREAM),
        ("openai-responses", RESPONSES_STREAM),
        ("anthropic", ANTHROPIC_STREAM),
        ("rag", RAG_STREAM),
        ("ollama", OLLAMA_STREAM),
    ],
)
def test_recordings_say_the_same_in_every_dialect(name: str, stream: bytes) -> None:
    dialect = DIALECTS[name]
    summary = dialect.summarise(dialect.decoder(1 << 20).feed(stream))
    assert (summary.text, summary.chunks) == (SAID, len(TOKENS))
    assert summary.usage is not None
    assert summary.usage.output_tokens == len(TOKENS)


async def test_request_is_recorded_as_it_was_sent() -> None:
    async with ScriptedBackend(answer) as backend:
        await ask(f"{backend.url}/a%20b?c=d", data=b"body", headers={"X-Odd-Case": "1"})
        exchange = backend.exchanges[0]
    assert (exchange.method, exchange.target, exchange.path) == ("POST", "/a%20b?c=d", "/a b")
    assert exchange.body == b"body"
    assert ("X-Odd-Case", "1") in exchange.raw_headers
    assert exchange.headers["x-odd-case"] == "1"


async def answer(exchange: Exchange) -> None:
    await exchange.send(json_response(b"{}"))


async def test_chunked_request_body_is_put_together() -> None:
    async def parts():  # type: ignore[no-untyped-def]
        yield b"one "
        yield b"two"

    async with ScriptedBackend(answer) as backend:
        await ask(backend.url, data=parts())
        assert backend.exchanges[0].body == b"one two"


async def test_several_requests_share_a_connection() -> None:
    async with ScriptedBackend(answer) as backend, aiohttp.ClientSession() as session:
        for _ in range(3):
            async with session.get(backend.url) as response:
                await response.read()
        assert (len(backend.exchanges), backend.connections) == (3, 1)
        assert backend.open_connections == 1
        await session.close()
        await backend.wait_until_idle()


async def test_script_sees_a_client_that_leaves_while_it_stalls() -> None:
    left = asyncio.Event()

    async def script(exchange: Exchange) -> None:
        await exchange.send(sse_head() + chunked(b"data: 1\n\n"))
        await exchange.stall()
        left.set()

    async with ScriptedBackend(script) as backend, aiohttp.ClientSession() as session:
        response = await session.get(backend.url)
        await response.content.readany()
        response.close()
        await asyncio.wait_for(left.wait(), 5)
        await backend.wait_until_idle()
        assert backend.exchanges[0].client_left.is_set()


async def test_close_is_a_fin_after_all_bytes() -> None:
    async def script(exchange: Exchange) -> None:
        await exchange.send(b"half")
        await exchange.close()

    async with ScriptedBackend(script) as backend:
        reader, writer = await connect(backend.port)
        assert await reader.read() == b"half"
        writer.close()
        await backend.wait_until_idle()


async def test_reset_is_an_rst_at_once() -> None:
    async def script(exchange: Exchange) -> None:
        exchange.reset()
        await asyncio.sleep(0)

    async with ScriptedBackend(script) as backend:
        reader, writer = await connect(backend.port)
        with pytest.raises(ConnectionResetError):
            await reader.read()
        writer.close()
        await backend.wait_until_idle()


async def connect(port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"GET / HTTP/1.1\r\n\r\n")
    return reader, writer


async def test_bytes_accepted_stands_still_while_the_client_reads_nothing() -> None:
    async def script(exchange: Exchange) -> None:
        await exchange.send(BIG)

    async with ScriptedBackend(script, sndbuf=1 << 14) as backend:
        loop = asyncio.get_running_loop()
        with socket.socket() as client:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 14)
            client.setblocking(False)
            await loop.sock_connect(client, ("127.0.0.1", backend.port))
            await loop.sock_sendall(client, b"GET / HTTP/1.1\r\n\r\n")
            exchange = await backend.wait_for_exchanges()
            await asyncio.sleep(0.05)
            stuck = exchange.bytes_accepted
            assert 0 < stuck < len(BIG) // 4
            received = 0
            while received < len(BIG):
                received += len(await loop.sock_recv(client, 1 << 16))
            assert exchange.bytes_accepted == len(BIG)


async def test_client_that_leaves_while_the_buffer_is_full_ends_the_script() -> None:
    async def script(exchange: Exchange) -> None:
        await exchange.send(BIG)

    async with ScriptedBackend(script, sndbuf=1 << 14) as backend:
        _, writer = await connect(backend.port)
        await backend.wait_for_exchanges()
        writer.transport.abort()
        await backend.wait_until_idle()


async def run_once(script: Script) -> None:
    async with ScriptedBackend(script) as backend:
        _, writer = await connect(backend.port)
        await backend.wait_for_exchanges()
        await backend.wait_until_idle()
        writer.close()


async def test_error_in_a_script_fails_the_test() -> None:
    async def script(exchange: Exchange) -> None:
        assert exchange.path == "/expected"

    with pytest.raises(AssertionError):
        await run_once(script)


async def test_context_ends_connections_that_are_still_open() -> None:
    async def script(exchange: Exchange) -> None:
        await exchange.send(sse_head(), chunked(b"data: 1\n\n"), LAST_CHUNK)
        await exchange.stall()

    async with ScriptedBackend(script) as backend:
        reader, writer = await connect(backend.port)
        await reader.readline()
    assert backend.open_connections == 0
    writer.close()
