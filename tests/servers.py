"""Real servers for the tests: each on a port and in a folder of its own, gone with the context.

`scripts/test` says by `TEST_REDIS_SERVER` and `TEST_POSTGRES_BIN` which programs to start; without
it those on the PATH are taken. A server that isn't there is an error, never a skipped test.
"""

from __future__ import annotations

import os
import pwd
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import asyncpg

START_SECONDS = 30
STOP_SECONDS = 10
#: PostgreSQL refuses to run as root: then it runs as the first of these that there is.
POSTGRES_USERS = ("postgres", "nobody")


class ServerFailed(RuntimeError):
    """A server isn't installed or ended before it was ready; says what it printed."""


@contextmanager
def redis_server() -> Iterator[str]:
    """A Redis that keeps nothing; yields its URL."""
    program = _program("TEST_REDIS_SERVER", "redis-server")
    port = free_port()
    with tempfile.TemporaryDirectory(prefix="redis-") as folder:
        command = [program, "--port", str(port), "--bind", "127.0.0.1", "--dir", folder]
        command += ["--save", "", "--appendonly", "no"]
        with _running(command, ready="Ready to accept connections"):
            yield f"redis://127.0.0.1:{port}/0"


@contextmanager
def postgres_server() -> Iterator[str]:
    """An empty PostgreSQL that doesn't wait for the disk; yields the URL of its database."""
    programs = Path(_program("TEST_POSTGRES_BIN", "initdb"))
    if programs.name == "initdb":
        programs = programs.resolve().parent
    port = free_port()
    user = _postgres_user()
    with tempfile.TemporaryDirectory(prefix="postgres-") as folder:
        if user is not None:
            shutil.chown(folder, user)
        data = f"{folder}/data"
        initdb = [str(programs / "initdb"), "--pgdata", data, "--username", "postgres"]
        initdb += ["--auth", "trust", "--encoding", "UTF8", "--locale", "C", "--no-sync"]
        _run(initdb, user=user, folder=folder)
        command = [str(programs / "postgres"), "-D", data, "-p", str(port), "-k", folder]
        command += ["-h", "127.0.0.1", "-F"]
        ready = "database system is ready to accept connections"
        with _running(command, ready=ready, user=user, folder=folder):
            yield f"postgresql://postgres@127.0.0.1:{port}/postgres"


async def new_database(postgres_url: str) -> str:
    """An empty database of a running PostgreSQL's; its URL."""
    name = f"t{secrets.token_hex(6)}"
    connection = await asyncpg.connect(postgres_url)
    # The other way, which came with version 15, writes each page to its journal too: twice as much
    # work where nobody waits for the disk.
    how = " STRATEGY FILE_COPY" if connection.get_server_version().major >= 15 else ""
    await connection.execute(f"CREATE DATABASE {name}{how}")
    await connection.close()
    return f"{postgres_url.rpartition('/')[0]}/{name}"


def free_port() -> int:
    """A port of 127.0.0.1 that nobody listened on a moment ago."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def _program(variable: str, command: str) -> str:
    path = os.environ.get(variable) or shutil.which(command)
    if path is None:
        raise ServerFailed(f"{command} isn't installed; scripts/test installs it")
    return path


def _postgres_user() -> str | None:
    """Whom PostgreSQL runs as; `None`: as ourselves."""
    if os.geteuid() != 0:
        return None
    known = {entry.pw_name for entry in pwd.getpwall()}
    return next(name for name in POSTGRES_USERS if name in known)


def _run(command: list[str], *, user: str | None, folder: str) -> None:
    result = subprocess.run(
        command,
        user=user,
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=START_SECONDS,
        check=False,
    )
    if result.returncode:
        raise ServerFailed(f"{command[0]}: {result.stdout}{result.stderr}")


@contextmanager
def _running(
    command: list[str], *, ready: str, user: str | None = None, folder: str | None = None
) -> Iterator[None]:
    """The server, from the line in which it says that it is ready until the context's end."""
    with subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        user=user,
        cwd=folder,
        text=True,
    ) as process:
        output = _Output(process, ready)
        try:
            output.await_ready()
            yield
        finally:
            _stop(process)
            output.join()


def _stop(process: subprocess.Popen[str]) -> None:
    process.send_signal(signal.SIGINT)  # both servers: end at once, and tidily
    try:
        process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()


class _Output(threading.Thread):
    """Reads what a server prints to the end, since a pipe that nobody reads would stop it."""

    def __init__(self, process: subprocess.Popen[str], ready: str) -> None:
        super().__init__(name="server-output", daemon=True)
        self._process = process
        self._ready = ready
        self._lines: deque[str] = deque(maxlen=20)
        self._decided = threading.Event()
        self._is_ready = False
        self.start()

    def run(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._lines.append(line)
            if self._ready in line:
                self._is_ready = True
                self._decided.set()
        self._decided.set()

    def await_ready(self) -> None:
        self._decided.wait(START_SECONDS)
        if not self._is_ready:
            raise ServerFailed("".join(self._lines) or "the server printed nothing")
