"""The playground in a real Chromium, on the running gateway."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from playwright.async_api import Browser, Page, expect

from scripts.mock.answers import answer_to
from scripts.mock.behaviour import Behaviour
from scripts.mock.server import serving
from tests.backend import Exchange, ScriptedBackend, json_response
from tests.browsers import DESK, PHONE, barriers, opened, overflow_px
from tests.faults import FaultProxy
from tests.gateway import ADMIN_TOKEN, Gateway, running_gateway

pytestmark = pytest.mark.asyncio(loop_scope="module")  # the browser's
QUESTION = "How do I brew a cup of coffee?"
QUICK = Behaviour(first=0, pace=2, seed=1)
STEADY = Behaviour(first=0, pace=20, seed=1)
ENDLESS = Behaviour(first=0, pace=20, seed=1, tokens=3000)
CUTS = 5


def whole_answer() -> str:
    return answer_to(QUESTION, QUICK, None, None).whole


@asynccontextmanager
async def gateway_before(behaviour: Behaviour, **settings: object) -> AsyncIterator[Gateway]:
    settings = {"upstream_dialect": "rag", **settings}
    async with serving(behaviour) as upstream, running_gateway(upstream, **settings) as gateway:
        yield gateway


async def ask(page: Page, question: str = QUESTION) -> None:
    await page.fill("#question", question)
    await page.keyboard.press("Enter")


async def text_of(page: Page, selector: str) -> str:
    return await page.locator(selector).text_content() or ""


def state(page: Page, name: str) -> str:
    return f"#state[data-state={name}]"


@pytest.mark.parametrize("way", ["mouse", "keyboard"])
async def test_playground_shows_the_whole_answer(browser: Browser, way: str) -> None:
    async with gateway_before(QUICK) as gateway, opened(browser, gateway.url) as (page, troubles):
        if way == "mouse":
            await page.fill("#question", QUESTION)
            await page.click("#start")
        else:
            await expect(page.locator("#question")).to_be_focused()
            await page.keyboard.type(QUESTION)
            await page.keyboard.press("Enter")
        await expect(page.locator("#state")).to_have_text("Complete")
        assert await text_of(page, "#answer") == whole_answer()
        assert await page.locator("#sources li").count() > 0
        await expect(page.locator("#first-token")).to_contain_text("ms")
        await expect(page.locator("#start")).to_be_enabled()
        assert troubles == []


async def test_new_line_does_not_ask(browser: Browser) -> None:
    async with gateway_before(QUICK) as gateway, opened(browser, gateway.url) as (page, _):
        await page.keyboard.type("one")
        await page.keyboard.press("Shift+Enter")
        await page.keyboard.type("two")
        assert await page.input_value("#question") == "one\ntwo"
        assert gateway.metric("sluice_sessions_created_total") == 0


@pytest.mark.parametrize("first", [0, 30], ids=["streaming", "before the first token"])
async def test_stop_ends_the_backends_work_and_keeps_what_was_said(
    browser: Browser, first: float
) -> None:
    behaviour = Behaviour(first=first, pace=20, seed=1, tokens=3000)
    async with (
        gateway_before(behaviour, commit_delay_ms=100) as gateway,
        opened(browser, gateway.url) as (page, troubles),
    ):
        await ask(page)
        await gateway.wait_for_streams(1)
        if not first:
            await expect(page.locator("#answer")).not_to_be_empty()
        await page.click("#stop")
        await expect(page.locator("#state")).to_have_text("Stopped")
        await gateway.wait_for_streams(0)
        assert gateway.metric("sluice_streams_total", reason="user_requested") == 1
        assert bool(await text_of(page, "#answer")) == (not first)
        await expect(page.locator("#question")).to_be_focused()
        assert troubles == []


async def test_error_of_the_backend_is_told_in_words(browser: Browser) -> None:
    async with gateway_before(STEADY) as gateway, opened(browser, gateway.url) as (page, _):
        await ask(page, "[mock: error=3] hello")
        await expect(page.locator("#state")).to_have_text("Failed")
        await expect(page.locator("#error")).to_contain_text("The assistant couldn't answer.")


async def test_refusal_is_told_with_its_trace_id(browser: Browser) -> None:
    async with (
        gateway_before(QUICK, rate_limit="1/year") as gateway,
        opened(browser, gateway.url) as (page, _),
    ):
        await ask(page)
        await expect(page.locator("#state")).to_have_text("Complete")
        await ask(page, "again")
        await expect(page.locator("#state")).to_have_text("Failed")
        told = page.locator("#error")
        await expect(told).to_contain_text("You have asked often in a short time. Wait a moment")
        await expect(told.locator("small")).to_contain_text("Too many requests")
        await expect(told.locator("small")).to_contain_text("(rate_limited)")
        await expect(page.locator("#trace-id")).to_have_text(re.compile("[0-9a-f]{32}"))


async def test_cut_connection_is_resumed_without_loss_or_repetition(browser: Browser) -> None:
    async with gateway_before(STEADY) as gateway, opened(browser, gateway.url) as (page, troubles):
        await ask(page)
        await expect(page.locator("#answer")).not_to_be_empty()
        await page.click("#cut")
        await page.wait_for_selector(state(page, "reconnecting"))
        await page.wait_for_selector(state(page, "completed"))
        assert await text_of(page, "#answer") == whole_answer()
        await expect(page.locator("#reconnects")).to_have_text("1")
        assert gateway.metric("sluice_sessions_created_total") == 1
        assert troubles == []


async def test_connection_that_is_cut_five_times_shows_the_whole_answer_once(
    browser: Browser,
) -> None:
    async with (
        gateway_before(STEADY) as gateway,
        FaultProxy(gateway.port) as proxy,
        opened(browser, proxy.url) as (page, _),
    ):
        await ask(page)
        await expect(page.locator("#answer")).not_to_be_empty()
        proxy.down.cut_after = 2500
        proxy.cut_all()
        await expect(page.locator("#reconnects")).to_have_text(str(CUTS), timeout=60_000)
        proxy.down.cut_after = None
        await page.wait_for_selector(state(page, "completed"), timeout=60_000)
        assert await text_of(page, "#answer") == whole_answer()
        assert gateway.metric("sluice_sessions_created_total") == 1


async def test_answer_goes_on_after_the_page_is_loaded_again(browser: Browser) -> None:
    async with gateway_before(STEADY) as gateway, opened(browser, gateway.url) as (page, troubles):
        await ask(page)
        await expect(page.locator("#answer")).not_to_be_empty()
        await page.reload()
        await expect(page.locator("#note")).to_contain_text("loaded again")
        await page.wait_for_selector(state(page, "completed"))
        assert await text_of(page, "#answer") == whole_answer()
        assert await page.input_value("#question") == QUESTION
        assert gateway.metric("sluice_sessions_created_total") == 1
        assert troubles == []


async def test_stop_works_after_a_reload(browser: Browser) -> None:
    async with gateway_before(ENDLESS) as gateway, opened(browser, gateway.url) as (page, _):
        await ask(page)
        await expect(page.locator("#answer")).not_to_be_empty()
        await page.reload()
        await page.wait_for_selector(state(page, "open"))
        await page.click("#stop")
        await expect(page.locator("#state")).to_have_text("Stopped")
        await gateway.wait_for_streams(0)


async def test_answer_that_is_not_kept_any_more_is_let_go(browser: Browser) -> None:
    async with gateway_before(QUICK) as gateway, opened(browser, gateway.url) as (page, _):
        kept = '{"url": "/api/v2/streams/AAAAAAAAAAAAAAAA"}'
        await page.evaluate("(kept) => sessionStorage.setItem('sluice-playground', kept)", kept)
        await page.reload()
        await expect(page.locator("#note")).to_contain_text("kept any more")
        await expect(page.locator("#state")).to_have_text("Ready")
        await ask(page)
        await expect(page.locator("#state")).to_have_text("Complete")


async def test_new_question_replaces_the_one_under_way(browser: Browser) -> None:
    async with gateway_before(ENDLESS) as gateway, opened(browser, gateway.url) as (page, _):
        await ask(page, "first")
        await expect(page.locator("#answer")).not_to_be_empty()
        first = await text_of(page, "#stream-id")
        await ask(page, "[mock: tokens=5 pace=1] second")
        await expect(page.locator("#state")).to_have_text("Complete")
        assert await text_of(page, "#stream-id") != first
        await expect(page.locator("#chunks")).to_have_text("5")


async def test_silence_is_filled_with_heartbeats(browser: Browser) -> None:
    silent = Behaviour(first=0, pace=2, seed=1, stall=4)
    async with (
        gateway_before(silent, heartbeat_interval="0.2") as gateway,
        opened(browser, gateway.url) as (page, _),
    ):
        await ask(page)
        await expect(page.locator("#heartbeats")).to_have_text(re.compile(r"[3-9]|\d\d"))
        await page.click("summary:has-text('Raw events')")
        for name in ("start", "content_chunk", "heartbeat"):
            await expect(page.locator("#events")).to_contain_text(name)
        await expect(page.locator("#arrivals")).to_have_attribute(
            "aria-label", re.compile(r"\d+ events in ")
        )


async def test_network_that_is_away_is_waited_for(browser: Browser) -> None:
    async with gateway_before(STEADY) as gateway, opened(browser, gateway.url) as (page, _):
        await ask(page)
        await expect(page.locator("#answer")).not_to_be_empty()
        await page.context.set_offline(True)
        await page.evaluate("document.getElementById('cut').click()")
        await page.wait_for_selector(state(page, "offline"))
        await page.context.set_offline(False)
        await page.wait_for_selector(state(page, "completed"))
        assert await text_of(page, "#answer") == whole_answer()


async def test_trace_id_is_copied(browser: Browser) -> None:
    async with gateway_before(QUICK) as gateway, opened(browser, gateway.url) as (page, _):
        await page.context.grant_permissions(["clipboard-read", "clipboard-write"])
        await ask(page)
        await expect(page.locator("#state")).to_have_text("Complete")
        await page.click("#copy")
        await expect(page.locator("#note")).to_contain_text("copied")
        copied = await page.evaluate("navigator.clipboard.readText()")
        assert copied == await text_of(page, "#trace-id")


async def test_options_go_with_the_question(browser: Browser) -> None:
    async def script(exchange: Exchange) -> None:
        await exchange.send(json_response(b"{}"))

    async with (
        ScriptedBackend(script) as backend,
        running_gateway(backend.url, upstream_dialect="rag") as gateway,
        opened(browser, gateway.url) as (page, _),
    ):
        await page.click("summary:has-text('Options')")
        await page.fill("#credential", "a-key")
        await page.select_option("#mode", "balanced")
        await page.select_option("#leaving", "cancel")
        async with page.expect_request(lambda one: "chat-stream" in one.url) as asking:
            await ask(page)
        headers = await (await asking.value).all_headers()
        assert headers["authorization"] == "Bearer a-key"
        assert headers["x-performance-mode"] == "balanced"
        assert headers["x-stream-on-disconnect"] == "cancel"


async def test_dashboard_is_named_only_where_there_is_one(browser: Browser) -> None:
    for token, count in ((None, 0), (ADMIN_TOKEN, 1)):
        async with (
            gateway_before(QUICK, admin_token=token) as gateway,
            opened(browser, gateway.url) as (page, _),
        ):
            await expect(page.get_by_role("link", name="Dashboard")).to_have_count(count)


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("viewport", [DESK, PHONE], ids=["desk", "phone"])
async def test_playground_keeps_nobody_out(
    browser: Browser, scheme: str, viewport: dict[str, int]
) -> None:
    async with (
        gateway_before(ENDLESS) as gateway,
        opened(browser, gateway.url, color_scheme=scheme, viewport=viewport) as (page, troubles),
    ):
        assert await barriers(page) == []
        await page.click("summary:has-text('Options')")
        await page.click("summary:has-text('Raw events')")
        await ask(page)
        await expect(page.locator("#answer")).not_to_be_empty()
        assert await barriers(page) == []
        assert await overflow_px(page) <= 0
        await page.click("#stop")
        await expect(page.locator("#state")).to_have_text("Stopped")
        assert await barriers(page) == []
        assert troubles == []
