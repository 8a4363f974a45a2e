"""A gateway that is killed: what clients had heard of is readable afterwards, ended honestly."""

from __future__ import annotations

import asyncio
import random
import signal
from pathlib import Path

import aiohttp
import pytest

from scripts.mock.behaviour import Behaviour
from scripts.mock.server import serving
from tests.gateway import gateway_process, wait_until_ready
from tests.servers import free_port

KILLS = 50
STREAMS = 4


async def ask(client: aiohttp.ClientSession, url: str, heard: dict[str, bytes]) -> None:
    """Reads a stream until the gateway dies; what was heard of it is kept."""
    try:
        async with client.get(f"{url}/api/v2/chat-stream?query=coffee") as response:
            sid = response.headers["X-Stream-Id"]
            heard[sid] = b""
            async for chunk in response.content.iter_any():
                heard[sid] += chunk
    except aiohttp.ClientError:
        pass


@pytest.mark.timeout(400)
@pytest.mark.parametrize("database", ["sqlite", "postgresql"])
async def test_every_stream_that_a_client_heard_of_survives_a_kill(
    tmp_path: Path, database: str, request: pytest.FixtureRequest
) -> None:
    database_url = None
    if database == "postgresql":
        database_url = request.getfixturevalue("postgres_url")
    chance = random.Random(5)
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    told = ended_early = 0
    async with (
        serving(Behaviour(first=0, pace=15, seed=1)) as upstream,
        aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as client,
    ):
        heard: dict[str, bytes] = {}
        for _ in range(KILLS):
            async with gateway_process(upstream, port, tmp_path, database_url) as process:
                await wait_until_ready(client, url)
                told += await check(client, url, heard)
                ended_early += sum(b"event: complete" not in data for data in heard.values())
                heard = {}
                asking = [asyncio.create_task(ask(client, url, heard)) for _ in range(STREAMS)]
                for _ in range(chance.randrange(1, 10)):
                    await asyncio.sleep(0.03)
                process.send_signal(signal.SIGKILL)
                await asyncio.gather(*asking)
        async with gateway_process(upstream, port, tmp_path, database_url):
            await wait_until_ready(client, url)
            told += await check(client, url, heard)
    # Some are killed before their client has heard of them.
    assert told > KILLS * STREAMS // 2
    assert ended_early > KILLS


async def check(client: aiohttp.ClientSession, url: str, heard: dict[str, bytes]) -> int:
    """Each stream that was heard of is there, with an end, and nothing else than what was said."""
    for sid, data in heard.items():
        headers = {"Accept": "text/event-stream"}
        async with client.get(f"{url}/api/v2/streams/{sid}", headers=headers) as response:
            assert response.status == 200, (response.status, await response.text())
            kept = await response.read()
        async with client.get(f"{url}/api/v2/streams/{sid}") as response:
            told = await response.json()
        assert told["status"] in ("ERROR", "COMPLETED")
        if told["status"] == "ERROR":
            assert told["reason"] == "interrupted"
            last = kept.split(b"\n\n")[-2]
            assert b"event: error" in last
            assert b'"code":"interrupted"' in last
            kept = kept[: -len(last) - 2]
        said = b"".join(
            e + b"\n\n" for e in data.split(b"\n\n")[:-1] if b"event: heartbeat" not in e
        )
        assert said.startswith(kept) or kept.startswith(said)
    return len(heard)
