"""What an operator should know of the audit log's surroundings: files, keys, clock, copies.

Nothing here reads a record's values; `gateway.audit.verify` says whether the records are right.
"""

from __future__ import annotations

import os
import shutil
import sqlite3
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import sqlalchemy as sa

from gateway.audit import tables
from gateway.audit.keys import KeyInfo
from gateway.audit.policy import DAY_S, Cls, Policy

#: The first without the WAL-reset bug (sqlite.org/wal.html).
_SOUND_SQLITE = (3, 51, 3)
_MAX_SIGNING_AGE_MS = 400 * DAY_S * 1000
_MAX_OFFSET_MS = 2_000
_FULL_BYTES, _TIGHT_BYTES = 128 << 20, 1 << 30
_LATE = 10
#: CNIL's floor for logs of security (recommendation of October 2021).
_CNIL_DAYS = 180
_OTHERS = stat.S_IRWXG | stat.S_IRWXO


@dataclass(frozen=True, slots=True)
class Sign:
    """One line: `ok`; `note`, which somebody should know; `bad`, which somebody should change."""

    state: Literal["ok", "note", "bad"]
    name: str
    text: str


@dataclass(frozen=True, slots=True)
class Copies:
    """How checkpoints get out, and how often."""

    every_s: float
    file: Path | None
    has_command: bool
    prints: bool


def sqlite_version() -> Sign:
    version = sqlite3.sqlite_version
    if sqlite3.sqlite_version_info >= _SOUND_SQLITE:
        return Sign("ok", "sqlite", version)
    return Sign("note", "sqlite", f"{version} has the WAL-reset bug; a lock file keeps it away")


def permissions(paths: Sequence[Path], keys: Sequence[KeyInfo]) -> Iterator[Sign]:
    """Nobody but the owner may read them."""
    for path in paths:
        if path.exists() and path.stat().st_mode & _OTHERS:
            yield Sign("bad", "permissions", f"others may open {path}: chmod go= it")
        elif path.exists() and path.stat().st_uid not in (os.getuid(), 0):
            yield Sign("note", "permissions", f"{path} belongs to another user")
    for key in keys:
        if not key.is_private:
            yield Sign("bad", "permissions", f"others may read the {key.kind} key {key.id}")


def key_ages(keys: Sequence[KeyInfo], now_ms: int) -> Iterator[Sign]:
    for kind in ("sign", "subject", "query"):
        mine = [key for key in keys if key.kind == kind]
        if not mine:
            yield Sign("note", "keys", f"no {kind} key yet; it is made when it is needed")
            continue
        newest, oldest = ((now_ms - ts) // (DAY_S * 1000) for ts in _span(mine))
        text = f"{kind}: {len(mine)}, the newest {newest} days old, the oldest {oldest}"
        is_old = kind == "sign" and now_ms - _span(mine)[0] > _MAX_SIGNING_AGE_MS
        yield Sign("note" if is_old else "ok", "keys", text + (": rotate it" if is_old else ""))
    if keys and not all(key.is_wrapped for key in keys):
        yield Sign("note", "keys", "not all are encrypted: AUDIT_KEY_ENCRYPTION_KEY")


def disk(folder: Path) -> Sign:
    free = shutil.disk_usage(folder).free
    text = f"{free >> 20} MiB free in {folder}"
    if free < _FULL_BYTES:
        return Sign("bad", "disk", text)
    return Sign("note" if free < _TIGHT_BYTES else "ok", "disk", text)


def of_database(connection: sa.Connection, copies: Copies, now_ms: int) -> list[Sign]:
    """What it says of clock and checkpoints."""
    return [*clock(connection, now_ms), *anchors(connection, copies, now_ms)]


def clock(connection: sa.Connection, now_ms: int) -> Iterator[Sign]:
    """Against the database server's, and against what was recorded last."""
    if connection.dialect.name == "postgresql":
        there = connection.exec_driver_sql("SELECT extract(epoch FROM clock_timestamp()) * 1000")
        offset = now_ms - int(there.scalar_one())
        state: Literal["ok", "bad"] = "bad" if abs(offset) > _MAX_OFFSET_MS else "ok"
        yield Sign(state, "clock", f"{offset} ms from the database server's")
    last = connection.scalar(sa.select(sa.func.max(tables.logs.c.last_ts))) or 0
    if last > now_ms:
        yield Sign("bad", "clock", f"the last record is {last - now_ms} ms in the future")
    else:
        yield Sign("ok", "clock", "no record is in the future")


def anchors(connection: sa.Connection, copies: Copies, now_ms: int) -> Iterator[Sign]:
    """How old the newest checkpoint is where something was written since, and where copies go."""
    logs, signed = tables.logs, tables.checkpoints
    other = signed.alias()
    is_signed = sa.exists().where(other.c.log == logs.c.id, other.c.size == logs.c.size)
    behind = connection.execute(
        sa.select(logs.c.origin, sa.func.max(signed.c.ts).label("ts"))
        .select_from(logs.outerjoin(signed, signed.c.log == logs.c.id))
        .where(logs.c.state == "open", logs.c.size > 0, ~is_signed)
        .group_by(logs.c.origin)
    ).all()
    late = [row for row in behind if now_ms - (row.ts or 0) > _LATE * copies.every_s * 1000]
    for row in late:
        yield Sign("bad", "checkpoints", f"{row.origin} has grown and isn't signed")
    if not late:
        newest = connection.scalar(sa.select(sa.func.max(signed.c.ts))) or 0
        age = f"the newest is {(now_ms - newest) // 1000} s old" if newest else "none yet"
        yield Sign("ok", "checkpoints", age)
    if copies.file is not None or copies.has_command:
        yield Sign("ok", "copies", "checkpoints go to a file or a command")
    elif copies.prints:
        yield Sign("note", "copies", "checkpoints go to standard output only: keep that elsewhere")
    else:
        yield Sign("bad", "copies", "no checkpoint leaves this machine: nothing shows a cut tail")


def duties(policy: Policy) -> Iterator[Sign]:
    """Where the retention in force may be at odds with what is asked of some."""
    for cls in (Cls.AUTH, Cls.SECURITY):
        days = policy.retention_s[cls] // DAY_S
        if days < _CNIL_DAYS:
            text = f"{cls.value} is kept for {days} days; the CNIL asks for 6 months to 1 year"
            yield Sign("note", "retention", text)


def _span(keys: Sequence[KeyInfo]) -> tuple[int, int]:
    """Newest and oldest."""
    made = [key.created_ms for key in keys]
    return max(made), min(made)
