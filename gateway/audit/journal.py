"""The erasure journal: what was erased, beside the database, so that a restored backup can't bring
it back. Everything here blocks.

A file of lines, sorted, so that nothing ties the records of one person together but the day, as
with tombstones. It holds no value, no pseudonym and no name. Without it a backup undoes erasures:
keep it where the database's own backups don't go, and never restore an older one.
"""

from __future__ import annotations

import base64
import fcntl
import json
import os
import secrets
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from gateway.audit.keyfile import sync_folder
from gateway.errors import AuditError

FORMAT = "sluice-audit-erasures/1"
_LEAF_BYTES = 9


@dataclass(frozen=True, slots=True, order=True)
class Erased:
    """A record of which something was erased.

    Args:
        day: Since 1970, in UTC.
        leaf: The beginning of its leaf's hash: after a restore another may have its number.
        fields: Their names, or `*` for the whole record.
    """

    day: int
    log: str
    seq: int
    leaf: str
    fields: tuple[str, ...]


@dataclass(frozen=True, slots=True, order=True)
class ErasedStream:
    """A stream whose stored answer was erased."""

    day: int
    id: str


@dataclass(frozen=True, slots=True)
class Erasures:
    """Everything that a journal holds."""

    records: frozenset[Erased] = frozenset()
    streams: frozenset[ErasedStream] = frozenset()


class Journal:
    """One file. Several processes may share it: who changes it holds the `lock`."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def read(self) -> Erasures:
        """
        Raises:
            AuditError: `bad_journal`: it is damaged; erased data may be readable again.
            OSError: it can't be read.
        """
        try:
            first, *lines = self._path.read_text(encoding="utf-8").splitlines()
        except FileNotFoundError:
            return Erasures()
        except ValueError:
            raise _damaged() from None
        try:
            if json.loads(first) != {"format": FORMAT}:
                raise ValueError
            entries = [_parse(json.loads(line)) for line in lines]
        except (ValueError, TypeError, KeyError, RecursionError):
            raise _damaged() from None
        return Erasures(
            frozenset(one for one in entries if isinstance(one, Erased)),
            frozenset(one for one in entries if isinstance(one, ErasedStream)),
        )

    def add(self, new: Erasures, *, since_day: int) -> None:
        """Durable when it returns. What is older than `since_day` is left out from then on.

        Raises:
            AuditError: `bad_journal`.
            OSError: it can't be written, and is as it was.
        """
        known = self.read()
        kept: list[Erased | ErasedStream] = []
        kept += sorted(one for one in known.records | new.records if one.day >= since_day)
        kept += sorted(one for one in known.streams | new.streams if one.day >= since_day)
        self._write(kept)

    def lock(self) -> int:
        """Alone with the journal, here and in other processes, until the descriptor is closed.

        Raises:
            AuditError: `busy`: another process erases just now.
            OSError: the folder can't be written.
        """
        self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        lock = os.open(f"{self._path}.lock", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(lock)
            raise AuditError("busy", "another process erases just now") from None
        return lock

    def stamp(self) -> tuple[int, int] | None:
        """Changes whenever the file does; None as long as there is none."""
        try:
            status = self._path.stat()
        except OSError:
            return None
        return status.st_mtime_ns, status.st_ino

    def _write(self, entries: Iterable[Erased | ErasedStream]) -> None:
        lines = [{"format": FORMAT}, *map(_line, entries)]
        draft = self._path.with_name(f".{self._path.name}.{secrets.token_hex(8)}")
        try:
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
            with os.fdopen(os.open(draft, flags, 0o600), "w", encoding="utf-8") as out:
                out.writelines(json.dumps(line) + "\n" for line in lines)
                out.flush()
                os.fsync(out.fileno())
            draft.rename(self._path)
        finally:
            draft.unlink(missing_ok=True)
        sync_folder(self._path.parent)


def leaf_text(leaf: bytes) -> str:
    """As much of a leaf's hash as tells one record from another of the same place."""
    return base64.urlsafe_b64encode(leaf[:_LEAF_BYTES]).decode()


def _line(entry: Erased | ErasedStream) -> Mapping[str, object]:
    if isinstance(entry, ErasedStream):
        return {"day": entry.day, "stream": entry.id}
    told = {"day": entry.day, "log": entry.log, "seq": entry.seq, "leaf": entry.leaf}
    return told | {"fields": entry.fields}


def _parse(line: Mapping[str, object]) -> Erased | ErasedStream:
    match line:
        case {"day": int(day), "stream": str(stream)}:
            return ErasedStream(day, stream)
        case {"day": int(day), "log": str(log), "seq": int(seq), "leaf": str(leaf)}:
            fields = line["fields"]
            if isinstance(fields, list) and all(isinstance(one, str) for one in fields):
                return Erased(day, log, seq, leaf, tuple(fields))
    raise ValueError("not an entry")


def _damaged() -> AuditError:
    return AuditError("bad_journal", "the erasure journal is damaged")
