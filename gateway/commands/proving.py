"""`sluice audit prove`: that one record is in the log, for somebody who can't read the log."""

from __future__ import annotations

import argparse
import os
import sys
from functools import partial
from pathlib import Path

import orjson

from gateway.audit.instant import now_ms
from gateway.audit.proving import Wanted
from gateway.audit.proving import prove as made
from gateway.commands.audit_log import DAMAGED, FAILED, GOOD, Opened, complain, run, words_of
from gateway.errors import AuditError
from gateway.settings import Settings

_BROKEN_PROMISES = {"not_kept", "bad_proof"}


def prove(settings: Settings, options: argparse.Namespace) -> int:
    """Gives a proof that verifies without the gateway; 2 if a receipt's promise wasn't kept."""

    async def work(opened: Opened) -> int:
        wanted = Wanted.parse(options.id)
        give = partial(
            made,
            wanted=wanted,
            keys=opened.keys.all("sign"),
            now_ms=now_ms(),
            with_values=options.with_values,
        )
        try:
            bundle = await opened.log.store.run(give, writes=True)
        except AuditError as error:
            is_broken = wanted.leaf is not None and error.code in _BROKEN_PROMISES
            return complain(str(error), DAMAGED if is_broken else FAILED)
        words = words_of(options.reference)
        await opened.log.record("audit.read", {"verb": "prove", "records": 1}, words)
        _write(orjson.dumps(bundle.to_object()) + b"\n", options.out)
        return GOOD

    return run(settings, work)


def _write(text: bytes, path: Path | None) -> None:
    if path is None:
        sys.stdout.write(text.decode())
        return
    flags = os.O_CREAT | os.O_WRONLY | os.O_TRUNC | os.O_CLOEXEC
    with os.fdopen(os.open(path, flags, 0o600), "wb") as out:
        out.write(text)
