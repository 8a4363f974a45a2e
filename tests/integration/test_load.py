"""The load script, on real servers: it counts exactly and hides nothing."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import sys
import time
from asyncio.subprocess import PIPE, STDOUT
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from scripts.loading.crowd import Crowd, Manners, Plan
from scripts.loading.peers import Peer
from scripts.loading.process import family
from scripts.loading.running import Backend, PeerFailed, Running, lean_backend
from scripts.loading.scenarios import SLACK_S, Figures, Size, paced
from scripts.loading.single import Load, run
from scripts.loading.targets import Target
from scripts.mock.server import serving
from tests.gateway import running_gateway

ROOT = Path(__file__).parents[2]
STAMPED = "[mock: tokens=12 pace=2 jitter=0 first=0 stamp=text]"


async def script(*arguments: str) -> tuple[int, str]:
    """Runs `scripts/load.py`; its exit code and what it printed."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, str(ROOT / "scripts" / "load.py"), *arguments),
        cwd=ROOT,
        stdout=PIPE,
        stderr=STDOUT,
    )
    async with asyncio.timeout(90):
        output, _ = await process.communicate()
    assert process.returncode is not None
    return process.returncode, output.decode()


def assert_needs_no_network(page: str) -> None:
    assert page.startswith("<!doctype html>")
    assert "<svg" in page
    assert not re.search(r"<script|<link|<img|\bsrc=|\bhref=|url\(|@import", page)


@pytest.mark.parametrize("dialect", ["openai", "anthropic", "typed"])
async def test_each_dialect_is_counted_to_the_event(dialect: str) -> None:
    async with serving() as upstream, running_gateway(upstream) as gateway:
        result = await run(
            Load(
                Target(gateway.url, dialect),
                STAMPED,
                rate=40,
                seconds=0.5,
                expected=12,
                is_stamped=True,
            )
        )
    assert result.endings == {"ok": 20}
    assert result.figures["events"] == 20 * 12
    assert result.times["event_latency_us"]["count"] == 20 * 12
    assert result.times["gap_ms"]["count"] == 20 * 11
    assert result.success_rate == 1.0


async def test_unstamped_events_of_a_dialect_are_counted_by_their_mark() -> None:
    question = "[mock: tokens=12 pace=1 jitter=0 first=0]"
    async with serving() as upstream:
        load = Load(Target(upstream, "anthropic"), question, rate=20, seconds=0.2, expected=12)
        result = await run(load)
    assert result.endings == {"ok": 4}
    assert "event_latency_us" not in result.times


async def test_clients_that_drop_come_back_and_get_each_event_once() -> None:
    manners = Manners(reconnect=1.0, drop_after=4)
    headers = {"X-Stream-On-Disconnect": "grace=30"}
    question = "[mock: tokens=12 pace=20 jitter=0 first=0]"
    async with serving() as upstream, running_gateway(upstream) as gateway:
        for dialect in ("openai", "typed"):
            target = Target(gateway.url, dialect, headers=headers)
            load = Load(target, question, rate=20, seconds=0.3, expected=12, manners=manners)
            result = await run(load)
            assert (result.endings, result.resumed) == ({"ok": 6}, 6), dialect


async def test_clients_that_leave_or_read_slowly_are_told_apart() -> None:
    manners = Manners(leave=0.5, leave_after=3, slow=0.3, slow_bytes_per_s=50_000)
    with lean_backend() as backend:
        load = Load(
            Target(backend.url), STAMPED, rate=200, seconds=0.2, expected=12, manners=manners
        )
        result = await run(load)
    assert result.endings.keys() == {"ok", "left"}
    assert sum(result.endings.values()) == 40
    assert result.success_rate == 1.0


@asynccontextmanager
async def one_at_a_time(seconds: float) -> AsyncIterator[str]:
    """A server that takes `seconds` for each answer and lets all the others wait."""
    turn = asyncio.Lock()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        async with turn:
            await asyncio.sleep(seconds)
        writer.write(b'HTTP/1.1 200 OK\r\n\r\ndata: {"content":"x"}\n\ndata: [DONE]\n\n')
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"


async def test_a_server_that_falls_behind_is_seen_to_fall_behind() -> None:
    """Each answer takes 20 ms, so a client that waited for the last one would never see more."""
    async with one_at_a_time(0.02) as url:
        result = await run(Load(Target(url), "hello", rate=100, seconds=0.5, expected=1))
    assert result.endings == {"ok": 50}
    first = result.times["first_token_ms"]
    assert first["max"] > 400
    assert first["p50"] > 150


async def test_a_stream_that_begins_late_is_timed_from_when_it_should_have_begun() -> None:
    with lean_backend() as backend:
        crowd = Crowd(Plan(Target(backend.url), "[mock: tokens=2]", 2))
        crowd.start(time.monotonic_ns() - 10**9)
        assert await crowd.until(lambda tally: tally.ended == 1, 5)
        await crowd.close()
    assert crowd.tally.first_ns[0] > 10**9
    assert crowd.tally.lag_ns[0] > 10**9


async def test_what_goes_wrong_has_its_name() -> None:
    async with serving() as upstream:
        for fault, ending in (("cut=2", "cut"), ("reset=2", "cut"), ("status=429", "status 429")):
            question = f"[mock: tokens=4 pace=1 first=0 {fault}]"
            result = await run(Load(Target(upstream), question, rate=20, seconds=0.1, expected=4))
            assert result.endings == {ending: 2}
            assert result.success_rate == 0
        load = Load(Target(upstream), "[mock: tokens=4 pace=1]", rate=20, seconds=0.1, expected=5)
        assert (await run(load)).endings == {"miscounted": 2}
    refused = await run(Load(Target(upstream), "hello", rate=20, seconds=0.1))
    assert refused.endings == {"refused: ConnectionRefusedError": 2}


async def test_run_starts_a_gateway_and_writes_what_it_cost(tmp_path: Path) -> None:
    json_file, page = tmp_path / "run.json", tmp_path / "run.html"
    code, said = await script(
        *("run", "--peer", "gateway", "--mock", "tokens=20 pace=5", "--rate", "20", "--no-pin"),
        *("--seconds", "1", "--json", str(json_file), "--html", str(page)),
    )
    assert code == 0, said
    found = json.loads(json_file.read_text())
    assert found["schema"] == "sluice-load-run/1"
    assert found["endings"] == {"ok": 20}
    assert found["figures"]["events"] == 400
    assert found["figures"]["cpu_us_per_event"] > 0
    assert found["figures"]["kib_per_open_stream"] >= 0
    assert found["figures"]["load_us_per_event"] > 0
    assert found["times"]["event_latency_us"]["p99.9"] > 0
    assert "event latency, µs" in said
    assert_needs_no_network(page.read_text())


@pytest.mark.timeout(180)
async def test_compare_runs_every_scenario_and_gives_ratios(tmp_path: Path) -> None:
    json_file, page = tmp_path / "compare.json", tmp_path / "compare.html"
    code, said = await script(
        *("compare", "--peers", "bare,gateway-typed", "--rounds", "1", "--scale", "0.01"),
        *("--scenarios", "pace,short,idle,gone", "--seconds", "0.2", "--no-pin"),
        *("--json", str(json_file), "--html", str(page)),
    )
    assert code == 0, said
    found = json.loads(json_file.read_text())
    assert found["schema"] == "sluice-load-compare/1"
    assert len(found["measurements"]) == 8
    for each in found["measurements"]:
        assert not each["problem"]
        assert each["figures"].get("failed", 0) == 0
    by_place = {(m["scenario"], m["peer"]): m["figures"] for m in found["measurements"]}
    assert by_place["pace", "gateway-typed"]["ok"] == 2
    assert by_place["idle", "bare"]["open"] == 20
    assert by_place["gone", "gateway-typed"]["noticed"] == 10
    compared = {(r["scenario"], r["figure"], r["peer"]) for r in found["ratios"]}
    assert ("pace", "latency_p50_us", "gateway-typed") in compared
    assert ("short", "streams_per_s", "gateway-typed") in compared
    assert_needs_no_network(page.read_text())


@asynccontextmanager
async def pace_measured(figures: Figures) -> AsyncIterator[Backend]:
    """A backend of which two streams are about to be measured; `figures` gets what is found."""
    with lean_backend() as backend:
        itself = Running(Peer("direct", None), Target(backend.url), None, backend)
        measuring = asyncio.create_task(paced(itself, Size(2, seconds=0.05, per_second=50)))
        await asyncio.sleep(0.2)
        yield backend
        figures |= await measuring


async def test_a_pause_of_the_backend_leaves_no_figure_out() -> None:
    figures: Figures = {}
    async with pace_measured(figures) as backend:
        os.kill(backend.pid, signal.SIGSTOP)
        await asyncio.sleep(0.8)
        os.kill(backend.pid, signal.SIGCONT)
    assert figures["ok"] == 2
    assert {"latency_p50_us", "first_p50_ms", "gap_p50_ms"} <= figures.keys()


async def test_what_came_before_or_after_is_no_figure() -> None:
    with pytest.raises(PeerFailed, match="no event came while it was measured"):
        async with pace_measured({}):
            asyncio.get_running_loop().call_soon(time.sleep, SLACK_S + 0.5)


async def test_compare_without_a_gateway_runs_the_rest_of_the_scenarios(tmp_path: Path) -> None:
    json_file = tmp_path / "compare.json"
    code, said = await script(
        *("compare", "--peers", "direct", "--base", "direct", "--rounds", "1", "--scale", "0.01"),
        *("--scenarios", "blast,many", "--seconds", "0.2", "--no-pin", "--json", str(json_file)),
    )
    assert code == 0, said
    blast, many = json.loads(json_file.read_text())["measurements"]
    assert blast["figures"]["events"] > 0
    assert blast["figures"]["ok"] > 1  # each stream is followed by the next
    assert blast["figures"]["failed"] == 0
    assert many["figures"]["ok"] == 40


async def test_ended_by_a_signal_it_leaves_nothing_running() -> None:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, str(ROOT / "scripts" / "load.py"), "compare", "--peers", "bare"),
        *("--scenarios", "short", "--seconds", "0.2", "--rounds", "1000", "--scale", "0.1"),
        "--no-pin",
        cwd=ROOT,
        stdout=PIPE,
        stderr=STDOUT,
    )
    assert process.stdout is not None
    async with asyncio.timeout(60):
        assert await process.stdout.readline()
        while len(children := family(process.pid)) < 3:
            await asyncio.sleep(0.02)
        process.terminate()
        # Its children hold the pipe too, so this ends when the last of them has gone.
        await process.stdout.read()
        assert await process.wait() == 130
    assert [pid for pid in children if family(pid)] == []


async def test_an_unknown_peer_or_scenario_is_one_clear_line() -> None:
    for arguments in (("--peers", "nobody"), ("--scenarios", "nothing")):
        code, said = await script("compare", *arguments)
        assert code == 2
        assert said.startswith(f"error: no {arguments[0][2:-1]} no")
        assert said.count("\n") == 1
