"""Fixtures of the tests that look through a browser: their marks say `loop_scope="module"`."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest_asyncio
from playwright.async_api import Browser, Page

from tests.browsers import running_chromium


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def browser() -> AsyncIterator[Browser]:
    """Started once per module: a start costs as much as several tests."""
    async with running_chromium() as running:
        yield running


@pytest_asyncio.fixture(loop_scope="module")
async def page(browser: Browser) -> AsyncIterator[Page]:
    """With cookies, storage and cache of its own."""
    async with await browser.new_page() as page:
        page.set_default_timeout(20_000)
        yield page
