"""A gateway that is killed: what clients had heard of is readable afterwards, ended honestly, and
on record in an audit log that verifies; a receipt that somebody holds is kept.

Several gateways live and die side by side, each with a port and a store of its own.
"""

from __future__ import annotations

import asyncio
import random
import shutil
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp
import asyncpg
import pytest

from gateway.audit.canonical import decode, to_text
from scripts.mock.behaviour import Behaviour
from scripts.mock.server import serving
from tests import forked
from tests.auditing import assert_sound, stored
from tests.gateway import gateway_environment, wait_until_ready
from tests.servers import free_port, new_database

KILLS = 200
LANES = 5
STREAMS = 4
#: One in so many is killed while it starts, perhaps while it puts right what the last one left.
EARLY = 5


@dataclass(slots=True)
class Lane:
    """One store, and the gateways that use it one after another."""

    upstream: str
    data_dir: Path
    database_url: str | None
    client: aiohttp.ClientSession
    chance: random.Random
    port: int = field(default_factory=free_port)
    heard: dict[str, bytes] = field(default_factory=dict)
    told: int = 0
    cut: int = 0
    receipts: dict[str, str] = field(default_factory=dict)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @asynccontextmanager
    async def gateway(self, *, is_killed: bool = True) -> AsyncIterator[None]:
        """A running process, killed at the end of the context or told to stop."""
        environment = gateway_environment(
            self.upstream, self.port, self.data_dir, self.database_url
        ) | {
            "AUDIT_MODE": "relay",
            "AUDIT_BALLAST_BYTES": "0",
            "AUDIT_LINES": "off",
            "AUDIT_COMMIT_SECONDS": "10",
            "AUDIT_CHECKPOINT_FILE": str(self.data_dir / "checkpoints.jsonl"),
        }
        process = forked.context.Process(
            target=forked.sluice, args=(["serve"], environment), daemon=True
        )
        await asyncio.to_thread(process.start)
        try:
            yield
        finally:
            if is_killed:
                process.kill()
            else:
                process.terminate()
            await asyncio.to_thread(process.join)
            process.close()

    async def run(self, kills: int) -> None:
        for number in range(1, kills + 1):
            asking: list[asyncio.Task[None]] = []
            async with self.gateway():
                if number % EARLY:
                    await self.look_back()
                    asking = [asyncio.create_task(self.ask()) for _ in range(STREAMS)]
                    await self.wait_until_heard()
                    await self.pause(0.2)
                else:
                    await self.pause(0.15)
            await asyncio.gather(*asking)
            await self.check_store()
        # Checkpoints go outside after they are signed: only who stops in order has sent them all.
        async with self.gateway(is_killed=False):
            await self.look_back()

    async def ask(self) -> None:
        """Reads a stream until the gateway dies; what was heard of it is kept."""
        try:
            async with self.client.get(f"{self.url}/api/v2/chat-stream?query=coffee") as response:
                sid = response.headers["X-Stream-Id"]
                self.heard[sid] = b""
                self.receipts[sid] = response.headers["X-Audit-Receipt"]
                async for chunk in response.content.iter_any():
                    self.heard[sid] += chunk
        except aiohttp.ClientError:
            pass

    async def wait_until_heard(self) -> None:
        """Until a client has heard of something."""
        async with asyncio.timeout(60):
            while not self.heard:
                await asyncio.sleep(0.01)

    async def pause(self, most_s: float) -> None:
        left_s = self.chance.uniform(0, most_s)
        while left_s > 0:
            await asyncio.sleep(min(left_s, 0.05))
            left_s -= 0.05

    async def look_back(self) -> None:
        """Once it listens, checks what was heard of the gateway before."""
        await wait_until_ready(self.client, self.url)
        self.told += await check(self.client, self.url, self.heard)
        self.cut += sum(b"event: complete" not in data for data in self.heard.values())
        self.heard.clear()

    async def check_store(self) -> None:
        if self.database_url is None:
            await asyncio.to_thread(check_sqlite, self.data_dir)
        else:
            await check_postgres(self.database_url)


def check_sqlite(data_dir: Path) -> None:
    """Of a copy, so that the next gateway finds the files as the last one left them."""
    copy = data_dir.with_name(f"{data_dir.name}-copy")
    shutil.copytree(data_dir, copy)
    for file in copy.glob("*.sqlite3"):
        with closing(sqlite3.connect(file)) as connection:
            assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
            assert connection.execute("PRAGMA foreign_key_check").fetchall() == []
    assert list(copy.glob("*.sqlite3"))
    shutil.rmtree(copy)


async def check_postgres(url: str) -> None:
    """Every index holds every row (`amcheck`)."""
    connection = await asyncpg.connect(url)
    await connection.execute("CREATE EXTENSION IF NOT EXISTS amcheck")
    checked = await connection.fetch(
        "SELECT bt_index_check(indexrelid, true) FROM pg_index"
        " JOIN pg_class ON pg_class.oid = indexrelid"
        " WHERE relnamespace = 'public'::regnamespace AND relpersistence <> 't'"
    )
    assert checked
    await connection.close()


@pytest.mark.timeout(400)
@pytest.mark.parametrize("database", ["sqlite", "postgresql"])
async def test_every_stream_that_a_client_heard_of_survives_a_kill(
    tmp_path: Path, database: str, request: pytest.FixtureRequest
) -> None:
    async with (
        serving(Behaviour(first=0, pace=15, seed=1)) as upstream,
        aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as client,
    ):
        lanes = []
        for number in range(LANES):
            url = None
            if database == "postgresql":
                url = await new_database(request.getfixturevalue("postgres_url"))
            data_dir = tmp_path / f"lane-{number}"
            lanes.append(Lane(upstream, data_dir, url, client, random.Random(number)))
        async with asyncio.TaskGroup() as group:
            for lane in lanes:
                group.create_task(lane.run(KILLS // LANES))
    for lane in lanes:
        await check_audit(lane)
    # Some are killed before their client has heard of them.
    assert sum(lane.told for lane in lanes) > KILLS
    assert sum(lane.cut for lane in lanes) > KILLS // 2


async def check_audit(lane: Lane) -> None:
    """Every receipt is of a record that is there, as it was; and nothing is amiss."""
    async with stored(lane.data_dir, lane.database_url) as store:
        starts = {}
        for log in await store.logs():
            for one in await store.records(log.id, 0, log.size):
                body = decode(one.body or b"{}")
                if body.get("type") == "query.start":
                    starts[body.get("stream")] = f"{log.origin}/{one.seq}/{to_text(one.leaf)}"
    assert lane.receipts
    assert lane.receipts.items() <= starts.items()
    await assert_sound(lane.data_dir, lane.database_url)


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
