"""PostgreSQL on a disk that fills up: nobody gets an answer without a record, and when there is
room again the gateway goes on by itself. What SQLite does is in `test_audit_strict`."""

from __future__ import annotations

import asyncio
import signal
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp
import asyncpg  # type: ignore[import-untyped]
import pytest

from gateway.audit.canonical import decode
from tests.auditing import bodies, stored
from tests.backend import OnDemand, ScriptedBackend
from tests.commands import assert_good
from tests.disk import fill
from tests.gateway import gateway_process, wait_until_ready
from tests.postgres import Postgres
from tests.servers import free_port

CHAT = "/api/v2/chat-stream"
AT_ONCE = 10
ENOUGH = 40


@dataclass
class Clients:
    """Ask, and keep which streams they have heard of and how often they were refused."""

    session: aiohttp.ClientSession
    heard: set[str] = field(default_factory=set)
    refused: int = 0

    async def ask(self, query: str = "how?") -> int:
        async with self.session.post(CHAT, json={"query": query}) as answer:
            text = await answer.text()
            if answer.status == 200:
                assert "event: complete" in text
                self.heard.add(answer.headers["X-Stream-Id"])
            else:
                assert (answer.status, answer.headers["Retry-After"]) == (503, "5")
                assert "audit_unavailable" in text
                self.refused += 1
            return answer.status

    async def ask_until_refused(self, count: int) -> None:
        """Several at a time, until so many more were refused."""
        wanted = self.refused + count
        async with asyncio.timeout(30):
            while self.refused < wanted:
                await asyncio.gather(*(self.ask() for _ in range(AT_ONCE)))

    async def ask_until_answered(self) -> None:
        async with asyncio.timeout(30):
            while await self.ask() != 200:
                await asyncio.sleep(0.05)


async def on_record(url: str) -> set[str]:
    """The streams whose beginnings the database has."""
    connection = await asyncpg.connect(url)
    rows = await connection.fetch("SELECT body FROM audit_record WHERE type = 'query.start'")
    await connection.close()
    return {str(decode(row["body"])["stream"]) for row in rows}


async def put_tables_on(server: Postgres, disk: Path) -> str:
    """A database whose tables are there; the URL."""
    server.make_folder(disk / "tables")
    connection = await asyncpg.connect(server.url)
    await connection.execute(f"CREATE TABLESPACE small LOCATION '{disk / 'tables'}'")
    await connection.execute("CREATE DATABASE small TABLESPACE small")
    await connection.close()
    return server.url.rpartition("/")[0] + "/small"


async def use_up_log(server: Postgres) -> None:
    """Makes the server want another file for its log of writes, over which it gives up."""
    async with asyncio.timeout(30):
        while server.is_running:
            with suppress(asyncpg.PostgresError, asyncpg.InterfaceError, OSError):
                connection = await asyncpg.connect(server.url)
                while True:
                    await connection.execute("SELECT pg_logical_emit_message(true, '', 'x')")
                    await connection.execute("SELECT pg_switch_wal()")
            await asyncio.sleep(0.02)


@pytest.mark.parametrize("full", ["tables", "all"])
async def test_full_disk_of_the_server_closes_the_gate_until_there_is_room(
    tmp_path: Path, small_disk: Path, full: str
) -> None:
    settings = {
        "audit_mode": "relay",
        "audit_lines": "off",
        "audit_commit_seconds": "1",
        "audit_checkpoint_seconds": "0.1",
        "audit_checkpoint_file": str(tmp_path / "checkpoints.jsonl"),
    }
    script, port, filler = OnDemand(), free_port(), small_disk / "filler"
    with Postgres(free_port(), within=small_disk if full == "all" else None) as server:
        url = server.url if full == "all" else await put_tables_on(server, small_disk)
        async with (
            ScriptedBackend(script) as backend,
            gateway_process(backend.url, port, tmp_path, url, **settings) as process,
            aiohttp.ClientSession(f"http://127.0.0.1:{port}") as session,
        ):
            await wait_until_ready(session, f"http://127.0.0.1:{port}")
            clients = Clients(session)
            await clients.ask_until_answered()
            running = asyncio.create_task(clients.ask("slow"))
            await script.has_begun.wait()
            fill(filler)
            await clients.ask_until_refused(ENOUGH)
            assert clients.heard <= await on_record(url)
            if full == "all":
                await use_up_log(server)
                await clients.ask_until_refused(ENOUGH)
            script.let_end()
            assert await running == 200
            filler.unlink()
            if full == "all":
                await asyncio.to_thread(server.start)
            await clients.ask_until_answered()
            process.send_signal(signal.SIGTERM)
            assert await process.wait() == 0
        assert clients.heard <= await on_record(url)
        async with stored(tmp_path, url) as store:
            found = await bodies(store)
        told = [one for one in found if one["type"] == "audit.unavailable"]
        assert sum(int(str(one["count"])) for one in told) == clients.refused
        assert full == "all" or {one["reason"] for one in told} == {"disk_full"}
        starts = {one["rid"] for one in found if one["type"] == "query.start"}
        assert starts == {one["rid"] for one in found if one["type"] == "query.end"}
        await assert_good(tmp_path, url)
