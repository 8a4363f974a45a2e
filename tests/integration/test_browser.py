"""A real Chromium's own EventSource: numbered events, compression, other origins."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from playwright.async_api import Browser

from scripts.mock.answers import answer_to
from scripts.mock.behaviour import Behaviour
from scripts.mock.server import serving
from tests.backend import Exchange, ScriptedBackend, chunked, sse_head
from tests.browsers import opened
from tests.gateway import Gateway, running_gateway

pytestmark = pytest.mark.asyncio(loop_scope="module")  # the browser's
QUESTION = "How do I brew a cup of coffee?"
QUICK = Behaviour(first=0, pace=2, seed=1)
LISTEN = """
(url) => new Promise((resolve) => {
  const seen = [];
  const source = new EventSource(url);
  for (const type of ['start', 'content_chunk', 'heartbeat', 'complete'])
    source.addEventListener(type, (event) => {
      seen.push({ type, id: event.lastEventId, data: JSON.parse(event.data) });
      if (type === 'complete') { source.close(); resolve(seen); }
    });
  source.addEventListener('error', () => {
    if (source.readyState === EventSource.CLOSED) resolve(seen);
  });
})
"""


def whole_answer() -> str:
    return answer_to(QUESTION, QUICK, None, None).whole


@asynccontextmanager
async def gateway_before(behaviour: Behaviour, **settings: object) -> AsyncIterator[Gateway]:
    async with (
        serving(behaviour) as upstream,
        running_gateway(upstream, upstream_dialect="rag", **settings) as gateway,
    ):
        yield gateway


async def test_event_source_sees_numbered_events(browser: Browser) -> None:
    silent = Behaviour(first=0.4, pace=2, seed=1)
    async with (
        gateway_before(silent, heartbeat_interval="0.2") as gateway,
        opened(browser, gateway.url) as (page, _),
    ):
        seen = await page.evaluate(LISTEN, f"/api/v2/chat-stream?query={QUESTION}")
    kinds = [event["type"] for event in seen]
    assert kinds[0] == "start"
    assert kinds[-1] == "complete"
    assert "heartbeat" in kinds
    numbered = [event["id"] for event in seen if event["type"] != "heartbeat"]
    sid = seen[0]["data"]["stream_id"]
    assert numbered == [f"{sid}.{seq}" for seq in range(1, len(numbered) + 1)]


async def test_event_source_sees_each_compressed_event_before_the_next_is_said(
    browser: Browser,
) -> None:
    words, told = ["one", "two", "three"], asyncio.Semaphore(0)

    async def script(exchange: Exchange) -> None:
        await exchange.send(sse_head())
        for word in words:
            await told.acquire()
            await exchange.send(chunked(b'data: {"content":"%b"}\n\n' % word.encode()))
        await exchange.stall()

    async with (
        ScriptedBackend(script) as backend,
        running_gateway(backend.url, upstream_dialect="rag", stream_compression="auto") as gateway,
        opened(browser, gateway.url) as (page, _),
    ):
        async with page.expect_response(lambda one: "chat-stream" in one.url) as answering:
            await page.evaluate("""() => {
              window.seen = [];
              const source = new EventSource('/api/v2/chat-stream?query=count');
              source.addEventListener('content_chunk',
                (event) => window.seen.push(JSON.parse(event.data).content));
            }""")
        answer = await answering.value
        assert (await answer.all_headers())["content-encoding"] in ("gzip", "zstd")
        for count in range(1, len(words) + 1):
            told.release()
            async with asyncio.timeout(5):
                while await page.evaluate("window.seen.length") < count:
                    await asyncio.sleep(0.01)
        assert await page.evaluate("window.seen") == words


@pytest.mark.parametrize("allowed", [True, False], ids=["allowed", "foreign"])
async def test_other_origins_may_ask_only_if_they_are_allowed(
    browser: Browser, allowed: bool
) -> None:
    async with gateway_before(QUICK) as page_host:
        origins = page_host.url if allowed else ""
        async with (
            gateway_before(QUICK, allowed_origins=origins) as gateway,
            opened(browser, page_host.url) as (page, _),
        ):
            await page.goto(f"{page_host.url}/livez")  # a page without a policy of its own
            url = f"{gateway.url}/api/v2/chat-stream?query={QUESTION}"
            seen = await page.evaluate(LISTEN, url)
    assert bool(seen) == allowed
    if allowed:
        text = "".join(e["data"]["content"] for e in seen if e["type"] == "content_chunk")
        assert text == whole_answer()
