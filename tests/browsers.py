"""A real Chromium for tests, and what a page must never do in it."""

from __future__ import annotations

import os
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import cache
from pathlib import Path

from playwright.async_api import Browser, Page, async_playwright, expect

_NODE = Path(__file__).parent / "node"
#: The default of 5 s is too short where the server asks for 2 s before each attempt.
_PATIENCE_MS = 20_000
expect.set_options(_PATIENCE_MS)
PHONE = {"width": 390, "height": 844}
DESK = {"width": 1280, "height": 900}


@asynccontextmanager
async def running_chromium() -> AsyncIterator[Browser]:
    path = os.environ.get("TEST_CHROMIUM") or shutil.which("chromium")
    arguments = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
    async with async_playwright() as playwright:
        running = await playwright.chromium.launch(
            executable_path=path,
            args=arguments,
            # People's browsers have that cache.
            ignore_default_args=["--disable-back-forward-cache"],
        )
        yield running
        await running.close()


@asynccontextmanager
async def opened(
    browser: Browser, url: str, path: str = "/playground", **context: object
) -> AsyncIterator[tuple[Page, list[str]]]:
    """A page of the gateway at `url`, and what it complains of or asks of others."""
    page = await browser.new_page(**context)  # type: ignore[arg-type]
    troubles: list[str] = []
    page.on("console", lambda message: troubles.append(message.text))
    page.on("pageerror", lambda error: troubles.append(str(error)))
    page.on(
        "request",
        lambda request: None if request.url.startswith(url) else troubles.append(request.url),
    )
    await page.goto(f"{url}{path}")
    yield page, troubles
    await page.close()


async def barriers(page: Page) -> list[str]:
    """What axe finds that keeps people out: the rule and the element."""
    await page.evaluate(_axe())
    found: list[str] = await page.evaluate(
        "axe.run().then(({violations}) => violations.flatMap("
        "({id, nodes}) => nodes.map((node) => `${id}: ${node.html}`)))"
    )
    return found


async def overflow_px(page: Page) -> int:
    """How much wider than the window the page is."""
    found: int = await page.evaluate("document.documentElement.scrollWidth - window.innerWidth")
    return found


@cache
def _axe() -> str:
    modules = Path(os.environ.get("TEST_NODE_MODULES") or _NODE / "node_modules")
    return (modules / "axe-core" / "axe.min.js").read_text()
