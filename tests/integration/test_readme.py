"""What the README shows, run as it stands: only the port is another one."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import sys
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import aiohttp
import pytest
from playwright.async_api import async_playwright

from scripts.mock.answers import answer_to
from scripts.mock.behaviour import Behaviour
from scripts.mock.server import serving
from tests.gateway import Gateway, running_gateway
from tests.servers import free_port

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
QUICK = Behaviour(first=0, pace=0, seed=1)
#: As each snippet spells it.
ASKED_BY_SDK = "How do I brew coffee?"
ASKED_BY_URL = "How do I brew coffee"
SLUICE = str(Path(sys.executable).with_name("sluice"))


def snippets(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.+?)^```", README, flags=re.DOTALL | re.MULTILINE)


def whole_answer(question: str) -> str:
    return answer_to(question, QUICK, None, None).whole


def addressed(snippet: str, gateway: Gateway) -> str:
    changed = snippet.replace("http://127.0.0.1:8080", gateway.url)
    assert changed != snippet
    return changed


async def output_of(command: Sequence[str]) -> str:
    process = await asyncio.create_subprocess_exec(*command, stdout=PIPE)
    try:
        async with asyncio.timeout(60):
            output, _ = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode == 0
    return output.decode()


@pytest.fixture
async def gateway() -> AsyncIterator[Gateway]:
    async with serving(QUICK) as backend, running_gateway(backend) as gateway:
        yield gateway


async def test_python_snippet_prints_the_whole_answer(gateway: Gateway) -> None:
    (snippet,) = snippets("python")
    printed = await output_of([sys.executable, "-c", addressed(snippet, gateway)])
    assert printed == whole_answer(ASKED_BY_SDK)


async def test_curl_snippet_shows_the_typed_events(gateway: Gateway) -> None:
    (snippet,) = [one for one in snippets("sh") if one.startswith("curl")]
    printed = await output_of(["bash", "-c", addressed(snippet, gateway)])
    events = re.findall(r"^event: (\w+)$", printed, flags=re.MULTILINE)
    assert (events[0], events[-1]) == ("start", "complete")
    assert set(events[1:-1]) == {"content_chunk"}


async def test_page_snippet_shows_the_whole_answer_and_asks_once(gateway: Gateway) -> None:
    (snippet,) = snippets("html")
    path = os.environ.get("TEST_CHROMIUM") or shutil.which("chromium")
    asked: list[str] = []
    async with async_playwright() as playwright:
        arguments = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
        browser = await playwright.chromium.launch(executable_path=path, args=arguments)
        page = await browser.new_page()
        page.on("request", lambda request: asked.append(request.url))
        await page.route(
            "**/page", lambda route: route.fulfill(body=snippet, content_type="text/html")
        )
        await page.goto(f"{gateway.url}/page")
        await page.wait_for_function(
            "(whole) => document.querySelector('#answer').textContent === whole",
            arg=whole_answer(ASKED_BY_URL),
        )
        await gateway.wait_for_streams(0)
        await browser.close()
    # The page, the client's modules, one question, and nothing of anybody else.
    assert len([url for url in asked if "chat-stream" in url]) == 1
    assert all(url.startswith(gateway.url) for url in asked)
    assert all("/static/sluice" in url for url in asked[1:-1])


async def test_settings_of_the_backend_command_start_the_installed_command(tmp_path: Path) -> None:
    (snippet,) = [one for one in snippets("sh") if "UPSTREAM_URL" in one]
    assignments = dict(re.findall(r"([A-Z_]+)=(\S+)", snippet))
    assert snippet.split()[-1] == "./scripts/run"
    port = free_port()
    async with serving(QUICK) as backend:
        environment = {
            **os.environ,
            **assignments,
            "UPSTREAM_URL": backend,
            "PORT": str(port),
            "DATA_DIR": str(tmp_path),
        }
        process = await asyncio.create_subprocess_exec(
            SLUICE, "serve", env=environment, stderr=PIPE
        )
        try:
            assert process.stderr is not None
            async with asyncio.timeout(60):
                while b"gateway.started" not in (line := await process.stderr.readline()):
                    assert line, "it ended before it listened"
            url = f"http://127.0.0.1:{port}/api/v2/chat-stream?query=hello"
            async with aiohttp.ClientSession() as session, session.get(url) as response:
                assert "event: complete" in await response.text()
        finally:
            process.terminate()
            await process.communicate()
    assert process.returncode == 0
