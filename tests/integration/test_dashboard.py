"""The dashboard in a real Chromium, on the running gateway."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager

import aiohttp
import pytest
from playwright.async_api import Browser, Page, Route, expect

from scripts.mock.behaviour import Behaviour
from scripts.mock.server import serving
from tests.browsers import DESK, PHONE, barriers, opened, overflow_px
from tests.faults import FaultProxy
from tests.gateway import ADMIN_TOKEN, Gateway, running_gateway

pytestmark = pytest.mark.asyncio(loop_scope="module")  # the browser's
CHAT = "/api/v2/chat-stream"
LONG = Behaviour(first=0, pace=20, tokens=2000)


@asynccontextmanager
async def gateway_with(behaviour: Behaviour, **settings: object) -> AsyncIterator[Gateway]:
    settings = {"upstream_dialect": "rag", "admin_token": ADMIN_TOKEN, **settings}
    async with serving(behaviour) as url, running_gateway(url, **settings) as gateway:
        yield gateway


@asynccontextmanager
async def streaming(url: str, *questions: str) -> AsyncIterator[list[str]]:
    """The ids of streams that run, one for each question."""
    async with aiohttp.ClientSession(url) as client:
        answers = [await client.post(CHAT, json={"query": query}) for query in questions]
        for answer in answers:
            await answer.content.readuntil(b"content_chunk")
        yield [answer.headers["X-Stream-Id"] for answer in answers]


async def sign_in(page: Page) -> None:
    await page.fill("#token", ADMIN_TOKEN)
    await page.keyboard.press("Enter")
    await expect(page.locator("#link")).to_have_text("Live")


async def test_dashboard_shows_what_runs_and_what_has_ended(browser: Browser) -> None:
    async with gateway_with(LONG) as gateway:
        async with aiohttp.ClientSession(gateway.url) as client:
            async with client.post(CHAT, json={"query": "[mock: tokens=3] hi"}) as answer:
                await answer.read()
            async with client.post(CHAT, json={"query": "[mock: error=2] hi"}) as answer:
                await answer.read()
        async with (
            streaming(gateway.url, "one", "two") as ids,
            opened(browser, gateway.url, "/dashboard") as (page, troubles),
        ):
            await sign_in(page)
            await expect(page.locator("#tile-active")).to_have_text("2")
            for stream_id in ids:
                await expect(page.locator("#streams tbody")).to_contain_text(stream_id)
            await expect(page.locator("#streams tbody .state").first).to_have_text("streaming")
            await expect(page.locator("#endings")).to_contain_text("completed1")
            await expect(page.locator("#endings")).to_contain_text("upstream error1")
            await expect(page.locator("#faults")).to_contain_text("upstream error (stream)")
            await expect(page.locator("#status")).to_have_text("Ok")
            await expect(page.locator("#parts")).to_contain_text("Keeps up")
            assert troubles == []


async def test_alert_and_grade_stand_on_top(browser: Browser) -> None:
    async with (
        gateway_with(LONG, alert_min_streams=1) as gateway,
        opened(browser, gateway.url, "/dashboard") as (page, troubles),
    ):
        await sign_in(page)
        await expect(page.locator("#grade")).to_have_text("Grade A")
        await expect(page.locator("#alerts")).to_be_hidden()
        async with (
            aiohttp.ClientSession(gateway.url) as client,
            client.post(CHAT, json={"query": "[mock: error=2] hi"}) as answer,
        ):
            await answer.read()
        await expect(page.locator("#grade")).to_have_text("Grade D")
        await expect(page.locator("#alerts")).to_contain_text("error rate, critical")
        await expect(page.locator("#alerts")).to_contain_text("100, over 10.")
        assert await barriers(page) == []
        assert troubles == []


async def test_stream_that_ends_leaves_the_table(browser: Browser) -> None:
    async with (
        gateway_with(LONG) as gateway,
        opened(browser, gateway.url, "/dashboard") as (page, _),
    ):
        await sign_in(page)
        async with streaming(gateway.url, "one") as (stream_id,):
            row = page.locator("#streams tbody tr")
            await expect(row).to_contain_text(stream_id)
            found = gateway.services.hub.running()[0]
            async with aiohttp.ClientSession(gateway.url) as client:
                await client.delete(f"/api/v2/streams/{found.id}")
            await expect(row).to_have_count(0)
            await expect(page.locator("#streams-none")).to_be_visible()


@pytest.mark.parametrize("way", ["mouse", "keyboard"])
async def test_operator_stops_a_stream_after_saying_that_they_mean_it(
    browser: Browser, way: str
) -> None:
    async with (
        gateway_with(LONG) as gateway,
        streaming(gateway.url, "one") as (stream_id,),
        opened(browser, gateway.url, "/dashboard") as (page, troubles),
    ):
        await sign_in(page)
        button = page.get_by_role("button", name=f"Stop stream {stream_id}")
        if way == "mouse":
            await button.click()
            await page.get_by_role("button", name="Let it run").click()
            assert len(gateway.services.hub) == 1
            await button.click()
            await page.get_by_role("button", name="Stop it").click()
        else:
            await button.focus()
            await page.keyboard.press("Enter")
            await page.keyboard.press("Escape")
            await expect(page.locator("#sure")).to_be_hidden()
            assert len(gateway.services.hub) == 1
            await expect(button).to_be_focused()
            await page.keyboard.press("Enter")
            await page.keyboard.press("Enter")
        await gateway.wait_for_streams(0)
        await expect(page.locator("#said")).to_contain_text("operator")
        await expect(page.locator("#endings")).to_contain_text("custom1")
        assert troubles == []


async def test_wrong_token_is_refused_in_words_and_not_kept(browser: Browser) -> None:
    async with (
        gateway_with(LONG) as gateway,
        opened(browser, gateway.url, "/dashboard") as (page, _),
    ):
        await page.fill("#token", "another-token-for-tests")
        await page.keyboard.press("Enter")
        await expect(page.locator("#refused")).to_be_visible()
        await expect(page.locator("#board")).to_be_hidden()
        await expect(page.locator("#token")).to_be_focused()
        assert await page.evaluate("sessionStorage.length + localStorage.length") == 0


async def test_token_outlives_a_reload_and_not_a_sign_out(browser: Browser) -> None:
    async with (
        gateway_with(LONG) as gateway,
        opened(browser, gateway.url, "/dashboard") as (page, troubles),
    ):
        await sign_in(page)
        await page.reload()
        await expect(page.locator("#link")).to_have_text("Live")
        assert ADMIN_TOKEN not in page.url
        await page.get_by_role("button", name="Sign out").click()
        await expect(page.locator("#login")).to_be_visible()
        assert await page.evaluate("sessionStorage.length + localStorage.length") == 0
        await page.reload()
        await expect(page.locator("#login")).to_be_visible()
        assert troubles == []


async def test_dashboard_comes_back_after_a_cut(browser: Browser) -> None:
    async with (
        gateway_with(LONG) as gateway,
        FaultProxy(gateway.port) as proxy,
        opened(browser, proxy.url, "/dashboard") as (page, _),
    ):
        await sign_in(page)
        proxy.cut_all()
        await expect(page.locator("#link")).to_have_attribute("data-tone", "bad")
        await expect(page.locator("#link")).to_have_text("Live")
        async with streaming(gateway.url, "one") as (stream_id,):
            await expect(page.locator("#streams tbody")).to_contain_text(stream_id)


async def test_chart_is_read_by_keyboard_and_pointer(browser: Browser) -> None:
    async with (
        gateway_with(LONG) as gateway,
        streaming(gateway.url, "one", "two"),
        opened(browser, gateway.url, "/dashboard") as (page, _),
    ):
        await sign_in(page)
        chart = page.locator(".chart").first
        drawing = chart.locator("svg")
        await expect(chart.locator(".legend")).to_have_text("running 2", timeout=10_000)
        await expect(drawing).to_have_attribute("aria-label", "Streams now, now: running 2")
        await drawing.focus()
        for _ in range(3):
            await page.keyboard.press("ArrowLeft")
        assert "running 0" in (await drawing.get_attribute("aria-label") or "")
        await drawing.hover(position={"x": 2, "y": 50})
        await expect(chart.locator(".legend")).to_have_text("running 0")
        await expect(chart.locator(".when")).not_to_be_empty()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("viewport", [DESK, PHONE], ids=["desk", "phone"])
async def test_dashboard_keeps_nobody_out(
    browser: Browser, scheme: str, viewport: dict[str, int]
) -> None:
    async with (
        gateway_with(LONG) as gateway,
        streaming(gateway.url, "one", "two"),
        opened(browser, gateway.url, "/dashboard", color_scheme=scheme, viewport=viewport) as (
            page,
            troubles,
        ),
    ):
        assert await barriers(page) == []
        await sign_in(page)
        await expect(page.locator("#streams tbody tr")).to_have_count(2)
        assert await barriers(page) == []
        assert await overflow_px(page) <= 0
        await page.get_by_role("button", name="Stop stream").first.click()
        assert await barriers(page) == []
        assert troubles == []


async def test_every_control_is_reached_by_keyboard(browser: Browser) -> None:
    async with (
        gateway_with(LONG) as gateway,
        streaming(gateway.url, "one"),
        opened(browser, gateway.url, "/dashboard") as (page, _),
    ):
        await sign_in(page)
        await expect(page.locator("#streams tbody tr")).to_have_count(1)
        reached = set()
        for _ in range(30):
            await page.keyboard.press("Tab")
            reached.add(await page.evaluate("document.activeElement.outerHTML.slice(0, 60)"))
        seen = " ".join(reached)
        for control in ('id="leave"', 'name="range"', "<svg", "danger small", "/playground"):
            assert control in seen


async def test_snapshots_of_a_busy_gateway_are_bounded(browser: Browser) -> None:
    async with (
        gateway_with(Behaviour(first=0, pace=500, tokens=50)) as gateway,
        opened(browser, gateway.url, "/dashboard") as (page, troubles),
    ):
        await sign_in(page)
        connector = aiohttp.TCPConnector(limit=0)
        async with aiohttp.ClientSession(gateway.url, connector=connector) as client:
            asking = (client.post(CHAT, json={"query": "hi"}) for _ in range(230))
            await asyncio.gather(*asking)
            await expect(page.locator("#tile-active")).to_have_text("230", timeout=15_000)
            await expect(page.locator("#streams tbody tr")).to_have_count(200)
            await expect(page.locator("#streams-more")).to_have_text("The 200 oldest of 230")
        assert troubles == []


@pytest.fixture
def root_level() -> Iterator[None]:
    """Puts the log's level back."""
    before = logging.getLogger().level
    yield
    logging.getLogger().setLevel(before)


@pytest.mark.usefixtures("root_level")
async def test_controls_change_what_the_gateway_does(browser: Browser) -> None:
    async with (
        gateway_with(LONG) as gateway,
        opened(browser, gateway.url, "/dashboard") as (page, troubles),
    ):
        await sign_in(page)
        controls = gateway.services.controls
        await page.get_by_role("switch", name="Streaming").uncheck()
        await expect(page.locator("#said")).to_have_text("It is changed.")
        assert not controls.state.streaming_enabled
        await page.get_by_label("Share of users").fill("25")
        await page.keyboard.press("Enter")
        await page.get_by_label("How often to write").select_option("balanced")
        await page.get_by_role("switch", name="Debug lines").focus()
        await page.keyboard.press("Space")
        await expect(page.get_by_label("Debug lines")).to_be_checked()
        await settled(lambda: controls.state.debug)
        assert controls.state.rollout_percent == 25
        assert controls.state.performance_mode == "balanced"
        await page.get_by_role("button", name="Reset").click()
        await settled(lambda: controls.state.streaming_enabled)
        await expect(page.get_by_label("Share of users")).to_have_value("100")
        assert troubles == []


@pytest.mark.usefixtures("root_level")
async def test_snapshot_of_before_a_change_does_not_take_it_back(browser: Browser) -> None:
    is_sent, may_go = asyncio.Event(), asyncio.Event()

    async def hold(route: Route) -> None:
        is_sent.set()
        await may_go.wait()
        await route.continue_()

    async with (
        gateway_with(LONG) as gateway,
        opened(browser, gateway.url, "/dashboard") as (page, troubles),
    ):
        await sign_in(page)
        await page.route("**/api/admin/controls", hold)
        switch = page.get_by_role("switch", name="Streaming")
        await switch.click()
        await is_sent.wait()
        async with streaming(gateway.url, "one"):
            await expect(page.locator("#tile-active")).to_have_text("1")  # of a later snapshot
        await expect(switch).not_to_be_checked()
        may_go.set()
        await settled(lambda: not gateway.services.controls.state.streaming_enabled)
        await expect(page.locator("#said")).to_have_text("It is changed.")
        await expect(switch).not_to_be_checked()
        assert troubles == []


@pytest.mark.usefixtures("root_level")
async def test_share_that_cannot_be_is_not_sent(browser: Browser) -> None:
    async with (
        gateway_with(LONG) as gateway,
        opened(browser, gateway.url, "/dashboard") as (page, troubles),
    ):
        await sign_in(page)
        share = page.get_by_label("Share of users")
        await expect(share).to_have_value("100")
        await share.fill("250")
        await page.keyboard.press("Tab")
        await expect(page.get_by_role("switch", name="Streaming")).to_be_checked()
        assert gateway.services.controls.state.rollout_percent == 100
        assert troubles == []


@pytest.mark.usefixtures("root_level")
async def test_emergency_is_declared_after_one_more_question_and_ended(browser: Browser) -> None:
    async with (
        gateway_with(LONG) as gateway,
        opened(browser, gateway.url, "/dashboard") as (page, troubles),
    ):
        await sign_in(page)
        await page.get_by_role("button", name="Emergency").click()
        await page.get_by_role("button", name="Leave it").click()
        assert not gateway.services.controls.state.emergency
        await page.get_by_role("button", name="Emergency").click()
        await page.get_by_role("button", name="Switch it off").click()
        await expect(page.locator("#alarm")).to_be_visible()
        assert gateway.services.controls.state.emergency
        assert await barriers(page) == []
        await page.get_by_role("button", name="End the emergency").click()
        await expect(page.locator("#alarm")).to_be_hidden()
        assert not gateway.services.controls.state.emergency
        assert troubles == []


async def test_clean_up_tells_what_went(browser: Browser) -> None:
    async with (
        gateway_with(LONG) as gateway,
        opened(browser, gateway.url, "/dashboard") as (page, troubles),
    ):
        async with streaming(gateway.url, "one"):
            pass
        await settled(lambda: not gateway.services.hub.running()[0].is_attached)
        await sign_in(page)
        await expect(page.locator("#streams tbody .state")).to_have_text("detached")
        await page.get_by_role("button", name="Clean up").click()
        await page.get_by_role("button", name="Clean up", exact=True).click()
        await expect(page.locator("#said")).to_contain_text("1 stream without a reader")
        await gateway.wait_for_streams(0)
        assert troubles == []


async def settled(is_so: Callable[[], bool]) -> None:
    """Returns once it is so."""
    async with asyncio.timeout(5):
        while not is_so():
            await asyncio.sleep(0.01)
