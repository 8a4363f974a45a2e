"""All logs as exports, for a verifier of somebody else's. docs/audit-format.md, "An export"."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import sqlalchemy as sa

from gateway.audit import export, holds, note
from gateway.audit.holds import Hold
from gateway.audit.merkle import TILE_WIDTH
from gateway.audit.note import Verifier
from gateway.audit.store import (
    LogInfo,
    Stored,
    all_logs,
    at_one_moment,
    read_checkpoints,
    read_records,
    read_tiles,
    read_tombstones,
)
from gateway.errors import AuditError

_RECORDS = 16 * TILE_WIDTH


@dataclass(frozen=True, slots=True)
class Dumped:
    """One log's export."""

    path: Path
    records: int
    values: int


def dump(
    connection: sa.Connection, folder: Path, verifiers_of: Callable[[str], Sequence[Verifier]]
) -> list[Dumped]:
    """Writes each log to a file of its own in `folder`, all as they are at one moment, whatever is
    written to them meanwhile. The transaction must have nothing else to do.

    Args:
        verifiers_of: The keys that a reader may trust, by the name of a log.

    Raises:
        AuditError: `not_written`: a file can't be.
    """
    at_one_moment(connection)
    in_force = holds.in_force(connection)
    with _writing(folder):
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    dumped = []
    for log in all_logs(connection):
        path = folder / f"export-{log.id}.jsonl"
        header = export.header(
            log.origin, log.size, time.time_ns() // 1_000_000, verifiers_of(log.origin)
        )
        _write(path, [header, *_rest(connection, log)], os.O_TRUNC)
        values = 0
        for records in _records(connection, log, in_force):
            _write(path, [line for line, _ in records], os.O_APPEND)
            values += sum(count for _, count in records)
        dumped.append(Dumped(path, log.size, values))
    return dumped


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    """What a file system raises is no fault of the database."""
    try:
        yield
    except OSError as error:
        raise AuditError("not_written", f"{path}: {error.strerror}") from error


def _write(path: Path, lines: Sequence[bytes], how: int) -> None:
    flags = os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC | how
    with _writing(path), os.fdopen(os.open(path, flags, 0o600), "wb") as out:
        out.writelines(lines)


def _records(
    connection: sa.Connection, log: LogInfo, in_force: Sequence[Hold]
) -> Iterator[list[tuple[bytes, int]]]:
    """The lines of the records, some at a time, and how many values each has."""
    for start in range(0, log.size, _RECORDS):
        end = min(start + _RECORDS, log.size)
        held = holds.held_by(connection, log.id, start, end, in_force)
        found = read_records(connection, log.id, start, end)
        yield [_record(one, held.get(one.seq)) for one in found]


def _record(one: Stored, hold: str | None) -> tuple[bytes, int]:
    if one.body is None:
        return export.pruned(one.seq, one.leaf), 0
    return export.record(one.seq, one.body, one.personal, hold=hold), len(one.personal)


def _rest(connection: sa.Connection, log: LogInfo) -> Iterator[bytes]:
    """What isn't records."""
    for ts, text in read_checkpoints(connection, log.id):
        yield export.checkpoint(note.parse(text), ts)
    for one in read_tombstones(connection, log.id):
        yield export.tombstone(one)
    for index, tile_hash in read_tiles(connection, log.id):
        yield export.tile(index, tile_hash)
