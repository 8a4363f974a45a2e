"""`sluice audit checkpoint`: signed heads of every log, for somebody who keeps them elsewhere."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterable
from pathlib import Path

from gateway.audit import export, note
from gateway.audit.instant import now_ms
from gateway.audit.store import newest_checkpoints
from gateway.commands.audit_log import GOOD, Opened, complain, run
from gateway.settings import Settings


def checkpoint(settings: Settings, options: argparse.Namespace) -> int:
    """Signs what the gateways have written so far, and gives the newest checkpoint of each log,
    the catalogue's among them."""

    async def work(opened: Opened) -> int:
        await opened.log.signing.sign_all()
        found = await opened.log.store.run(newest_checkpoints)
        now = now_ms()
        lines = [export.checkpoint(note.parse(text), now) for text in found]
        if options.out is None:
            sys.stdout.write(b"".join(lines).decode())
            return GOOD
        try:
            _append(options.out, lines)
        except OSError as error:
            return complain(f"{options.out} can't be written: {error.strerror}")
        print(f"{options.out} has {len(lines)} more checkpoints.", file=sys.stderr)
        return GOOD

    return run(settings, work)


def _append(path: Path, lines: Iterable[bytes]) -> None:
    flags = os.O_CREAT | os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC
    with os.fdopen(os.open(path, flags, 0o600), "ab") as out:
        out.writelines(lines)
        out.flush()
        os.fsync(out.fileno())
