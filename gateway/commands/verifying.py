"""`sluice audit verify`: reads everything, writes nothing, and says what doesn't fit."""

from __future__ import annotations

import argparse
import asyncio
import sys
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import orjson

from gateway.audit.assembly import keys_of, store_of
from gateway.audit.store import FILE, AuditStoreError
from gateway.audit.verify.audit import Evidence, Progress
from gateway.audit.verify.audit import verify as check
from gateway.audit.verify.evidence import held_in, leaves_in, public_key
from gateway.audit.verify.exported import ExportedLog
from gateway.audit.verify.findings import BROKEN, GOOD, OVERDUE, UNANCHORED, Findings, exit_code
from gateway.audit.verify.stored import verify_stored
from gateway.commands.audit_log import BUSY, FAILED, complain
from gateway.errors import AuditError, SettingsError
from gateway.settings import Settings

_MAX_TOLD = 20
_TELL_EACH_S = 0.5
_VERDICTS = {
    GOOD: "Good.",
    BROKEN: "NOT GOOD: something was altered, or is gone without a reason.",
    UNANCHORED: "Good in itself, but no checkpoint of yours shows all of it.",
    OVERDUE: "Good, but something is kept for too long.",
}


def verify(settings: Settings, options: argparse.Namespace) -> int:
    """Checks all logs of the database, or those of some exports."""
    try:
        evidence = _evidence(settings, options)
        tell = _line() if sys.stderr.isatty() else None
        if options.exports:
            found = check([ExportedLog(path) for path in options.exports], evidence, tell)
        else:
            found = asyncio.run(_verify_stored(settings, evidence, tell))
    except AuditStoreError as error:
        return complain(f"the database can't do it now: {error}", BUSY)
    except (AuditError, OSError) as error:
        return complain(str(error), FAILED)
    code = exit_code(found, needs_anchor=options.require_anchor)
    if options.json:
        told = {"code": code, "logs": [one.to_object() for one in found]}
        print(orjson.dumps(told).decode())
    else:
        _tell(found, code, has_keys=bool(options.key) or not options.exports)
    return code


async def _verify_stored(
    settings: Settings, evidence: Evidence, tell: Progress | None
) -> list[Findings]:
    file = settings.data_dir / FILE
    if settings.database_url is None and not file.exists():
        raise SettingsError(f"DATA_DIR: there is no {file}")

    store = store_of(settings)
    try:
        return await verify_stored(store, evidence, tell)
    finally:
        await store.close()


def _evidence(settings: Settings, options: argparse.Namespace) -> Evidence:
    """
    Raises:
        AuditError, OSError: something that was given isn't what it must be.
    """
    if options.key:
        keys = [public_key(text) for text in options.key]
    elif options.exports:
        keys = [key for path in options.exports for key in ExportedLog(path).keys]
    else:
        keys = [one.verifier.public for one in keys_of(settings).signers(settings.audit_origin)]
    paths: Sequence[Path] = (*options.checkpoints, *options.against)
    leaves: dict[str, dict[int, bytes]] = {}
    for path in options.against:
        for log, seen in leaves_in(path).items():
            leaves.setdefault(log, {}).update(seen)
    times = {
        name: time_of(text)
        for name, text in (("since_ms", options.since), ("until_ms", options.until))
        if text is not None
    }
    return Evidence(keys, [one for path in paths for one in held_in(path)], leaves, **times)


def time_of(text: str) -> int:
    """Milliseconds since 1970; without a zone it is UTC.

    Raises:
        SettingsError: it isn't a time.
    """
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        raise SettingsError("a time looks like 2026-10-31 or 2026-10-31T12:00Z") from None
    return round((found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp() * 1000)


def _tell(found: Sequence[Findings], code: int, *, has_keys: bool) -> None:
    if not has_keys:
        print("The keys are those that the exports themselves name: give --key to trust your own.")
    for one in found:
        counts = ", ".join(f"{count} {name}" for name, count in one.counts.items())
        print(f"{one.origin}: {one.size} records ({counts})")
        for finding, count in one.codes.items():
            places = one.places[finding][:_MAX_TOLD]
            print("\n".join(f"  {finding}: {where}" for where in places))
            if count > len(places):
                print(f"  {finding}: {count - len(places)} more")
    print(_VERDICTS[code])


def _line() -> Progress:
    """One line of progress on a terminal, written over twice a second."""
    last_s = 0.0

    def tell(origin: str, done: int, size: int) -> None:
        nonlocal last_s
        if time.monotonic() - last_s > _TELL_EACH_S:
            last_s = time.monotonic()
            print(f"\r\x1b[K{origin}: {done} of {size}", end="", file=sys.stderr, flush=True)

    return tell
