"""The proxies of config/edge/ before a gateway: nothing is held back, cut short or repeated."""

from __future__ import annotations

import asyncio
import io
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp
import orjson
import pytest
from playwright.async_api import Browser

from tests.backend import (
    CHAT_STREAM,
    LAST_CHUNK,
    Exchange,
    ScriptedBackend,
    blocks,
    chunked,
    sse_head,
)
from tests.edge import running_proxy
from tests.gateway import Gateway, running_gateway

ASK = "/v1/chat/completions"
TYPED = "/api/v2/chat-stream"
JSON = {"Content-Type": "application/json"}
STREAMS = 10
LISTEN = """
async (count) => {
  const sources = [...Array(count).keys()].map(
    (n) => new EventSource(`/api/v2/chat-stream?query=${n}`));
  await Promise.all(sources.map((source) => new Promise((resolve) =>
    source.addEventListener('content_chunk', resolve, { once: true }))));
  sources.forEach((source) => source.close());
  return performance.getEntriesByType('navigation')[0].nextHopProtocol;
}
"""

pytestmark = pytest.mark.parametrize("proxy", ["nginx", "envoy", "caddy"])


@dataclass
class Turns:
    """A backend that sends a block only when it is told that the last one has arrived."""

    arrived: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(1))
    stream: bytes = CHAT_STREAM

    async def __call__(self, exchange: Exchange) -> None:
        await exchange.send(sse_head())
        for block in blocks(self.stream):
            await self.arrived.acquire()
            await exchange.send(chunked(block))
        await exchange.send(LAST_CHUNK)


async def halting(exchange: Exchange) -> None:
    """Says something and goes on for ever."""
    await exchange.send(sse_head(), *map(chunked, blocks(CHAT_STREAM)[:2]))
    await exchange.stall()


@asynccontextmanager
async def behind(
    proxy: str, backend: ScriptedBackend, folder: Path, **settings: object
) -> AsyncIterator[tuple[Gateway, str, aiohttp.ClientSession]]:
    async with (
        running_gateway(backend.url, trusted_proxies="127.0.0.1", **settings) as gateway,
        running_proxy(proxy, gateway.port, folder) as url,
        aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=False)) as client,
    ):
        yield gateway, url, client


async def ask(client: aiohttp.ClientSession, url: str, **more: object) -> aiohttp.ClientResponse:
    headers = {"Authorization": "Bearer x", **more.pop("headers", {})}  # type: ignore[dict-item]
    body = {"stream": True, "messages": [{"role": "user", "content": "hi"}], **more}
    return await client.post(url + ASK, json=body, headers=headers)


async def test_each_event_arrives_before_the_next_is_sent(proxy: str, tmp_path: Path) -> None:
    turns = Turns()
    async with (
        ScriptedBackend(turns) as backend,
        behind(proxy, backend, tmp_path) as (_, url, client),
        await ask(client, url) as response,
    ):
        received = b""
        async for chunk, _ in response.content.iter_chunks():
            received += chunk
            turns.arrived.release()
    said = b"".join(line for line in received.splitlines(True) if not line.startswith(b"id:"))
    assert said == CHAT_STREAM


@pytest.mark.asyncio(loop_scope="module")  # the browser's
async def test_page_holds_more_streams_than_http_1_allows(
    browser: Browser, proxy: str, tmp_path: Path
) -> None:
    async with (
        ScriptedBackend(halting) as backend,
        behind(proxy, backend, tmp_path) as (_, url, _),
        await browser.new_page(ignore_https_errors=True) as page,
    ):
        await page.goto(f"{url}/static/playground.svg")
        assert await page.evaluate(LISTEN, STREAMS) == "h2"
        asked = [one for one in backend.exchanges if one.path == ASK]
        assert len(asked) == STREAMS


async def test_client_that_leaves_ends_the_backends_work(proxy: str, tmp_path: Path) -> None:
    async with (
        ScriptedBackend(halting) as backend,
        behind(proxy, backend, tmp_path) as (gateway, url, client),
    ):
        response = await ask(client, url)
        await response.content.readline()
        assert response.connection is not None
        assert response.connection.transport is not None
        response.connection.transport.abort()
        await backend.wait_until_idle()
        await gateway.wait_for_streams(0)


async def test_stream_is_gone_on_with(proxy: str, tmp_path: Path) -> None:
    turns = Turns(asyncio.Semaphore(2))
    async with (
        ScriptedBackend(turns) as backend,
        behind(proxy, backend, tmp_path) as (_, url, client),
    ):
        asked = {"query": "hi"}
        async with client.post(url + TYPED, json=asked) as response:
            last = await _first_chunks_id(response)
        for _ in blocks(CHAT_STREAM):
            turns.arrived.release()
        headers = {"Last-Event-ID": last}
        async with client.post(url + TYPED, json=asked, headers=headers) as response:
            rest = (await response.read()).decode()
        sid, _, number = last.partition(".")
        numbers = [int(found) for found in re.findall(rf"^id: {re.escape(sid)}\.(\d+)", rest, re.M)]
        assert numbers == list(range(int(number) + 1, int(number) + 1 + len(numbers)))
        assert "event: complete" in rest
        assert len(backend.exchanges) == 1


async def _first_chunks_id(response: aiohttp.ClientResponse) -> str:
    last = ""
    async for line in response.content:
        if line.startswith(b"id: "):
            last = line.decode().removeprefix("id: ").strip()
        if line.startswith(b"event: content_chunk"):
            return last
    raise AssertionError("no content came")


async def test_long_questions_pass(proxy: str, tmp_path: Path) -> None:
    async with (
        ScriptedBackend(Turns(asyncio.Semaphore(1000))) as backend,
        behind(proxy, backend, tmp_path) as (_, url, client),
    ):
        body = orjson.dumps({"stream": True, "messages": [], "user": "x" * 4_000_000})
        async with client.post(url + ASK, data=io.BytesIO(body), headers=JSON) as response:
            assert response.status == 200
            await response.read()
        assert backend.exchanges[0].body == body


async def test_client_cannot_choose_the_address_it_is_limited_by(
    proxy: str, tmp_path: Path
) -> None:
    async with (
        ScriptedBackend(Turns(asyncio.Semaphore(1000))) as backend,
        behind(proxy, backend, tmp_path, rate_limit="1/year") as (_, url, client),
    ):
        statuses = []
        for address in ("198.51.100.1", "198.51.100.2"):
            forged = {"X-Forwarded-For": address}
            async with await ask(client, url, headers=forged) as response:
                statuses.append(response.status)
                await response.read()
        assert statuses == [200, 429]


@pytest.mark.parametrize("path", ["/metrics", "/health", "/dashboard", "/api/admin/flags"])
async def test_operators_pages_stay_inside(proxy: str, tmp_path: Path, path: str) -> None:
    async with (
        ScriptedBackend(halting) as backend,
        behind(proxy, backend, tmp_path) as (_, url, client),
    ):
        async with client.get(url + path) as response:
            assert response.status == 404
        assert backend.exchanges == []
