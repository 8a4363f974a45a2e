"""The servers that the tests start are real and answer."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.servers import ServerFailed, redis_server


async def test_redis_answers_a_ping(redis_url: str) -> None:
    parts = urlsplit(redis_url)
    reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
    writer.write(b"PING\r\n")
    assert await reader.readline() == b"+PONG\r\n"
    writer.close()
    await writer.wait_closed()


async def test_postgresql_answers_a_query(postgres_url: str) -> None:
    folder = os.environ.get("TEST_POSTGRES_BIN") or Path(shutil.which("psql") or "").parent
    psql = await asyncio.create_subprocess_exec(
        f"{folder}/psql", "-XtA", postgres_url, "-c", "select 6 * 7", stdout=subprocess.PIPE
    )
    output, _ = await psql.communicate()
    assert output == b"42\n"


async def test_redis_is_gone_after_its_context() -> None:
    with redis_server() as url:
        parts = urlsplit(url)
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection(parts.hostname, parts.port)


def test_server_that_cannot_start_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEST_REDIS_SERVER", "/bin/false")
    with pytest.raises(ServerFailed, match="printed nothing"), redis_server():
        pass
