"""`sluice audit doctor`: one line for each thing that should be as it should be."""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import Iterator
from functools import partial

import orjson

from gateway.audit import health
from gateway.audit.assembly import keys_of, policy_of, store_of
from gateway.audit.health import Copies, Sign
from gateway.audit.instant import now_ms
from gateway.audit.store import FILE, AuditStoreError
from gateway.commands.audit_log import FAILED, GOOD
from gateway.errors import AuditError, SettingsError
from gateway.settings import Settings
from gateway.web.server import check_parser


def doctor(settings: Settings, options: argparse.Namespace) -> int:
    """Looks around; 1 if something should be changed."""
    found = [*_here(settings), *asyncio.run(_there(settings))]
    if options.json:
        told = [{"state": one.state, "name": one.name, "text": one.text} for one in found]
        print(orjson.dumps({"signs": told}).decode())
    else:
        for one in found:
            print(f"{one.state:<4}  {one.name}: {one.text}")
    return FAILED if any(one.state == "bad" for one in found) else GOOD


def _here(settings: Settings) -> Iterator[Sign]:
    """What is on this machine."""
    yield _parser()
    if settings.audit_mode == "off":
        yield Sign("bad", "mode", "AUDIT_MODE is off: nothing is recorded")
    file = settings.data_dir / FILE
    if settings.database_url is None:
        yield health.sqlite_version()
    if settings.data_dir.exists():
        yield health.disk(settings.data_dir)
    try:
        keys = keys_of(settings).infos()
        yield from health.permissions([file, *settings.data_dir.glob(f"{FILE}-*")], keys)
        yield from health.key_ages(keys, now_ms())
        yield from health.duties(policy_of(settings))
    except (AuditError, OSError) as error:
        yield Sign("bad", "keys", str(error))


async def _there(settings: Settings) -> list[Sign]:
    """What the database says."""
    file = settings.data_dir / FILE
    if settings.database_url is None and not file.exists():
        return [Sign("note", "database", f"there is no {file} yet")]
    copies = Copies(
        settings.audit_checkpoint_seconds,
        settings.audit_checkpoint_file,
        settings.audit_checkpoint_command is not None,
        settings.audit_lines != "off",
    )
    store = store_of(settings)
    try:
        return await store.run(partial(health.of_database, copies=copies, now_ms=now_ms()))
    except AuditStoreError as error:
        return [Sign("bad", "database", str(error))]
    finally:
        await store.close()


def _parser() -> Sign:
    try:
        check_parser()
    except SettingsError as error:
        return Sign("bad", "parser", str(error))
    return Sign("ok", "parser", "aiohttp's own in C")
