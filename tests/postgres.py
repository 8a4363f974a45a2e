"""A PostgreSQL that goes away and comes back."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
from pathlib import Path
from typing import Self

from tests.servers import _postgres_user


class Postgres:
    """A server of the test's own, which can be stopped and started on the same data and port.

    A crash of it loses nothing that was committed: what it has written is the kernel's.
    """

    def __init__(self, port: int, *, within: Path | None = None) -> None:
        """`within` is the folder that its own is made in; its log of writes is then in small files,
        of 1 MiB."""
        self.url = f"postgresql://postgres@127.0.0.1:{port}/postgres"
        programs = os.environ.get("TEST_POSTGRES_BIN") or shutil.which("initdb")
        assert programs is not None
        path = Path(programs)
        self._programs = path.resolve().parent if path.name == "initdb" else path
        self._user = _postgres_user()
        self._folder = tempfile.mkdtemp(prefix="postgres-", dir=within)
        self._initdb = "--username=postgres --auth=trust --no-sync"
        if within is not None:
            self._initdb += " --wal-segsize=1"
        if self._user is not None:
            shutil.chown(self._folder, self._user)
        options = f"-p {port} -k {self._folder} -h 127.0.0.1 -F"
        self._options = ["-o", options, "-l", f"{self._folder}/output"]

    def __enter__(self) -> Self:
        self._ctl("initdb", "-o", self._initdb)
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self.is_running:
            self.stop()
        shutil.rmtree(self._folder)

    @property
    def data(self) -> Path:
        """Where its files are."""
        return Path(self._folder, "data")

    @property
    def output(self) -> Path:
        """What it has printed."""
        return Path(self._folder, "output")

    def start(self) -> None:
        self._ctl("start", *self._options)

    def stop(self) -> None:
        self._ctl("stop", "-m", "immediate")

    @property
    def is_running(self) -> bool:
        """Whether there is a server; one that gave up over a fault has taken its file away."""
        return (self.data / "postmaster.pid").exists()

    def make_folder(self, path: Path) -> None:
        """Makes a folder that the server may write to."""
        path.mkdir()
        if self._user is not None:
            shutil.chown(path, self._user)

    def freeze(self) -> None:
        """From now on it takes connections and says nothing: no process of it runs."""
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self._signal(signal.SIGCONT)

    def _signal(self, number: signal.Signals) -> None:
        pid = Path(self._folder, "data", "postmaster.pid").read_text().split()[0]
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        for process in (pid, *children):
            os.kill(int(process), number)

    def _ctl(self, action: str, *arguments: str) -> None:
        subprocess.run(
            [
                str(self._programs / "pg_ctl"),
                action,
                "-w",
                "-D",
                f"{self._folder}/data",
                *arguments,
            ],
            user=self._user,
            cwd=self._folder,
            check=True,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
