"""Sweeps of a running gateway, by itself and by command, and through kills in the middle of one."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Coroutine
from pathlib import Path

import aiohttp

from gateway.audit.canonical import Object
from scripts.mock.behaviour import Behaviour
from scripts.mock.server import serving
from tests import forked
from tests.auditing import assert_sound, bodies, stored
from tests.commands import audit
from tests.forked import Result
from tests.gateway import Gateway, gateway_environment, gateway_process, wait_until_ready
from tests.integration.test_audit import CHAT, audited, of_type
from tests.servers import free_port

QUICK = Behaviour(first=0, pace=1, tokens=5)
#: A second; sweeps by themselves and checkpoints as often as that takes.
BRIEF = {"audit_retention_days": 0.00001, "audit_checkpoint_seconds": 0.1}
KILLS = 5


async def ask(client: aiohttp.ClientSession, url: str, count: int) -> None:
    for number in range(count):
        async with client.post(f"{url}{CHAT}", json={"query": f"question {number}"}) as answer:
            assert answer.status == 200
            await answer.read()


async def wait_until_swept(gateway: Gateway, count: int) -> None:
    async with asyncio.timeout(20):
        while gateway.metric("sluice_audit_swept_total", **{"class": "query"}) < count:
            await asyncio.sleep(0.02)


async def test_running_gateway_sweeps_by_itself(tmp_path: Path, database_url: str | None) -> None:
    async with (
        serving(QUICK) as url,
        audited(url, tmp_path, database_url, audit_sweep_seconds=0.1, **BRIEF) as gateway,
        aiohttp.ClientSession() as client,
    ):
        await ask(client, gateway.url, 5)
        await wait_until_swept(gateway, 10)
        await ask(client, gateway.url, 1)
        age = gateway.metric("sluice_audit_oldest_record_age_seconds", **{"class": "audit"})
        assert age > 1
    assert len(await of_type(tmp_path, database_url, "query.start")) == 1
    assert await of_type(tmp_path, database_url, "audit.sweep", "audit.sweep.done")
    await assert_sound(tmp_path, database_url)


async def test_command_sweeps_beside_a_gateway_that_does_not(
    tmp_path: Path, database_url: str | None
) -> None:
    def sweep(*options: str) -> Coroutine[object, object, Result]:
        environment = {name.upper(): str(value) for name, value in BRIEF.items()}
        return audit("sweep", *options, folder=tmp_path, database_url=database_url, **environment)

    async with (
        serving(QUICK) as url,
        audited(url, tmp_path, database_url, audit_sweep_seconds=0, **BRIEF) as gateway,
        aiohttp.ClientSession() as client,
    ):
        await ask(client, gateway.url, 3)
        end = asyncio.get_running_loop().time() + 1.3
        while asyncio.get_running_loop().time() < end:
            await asyncio.sleep(0.05)
        planned = await sweep("--dry-run", "--json")
        assert planned.code == 0, planned.err
        (due,) = planned.json["counts"]
        assert (due["what"], due["due"], due["held"]) == ("query", 6, 0)
        assert len(await of_type(tmp_path, database_url, "query.start")) == 3
        done = await sweep("--json")
        assert done.code == 0, done.err
        assert done.json["counts"] == planned.json["counts"]
        assert await of_type(tmp_path, database_url, "query.start") == []
        again = await sweep()
        assert (again.code, again.out) == (0, "")
        await ask(client, gateway.url, 1)
    logs = await assert_sound(tmp_path, database_url)
    assert {log.kind for log in logs} == {"catalogue", "gateway", "command"}


async def test_second_sweeper_is_told_that_one_is_at_it(
    tmp_path: Path, database_url: str | None
) -> None:
    async with (
        serving(QUICK) as url,
        audited(url, tmp_path, database_url),
        stored(tmp_path, database_url) as store,
        store.alone("sweep"),
    ):
        done = await audit("sweep", folder=tmp_path, database_url=database_url)
    assert done.code == 5
    assert "another process" in done.err


async def test_gateways_killed_while_they_sweep_leave_a_sound_log(
    tmp_path: Path, database_url: str | None
) -> None:
    chance, port = random.Random(7), free_port()
    async with serving(QUICK) as upstream, aiohttp.ClientSession() as client:
        environment = gateway_environment(upstream, port, tmp_path, database_url) | {
            "AUDIT_MODE": "relay",
            "AUDIT_LINES": "off",
            "AUDIT_CHECKPOINT_FILE": str(tmp_path / "checkpoints.jsonl"),
            "AUDIT_SWEEP_SECONDS": "0.1",
            "AUDIT_ORIGIN": "gw.example.org",
            **{name.upper(): f"{value:f}" for name, value in BRIEF.items()},
        }
        cut_short: set[object] = set()
        for _ in range(KILLS):
            process = forked.context.Process(
                target=forked.sluice, args=(["serve"], environment), daemon=True
            )
            await asyncio.to_thread(process.start)
            try:
                url = f"http://127.0.0.1:{port}"
                await wait_until_ready(client, url)
                await ask(client, url, 4)
                await until_sweeping(tmp_path, database_url, cut_short)
                await asyncio.sleep(chance.uniform(0, 0.04))
            finally:
                process.kill()
                await asyncio.to_thread(process.join)
            async with stored(tmp_path, database_url) as store:
                cut_short |= open_sweeps(await bodies(store))
        assert cut_short
    async with (
        serving(QUICK) as upstream,
        audited(
            upstream,
            tmp_path,
            database_url,
            audit_sweep_seconds=0.1,
            audit_origin="gw.example.org",
            **BRIEF,
        ) as gateway,
    ):
        async with asyncio.timeout(20):
            while await of_type(tmp_path, database_url, "query.start"):
                await asyncio.sleep(0.05)
        assert gateway.metric("sluice_audit_lost_total") == 0
    await assert_sound(tmp_path, database_url)


async def until_sweeping(folder: Path, database_url: str | None, known: set[object]) -> None:
    """Until a sweep is under way that isn't among those that were cut short before."""
    async with asyncio.timeout(20), stored(folder, database_url) as store:
        while not open_sweeps(await bodies(store)) - known:
            await asyncio.sleep(0.005)


def open_sweeps(found: list[Object]) -> set[object]:
    """Told, and not done."""
    told = {one["sweep"] for one in found if one["type"] == "audit.sweep"}
    return told - {one["sweep"] for one in found if one["type"] == "audit.sweep.done"}


async def test_copy_that_a_crash_prevented_is_made_by_the_next_start(
    tmp_path: Path, database_url: str | None
) -> None:
    held, port = tmp_path / "checkpoints.jsonl", free_port()
    settings = {
        "audit_mode": "relay",
        "audit_lines": "off",
        "audit_checkpoint_file": str(held),
        "audit_checkpoint_seconds": "0.1",
    }
    async with serving(QUICK) as upstream, aiohttp.ClientSession() as client:
        arguments = (upstream, port, tmp_path / "data", database_url)
        async with gateway_process(*arguments, **settings) as process:
            url = f"http://127.0.0.1:{port}"
            await wait_until_ready(client, url)
            known = await _notes(held, 1)
            await ask(client, url, 4)
            signed = await _notes(held, len(known) + 2)  # of the log and of the catalogue
            process.kill()
            await process.wait()
        signed = await _notes(held, len(signed))
        held.write_bytes(b"".join(held.read_bytes().splitlines(keepends=True)[:-2]))
        assert not signed <= await _notes(held, 0)
        async with gateway_process(*arguments, **settings):
            await wait_until_ready(client, url)
            assert signed <= await _notes(held, len(signed))


async def _notes(held: Path, count: int) -> set[str]:
    """The checkpoints that are held outside, each with its time, once there are so many."""
    async with asyncio.timeout(20):
        while len(found := _read_notes(held)) < count:
            await asyncio.sleep(0.02)
    return found


def _read_notes(held: Path) -> set[str]:
    lines = held.read_text().splitlines() if held.exists() else []
    return {f"{line['ts']} {line['note']}" for line in map(json.loads, lines)}
