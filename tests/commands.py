"""The command `sluice audit` as a process, beside a running gateway."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from asyncio.subprocess import PIPE
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]


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
    process = await begin(*arguments, folder=folder, database_url=database_url, **settings)
    async with asyncio.timeout(60):
        out, err = await process.communicate(stdin.encode())
    assert process.returncode is not None
    return Result(process.returncode, out.decode(), err.decode())


async def begin(
    *arguments: str | Path, folder: Path, database_url: str | None = None, **settings: str
) -> asyncio.subprocess.Process:
    """The same, still running and waiting for its standard input."""
    environment = {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": str(ROOT),
        "DATA_DIR": str(folder),
        "AUDIT_CHECKPOINT_FILE": str(folder / "checkpoints.jsonl"),
        **({"DATABASE_URL": database_url} if database_url else {}),
        **settings,
    }
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "gateway.cli", "audit", *map(str, arguments)),
        env=environment,
        stdin=PIPE,
        stdout=PIPE,
        stderr=PIPE,
    )
