"""The first command of the README, as a newcomer runs it."""

from __future__ import annotations

import asyncio
import os
import re
import signal
from asyncio.subprocess import PIPE, STDOUT, Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import openai
import pytest

from tests.servers import free_port

ROOT = Path(__file__).parents[2]
START_S = 90


@asynccontextmanager
async def run_script(port: int, data_dir: Path, **more: str) -> AsyncIterator[Process]:
    environment = {"PORT": str(port), "DATA_DIR": str(data_dir), **more}
    process = await asyncio.create_subprocess_exec(
        str(ROOT / "scripts" / "run"),
        env={**os.environ, **environment},
        stdout=PIPE,
        stderr=STDOUT,
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.send_signal(signal.SIGTERM)  # it ends its children, which SIGKILL would leave
        await process.wait()


async def welcome(process: Process) -> str:
    """What the script prints until it has said what to try."""
    assert process.stdout is not None
    said = ""
    async with asyncio.timeout(START_S):
        while "Relay" not in said or not said.endswith("}'\n"):
            line = await process.stdout.readline()
            assert line, said
            said += line.decode()
    return said


async def shell(command: str) -> str:
    process = await asyncio.create_subprocess_shell(command, stdout=PIPE)
    async with asyncio.timeout(30):
        output, _ = await process.communicate()
    return output.decode()


@pytest.mark.timeout(240)
async def test_run_shows_what_to_try_and_it_works(tmp_path: Path) -> None:
    port = free_port()
    async with run_script(port, tmp_path) as process:
        said = await welcome(process)
        assert f"http://127.0.0.1:{port}/playground" in said
        ask, relay = re.findall(r"curl -N (?:[^\n\\]|\\\n)+", said)
        assert "event: complete" in await shell(ask)
        assert "data: [DONE]" in await shell(relay)
        page = await shell(f"curl -s http://127.0.0.1:{port}/playground")
        assert "<title>Sluice playground</title>" in page

        async with openai.AsyncOpenAI(
            base_url=f"http://127.0.0.1:{port}/v1", api_key="unused", max_retries=0
        ) as sdk:
            question = [{"role": "user", "content": "How do I brew coffee?"}]
            stream = await sdk.chat.completions.create(
                model="demo",
                messages=question,  # type: ignore[arg-type]
                stream=True,
            )
            pieces = [c.choices[0].delta.content or "" async for c in stream if c.choices]
        assert len("".join(pieces).split()) > 20

        process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(30):
            assert await process.wait() == 0
    with pytest.raises(OSError, match="Connect call failed"):
        await asyncio.open_connection("127.0.0.1", port)


@pytest.mark.timeout(240)
async def test_run_on_a_taken_port_says_so_and_ends(tmp_path: Path) -> None:
    server = await asyncio.start_server(lambda _r, w: w.close(), "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with run_script(port, tmp_path) as process:
        async with asyncio.timeout(START_S):
            output, _ = await process.communicate()
        assert process.returncode == 1
        errors = [line for line in output.decode().splitlines() if line.startswith("error: ")]
        assert len(errors) == 1
        assert f"127.0.0.1:{port}" in errors[0]
    server.close()
    await server.wait_closed()
