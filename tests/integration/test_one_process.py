"""One process to a store: a second refuses to start, and one that was killed is in nobody's way."""

from __future__ import annotations

import asyncio
import signal
import time
from pathlib import Path

import aiohttp
import asyncpg
import pytest

from scripts.mock.behaviour import Behaviour
from scripts.mock.server import serving as serving_backend
from tests.backend import ScriptedBackend
from tests.integration.test_cli import (
    AWAY,
    CHAT,
    assert_one_line,
    run,
    say_hello_and_stall,
    serving,
)
from tests.servers import new_database

IN_USE = "another gateway"


async def end_claims(database_url: str) -> int:
    """Ends the sessions that hold a claim, as a restart of the server would; how many."""
    connection = await asyncpg.connect(database_url)
    try:
        ended = await connection.fetch(
            "SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory' AND granted"
            " AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"
        )
    finally:
        await connection.close()
    return len(ended)


async def test_second_process_on_a_directory_refuses_and_the_first_goes_on(tmp_path: Path) -> None:
    async with (
        serving_backend(Behaviour(first=0, pace=5, tokens=300, seed=1)) as backend,
        serving(tmp_path, UPSTREAM_URL=backend) as (_, url),
        aiohttp.ClientSession() as session,
        session.post(url + CHAT, json={"query": "hi"}) as response,
    ):
        await response.content.readuntil(b"content_chunk")
        refused = await run("serve", folder=tmp_path, UPSTREAM_URL=AWAY, PORT="0")
        assert_one_line(refused, 1, "DATA_DIR", IN_USE)
        assert b"event: complete" in await response.read()


async def test_other_commands_work_beside_a_running_gateway(tmp_path: Path) -> None:
    keys = {"API_KEYS_FILE": str(tmp_path / "keys.jsonl")}
    async with serving(tmp_path, UPSTREAM_URL=AWAY):
        for command in (("check-config",), ("keys", "add", "--owner", "anna"), ("keys", "list")):
            result = await run(*command, folder=tmp_path, UPSTREAM_URL=AWAY, **keys)
            assert result.code == 0, result.err


@pytest.mark.timeout(120)
async def test_second_process_on_a_database_refuses_until_the_first_is_gone(
    tmp_path: Path, postgres_url: str
) -> None:
    stored = {"UPSTREAM_URL": AWAY, "DATABASE_URL": await new_database(postgres_url)}
    first, second = tmp_path / "first", tmp_path / "second"
    for folder in (first, second):
        folder.mkdir()
    async with serving(first, **stored) as (gateway, _):
        refused = await run("serve", folder=second, PORT="0", **stored)
        assert_one_line(refused, 1, "DATABASE_URL", IN_USE)
        gateway.process.send_signal(signal.SIGKILL)
        async with serving(second, **stored) as (other, _):
            other.process.send_signal(signal.SIGTERM)
            assert await other.end() == 0
        async with serving(first, **stored):
            pass


async def test_start_waits_for_what_a_killed_process_leaves_at_the_database(
    tmp_path: Path, postgres_url: str
) -> None:
    url = await new_database(postgres_url)
    left_over = await asyncpg.connect(url)
    async with serving(tmp_path, UPSTREAM_URL=AWAY, DATABASE_URL=url) as (gateway, _):
        gateway.process.send_signal(signal.SIGTERM)
        assert await gateway.end() == 0
    await left_over.execute(f"SELECT pg_advisory_lock({0x510CE6})")
    began = time.monotonic()
    leaving = asyncio.get_running_loop().call_later(1, left_over.terminate)
    try:
        async with serving(tmp_path, UPSTREAM_URL=AWAY, DATABASE_URL=url):
            assert time.monotonic() - began >= 1
    finally:
        leaving.cancel()
        left_over.terminate()


@pytest.mark.timeout(120)
async def test_claim_that_the_database_dropped_is_taken_again(
    tmp_path: Path, postgres_url: str
) -> None:
    url = await new_database(postgres_url)
    other = tmp_path / "other"
    other.mkdir()
    async with (
        ScriptedBackend(say_hello_and_stall) as backend,
        serving(tmp_path, UPSTREAM_URL=backend.url, DATABASE_URL=url) as (gateway, address),
        aiohttp.ClientSession(address) as session,
        session.post(CHAT, json={"query": "hi"}) as response,
    ):
        for _ in range(2):
            assert await end_claims(url) == 1
            await gateway.wait_for("store.claim_lost")
            await gateway.wait_for("store.claim_taken")
        refused = await run("serve", folder=other, UPSTREAM_URL=AWAY, DATABASE_URL=url, PORT="0")
        assert_one_line(refused, 1, IN_USE)
        async with session.get("/health") as health:
            assert (await health.json())["sessions"]["active"] == 1
        assert response.status == 200
