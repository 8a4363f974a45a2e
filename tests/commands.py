"""The command `sluice audit` as a process of its own, beside a running gateway."""

from __future__ import annotations

import asyncio
import os
import sys
from asyncio.subprocess import PIPE
from pathlib import Path

from tests import forked
from tests.auditing import assert_sound
from tests.forked import Result

ROOT = Path(__file__).parents[1]


async def audit(
    *arguments: str | Path,
    folder: Path,
    database_url: str | None = None,
    stdin: str = "",
    **settings: str,
) -> Result:
    """Runs a verb on the log in `folder`, or in the database."""
    told = ["audit", *map(str, arguments)]
    return await forked.run(told, _environment(folder, database_url, settings), stdin=stdin)


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
