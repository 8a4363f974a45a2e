"""The command `sluice` in processes that are forked from one that has imported everything.

Hundreds of starts of Python would be most of what some tests take. That the command starts from
nothing is for the tests that run it by its name.
"""

from __future__ import annotations

import asyncio
import json
import multiprocessing
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

#: `process` is `multiprocessing.Process`; the server that forks is one for all tests of a process.
context = multiprocessing.get_context("forkserver")
context.set_forkserver_preload(
    [
        *("pytest", "uvloop", "gateway.app", "gateway.cli"),
        *("gateway.database.postgres", "gateway.database.steps"),
        *(f"gateway.commands.{name}" for name in ("audit_log", "rights", "verifying", "reporting")),
        "tests.frozen",
    ]
)
_PATIENCE_S = 60


@dataclass(frozen=True, slots=True)
class Result:
    """How a command ended, and what it wrote."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


async def run(
    arguments: Sequence[str],
    environment: Mapping[str, str],
    *,
    stdin: str = "",
    cwd: Path | None = None,
) -> Result:
    """Runs the command to its end."""
    with TemporaryDirectory() as streams:
        given = Path(streams)
        (given / "in").write_text(stdin)
        process = context.Process(
            target=sluice, args=(arguments, environment, given, cwd), daemon=True
        )
        await asyncio.to_thread(process.start)
        await asyncio.to_thread(process.join, _PATIENCE_S)
        code = process.exitcode
        process.kill()
        await asyncio.to_thread(process.join)
        process.close()
        assert code is not None, "the command still runs"
        return Result(code, (given / "out").read_text(), (given / "err").read_text())


def sluice(
    arguments: Sequence[str],
    environment: Mapping[str, str],
    streams: Path | None = None,
    cwd: Path | None = None,
) -> None:
    """The command, in the process that runs this; it exits with the command's code.

    `streams` is a folder with a file `in`, which it reads, and for `out` and `err`; `cwd` is the
    folder that it runs in.
    """
    from gateway.cli import main

    os.environ.clear()
    os.environ.update(environment)
    if streams is not None:
        _redirect(streams)
    if cwd is not None:
        os.chdir(cwd)
    sys.exit(main(arguments))


def _redirect(folder: Path) -> None:
    wanted = (("in", os.O_RDONLY), ("out", os.O_WRONLY), ("err", os.O_WRONLY))
    for number, (name, flags) in enumerate(wanted):
        opened = os.open(folder / name, flags | os.O_CREAT)
        os.dup2(opened, number)
        os.close(opened)
    sys.stdin = os.fdopen(0, encoding="utf-8")
    sys.stdout = os.fdopen(1, "w", encoding="utf-8")
    sys.stderr = os.fdopen(2, "w", encoding="utf-8", buffering=1)
