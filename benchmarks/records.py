"""What a record of the audit log costs: to write, to verify, and to who waits for a first byte.

`written` fills logs with beginnings and ends of requests, then has the second verifier read them.
`asked` runs two gateways in turn, one with `AUDIT_MODE=relay` and one without a log, before a
backend that answers after 50 ms, and asks each the same.
"""

from __future__ import annotations

import asyncio
import math
import statistics
import sys
import time
from asyncio.subprocess import PIPE
from collections.abc import Iterable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

import aiohttp

from gateway.audit.recorder import Asked, Recorder, Who
from scripts.loading.process import cpu_s
from scripts.mock.behaviour import Behaviour
from scripts.mock.server import serving
from tests.auditing import exported, running_log, stored, verify
from tests.gateway import gateway_process, wait_until_ready
from tests.servers import free_port, new_database, postgres_server

_WHO = Who("sub:ada", "jwt", "192.0.2.7")
_AT_ONCE = 200
_WRITERS = 4
_CHAT = "/api/v2/chat-stream"
_HEAD_S = 0.05


@dataclass(frozen=True, slots=True)
class Written:
    """Rates are records a second; `cpu_us` is a record's, of the whole process."""

    store: str
    records: int
    rate: float
    cpu_us: float
    second_verifier_rate: float | None = None


@dataclass(slots=True)
class Asking:
    """Milliseconds until the first byte, and the gateway's CPU for a stream."""

    mode: str
    first_ms: list[float] = field(default_factory=list)
    cpu_us: float = 0


async def written(requests: int) -> list[Written]:
    """On SQLite and on PostgreSQL, by one writer; and there by several at once."""
    found = [await _write("SQLite", None, requests)]
    with postgres_server() as server:
        found.append(await _write("PostgreSQL", await new_database(server), requests))
        found.append(await _write_together(await new_database(server), requests))
    return found


async def asked(rounds: int) -> list[Asking]:
    """Alternating, so that what the machine does to one it does to the other."""
    modes = [Asking("off"), Asking("relay")]
    async with AsyncExitStack() as stack:
        behaviour = Behaviour(head=_HEAD_S, first=0, jitter=0, pace=0, tokens=5)
        upstream = await stack.enter_async_context(serving(behaviour))
        client = await stack.enter_async_context(aiohttp.ClientSession())
        running = []
        for mode in modes:
            port, folder = free_port(), stack.enter_context(TemporaryDirectory())
            gateway = gateway_process(
                upstream, port, Path(folder), audit_mode=mode.mode, audit_lines="off"
            )
            process = await stack.enter_async_context(gateway)
            await wait_until_ready(client, f"http://127.0.0.1:{port}")
            running.append((mode, f"http://127.0.0.1:{port}{_CHAT}", process.pid))
        for number in range(-10, rounds):
            for mode, url, _ in running:
                took = await _first_byte_ms(client, url)
                if number >= 0:
                    mode.first_ms.append(took)
        for mode, url, pid in running:
            mode.cpu_us = await _cpu_us(client, url, pid, rounds)
    return modes


def written_table(figures: Iterable[Written]) -> str:
    """As it stands in docs/benchmarks.md."""
    head = "| store | records | a second | CPU each | second verifier, a second |"
    rows = [
        f"| {one.store} | {one.records:,} | {one.rate:,.0f} "
        f"| {one.cpu_us:.0f} µs | {_rate(one.second_verifier_rate)} |"
        for one in figures
    ]
    return "\n".join([head, "| --- |" + " ---: |" * 4, *rows])


def _rate(a_second: float | None) -> str:
    return "" if a_second is None else f"{a_second:,.0f}"


def asked_table(figures: Sequence[Asking]) -> str:
    """As it stands in docs/benchmarks.md."""
    head = "| `AUDIT_MODE` | first byte mean | p50 | p99 | CPU a stream |"
    rows = [
        f"| `{one.mode}` | {statistics.fmean(one.first_ms):.2f} ms "
        f"| {statistics.median(one.first_ms):.2f} ms | {_p99(one.first_ms):.2f} ms "
        f"| {one.cpu_us:.0f} µs |"
        for one in figures
    ]
    return "\n".join([head, "| --- |" + " ---: |" * 4, *rows])


async def _write(store: str, url: str | None, requests: int) -> Written:
    with TemporaryDirectory() as name:
        folder = Path(name)
        async with running_log(folder, url, patience_s=60) as log:
            began, cpu = time.perf_counter(), time.process_time()
            await ask(log.recorder, requests)
            took_s, cpu = time.perf_counter() - began, time.process_time() - cpu
        rate = await _second_verifier(folder, url)
    records = 2 * requests
    return Written(store, records, records / took_s, cpu / records * 1e6, rate)


async def _write_together(url: str, requests: int) -> Written:
    """Each in a process of its own, with a log and keys of its own, as replicas have them."""
    async with AsyncExitStack() as stack:
        top = Path(stack.enter_context(TemporaryDirectory()))
        writers = []
        for name in (f"writer-{number}" for number in range(_WRITERS)):
            (top / name).mkdir()
            arguments = (url, name, str(top / name), str(requests))
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "benchmarks.writer", *arguments), stdin=PIPE, stdout=PIPE
            )
            assert process.stdin is not None
            assert process.stdout is not None
            if await process.stdout.readline() != b"ready\n":
                raise RuntimeError("a writer didn't begin")
            writers.append((process, process.stdin, process.stdout))
        began = time.perf_counter()
        for _, stdin, _ in writers:
            stdin.write(b"\n")
        cpu = sum([float(await stdout.readline()) for _, _, stdout in writers])
        took_s = time.perf_counter() - began
        for process, _, _ in writers:
            await process.wait()
    records = 2 * requests * _WRITERS
    return Written(
        f"PostgreSQL, {_WRITERS} writers", records, records / took_s, cpu / records * 1e6
    )


async def ask(recorder: Recorder, requests: int) -> None:
    """Requests in waves, each waiting for its beginning as `relay` has it."""
    for _ in range(requests // _AT_ONCE):
        tickets = [recorder.begin(Asked(_WHO, "chat", "how?", "c1")) for _ in range(_AT_ONCE)]
        await asyncio.gather(*(ticket.durable() for ticket in tickets))
        for ticket in tickets:
            ticket.end("completed", {"status": 200, "dur_ms": 12, "events": 9, "terminal": True})
    await recorder.log.record("audit.anchor", {"size": 0, "root": "A" * 43})


async def _second_verifier(folder: Path, url: str | None) -> float:
    async with stored(folder, url) as store:
        paths = await exported(store, folder)
        size = sum(log.size for log in await store.logs())
    began = time.perf_counter()
    code, output = await asyncio.to_thread(verify, *paths)
    if code not in (0, 3):
        raise RuntimeError(output)
    return size / (time.perf_counter() - began)


async def _first_byte_ms(client: aiohttp.ClientSession, url: str) -> float:
    began = time.perf_counter()
    async with client.post(url, json={"query": "how?"}) as answer:
        await answer.content.readany()
        took = time.perf_counter() - began
        await answer.read()
    return took * 1000


async def _cpu_us(client: aiohttp.ClientSession, url: str, pid: int, streams: int) -> float:
    """Measured over so many that the kernel's ticks of 10 ms don't matter."""
    before = cpu_s(pid)
    for _ in range(max(1, streams // 20)):
        await asyncio.gather(*(_first_byte_ms(client, url) for _ in range(40)))
    return (cpu_s(pid) - before) / (max(1, streams // 20) * 40) * 1e6


def _p99(values: Sequence[float]) -> float:
    return sorted(values)[max(0, math.ceil(len(values) * 0.99) - 1)]
