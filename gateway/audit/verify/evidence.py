"""What a verifier is given from elsewhere: checkpoints and lines that somebody has kept."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

import orjson

from gateway.audit import note
from gateway.audit.canonical import from_text
from gateway.audit.checkpoint import Checkpoint
from gateway.audit.merkle import HASH_BYTES
from gateway.audit.note import Verifier
from gateway.audit.verify.heads import Held
from gateway.errors import AuditError


def held_in(path: Path) -> Iterator[Held]:
    """Checkpoints in a file or a folder: notes as they are, whose time is that of their file, or
    lines of JSON with a time of their own.

    Raises:
        AuditError: one of them isn't a checkpoint.
        OSError: it can't be read.
    """
    for file in sorted(path.iterdir()) if path.is_dir() else [path]:
        text = file.read_text(encoding="utf-8")
        if not text.startswith("{"):
            yield _held(text, int(file.stat().st_mtime * 1000), file)
            continue
        for line in _lines(file, text.splitlines()):
            match line:
                case {"kind": "checkpoint", "note": str(found), "ts": int(ts)}:
                    yield _held(found, ts, file)


def leaves_in(path: Path) -> dict[str, dict[int, bytes]]:
    """What a log shipper has seen: by log, number to leaf. Costs some 150 bytes for each line.

    Raises:
        AuditError: a line isn't one.
        OSError: it can't be read.
    """
    found: dict[str, dict[int, bytes]] = {}
    with path.open(encoding="utf-8") as lines:
        for line in _lines(path, lines):
            match line:
                case {"log": str(log), "seq": int(seq), "leaf": str(leaf)}:
                    found.setdefault(log, {})[seq] = from_text(leaf)
    return found


def public_key(text: str) -> bytes:
    """32 bytes, from a verifier key (`name+id+base64`) or from base64url of them alone.

    Raises:
        AuditError: `bad_key`, `not_canonical`.
    """
    if "+" in text:
        return Verifier.parse(text).public
    raw = from_text(text)
    if len(raw) != HASH_BYTES:
        raise AuditError("bad_key", "a public key has 32 bytes")
    return raw


def _held(text: str, ts: int, file: Path) -> Held:
    try:
        Checkpoint.parse(note.parse(text).text)
    except AuditError as error:
        raise AuditError(error.code, f"{file}: {error}") from None
    return Held(text, ts)


def _lines(file: Path, lines: Iterable[str]) -> Iterator[object]:
    for line in lines:
        try:
            yield orjson.loads(line)
        except orjson.JSONDecodeError:
            raise AuditError("bad_export", f"{file} holds a line that isn't JSON") from None
