"""What an answer cost, as the stream's JSON tells it: counted, or estimated and marked so."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import aiohttp
import pytest

from tests.backend import (
    ANTHROPIC_STREAM,
    CHAT_STREAM,
    RESPONSES_STREAM,
    Exchange,
    ScriptedBackend,
    blocks,
    chunked,
    sse_head,
    streaming,
)
from tests.gateway import Gateway, running_gateway

TYPED = "/api/v2/chat-stream"
UNCOUNTED = b'data: {"choices":[{"index":0,"delta":{"content":"twelve bytes"}}]}\n\n'
DONE = b"data: [DONE]\n\n"


async def ask(gateway: Gateway, path: str) -> str:
    """The id of a stream that has ended."""
    body = {"query": "?", "stream": True, "model": "m", "messages": [], "input": "?"}
    async with aiohttp.request("POST", gateway.url + path, json=body) as response:
        await response.read()
        return response.headers["X-Stream-Id"]


async def usage(gateway: Gateway, sid: str) -> Mapping[str, object] | None:
    async with aiohttp.request("GET", f"{gateway.url}/api/v2/streams/{sid}") as response:
        told: Mapping[str, object] | None = (await response.json())["usage"]
    return told


async def stop(gateway: Gateway, sid: str) -> None:
    async with aiohttp.request("DELETE", f"{gateway.url}/api/v2/streams/{sid}") as response:
        assert response.status == 200


@pytest.mark.parametrize("path", [TYPED, "/v1/chat/completions"])
async def test_count_of_the_backend_is_no_estimate(path: str, tmp_path: Path) -> None:
    counted = {"input_tokens": 13, "output_tokens": 4, "total_tokens": 17}
    async with ScriptedBackend(streaming(CHAT_STREAM)) as backend:
        async with running_gateway(backend.url, data_dir=tmp_path) as gateway:
            sid = await ask(gateway, path)
            assert await usage(gateway, sid) == counted
        async with running_gateway(backend.url, data_dir=tmp_path) as gateway:
            assert await usage(gateway, sid) == counted


async def test_what_the_gateway_counted_is_an_estimate(tmp_path: Path) -> None:
    estimated = {"input_tokens": None, "output_tokens": 3, "total_tokens": 3, "estimated": True}
    async with ScriptedBackend(streaming(UNCOUNTED + DONE)) as backend:
        async with running_gateway(backend.url, data_dir=tmp_path) as gateway:
            sid = await ask(gateway, TYPED)
            assert await usage(gateway, sid) == estimated
        async with running_gateway(backend.url, data_dir=tmp_path) as gateway:
            assert await usage(gateway, sid) == estimated


async def test_nothing_is_told_where_nobody_counted() -> None:
    async with (
        ScriptedBackend(streaming(UNCOUNTED + DONE)) as backend,
        running_gateway(backend.url) as gateway,
    ):
        assert await usage(gateway, await ask(gateway, "/v1/chat/completions")) is None


@pytest.mark.parametrize(
    ("path", "stream"),
    [
        ("/v1/chat/completions", CHAT_STREAM),
        ("/v1/responses", RESPONSES_STREAM),
        ("/v1/messages", ANTHROPIC_STREAM),
    ],
)
async def test_stopped_stream_of_a_provider_has_an_estimate(
    path: str, stream: bytes, tmp_path: Path
) -> None:
    async def script(exchange: Exchange) -> None:
        await exchange.send(sse_head(), chunked(blocks(stream)[0]))
        await exchange.stall()

    body = {"stream": True, "model": "m", "messages": [], "input": "?"}
    async with ScriptedBackend(script) as backend:
        async with running_gateway(backend.url, data_dir=tmp_path) as gateway:
            async with aiohttp.request("POST", gateway.url + path, json=body) as response:
                sid = response.headers["X-Stream-Id"]
                await response.content.readuntil(b"\n\n")
                await stop(gateway, sid)
                await response.read()
            told = await usage(gateway, sid)
        async with running_gateway(backend.url, data_dir=tmp_path) as gateway:
            assert await usage(gateway, sid) == told
    assert told is not None
    assert told["estimated"] is True
