"""A real Chromium for tests."""

from __future__ import annotations

import os
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from playwright.async_api import Browser, async_playwright


@asynccontextmanager
async def running_chromium() -> AsyncIterator[Browser]:
    path = os.environ.get("TEST_CHROMIUM") or shutil.which("chromium")
    arguments = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
    async with async_playwright() as playwright:
        running = await playwright.chromium.launch(executable_path=path, args=arguments)
        yield running
        await running.close()
