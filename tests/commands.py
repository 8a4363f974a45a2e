"""The command `sluice audit` as a process of its own, beside a running gateway."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from asyncio.subprocess import PIPE
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from tests import forked
from tests.auditing import assert_sound

ROOT = Path(__file__).parents[1]
_PATIENCE_S = 60


@dataclass(frozen=True, slots=True)
class Result:
    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


async def audit(
    *arguments: str | Path,
    folder: Path,
    database_url: str | None = None,
    stdin: str = "",
    **settings: str,
) -> Result:
    """Runs a verb on the log in `folder`, or in the database."""
    with TemporaryDirectory() as streams:
        given = Path(streams)
        (given / "in").write_text(stdin)
        told = (
            ["audit", *map(str, arguments)],
            _environment(folder, database_url, settings),
            given,
        )
        process = forked.context.Process(target=forked.sluice, args=told, daemon=True)
        await asyncio.to_thread(process.start)
        await asyncio.to_thread(process.join, _PATIENCE_S)
        code = process.exitcode
        process.kill()
        await asyncio.to_thread(process.join)
        process.close()
        assert code is not None, "the command still runs"
        return Result(code, (given / "out").read_text(), (given / "err").read_text())


async def begin(
    *arguments: str | Path, folder: Path, database_url: str | None = None, **settings: str
) -> asyncio.subprocess.Process:
    """The same, started by its name, still running and waiting for its standard input."""
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "gateway.cli", "audit", *map(str, arguments)),
        env=_environment(folder, database_url, settings),
        stdin=PIPE,
        stdout=PIPE,
        stderr=PIPE,
    )


async def assert_good(folder: Path, database_url: str | None, *, key: str | None = None) -> None:
    """Both verifiers find nothing wrong."""
    await assert_sound(folder, database_url, key=key)
    held = ("--checkpoints", str(folder / "checkpoints.jsonl"), "--require-anchor")
    keys = ("--key", key) if key is not None else ()
    ran = await audit("verify", *held, *keys, folder=folder, database_url=database_url)
    assert ran.code == 0, ran.out + ran.err


def _environment(
    folder: Path, database_url: str | None, settings: dict[str, str]
) -> dict[str, str]:
    return {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": str(ROOT),
        "DATA_DIR": str(folder),
        "AUDIT_CHECKPOINT_FILE": str(folder / "checkpoints.jsonl"),
        **({"DATABASE_URL": database_url} if database_url else {}),
        **settings,
    }
