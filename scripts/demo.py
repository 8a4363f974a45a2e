"""Runs the gateway in front of the bundled demo backend and says what to try.

`scripts/run` comes here when no backend is set. The two are children in process groups of their
own: this process passes signals on, ends with the gateway's exit code and leaves nothing running.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path
from typing import NoReturn

import aiohttp

from gateway.environment import load_settings
from gateway.errors import SettingsError
from gateway.settings import Settings

SCRIPTS = Path(__file__).parent
SLUICE = str(Path(sys.executable).with_name("sluice"))
BACKEND_START_SECONDS = 15
GATEWAY_START_SECONDS = 30
QUESTION = '{"model": "demo", "stream": true, "messages": [{"role": "user", "content": "hello"}]}'


def main() -> int:
    try:
        settings = load_settings()
    except SettingsError:
        serve()  # which says what is wrong
    if settings.upstream_url:
        serve()  # `ENV_FILE` names a backend
    try:
        return asyncio.run(demonstrate(settings))
    except asyncio.CancelledError:
        return 130  # asked to end before the gateway ran


def serve() -> NoReturn:
    """Becomes the gateway itself."""
    os.execv(SLUICE, [SLUICE, "serve"])


async def demonstrate(settings: Settings) -> int:
    """Runs both until the gateway ends; its exit code."""
    port = settings.port or free_port()
    if starting := asyncio.current_task():
        on_signals(lambda _: starting.cancel())
    async with AsyncExitStack() as stack:
        try:
            upstream_url = await stack.enter_async_context(demo_backend())
        except BackendFailed as failure:
            print(f"error: {failure}", file=sys.stderr)
            return 1
        address = base_url(settings, port)
        taken = not settings.unix_socket and await accepts_connections(address, port)
        gateway = await stack.enter_async_context(
            child(
                *(SLUICE, "serve"),
                UPSTREAM_URL=upstream_url,
                PORT=str(port),
                ENABLE_SSE_STREAMING=os.environ.get("ENABLE_SSE_STREAMING") or "true",
            )
        )
        on_signals(gateway.send_signal)
        if not taken and await answers(settings, address, gateway):
            print(welcome(settings, address), flush=True)
        code = await gateway.wait()
        return code if code >= 0 else 128 - code


class BackendFailed(Exception):
    """The demo backend didn't come up."""


@asynccontextmanager
async def demo_backend() -> AsyncIterator[str]:
    """The bundled backend on a free port; yields its URL."""
    command = (sys.executable, str(SCRIPTS / "mock_upstream.py"), "--port", "0", "--quiet")
    async with child(*command, stdout=PIPE) as process:
        try:
            async with asyncio.timeout(BACKEND_START_SECONDS):
                url = await announced_url(process)
        except TimeoutError:
            raise BackendFailed("the demo backend doesn't start") from None
        yield url


async def announced_url(process: Process) -> str:
    assert process.stdout is not None
    async for line in process.stdout:
        _, found, url = line.decode().partition("listening on ")
        if found:
            return url.split()[0]
    raise BackendFailed("the demo backend ended before it listened")


@asynccontextmanager
async def child(
    *command: str, stdout: int | None = None, **environment: str
) -> AsyncIterator[Process]:
    """A process in a group of its own, so that the terminal's Ctrl-C reaches it through us only."""
    process = await asyncio.create_subprocess_exec(
        *command,
        stdin=DEVNULL,
        stdout=stdout,
        env={**os.environ, **environment},
        start_new_session=True,
    )
    try:
        yield process
    finally:
        with suppress(ProcessLookupError):
            process.kill()
        await process.wait()


def on_signals(act: Callable[[int], object]) -> None:
    """From now on `act` gets each signal that asks this process to end, as SIGINT or SIGTERM."""

    def receive(number: int) -> None:
        with suppress(ProcessLookupError):
            act(number)

    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGINT, receive, signal.SIGINT)
    loop.add_signal_handler(signal.SIGTERM, receive, signal.SIGTERM)
    loop.add_signal_handler(signal.SIGHUP, receive, signal.SIGTERM)


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def base_url(settings: Settings, port: int) -> str:
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(settings.host, settings.host)
    scheme = "https" if settings.tls_cert else "http"
    return f"{scheme}://{f'[{host}]' if ':' in host else host}:{port}"


async def accepts_connections(address: str, port: int) -> bool:
    """Whether somebody else already listens there: then the gateway will say so, and end."""
    host = address.split("://")[1].rsplit(":", 1)[0].strip("[]")
    try:
        _, writer = await asyncio.open_connection(host, port)
    except OSError:
        return False
    writer.close()
    return True


async def answers(settings: Settings, address: str, gateway: Process) -> bool:
    """Waits until the gateway is up; `False` if it ended, or took too long."""
    path = settings.unix_socket
    connector = aiohttp.UnixConnector(str(path)) if path else aiohttp.TCPConnector(ssl=False)
    async with aiohttp.ClientSession(connector=connector) as session:
        for _ in range(GATEWAY_START_SECONDS * 20):
            if gateway.returncode is not None:
                return False
            with suppress(aiohttp.ClientError, TimeoutError):
                async with session.get(
                    f"{address}/livez", timeout=aiohttp.ClientTimeout(total=1)
                ) as response:
                    return response.status < 500
            await asyncio.sleep(0.05)
    return False


def welcome(settings: Settings, address: str) -> str:
    curl = "curl -N"
    if settings.tls_cert:
        curl += " -k"
    if settings.unix_socket:
        curl += f" --unix-socket {settings.unix_socket}"
    return f"""
Sluice is up, in front of its demo backend (set UPSTREAM_URL for yours). Ctrl-C ends both.

  Open   {address}/playground

  Ask    {curl} '{address}/api/v2/chat-stream?query=hello'

  Relay  {curl} {address}/v1/chat/completions -H 'Content-Type: application/json' \\
           -d '{QUESTION}'
"""


if __name__ == "__main__":
    sys.exit(main())
