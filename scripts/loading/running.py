"""Starts the backend and a peer as processes of their own, each on its core, and ends them."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path

from scripts.loading.crowd import Crowd, Plan
from scripts.loading.peers import HERE, Peer
from scripts.loading.start import Start
from scripts.loading.targets import Target

_STOP_S = 10.0
_WARM_UP = 20


class PeerFailed(Exception):
    """A process ended, never answered or was silent; the text says which, and what it said last."""


@dataclass(frozen=True, slots=True)
class Backend:
    url: str
    pid: int

    async def stats(self) -> dict[str, object]:
        target = Target(self.url)
        reader, writer = await asyncio.open_connection(target.host, target.port, limit=1 << 26)
        writer.write(b"GET /stats HTTP/1.1\r\nHost: backend\r\n\r\n")
        head = await reader.readuntil(b"\r\n\r\n")
        length = int(head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0])
        body = await reader.readexactly(length)
        writer.close()
        return dict(json.loads(body))


@dataclass(frozen=True, slots=True)
class Running:
    """What is measured: where it listens, and its process if there is one."""

    peer: Peer
    target: Target
    pid: int | None
    backend: Backend


@contextmanager
def lean_backend(cpu: int | None = None) -> Iterator[Backend]:
    """The backend of `scripts/loading/backend.py` on a free port."""
    command = [sys.executable, str(HERE / "backend.py")]
    with _process(Start(command), cpu) as process:
        assert process.stdout is not None
        line = process.stdout.readline().decode()
        if "listening on" not in line:
            raise PeerFailed("the backend doesn't start")
        yield Backend(line.split()[-1], process.pid)


@asynccontextmanager
async def running(peer: Peer, backend: Backend, cpu: int | None) -> AsyncIterator[Running]:
    """A fresh peer in front of the backend, warmed up by a few streams.

    Raises:
        PeerFailed: it doesn't come up.
        NotInstalled: it isn't there.
    """
    if peer.start is None:
        yield Running(peer, peer.target(backend.url, backend.url), None, backend)
        return
    port = _free_port()
    with tempfile.TemporaryDirectory(prefix="load-") as folder:
        output = Path(folder, "output.log")
        start = peer.start(backend.url, port, Path(folder))
        with _process(start, cpu, output) as process:
            target = peer.target(f"http://127.0.0.1:{port}", backend.url)
            await _answers(process, peer, target, output)
            yield Running(peer, target, process.pid, backend)


async def _answers(
    process: subprocess.Popen[bytes], peer: Peer, target: Target, output: Path
) -> None:
    """Waits for whole answers, which also warms the peer up."""
    end = asyncio.get_running_loop().time() + peer.start_s
    endings = "nothing"
    while process.poll() is None and asyncio.get_running_loop().time() < end:
        crowd = Crowd(Plan(target, "[mock: tokens=20]", 20))
        await crowd.open_loop(100, _WARM_UP)
        await crowd.until(lambda tally: tally.ended == _WARM_UP, 5)
        await crowd.close()
        if crowd.tally.endings["ok"] == _WARM_UP:
            return
        endings = str(dict(crowd.tally.endings))
        await asyncio.sleep(0.1)
    raise PeerFailed(f"{peer.name} doesn't answer ({endings}); it said:\n{_end_of(output)}")


def _end_of(output: Path) -> str:
    return output.read_bytes()[-2000:].decode(errors="replace")


@contextmanager
def _process(
    start: Start, cpu: int | None, output: Path | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    """A process in a group of its own, on one core; gone with the context."""
    confined = [] if cpu is None else ["taskset", "--cpu-list", str(cpu)]
    with output.open("wb") if output else nullcontext() as file:
        process = subprocess.Popen(
            [*confined, *start.command],
            stdin=subprocess.DEVNULL,
            stdout=file or subprocess.PIPE,
            stderr=file and subprocess.STDOUT,
            env={**os.environ, **start.environment},
            cwd=start.cwd,
            start_new_session=True,
        )
    try:
        yield process
    finally:
        _end(process)


def _end(process: subprocess.Popen[bytes]) -> None:
    """SIGTERM, and after a while SIGKILL, to the whole group."""
    for number, patience in ((signal.SIGTERM, 2.0), (signal.SIGKILL, _STOP_S)):
        with suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        with suppress(subprocess.TimeoutExpired):
            process.wait(patience)
            break
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])
