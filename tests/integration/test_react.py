"""The React hook and the examples, in real pages under StrictMode, on the running gateway."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from aiohttp import web
from aiohttp.typedefs import Handler
from playwright.async_api import Page, expect

from scripts.mock.answers import answer_to
from scripts.mock.behaviour import Behaviour
from scripts.mock.server import make_app
from tests.faults import FaultProxy
from tests.gateway import Gateway, running_gateway

pytestmark = pytest.mark.asyncio(loop_scope="module")  # the browser's
ROOT = Path(__file__).parents[2]
NODE = ROOT / "tests" / "node"
PAGE = b"<!doctype html><div id=root></div><script type=module src=/a.js></script>"
QUESTION = "How do I brew a cup of coffee?"
STEADY = Behaviour(first=0, pace=5, seed=1)
#: Long enough for a page to be loaded anew meanwhile, on a busy machine too.
SLOW = Behaviour(first=0, pace=40, seed=1)
ENDLESS = Behaviour(first=0, pace=20, seed=1, tokens=5000)


def whole_answer() -> str:
    return answer_to(QUESTION, STEADY, None, None).whole


def bundled(entry: Path, folder: Path) -> bytes:
    """As people build: their sources beside `node_modules`, with React and the client in it."""
    modules = Path(os.environ.get("TEST_NODE_MODULES", NODE / "node_modules"))
    packages = folder / "node_modules"
    packages.mkdir()
    for name in ("react", "react-dom", "scheduler"):
        (packages / name).symlink_to(modules / name)
    shutil.copytree(ROOT / "gateway" / "static", packages / "sluice-client")
    for source in entry.parent.glob("*.jsx"):
        shutil.copy(source, folder)
    out = folder / "bundle.js"
    command = [modules / ".bin" / "esbuild", entry.name, "--bundle", "--jsx=automatic"]
    command += ["--format=esm", f"--outfile={out}", "--log-level=error"]
    subprocess.run(command, check=True, cwd=folder)
    return out.read_bytes()


@asynccontextmanager
async def site(behaviour: Behaviour, files: dict[str, bytes]) -> AsyncIterator[Gateway]:
    """A gateway before a backend that also serves an application: its `files`."""
    app = make_app(behaviour)

    def shown(body: bytes, kind: str) -> Handler:
        async def file(request: web.Request) -> web.StreamResponse:
            return web.Response(body=body, content_type=kind, charset="utf-8")

        return file

    for path, body in files.items():
        kind = "text/javascript" if path.endswith(".js") else "text/html"
        app.router.add_get(path, shown(body, kind))
    runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.01)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    upstream = f"http://127.0.0.1:{runner.addresses[0][1]}"
    try:
        async with running_gateway(upstream, upstream_dialect="rag") as gateway:
            yield gateway
    finally:
        await runner.cleanup()


@asynccontextmanager
async def mounted(behaviour: Behaviour, entry: Path, folder: Path) -> AsyncIterator[Gateway]:
    html = (
        b"<!doctype html><title>t</title><div id=root></div><script type=module src=/a.js></script>"
    )
    async with site(behaviour, {"/a": html, "/a.js": bundled(entry, folder)}) as gateway:
        yield gateway


async def told(page: Page, what: str) -> object:
    return await page.evaluate(what)


async def test_strict_mode_asks_once_and_shows_everything_once(page: Page, tmp_path: Path) -> None:
    async with mounted(STEADY, NODE / "hook.jsx", tmp_path) as gateway:
        await page.goto(f"{gateway.url}/a?query={QUESTION}")
        await page.wait_for_function("hook.status === 'ready'")
        assert await page.locator("#answer").text_content() == whole_answer()
        assert await told(page, "told.completes") == ["completed"]
        assert await told(page, "told.errors") == []
        assert gateway.metric("sluice_sessions_created_total") == 1


async def test_hook_tells_what_was_asked_for(page: Page, tmp_path: Path) -> None:
    async with mounted(ENDLESS, NODE / "hook.jsx", tmp_path) as gateway:
        await page.goto(f"{gateway.url}/a?query={QUESTION}")
        await page.wait_for_function("hook.status === 'streaming' && hook.lastMessageTime !== null")
        assert set(await page.evaluate("Object.keys(hook)")) == {
            *("start", "stop", "isConnected", "isReconnecting", "reconnectAttempts"),
            *("lastMessageTime", "traceId", "status"),
        }
        assert await told(page, "hook.isConnected") is True
        assert len(str(await told(page, "hook.traceId"))) == 32
        account = await page.evaluate("hook.stop()")
        assert account["status"] == "TERMINATED"
        await page.wait_for_function("hook.status === 'ready' && !hook.isConnected")
        await gateway.wait_for_streams(0)


async def test_cut_is_told_and_mended(page: Page, tmp_path: Path) -> None:
    async with (
        mounted(STEADY, NODE / "hook.jsx", tmp_path) as gateway,
        FaultProxy(gateway.port) as proxy,
    ):
        await page.goto(f"{proxy.url}/a?query={QUESTION}")
        await page.wait_for_function("document.querySelector('#answer').textContent.length > 20")
        proxy.down.cut_after = 1
        await page.wait_for_function("hook.isReconnecting")
        proxy.down.cut_after = None
        await page.wait_for_function("hook.status === 'ready'")
        assert await page.locator("#answer").text_content() == whole_answer()
        assert await told(page, "hook.reconnectAttempts > 0")


async def test_component_that_goes_leaves_the_answer_running(page: Page, tmp_path: Path) -> None:
    async with mounted(ENDLESS, NODE / "hook.jsx", tmp_path) as gateway:
        await page.goto(f"{gateway.url}/a?query={QUESTION}")
        await page.wait_for_function("hook.lastMessageTime !== null")
        await page.evaluate("show(false)")
        await page.wait_for_selector("#gone")
        (stream,) = gateway.services.hub.streams()
        async with asyncio.timeout(5):
            while stream.readers:
                await asyncio.sleep(0.01)
        assert stream.is_active


async def test_new_question_takes_the_old_ones_place(page: Page, tmp_path: Path) -> None:
    async with mounted(STEADY, NODE / "hook.jsx", tmp_path) as gateway:
        await page.goto(f"{gateway.url}/a?query=[mock:pace=20 tokens=5000]")
        await page.wait_for_function("hook.lastMessageTime !== null")
        await page.evaluate("setQuery", QUESTION)
        await page.evaluate("query => setQuery(query)", QUESTION)
        await page.wait_for_function("told.completes.length === 1")
        assert gateway.metric("sluice_sessions_created_total") == 2
        assert str(await page.locator("#answer").text_content()).endswith(whole_answer())


async def test_react_example_asks_and_stops(page: Page, tmp_path: Path) -> None:
    async with mounted(ENDLESS, ROOT / "examples" / "react" / "main.jsx", tmp_path) as gateway:
        await page.goto(f"{gateway.url}/a")
        await page.get_by_label("Question").fill(QUESTION)
        await page.keyboard.press("Enter")
        await expect(page.get_by_role("status")).to_have_text("streaming")
        await page.get_by_role("button", name="Stop").click()
        await expect(page.get_by_role("status")).to_have_text("ready")
        assert await page.locator("#answer").text_content() != ""
        assert await page.get_by_role("alert").count() == 0


async def test_plain_example_goes_on_after_it_is_loaded_anew(page: Page) -> None:
    html = (ROOT / "examples" / "plain" / "index.html").read_bytes()
    async with site(SLOW, {"/ask.html": html}) as gateway:
        await page.goto(f"{gateway.url}/ask.html")
        await page.get_by_label("Question").fill(QUESTION)
        await page.keyboard.press("Enter")
        await page.wait_for_function("document.querySelector('#answer').textContent.length > 20")
        await page.reload()
        await expect(page.get_by_role("status")).to_have_text("completed")
        assert await page.locator("#answer").text_content() == whole_answer()
        assert gateway.metric("sluice_sessions_created_total") == 1
