"""No byte of an answer before its record: seen from outside, by who holds the client's socket and a
connection of their own to the database. And what a gateway does that can't record."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from pathlib import Path

import aiohttp
import asyncpg  # type: ignore[import-untyped]
import pytest

from scripts.mock.behaviour import Behaviour
from scripts.mock.server import serving
from tests.auditing import assert_sound, bodies, stored
from tests.backend import LAST_CHUNK, Exchange, ScriptedBackend, chunked, sse_head
from tests.disk import fill
from tests.gateway import Gateway, gateway_environment, running_gateway, wait_until_ready
from tests.postgres import Postgres
from tests.servers import free_port
from tests.wire.answers import parsed, request

CHAT = "/api/v2/chat-stream"
AT_ONCE = Behaviour(first=0, pace=1, tokens=5)
STARTS = "SELECT count(*) FROM audit_record WHERE type = 'query.start'"
ENDS = "SELECT count(*) FROM audit_record WHERE type = 'query.end'"
ENDS = "SELECT count(*) FROM audit_record WHERE type = 'query.end'"


class Outside:
    """Counts records on a connection of its own."""

    def __init__(self, folder: Path, database_url: str | None) -> None:
        self._folder = folder
        self._url = database_url
        self._server: asyncpg.Connection | None = None

    async def __aenter__(self) -> Outside:
        if self._url is not None:
            self._server = await asyncpg.connect(self._url)
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._server is not None:
            await self._server.close()

    async def count(self, query: str) -> int:
        if self._server is not None:
            return int(await self._server.fetchval(query))
        return await asyncio.to_thread(self._read, query)

    def _read(self, query: str) -> int:
        path = self._folder / "audit.sqlite3"
        with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as file:
            return int(file.execute(query).fetchone()[0])


@asynccontextmanager
async def audited(
    upstream: str, folder: Path, database_url: str | None = None, **settings: object
) -> AsyncIterator[Gateway]:
    told: dict[str, object] = {"audit_mode": "relay", "audit_commit_seconds": 0.4, **settings}
    if database_url is not None:
        told["database_url"] = database_url
    held = folder / "checkpoints.jsonl"
    async with running_gateway(
        upstream, data_dir=folder, audit_checkpoint_file=held, **told
    ) as gateway:
        yield gateway


_HOLD = """
import sqlite3, sys
database = sqlite3.connect(sys.argv[1], isolation_level=None, timeout=30)
database.execute("BEGIN IMMEDIATE")
print("locked", flush=True)
sys.stdin.read()
"""


@asynccontextmanager
async def locked(folder: Path, database_url: str | None = None) -> AsyncIterator[None]:
    """Nobody else can write, for as long as this lasts."""
    if database_url is not None:
        connection = await asyncpg.connect(database_url)
        try:
            async with connection.transaction():
                await connection.execute("LOCK TABLE audit_record IN EXCLUSIVE MODE")
                yield
        finally:
            await connection.close()
        return
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", _HOLD, str(folder / "audit.sqlite3")),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert process.stdout is not None
    assert await process.stdout.readline() == b"locked\n"
    try:
        yield
    finally:
        await process.communicate(b"")


async def first_byte(port: int, number: int) -> tuple[bytes, asyncio.StreamWriter]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(request(CHAT, {"query": f"{number}"}))
    return await reader.read(1), writer


async def say(client: aiohttp.ClientSession, **body: object) -> tuple[int, str, dict[str, str]]:
    async with client.post(CHAT, json={"query": "how?", **body}) as answer:
        return answer.status, await answer.text(), dict(answer.headers)


@pytest.mark.parametrize("mode", ["relay", "dispatch", "end"])
async def test_first_byte_of_an_answer_finds_its_record_in_the_database(
    tmp_path: Path, database_url: str | None, mode: str
) -> None:
    async with (
        serving(AT_ONCE) as url,
        audited(url, tmp_path, database_url, audit_mode=mode, audit_commit_seconds=5) as gateway,
        Outside(tmp_path, database_url) as outside,
    ):
        for number in range(20):
            # One at a time, so that the count tells whose record it is.
            byte, writer = await first_byte(gateway.port, number)
            assert byte == b"H"
            assert await outside.count(STARTS) == number + 1
            writer.close()


async def test_no_byte_comes_while_the_commit_waits(
    tmp_path: Path, database_url: str | None
) -> None:
    async with (
        serving(AT_ONCE) as url,
        audited(url, tmp_path, database_url, audit_commit_seconds=5) as gateway,
        Outside(tmp_path, database_url) as outside,
    ):
        async with locked(tmp_path, database_url):
            asking = [asyncio.create_task(first_byte(gateway.port, n)) for n in range(20)]
            done, _ = await asyncio.wait(asking, timeout=0.5)
            assert not done
            assert await outside.count(STARTS) == 0
        for byte, writer in await asyncio.gather(*asking):
            assert byte == b"H"
            writer.close()
        assert await outside.count(STARTS) == 20


async def test_dispatch_asks_the_backend_only_after_the_record(
    tmp_path: Path, database_url: str | None
) -> None:
    counted: list[int] = []

    async def script(exchange: Exchange) -> None:
        counted.append(await outside.count(STARTS))
        await exchange.send(sse_head(), chunked(b"data: [DONE]\n\n"), LAST_CHUNK)

    async with (
        Outside(tmp_path, database_url) as outside,
        ScriptedBackend(script) as backend,
        audited(backend.url, tmp_path, database_url, audit_mode="dispatch") as gateway,
        aiohttp.ClientSession(gateway.url) as client,
    ):
        assert (await say(client))[0] == 200
        # A commit that had begun before the lock would let the next record be taken back.
        while await outside.count(ENDS) < 1:
            await asyncio.sleep(0.01)
        async with locked(tmp_path, database_url):
            status, text, _ = await say(client)
        assert (status, "audit_unavailable" in text) == (503, True)
    assert counted == [1]
    async with stored(tmp_path, database_url) as store:
        ends = [one for one in await bodies(store) if one["type"] == "query.end"]
    told = [(one["outcome"], one["status"]) for one in ends]
    assert told == [("completed", 200), ("audit_failed", 503)]


async def test_end_holds_the_last_event_until_the_end_is_recorded(
    tmp_path: Path, database_url: str | None
) -> None:
    async with (
        serving(Behaviour(first=0, pace=20, tokens=10)) as url,
        audited(url, tmp_path, database_url, audit_mode="end", audit_commit_seconds=5) as gateway,
        Outside(tmp_path, database_url) as outside,
        aiohttp.ClientSession(gateway.url) as client,
        client.post(CHAT, json={"query": "how?"}) as answer,
    ):
        await answer.content.readline()
        async with locked(tmp_path, database_url):
            await asyncio.sleep(0.05)
            reading = asyncio.create_task(answer.content.read())
            done, _ = await asyncio.wait({reading}, timeout=0.6)
            assert not done
            assert await outside.count(ENDS) == 0
        assert b"event: complete" in await reading
        assert await outside.count(ENDS) == 1


async def test_request_that_cannot_be_recorded_gets_503_and_cancels_the_backend(
    tmp_path: Path, database_url: str | None
) -> None:
    async with (
        serving(Behaviour(first=0, pace=20, tokens=500)) as url,
        audited(url, tmp_path, database_url) as gateway,
        aiohttp.ClientSession(gateway.url) as client,
    ):
        async with locked(tmp_path, database_url):
            status, text, headers = await say(client)
            assert (status, headers["Retry-After"]) == (503, "5")
            assert "audit_unavailable" in text
            await gateway.wait_for_streams(0)
            for streams in (True, False):
                body = {"stream": streams, "messages": [{"role": "user", "content": "x"}]}
                async with client.post("/v1/chat/completions", json=body) as answer:
                    assert answer.status == 503
            async with client.get("/health") as answer:
                report = await answer.json()
            assert (report["status"], report["audit"]["away"]) == ("degraded", True)
        async with asyncio.timeout(10):
            while gateway.services.recorder.log.is_away:  # type: ignore[union-attr]
                await asyncio.sleep(0.02)
        async with client.post(CHAT, json={"query": "how?"}) as answer:
            assert answer.status == 200
        assert gateway.metric("sluice_audit_refused_total") == 3
        await asyncio.sleep(0.05)
    async with stored(tmp_path, database_url) as store:
        found = await bodies(store)
    assert "audit.unavailable" in {one["type"] for one in found}
    await assert_sound(tmp_path, database_url)


@pytest.mark.parametrize("mode", ["relay", "dispatch", "end"])
async def test_every_refusal_counts_also_of_an_answer_that_was_whole(
    tmp_path: Path, mode: str
) -> None:
    async with (
        serving(AT_ONCE) as url,
        audited(url, tmp_path, audit_mode=mode) as gateway,
        aiohttp.ClientSession(gateway.url) as client,
    ):
        async with locked(tmp_path):
            refused = await asyncio.gather(*(say(client) for _ in range(5)))
        assert [status for status, _, _ in refused] == [503] * 5
        assert gateway.metric("sluice_audit_refused_total") == 5
    async with stored(tmp_path) as store:
        found = await bodies(store)
    assert sum(one["count"] for one in found if one["type"] == "audit.unavailable") == 5
    await assert_sound(tmp_path)


async def test_stream_that_runs_goes_on_while_the_log_is_away(tmp_path: Path) -> None:
    async with (
        serving(Behaviour(first=0, pace=20, tokens=40)) as url,
        audited(url, tmp_path) as gateway,
        aiohttp.ClientSession(gateway.url) as client,
        client.post(CHAT, json={"query": "how?"}) as answer,
    ):
        await answer.content.readline()
        async with locked(tmp_path):
            assert b"event: complete" in await answer.content.read()
    async with stored(tmp_path) as store:
        ends = [one for one in await bodies(store) if one["type"] == "query.end"]
    assert [one["outcome"] for one in ends] == ["completed"]
    await assert_sound(tmp_path)


async def test_async_answers_while_the_log_is_away(tmp_path: Path) -> None:
    async with (
        serving(AT_ONCE) as url,
        audited(url, tmp_path, audit_mode="async") as gateway,
        aiohttp.ClientSession(gateway.url) as client,
        locked(tmp_path),
    ):
        for _ in range(10):
            assert (await say(client))[0] == 200
    async with stored(tmp_path) as store:
        assert len([one for one in await bodies(store) if one["type"] == "query.end"]) == 10
    await assert_sound(tmp_path)


async def test_client_that_leaves_early_is_recorded_all_the_same(tmp_path: Path) -> None:
    async with (
        serving(Behaviour(head=5)) as url,
        audited(url, tmp_path, audit_commit_seconds=5, detach_grace_seconds=0) as gateway,
        Outside(tmp_path, None) as outside,
    ):
        async with locked(tmp_path):
            _, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
            writer.write(request(CHAT, {"query": "how?"}))
            await gateway.wait_for_streams(1)
            writer.close()
            await gateway.wait_for_streams(0)
        async with asyncio.timeout(5):
            while await outside.count(ENDS) != 1:
                await asyncio.sleep(0.02)
        assert await outside.count(STARTS) == 1


@pytest.mark.parametrize("away", ["stopped", "frozen"])
async def test_server_that_goes_away_closes_the_gate_until_it_is_back(
    tmp_path: Path, away: str
) -> None:
    with Postgres(free_port()) as server:
        async with (
            serving(AT_ONCE) as url,
            audited(url, tmp_path, server.url) as gateway,
            aiohttp.ClientSession(gateway.url) as client,
        ):
            assert (await say(client))[0] == 200
            await asyncio.to_thread(server.stop if away == "stopped" else server.freeze)
            assert [(await say(client))[0] for _ in range(3)] == [503] * 3
            await asyncio.to_thread(server.start if away == "stopped" else server.thaw)
            async with asyncio.timeout(20):
                while (await say(client))[0] != 200:
                    await asyncio.sleep(0.05)
        await assert_sound(tmp_path, server.url)


async def test_full_disk_closes_the_gate_and_the_ballast_lets_the_log_say_so(
    small_disk: Path,
) -> None:
    ballast = small_disk / "audit.ballast"
    async with (
        serving(AT_ONCE) as url,
        audited(
            url, small_disk, audit_ballast_bytes=2 << 20, audit_checkpoint_seconds=0.1
        ) as gateway,
        aiohttp.ClientSession(gateway.url) as client,
    ):
        assert (await say(client))[0] == 200
        assert ballast.stat().st_size == 2 << 20
        filler = small_disk / "filler"
        fill(filler)
        statuses = set()
        async with asyncio.timeout(20):
            while ballast.exists():
                statuses.add((await say(client))[0])
        assert (await say(client))[0] == 503
        filler.unlink()
        async with asyncio.timeout(20):
            while (await say(client))[0] != 200:
                await asyncio.sleep(0.05)
        assert ballast.stat().st_size == 2 << 20
        await asyncio.sleep(0.05)
    async with stored(small_disk) as store:
        assert "audit.unavailable" in {one["type"] for one in await bodies(store)}
    await assert_sound(small_disk)


# Killed

KILLS = 4
CLIENTS = 20


async def listen(port: int, heard: set[str]) -> None:
    """Asks again and again; notes the stream of every answer of which a byte has come."""
    while True:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        try:
            writer.write(request(CHAT, {"query": "how?"}))
            data = b""
            while piece := await reader.read(4096):
                data += piece
                if b"\r\n\r\n" in data and (
                    stream := parsed(data, was_reset=False).header("X-Stream-Id")
                ):
                    heard.add(stream)
        finally:
            writer.close()


async def test_stream_of_which_a_client_saw_a_byte_has_its_record_after_a_kill(
    tmp_path: Path,
) -> None:
    heard: set[str] = set()
    async with serving(Behaviour(first=0, pace=5, tokens=10)) as url:
        for _ in range(KILLS):
            port = free_port()
            environment = {
                "PATH": os.environ["PATH"],
                "PYTHONPATH": os.pathsep.join(sys.path),
                **gateway_environment(url, port, tmp_path),
                "AUDIT_MODE": "relay",
                "AUDIT_BALLAST_BYTES": "0",
                "AUDIT_CHECKPOINT_FILE": str(tmp_path / "checkpoints.jsonl"),
            }
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "gateway.cli", "serve"),
                env=environment,
                stdout=subprocess.DEVNULL,
            )
            async with aiohttp.ClientSession() as client:
                await wait_until_ready(client, f"http://127.0.0.1:{port}")
            clients = [asyncio.create_task(listen(port, heard)) for _ in range(CLIENTS)]
            await asyncio.sleep(0.05)
            wanted = len(heard) + 60
            async with asyncio.timeout(20):
                while len(heard) < wanted:
                    await asyncio.sleep(0.01)
            process.kill()
            await process.wait()
            for one in clients:
                one.cancel()
            await asyncio.gather(*clients, return_exceptions=True)
        async with audited(url, tmp_path):
            pass  # puts right what the last one left
    async with stored(tmp_path) as store:
        found = await bodies(store)
    starts = {one["stream"]: one["rid"] for one in found if one["type"] == "query.start"}
    ended = {one["rid"] for one in found if one["type"] == "query.end"}
    assert len(heard) >= KILLS * 60
    assert heard <= starts.keys()
    assert set(starts.values()) == ended
    assert len([one for one in found if one.get("outcome") == "unknown"]) > 0
    await assert_sound(tmp_path)
