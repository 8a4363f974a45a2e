"""A gateway whose wall clock is set forward and back while it runs: streams go on, records stay in
order, nothing is swept before its time, and the log verifies."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import aiohttp

from gateway.audit.canonical import Object
from tests.auditing import bodies, stored
from tests.backend import OnDemand, ScriptedBackend
from tests.commands import assert_good
from tests.gateway import gateway_process, wait_until_ready
from tests.servers import free_port

CHAT = "/api/v2/chat-stream"
HOUR_S = 3600
DAY_S = 24 * HOUR_S

#: Python imports a module of this name at its start: the process's wall clock is that of the
#: machine and as many seconds more as a file says. Its monotonic clock is left alone.
_SITECUSTOMIZE = """
import time
_ns = time.time_ns
def _ahead():
    with open({path!r}) as file:
        return int(file.read())
time.time_ns = lambda: _ns() + _ahead() * 10**9
time.time = lambda: time.time_ns() / 1e9
"""


@dataclass
class Clock:
    """Of a process that is started with `python_path`."""

    folder: Path

    def __post_init__(self) -> None:
        self.folder.mkdir()
        self.set(0)
        text = _SITECUSTOMIZE.format(path=str(self.folder / "ahead"))
        (self.folder / "sitecustomize.py").write_text(text)

    @property
    def python_path(self) -> str:
        return os.pathsep.join([str(self.folder), *sys.path])

    def set(self, ahead_s: int) -> None:
        new = self.folder / "new"
        new.write_text(str(ahead_s))
        new.replace(self.folder / "ahead")


@dataclass
class Run:
    """A gateway in a process of its own, on a clock of its own."""

    folder: Path
    database_url: str | None
    clock: Clock
    backend: OnDemand
    client: aiohttp.ClientSession

    async def ask(self, query: str = "how?", **headers: str) -> int:
        async with self.client.post(CHAT, json={"query": query}, headers=headers) as answer:
            text = await answer.text()
            assert answer.status != 200 or "event: complete" in text
            return answer.status

    async def records(self, *types: str) -> list[Object]:
        async with stored(self.folder, self.database_url) as store:
            return [one for one in await bodies(store) if not types or one["type"] in types]

    async def until_told(self, *actions: str) -> list[Object]:
        """Until that much is on record of the clock, and no more."""
        async with asyncio.timeout(20):
            while True:
                found = await self.records("audit.clock")
                if [one["action"] for one in found] == [*actions]:
                    return found
                await asyncio.sleep(0.02)

    async def until_oldest_is(self, is_so: Callable[[float], bool]) -> None:
        """Until a sweep has been tried, by whose clock the oldest record is so many seconds old."""
        pattern = re.compile(r'^sluice_audit_oldest_record_age_seconds{class="query"} (\S+)$', re.M)
        async with asyncio.timeout(20):
            while True:
                async with self.client.get("/metrics") as answer:
                    found = pattern.search(await answer.text())
                if found is not None and is_so(float(found[1])):
                    return
                await asyncio.sleep(0.02)


@asynccontextmanager
async def running(folder: Path, database_url: str | None, **settings: str) -> AsyncIterator[Run]:
    """Ends it as an operator does, and has both verifiers look at what it leaves."""
    clock, script, port = Clock(folder / "clock"), OnDemand(), free_port()
    told = {
        "pythonpath": clock.python_path,
        "audit_mode": "relay",
        "audit_lines": "off",
        "audit_ballast_bytes": "0",
        "audit_checkpoint_file": str(folder / "checkpoints.jsonl"),
        "audit_checkpoint_seconds": "0.1",
        "audit_sweep_seconds": "0.1",
        **settings,
    }
    url = f"http://127.0.0.1:{port}"
    async with (
        ScriptedBackend(script) as backend,
        gateway_process(backend.url, port, folder, database_url, **told) as process,
        aiohttp.ClientSession(url) as client,
    ):
        await wait_until_ready(client, url)
        yield Run(folder, database_url, clock, script, client)
        process.send_signal(signal.SIGTERM)
        assert await process.wait() == 0
    async with stored(folder, database_url) as store:
        found = await bodies(store)
    times = [int(str(one["ts"])) for one in found]
    assert times == sorted(times)
    starts = {one["rid"] for one in found if one["type"] == "query.start"}
    assert starts <= {one["rid"] for one in found if one["type"] == "query.end"}
    await assert_good(folder, database_url)


async def test_clock_that_leaps_a_day_and_back_has_nothing_swept_and_no_stream_cut(
    tmp_path: Path, database_url: str | None
) -> None:
    # By the clock that has leapt, everything has been there for twice its time.
    async with running(tmp_path, database_url, audit_retention_days="0.5") as run:
        assert [await run.ask() for _ in range(3)] == [200] * 3
        listening = asyncio.create_task(run.ask("slow"))
        await run.backend.has_begun.wait()
        await run.until_oldest_is(lambda age_s: age_s < HOUR_S)
        run.clock.set(25 * HOUR_S)
        (leap,) = await run.until_told("sweep_refused")
        run.backend.may_go_on.release()
        assert [await run.ask() for _ in range(2)] == [200] * 2
        assert abs(int(str(leap["offset_ms"])) - 25 * HOUR_S * 1000) < 60_000
        run.clock.set(0)
        await run.until_told("sweep_refused", "sweep_resumed")
        run.backend.let_end()
        assert await listening == 200
        assert await run.ask() == 200
        run.clock.set(25 * HOUR_S)
        await run.until_told("sweep_refused", "sweep_resumed", "sweep_refused")
    found = await run.records()
    told = [one["action"] for one in found if one["type"] == "audit.clock"]
    assert told == ["sweep_refused", "sweep_resumed", "sweep_refused"]
    assert len([one for one in found if one["type"] == "query.end"]) == 7
    assert {one["outcome"] for one in found if one["type"] == "query.end"} == {"completed"}
    assert not [one for one in found if one["type"] == "audit.sweep"]


async def test_clock_set_back_an_hour_keeps_records_longer_and_in_order(
    tmp_path: Path, database_url: str | None
) -> None:
    seconds = f"{2 / DAY_S:f}"
    async with running(tmp_path, database_url, audit_retention_days=seconds) as run:
        listening = asyncio.create_task(run.ask("slow"))
        await run.backend.has_begun.wait()
        run.clock.set(-HOUR_S)
        assert [await run.ask() for _ in range(3)] == [200] * 3
        run.backend.let_end()
        assert await listening == 200
        async with asyncio.timeout(20):
            while len(await run.records("query.end")) < 4:
                await asyncio.sleep(0.02)
        await run.until_oldest_is(lambda age_s: age_s == 0)
        assert len(await run.records("query.start")) == 4
        assert await run.records("audit.sweep", "audit.clock") == []
        run.clock.set(0)
        async with asyncio.timeout(20):
            while await run.records("query.start") or not await run.records("audit.sweep.done"):
                await asyncio.sleep(0.02)
        assert await run.ask() == 200
    assert await run.records("audit.clock") == []


async def test_no_violation_is_lost_when_the_clock_is_set_back(tmp_path: Path) -> None:
    async with running(tmp_path, None, admin_token="a-token-of-an-operator") as run:
        for ahead_s in (0, -HOUR_S, -HOUR_S - 5, -2 * HOUR_S):
            run.clock.set(ahead_s)
            for _ in range(3):
                wrong = {"Authorization": "Bearer wrong"}
                async with run.client.get("/api/admin/streams", headers=wrong) as answer:
                    assert answer.status == 401
    told = await run.records("security.auth_failed")
    assert sum(int(str(one.get("count", 1))) for one in told) == 12
