"""A real Chromium: the playground, its own EventSource, other origins, and cut sockets."""

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
from tests.browsers import opened, running_chromium
from tests.faults import FaultProxy
from tests.gateway import Gateway, running_gateway

QUESTION = "How do I brew a cup of coffee?"
QUICK = Behaviour(first=0, pace=2, seed=1)
CUTS = 5
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


@pytest.fixture
async def browser() -> AsyncIterator[Browser]:
    async with running_chromium() as running:
        yield running


@asynccontextmanager
async def gateway_before(behaviour: Behaviour, **settings: object) -> AsyncIterator[Gateway]:
    async with (
        serving(behaviour) as upstream,
        running_gateway(upstream, upstream_dialect="rag", **settings) as gateway,
    ):
        yield gateway


@pytest.mark.parametrize("way", ["mouse", "keyboard"])
async def test_playground_shows_the_whole_answer(browser: Browser, way: str) -> None:
    async with gateway_before(QUICK) as gateway, opened(browser, gateway.url) as (page, troubles):
        if way == "mouse":
            await page.fill("#question", QUESTION)
            await page.click("#start")
        else:
            await page.keyboard.press("Tab")
            await page.keyboard.type(QUESTION)
            await page.keyboard.press("Enter")
        await page.wait_for_selector("#state[data-state=completed]")
        assert await page.text_content("#answer") == whole_answer()
        assert await page.inner_text("#state") == "Complete"
        assert await page.locator("#sources li").count() > 0
        assert (await page.inner_text("#first-token")).endswith(" ms")
        assert troubles == []


async def test_playground_stops_and_tells_of_errors_in_words(browser: Browser) -> None:
    slow = Behaviour(first=0, pace=50, seed=1)
    async with gateway_before(slow) as gateway, opened(browser, gateway.url) as (page, _):
        await page.fill("#question", QUESTION)
        await page.click("#start")
        await page.wait_for_selector("#state[data-state=open]")
        await page.click("#stop")
        assert await page.inner_text("#state") == "Stopped"
        await page.fill("#question", "[mock: error=3] hello")
        await page.click("#start")
        await page.wait_for_selector("#state[data-state=failed]")
        assert await page.locator("#error").is_visible()


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


async def test_event_source_whose_socket_is_cut_five_times_shows_the_whole_answer_once(
    browser: Browser,
) -> None:
    async with (
        gateway_before(Behaviour(first=0, pace=20, seed=1)) as gateway,
        FaultProxy(gateway.port) as proxy,
        opened(browser, proxy.url) as (page, _),
    ):
        cuts = 0

        async def count(_: object) -> None:
            nonlocal cuts
            cuts += 1
            if cuts == CUTS:
                proxy.down.cut_after = None

        await page.expose_function("countCut", count)
        await page.evaluate(
            "new MutationObserver(() => document.querySelector('#state').dataset.state ==="
            " 'reconnecting' && window.countCut(1)).observe("
            "document.querySelector('#state'), { attributes: true })"
        )
        await page.fill("#question", QUESTION)
        await page.click("#start")
        await page.wait_for_selector("#answer:not(:empty)")
        proxy.down.cut_after = 2500
        proxy.cut_all()
        await page.wait_for_selector("#state[data-state=completed]", timeout=60_000)
        answer = await page.evaluate("document.querySelector('#answer').textContent")
        assert answer == whole_answer()
        assert cuts >= CUTS
        assert gateway.metric("sluice_sessions_created_total") == 1


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
