"""The store goes away and comes back under load: no stream is lost, and every record is complete.

A hundred clients ask one question after another meanwhile, so that streams run, begin and end in
every phase. What each of them got must be right to the byte, and be in the store afterwards.
"""

from __future__ import annotations

import asyncio
import re
import resource
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp
import pytest

from gateway.stream.model import Status, StreamId
from tests.backend import LAST_CHUNK, Exchange, ScriptedBackend, chunked, sse_head
from tests.client import events, said
from tests.disk import fill
from tests.gateway import Gateway, running_gateway
from tests.postgres import Postgres
from tests.servers import free_port
from tests.wire.answers import ask

CLIENTS = 100
WORDS = 20
SOON = {"stream_error_base_delay_ms": 100, "stream_error_max_delay_ms": 400}
Away = Callable[[], AbstractAsyncContextManager[None]]


# load


def word(number: int, at: int) -> str:
    return f"{number}.{at} "


async def script(exchange: Exchange) -> None:
    """A second's talk about the question's number."""
    found = re.search(rb"question-(\d+)", exchange.body)
    assert found is not None
    await exchange.send(sse_head())
    for at in range(WORDS):
        content = word(int(found[1]), at)
        block = f'data: {{"choices":[{{"index":0,"delta":{{"content":"{content}"}}}}]}}\n\n'
        await exchange.send(chunked(block.encode()))
        await asyncio.sleep(0.05)
    await exchange.send(chunked(b"data: [DONE]\n\n"), LAST_CHUNK)


@dataclass(slots=True)
class Load:
    """Clients that ask as long as they are let; `heard` is every answer, whole, by its stream."""

    gateway: Gateway
    heard: dict[StreamId, bytes] = field(default_factory=dict)
    asked: int = 0
    is_over: bool = False

    async def client(self) -> None:
        while not self.is_over:
            self.asked += 1
            number = self.asked
            answer = await ask(
                self.gateway.port, "/api/v2/chat-stream", {"query": f"question-{number}"}
            )
            assert answer.is_whole
            assert said(events(answer.body)) == "".join(word(number, at) for at in range(WORDS))
            sid = answer.header("X-Stream-Id")
            assert sid is not None
            self.heard[StreamId(sid)] = answer.body

    async def more(self, count: int) -> None:
        """Until so many more streams have ended."""
        wanted = len(self.heard) + count
        async with asyncio.timeout(30):
            while len(self.heard) < wanted:
                await asyncio.sleep(0.01)


@asynccontextmanager
async def loaded(gateway: Gateway) -> AsyncIterator[Load]:
    load = Load(gateway)
    async with asyncio.TaskGroup() as clients:
        for _ in range(CLIENTS):
            clients.create_task(load.client())
        try:
            await load.more(CLIENTS // 4)
            yield load
        finally:
            load.is_over = True


async def health(gateway: Gateway) -> dict[str, object]:
    async with aiohttp.request("GET", f"{gateway.url}/health") as response:
        assert response.status == 200
        report = await response.json()
    return {"status": report["status"], **report["store"]}


async def wait_for_health(gateway: Gateway, status: str, seconds: float) -> None:
    async with asyncio.timeout(seconds):
        while (await health(gateway))["status"] != status:
            await asyncio.sleep(0.02)


async def check_away_and_back(gateway: Gateway, away: Away) -> None:
    async with loaded(gateway) as load:
        async with away():
            await wait_for_health(gateway, "degraded", 4)
            await load.more(CLIENTS * 2)  # half of them began after it was noticed
            report = await health(gateway)
            assert report["status"] == "degraded"
            # Streams, not events: no more of them than can have something to say.
            queued = report["queued"]
            assert isinstance(queued, int)
            assert CLIENTS * 2 <= queued <= load.asked
            assert report["unkept"] == 0
        await wait_for_health(gateway, "ok", 15)
        await load.more(CLIENTS)
    await check_complete(gateway, load)


async def check_complete(gateway: Gateway, load: Load) -> None:
    """The store has, of each stream, what its client got: all of it, once, with its end."""
    assert await gateway.services.keeper.flush(10)
    assert await health(gateway) == {"status": "ok", "degraded": False, "queued": 0, "unkept": 0}
    assert len(load.heard) == load.asked >= CLIENTS * 3
    for sid, body in load.heard.items():
        record = await gateway.services.store.load(sid)
        assert record is not None
        assert (record.status, record.total_chunks) == (Status.COMPLETED, WORDS)
        segments = await gateway.services.store.segments(sid, 0)
        assert b"".join(f for s in segments for f in s.after(0)) == without_beats(body)
    async with aiohttp.request("GET", f"{gateway.url}/metrics") as response:
        text = await response.text()
    assert f'sluice_streams_total{{reason="completed"}} {float(load.asked)}' in text


def without_beats(body: bytes) -> bytes:
    blocks = body.removesuffix(b"\n\n").split(b"\n\n")
    return b"".join(b"%b\n\n" % one for one in blocks if b"event: heartbeat" not in one)


# PostgreSQL


@pytest.fixture(scope="module")
def server() -> object:
    with Postgres(free_port()) as server:
        yield server


@asynccontextmanager
async def stopped(server: Postgres) -> AsyncIterator[None]:
    """Killed in mid-transaction, with its connections; nobody listens on its port."""
    await asyncio.to_thread(server.stop)
    try:
        yield
    finally:
        await asyncio.to_thread(server.start)


@asynccontextmanager
async def frozen(server: Postgres) -> AsyncIterator[None]:
    """Its connections stay, and nothing comes of them: a stopped machine, a dead network."""
    server.freeze()
    try:
        yield
    finally:
        server.thaw()


@pytest.mark.parametrize("away", [stopped, frozen])
async def test_postgres_away_and_back_loses_no_stream(
    away: Callable[[Postgres], AbstractAsyncContextManager[None]], server: Postgres
) -> None:
    async with (
        ScriptedBackend(script) as backend,
        running_gateway(backend.url, database_url=server.url, **SOON) as gateway,
    ):
        await check_away_and_back(gateway, lambda: away(server))
        retried = gateway.metric("sluice_retries_total", operation="store", outcome="succeeded")
        assert retried >= (away is stopped)  # on frozen connections the first try only takes long


# SQLite

_LOCK = """
import sqlite3, sys
database = sqlite3.connect(sys.argv[1], isolation_level=None, timeout=30)
database.execute("BEGIN EXCLUSIVE")
print("locked", flush=True)
sys.stdin.read()
"""


@asynccontextmanager
async def locked(folder: Path) -> AsyncIterator[None]:
    """By another process, for as long as it likes."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", _LOCK, str(folder / "streams.sqlite3")),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert process.stdout is not None
    assert await process.stdout.readline() == b"locked\n"
    try:
        yield
    finally:
        await process.communicate(b"")


@asynccontextmanager
async def filled(folder: Path) -> AsyncIterator[None]:
    """By somebody else's file."""
    filler = folder / "filler"
    fill(filler)
    try:
        yield
    finally:
        filler.unlink()


@asynccontextmanager
async def limited(folder: Path) -> AsyncIterator[None]:
    """No file may grow beyond what the database has by now."""
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    sizes = [(folder / f"streams.sqlite3{end}").stat().st_size for end in ("", "-wal")]
    resource.setrlimit(resource.RLIMIT_FSIZE, (max(sizes), hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))


async def test_sqlite_locked_by_another_loses_no_stream(tmp_path: Path) -> None:
    async with (
        ScriptedBackend(script) as backend,
        running_gateway(backend.url, data_dir=tmp_path, **SOON) as gateway,
    ):
        await check_away_and_back(gateway, lambda: locked(tmp_path))


async def test_sqlite_on_a_full_disk_loses_no_stream(small_disk: Path) -> None:
    async with (
        ScriptedBackend(script) as backend,
        running_gateway(backend.url, data_dir=small_disk, **SOON) as gateway,
    ):
        await check_away_and_back(gateway, lambda: filled(small_disk))


async def test_sqlite_whose_files_may_not_grow_loses_no_stream(tmp_path: Path) -> None:
    async with (
        ScriptedBackend(script) as backend,
        running_gateway(backend.url, data_dir=tmp_path, **SOON) as gateway,
    ):
        await check_away_and_back(gateway, lambda: limited(tmp_path))
