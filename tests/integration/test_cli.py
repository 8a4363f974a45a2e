"""The command `sluice` as a process: how it starts, refuses to start, and stops."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import signal
import ssl
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp
import pytest

from tests import forked
from tests.backend import CHAT_STREAM, Exchange, ScriptedBackend, sse_head, streaming
from tests.certificates import make_certificate
from tests.forked import Result
from tests.servers import free_port

ROOT = Path(__file__).parents[2]
CHAT = "/api/v2/chat-stream"
AWAY = "http://127.0.0.1:9"


def environment(folder: Path, **values: str) -> dict[str, str]:
    """What the process sees: nothing of the machine's own but the PATH."""
    return {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": str(ROOT),
        "DATA_DIR": str(folder / "data"),
        **values,
    }


async def start(*arguments: str, folder: Path, **values: str) -> Process:
    return await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "gateway.cli",
        *arguments,
        env=environment(folder, **values),
        cwd=folder,
        stdout=PIPE,
        stderr=PIPE,
    )


async def run(*arguments: str, folder: Path, **values: str) -> Result:
    """To its end, in a process that is forked."""
    return await forked.run(arguments, environment(folder, **values), cwd=folder)


async def run_by_name(*arguments: str, folder: Path, **values: str) -> Result:
    process = await start(*arguments, folder=folder, **values)
    async with asyncio.timeout(30):
        out, err = await process.communicate()
    assert process.returncode is not None
    return Result(process.returncode, out.decode(), err.decode())


def assert_one_line(result: Result, code: int, *words: str) -> None:
    assert result.code == code, result.err
    [line] = result.err.splitlines()
    assert line.startswith("error: ")
    for word in words:
        assert word in line


@dataclass(slots=True)
class Running:
    """A gateway as a process; its log is read as it comes."""

    process: Process
    lines: list[dict[str, object]] = field(default_factory=list)

    async def wait_for(self, event: str) -> dict[str, object]:
        """The next line of that event."""
        assert self.process.stderr is not None
        async with asyncio.timeout(20):
            while line := await self.process.stderr.readline():
                self.lines.append(json.loads(line))
                if self.lines[-1]["event"] == event:
                    return self.lines[-1]
        raise AssertionError(f"{event} is not in {self.lines}")

    async def end(self) -> int:
        """The exit code, once the process has ended by itself; its last lines are kept."""
        assert self.process.stderr is not None
        async with asyncio.timeout(20):
            rest = await self.process.stderr.read()
            self.lines += [json.loads(line) for line in rest.splitlines()]
            return await self.process.wait()

    def events(self) -> list[object]:
        return [line["event"] for line in self.lines]


@asynccontextmanager
async def serving(folder: Path, **values: str) -> AsyncIterator[tuple[Running, str]]:
    """`sluice serve`, and where it listens."""
    settings = {"PORT": "0", "ENABLE_SSE_STREAMING": "true", "COMMIT_DELAY_MS": "0", **values}
    process = await start("serve", folder=folder, **settings)
    running = Running(process)
    try:
        started = await running.wait_for("gateway.started")
        yield running, str(started["address"])
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"STREAM_MAX_SECOND": "1"}, ("STREAM_MAX_SECOND:", "did you mean STREAM_MAX_SECONDS?")),
        ({"HEARTBEAT_INTERVAL": "soon"}, ("HEARTBEAT_INTERVAL:",)),
        ({"UPSTREAM_URL": "backend:80"}, ("UPSTREAM_URL:", "http://")),
        ({"AUTH_MODE": "api_key"}, ("AUTH_MODE", "API_KEYS_FILE")),
        ({"ENV_FILE": "none.env"}, ("ENV_FILE", "none.env")),
    ],
)
async def test_wrong_setting_is_one_line_and_exit_code_2(
    tmp_path: Path, values: dict[str, str], words: tuple[str, ...]
) -> None:
    for command in ("serve", "check-config"):
        result = await run(command, folder=tmp_path, **{"UPSTREAM_URL": AWAY, **values})
        assert_one_line(result, 2, *words)
        assert result.out == ""


async def test_several_wrong_settings_are_a_line_each(tmp_path: Path) -> None:
    result = await run("serve", folder=tmp_path, PORT="x", SLUICE_X="1", LOG_LEVEL="loud")
    assert result.code == 2
    lines = result.err.splitlines()
    assert len(lines) == 3
    assert all(line.startswith("error: ") for line in lines)


async def test_without_a_backend_it_does_not_start(tmp_path: Path) -> None:
    for how in (run, run_by_name):
        assert_one_line(await how("serve", folder=tmp_path), 1, "UPSTREAM_URL")


async def test_taken_port_is_one_line(tmp_path: Path) -> None:
    async with ScriptedBackend(streaming(CHAT_STREAM)) as other:
        port = other.port
        result = await run("serve", folder=tmp_path, UPSTREAM_URL=AWAY, PORT=str(port))
    assert_one_line(result, 1, f"127.0.0.1:{port}", "in use")


@pytest.mark.parametrize("host", ["192.0.2.1", "no-such-host.invalid"])
async def test_address_that_is_not_ours_is_one_line(tmp_path: Path, host: str) -> None:
    settings = {"UPSTREAM_URL": AWAY, "PORT": "0", "HOST": host}
    assert_one_line(await run("serve", folder=tmp_path, **settings), 1, host)


async def test_unreadable_certificate_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "bad.pem").write_text("nonsense")
    for name in ("none.pem", "bad.pem"):
        tls = {"TLS_CERT": name, "TLS_KEY": name}
        result = await run("serve", folder=tmp_path, UPSTREAM_URL=AWAY, PORT="0", **tls)
        assert_one_line(result, 1, "TLS_CERT")


async def test_unreadable_public_key_is_one_line(tmp_path: Path) -> None:
    settings = {"AUTH_MODE": "jwt", "JWT_PUBLIC_KEY_FILE": "none.pem", "UPSTREAM_URL": AWAY}
    result = await run("serve", folder=tmp_path, **settings)
    assert_one_line(result, 1, "JWT_PUBLIC_KEY_FILE", "none.pem")


async def test_parser_in_python_is_refused(tmp_path: Path) -> None:
    for command in ("serve", "check-config"):
        settings = {"UPSTREAM_URL": AWAY, "AIOHTTP_NO_EXTENSIONS": "1"}
        result = await run_by_name(command, folder=tmp_path, **settings)
        assert_one_line(result, 1, "C parser", "AIOHTTP_NO_EXTENSIONS")


@pytest.mark.parametrize("arguments", ["check-config", "--help", "keys list"])
async def test_output_that_nobody_reads_ends_it_in_silence(tmp_path: Path, arguments: str) -> None:
    settings = {"UPSTREAM_URL": AWAY, "API_KEYS_FILE": str(tmp_path / "keys")}
    await run("keys", "add", "--owner", "ada", folder=tmp_path, **settings)
    reading, writing = os.pipe()
    os.close(reading)
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "gateway.cli", *arguments.split()),
        env=environment(tmp_path, **settings),
        stdout=writing,
        stderr=PIPE,
    )
    os.close(writing)
    async with asyncio.timeout(30):
        _, err = await process.communicate()
    assert (process.returncode, err) == (128 + signal.SIGPIPE, b"")


async def test_checked_settings_are_printed_with_their_secrets_masked(tmp_path: Path) -> None:
    (tmp_path / "gateway.env").write_text("UPSTREAM_API_KEY=sk-canary\nPORT=1234\n")
    settings = {"ENV_FILE": "gateway.env", "UPSTREAM_URL": AWAY, "LOG_LEVEL": "debug"}
    result = await run("check-config", folder=tmp_path, **settings)
    assert (result.code, result.err) == (0, "")
    printed = dict(line.split("=", 1) for line in result.out.splitlines())
    assert printed["UPSTREAM_API_KEY"] == "********"
    assert printed["UPSTREAM_URL"] == AWAY
    assert (printed["PORT"], printed["LOG_LEVEL"]) == ("1234", "debug")
    assert "canary" not in result.out


async def test_url_that_holds_a_password_is_refused_without_showing_it(tmp_path: Path) -> None:
    for name in ("UPSTREAM_URL", "JWT_JWKS_URL"):
        values = {"UPSTREAM_URL": AWAY, name: "https://user:canary@backend.example"}
        result = await run("check-config", folder=tmp_path, **values)
        assert_one_line(result, 2, name)
        assert "canary" not in result.out + result.err


async def test_version_and_help_need_no_settings(tmp_path: Path) -> None:
    version = await run_by_name("--version", folder=tmp_path)
    assert (version.code, version.out.split()[0]) == (0, "sluice")
    assert (await run("--help", folder=tmp_path)).code == 0
    assert (await run(folder=tmp_path)).code == 2


async def test_backend_away_at_the_start_is_one_line_and_the_gateway_serves(
    tmp_path: Path,
) -> None:
    port = free_port()
    async with serving(tmp_path, UPSTREAM_URL=f"http://127.0.0.1:{port}") as (gateway, url):
        line = await gateway.wait_for("upstream.unreachable")
        assert line["level"] == "WARNING"
        async with aiohttp.ClientSession() as session:
            async with session.get(f"{url}/readyz") as response:
                assert response.status == 200
            async with session.get(f"{url}/x") as response:
                assert response.status == 502
            async with (
                ScriptedBackend(streaming(CHAT_STREAM), port=port),
                session.post(url + CHAT, json={"query": "hi"}) as response,
            ):
                assert b"event: complete" in await response.read()
        gateway.process.send_signal(signal.SIGTERM)
        assert await gateway.end() == 0
    assert gateway.events().count("upstream.unreachable") == 1


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_idle_gateway_stops_at_once_with_code_0(
    tmp_path: Path, number: signal.Signals
) -> None:
    async with (
        ScriptedBackend(streaming(CHAT_STREAM)) as backend,
        serving(tmp_path, UPSTREAM_URL=backend.url) as (gateway, _),
    ):
        gateway.process.send_signal(number)
        assert await gateway.end() == 0
    assert gateway.events()[-2:] == ["gateway.stopping", "gateway.stopped"]


async def say_hello_and_stall(exchange: Exchange) -> None:
    if exchange.method == "POST":
        await exchange.send(sse_head())
    await exchange.stall()


async def test_running_stream_gets_its_end_after_the_grace(tmp_path: Path) -> None:
    settings = {"SHUTDOWN_GRACE_SECONDS": "0.3", "UPSTREAM_CONNECT_SECONDS": "0.2"}
    async with (
        ScriptedBackend(say_hello_and_stall) as backend,
        serving(tmp_path, UPSTREAM_URL=backend.url, **settings) as (gateway, url),
        aiohttp.ClientSession() as session,
        session.post(url + CHAT, json={"query": "hi"}) as response,
    ):
        await gateway.wait_for("upstream.unreachable")
        gateway.process.send_signal(signal.SIGTERM)
        assert (await gateway.wait_for("gateway.stopping"))["streams"] == 1
        assert b'"code":"server_shutdown"' in (await response.read()).split(b"\n\n")[-2]
        assert await gateway.end() == 0
        await backend.wait_until_idle()
    [ended] = [line for line in gateway.lines if line["event"] == "stream.ended"]
    assert ended["reason"] == "server_shutdown"


async def read_what_comes(response: aiohttp.ClientResponse) -> bytes:
    """The body, also of a connection that is broken off."""
    got = b""
    with contextlib.suppress(aiohttp.ClientPayloadError):
        async for chunk in response.content.iter_any():
            got += chunk
    return got


async def test_clients_cut_off_by_a_restart_are_told_to_come_back_later_and_apart(
    tmp_path: Path,
) -> None:
    settings = {"SHUTDOWN_GRACE_SECONDS": "0.1", "RATE_LIMIT": "0"}
    async with (
        ScriptedBackend(say_hello_and_stall) as backend,
        serving(tmp_path, UPSTREAM_URL=backend.url, **settings) as (gateway, url),
        aiohttp.ClientSession() as session,
    ):
        typed = [await session.post(url + CHAT, json={"query": "hi"}) for _ in range(8)]
        asked = {"stream": True, "messages": []}
        provider = await session.post(f"{url}/v1/chat/completions", json=asked)
        gateway.process.send_signal(signal.SIGTERM)
        ends = [(await read_what_comes(response)).split(b"\n\n")[-2] for response in typed]
        waits = [int(re.findall(rb"^retry: (\d+)$", end, re.MULTILINE)[0]) for end in ends]
        assert all(b'"code":"server_shutdown"' in end for end in ends)
        assert all(2000 <= wait <= 6000 for wait in waits)
        assert len(set(waits)) > 1
        assert b"retry:" not in await read_what_comes(provider)
        assert await gateway.end() == 0


async def test_stream_that_ends_within_the_grace_ends_as_usual(tmp_path: Path) -> None:
    go = asyncio.Event()

    async def script(exchange: Exchange) -> None:
        if exchange.method == "POST":
            await exchange.send(sse_head(framing="close"))
            await go.wait()
            await exchange.send(CHAT_STREAM)
        await exchange.close()

    settings = {"SHUTDOWN_GRACE_SECONDS": "20", "UPSTREAM_CONNECT_SECONDS": "0.2"}
    async with (
        ScriptedBackend(script) as backend,
        serving(tmp_path, UPSTREAM_URL=backend.url, **settings) as (gateway, url),
        aiohttp.ClientSession() as session,
        session.post(url + CHAT, json={"query": "hi"}) as response,
    ):
        gateway.process.send_signal(signal.SIGTERM)
        await gateway.wait_for("gateway.stopping")
        async with session.post(url + CHAT, json={"query": "no"}) as refused:
            assert refused.status == 503
            assert (await refused.json())["error"]["code"] == "shutting_down"
            assert "Retry-After" in refused.headers
        async with session.get(f"{url}/readyz") as ready:
            assert ready.status == 503
        go.set()
        assert b"event: complete" in (await response.read()).split(b"\n\n")[-2]
        assert await gateway.end() == 0


async def test_second_signal_ends_running_streams_at_once(tmp_path: Path) -> None:
    settings = {"SHUTDOWN_GRACE_SECONDS": "600", "UPSTREAM_CONNECT_SECONDS": "0.2"}
    async with (
        ScriptedBackend(say_hello_and_stall) as backend,
        serving(tmp_path, UPSTREAM_URL=backend.url, **settings) as (gateway, url),
        aiohttp.ClientSession() as session,
        session.post(url + CHAT, json={"query": "hi"}) as response,
    ):
        await gateway.wait_for("upstream.unreachable")
        gateway.process.send_signal(signal.SIGTERM)
        await gateway.wait_for("gateway.stopping")
        gateway.process.send_signal(signal.SIGTERM)
        assert b'"code":"server_shutdown"' in await response.read()
        assert await gateway.end() == 0


async def test_unix_socket_serves_and_replaces_what_a_crash_left(tmp_path: Path) -> None:
    path = tmp_path / "s"
    for _ in range(2):
        async with (
            ScriptedBackend(streaming(CHAT_STREAM)) as backend,
            serving(tmp_path, UPSTREAM_URL=backend.url, UNIX_SOCKET=str(path)) as (_, address),
            aiohttp.ClientSession(connector=aiohttp.UnixConnector(str(path))) as session,
            session.post(f"http://gateway{CHAT}", json={"query": "hi"}) as response,
        ):
            assert address == f"unix:{path}"
            assert b"event: complete" in await response.read()


async def test_tls_serves_and_plain_text_on_its_port_does_not_hurt(tmp_path: Path) -> None:
    certificate = make_certificate(tmp_path)
    trust = ssl.create_default_context(cafile=str(certificate))
    tls = {"TLS_CERT": str(certificate), "TLS_KEY": str(tmp_path / "key.pem")}
    async with (
        ScriptedBackend(streaming(CHAT_STREAM)) as backend,
        serving(tmp_path, UPSTREAM_URL=backend.url, **tls) as (_, url),
        aiohttp.ClientSession() as session,
    ):
        assert url.startswith("https://")
        with pytest.raises(aiohttp.ClientError):
            await session.get(url.replace("https", "http"))
        async with session.post(url + CHAT, json={"query": "hi"}, ssl=trust) as response:
            assert b"event: complete" in await response.read()
