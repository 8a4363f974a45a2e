"""A thousand streams through one gateway, a hundred of whose clients never read."""

from __future__ import annotations

import asyncio
import os
import resource
import signal
import sys
from asyncio.subprocess import Process
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp

from tests.client import Client, connected, events, said
from tests.crowd import DONE, TOKENS, block, question, token
from tests.servers import free_port

ROOT = Path(__file__).parents[2]
STREAMS = 1000
STALLED = 100
KIB = 1024

BUFFER = 64 * KIB
#: Beside its log: what is fed at once (48 KiB) and its ids, what aiohttp and the event loop have
#: received for it (64 and 256 KiB), and what the client's transport has yet to send (64 KiB and a
#: write of 64).
STALLED_BYTES = BUFFER + (48 + 12 + 64 + 256 + 64 + 64) * KIB
#: A stream's two connections, tasks and records.
STREAM_BYTES = 64 * KIB
SETTINGS = {
    "ENABLE_SSE_STREAMING": "true",
    "RATE_LIMIT": "0",
    "MAX_STREAM_SESSIONS": "0",
    "STREAM_BUFFER_BYTES": str(BUFFER),
    "EVENT_MAX_BYTES": str(BUFFER),
    # How long it takes is the machine's business.
    "HEARTBEAT_INTERVAL": "0",
    "STREAM_MAX_SECONDS": "0",
    "UPSTREAM_FIRST_TOKEN_SECONDS": "0",
    "UPSTREAM_IDLE_SECONDS": "0",
    "WRITE_STALL_SECONDS": "0",
    "LOG_LEVEL": "error",
    "AUDIT_LINES": "off",
}
CANCEL = {"X-Stream-On-Disconnect": "cancel"}


@dataclass(frozen=True, slots=True)
class Reading:
    """One stream of the crowd, on a typed or a provider route by turns."""

    number: int
    client: Client

    @property
    def is_typed(self) -> bool:
        return self.number % 2 == 0

    async def ask(self, kind: str) -> None:
        asked = question(self.number, kind)
        if self.is_typed:
            await self.client.ask("/api/v2/chat-stream", {"query": asked}, CANCEL)
        else:
            body = {"stream": True, "messages": [{"role": "user", "content": asked}]}
            await self.client.ask("/v1/chat/completions", body)

    async def check(self) -> None:
        """Reads to the end: every token, in its order, once, and nobody else's."""
        head = (await self.client.head()).decode()
        body = await self.client.body()
        stream_id = head.partition("X-Stream-Id: ")[2].partition("\r\n")[0]
        if self.is_typed:
            stream = events(body)
            assert said(stream) == "".join(token(self.number, turn) for turn in range(TOKENS))
            assert stream[0].json["stream_id"] == stream_id
            assert stream[-1].json["reason"] == "completed"
        else:
            sent = [*(block(self.number, turn) for turn in range(TOKENS)), DONE]
            numbered = enumerate(sent, 1)
            assert body == b"".join(b"id: %b.%d\n%b" % (stream_id.encode(), *n) for n in numbered)


@dataclass(frozen=True, slots=True)
class Gateway:
    process: Process
    port: int
    http: aiohttp.ClientSession

    async def metric(self, name: str) -> float:
        async with self.http.get(f"http://127.0.0.1:{self.port}/metrics") as answer:
            lines = (await answer.text()).splitlines()
        found = [line for line in lines if line.startswith(f"{name} ")]
        return float(found[0].rpartition(" ")[2]) if found else 0.0

    async def wait_for(self, name: str, value: float) -> None:
        async with asyncio.timeout(30):
            while await self.metric(name) != value:
                await asyncio.sleep(0.05)

    def memory(self, field: str) -> int:
        """A size from the process's status: `VmRSS` now, `VmHWM` at most so far."""
        lines = Path(f"/proc/{self.process.pid}/status").read_text().splitlines()
        line = next(line for line in lines if line.startswith(f"{field}:"))
        return int(line.split()[1]) * KIB

    def open_files(self) -> int:
        return len(os.listdir(f"/proc/{self.process.pid}/fd"))


@asynccontextmanager
async def running(*arguments: str, log: Path, **environment: str) -> AsyncIterator[Process]:
    """A process of Python from the project's folder; what it prints goes to `log`."""
    with log.open("wb") as output:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            *arguments,
            cwd=ROOT,
            env={"PATH": os.environ["PATH"], **environment},
            stdout=output,
            stderr=output,
        )
    try:
        yield process
    finally:
        process.send_signal(signal.SIGKILL)
        await process.wait()


async def reported(http: aiohttp.ClientSession, port: int) -> dict[str, Any]:
    async with http.get(f"http://127.0.0.1:{port}/") as answer:
        return dict(await answer.json())


async def listening(port: int) -> None:
    async with asyncio.timeout(20):
        while True:
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", port)
            except ConnectionRefusedError:
                await asyncio.sleep(0.02)
            else:
                writer.close()
                return


@asynccontextmanager
async def crowded(folder: Path) -> AsyncIterator[tuple[Gateway, int]]:
    """A gateway and its backend as processes of their own, and the backend's port."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 16 * KIB), hard))
    ports = free_port(), free_port()
    backend = ("-m", "tests.crowd", "--size", str(STREAMS), "--port", str(ports[0]))
    settings = SETTINGS | {
        "UPSTREAM_URL": f"http://127.0.0.1:{ports[0]}",
        "PORT": str(ports[1]),
        "DATA_DIR": str(folder / "data"),
    }
    async with (
        running(*backend, log=folder / "backend.log"),
        running("-m", "gateway.cli", "serve", log=folder / "gateway.log", **settings) as process,
        aiohttp.ClientSession() as http,
    ):
        await listening(ports[0])
        await listening(ports[1])
        yield Gateway(process, ports[1], http), ports[0]
    assert (folder / "gateway.log").read_text() == ""
    assert (folder / "backend.log").read_text() == ""


async def test_hundred_stalled_readers_of_a_thousand_harm_nobody(tmp_path: Path) -> None:
    async with crowded(tmp_path) as (gateway, backend_port), AsyncExitStack() as stack:
        await gateway.metric("sluice_streams_active")
        memory_before, files_before = gateway.memory("VmRSS"), gateway.open_files()
        readings = []
        for number in range(STREAMS):
            is_stalled = number < STALLED
            rcvbuf = 4 * KIB if is_stalled else None
            client = await stack.enter_async_context(connected(gateway.port, rcvbuf=rcvbuf))
            readings.append(Reading(number, client))
            await readings[-1].ask("flood" if is_stalled else "steady")
        async with asyncio.TaskGroup() as checks:
            for reading in readings[STALLED:]:
                checks.create_task(reading.check())
        async with asyncio.timeout(30):
            stalled = {"asked": STREAMS, "paused": STALLED}
            while await reported(gateway.http, backend_port) != stalled:
                await asyncio.sleep(0.05)

        # Nobody was lost, and those who don't read are still there.
        assert await gateway.metric('sluice_streams_total{reason="completed"}') == STREAMS - STALLED
        assert await gateway.metric("sluice_streams_active") == STALLED

        # Those who read have a log too, which stays for a while after the end.
        bound = STALLED * STALLED_BYTES + (STREAMS - STALLED) * BUFFER + STREAMS * STREAM_BYTES
        assert gateway.memory("VmHWM") < memory_before + bound

        for reading in readings:
            reading.client.leave()
        await gateway.wait_for('sluice_streams_total{reason="client_gone"}', STALLED)
        assert await gateway.metric("sluice_streams_active") == 0
        async with asyncio.timeout(20):
            while gateway.open_files() > files_before:
                await asyncio.sleep(0.05)
