"""A running gateway for tests: the real server on a real port, in this process."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import aiohttp

from gateway.app import make_app
from gateway.settings import Settings
from gateway.web.server import Runner, listen
from gateway.web.services import SERVICES, Services

ADMIN_TOKEN = "an-admin-token-for-tests"
AS_ADMIN = {"Authorization": f"Bearer {ADMIN_TOKEN}"}


@dataclass(frozen=True, slots=True)
class Gateway:
    url: str
    services: Services
    runner: Runner

    @property
    def port(self) -> int:
        return int(self.url.rsplit(":", 1)[1])

    def metric(self, name: str, **labels: str) -> float:
        """The value of one sample, 0 if there is none."""
        wanted = ",".join(f'{key}="{value}"' for key, value in sorted(labels.items()))
        line = f"{name}{{{wanted}}} " if wanted else f"{name} "
        for sample in self.services.metrics.render().decode().splitlines():
            if sample.startswith(line):
                return float(sample.removeprefix(line))
        return 0.0

    async def wait_for_streams(self, count: int) -> None:
        """Waits until exactly so many streams run."""
        async with asyncio.timeout(10):
            while len(self.services.hub) != count:
                await asyncio.sleep(0.005)

    async def wait_for_readers(self, count: int) -> None:
        """Waits until exactly so many clients read a stream."""
        async with asyncio.timeout(10):
            while self.metric("sluice_connections_active") != count:
                await asyncio.sleep(0.005)


@asynccontextmanager
async def running_gateway(upstream_url: str, **settings: object) -> AsyncIterator[Gateway]:
    """A gateway in front of `upstream_url`, streaming switched on and without a rate limit.

    Settings are given by their names in lower case, as strings like the environment's or as values.
    """
    values: dict[str, object] = {
        "upstream_url": upstream_url,
        "enable_sse_streaming": True,
        "rate_limit": "0",
        "max_stream_sessions": 0,
        "port": 0,
        # A test that isn't about retries wants the first answer, and the store again soon.
        "stream_error_max_retries": 0,
        "stream_error_max_delay_ms": 1000,
        # Many tests have the backend fail again and again, and want each failure.
        "breaker_failure_threshold": 0,
        # Tests of the audit log switch it on.
        "audit_mode": "off",
        "audit_ballast_bytes": 0,
        "audit_lines": "off",
    }
    with TemporaryDirectory() as data_dir:
        values.setdefault("data_dir", data_dir)
        async with _running({**values, **settings}) as gateway:
            yield gateway


@asynccontextmanager
async def _running(values: dict[str, object]) -> AsyncIterator[Gateway]:
    made = Settings(**values)  # type: ignore[arg-type]
    app = make_app(made)
    runner = Runner(app, made)
    await runner.setup()
    try:
        url = await listen(runner, made)
        yield Gateway(url, app[SERVICES], runner)
    finally:
        await runner.cleanup()


def gateway_environment(
    upstream: str, port: int, data_dir: Path, database_url: str | None = None
) -> dict[str, str]:
    """What a process of its own is told."""
    return {
        "UPSTREAM_URL": upstream,
        "ENABLE_SSE_STREAMING": "true",
        "RATE_LIMIT": "0",
        "MAX_STREAM_SESSIONS": "0",
        "PORT": str(port),
        "DATA_DIR": str(data_dir),
        "LOG_LEVEL": "error",
        "AUDIT_MODE": "off",
        "BREAKER_FAILURE_THRESHOLD": "0",
        **({"DATABASE_URL": database_url} if database_url else {}),
    }


@asynccontextmanager
async def gateway_process(
    upstream: str, port: int, data_dir: Path, database_url: str | None = None, **settings: str
) -> AsyncIterator[asyncio.subprocess.Process]:
    """The command in a process of its own, which may be killed. It may not listen yet. Settings are
    given by their names in lower case."""
    environment = {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": os.pathsep.join(sys.path),
        **gateway_environment(upstream, port, data_dir, database_url),
        **{name.upper(): value for name, value in settings.items()},
    }
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "gateway.cli", "serve", env=environment
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def wait_until_ready(client: aiohttp.ClientSession, url: str) -> None:
    """Until the gateway at `url` answers."""
    async with asyncio.timeout(20):
        while True:
            try:
                async with client.get(f"{url}/livez"):
                    return
            except aiohttp.ClientError:
                await asyncio.sleep(0.02)
