"""Logs as exports tell them: a file of lines for each. docs/audit-format.md, "An export"."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import orjson

from gateway.audit import note
from gateway.audit.bundle import personal_from
from gateway.audit.canonical import Object, decode, from_text
from gateway.audit.checkpoint import Checkpoint
from gateway.audit.export import FORMAT, Tombstone
from gateway.audit.merkle import HASH_BYTES
from gateway.audit.note import Verifier
from gateway.audit.verify.findings import Findings
from gateway.audit.verify.source import Entry
from gateway.errors import AuditError

_MEMBERS = {
    "checkpoint": [{"kind", "ts", "note"}],
    "tile": [{"kind", "index", "hash"}],
    "tombstone": [{"kind", "seq", "field", "day"}],
    "record": [{"kind", "seq", "body", "personal"}, {"kind", "seq", "leaf"}],
}
_WRONG = (KeyError, ValueError, TypeError, AttributeError, AuditError)


class ExportedLog:
    """See `gateway.audit.verify.source.Source`. Everything but records is kept in memory."""

    def __init__(self, path: Path) -> None:
        """
        Raises:
            AuditError: `bad_export`: not one of a whole log.
            OSError: it can't be read.
        """
        self._path = path
        with path.open("rb") as file:
            header = _line(file.readline()) or {}
        if header.get("format") != FORMAT or header.get("whole") is not True:
            raise AuditError("bad_export", f"{path} isn't the export of a whole log")
        match header:
            case {"log": str(log), "size": int(size), "made_ms": int(made_ms), "keys": list(keys)}:
                self.origin, self.size, self.made_ms = log, size, made_ms
                self.keys = [Verifier.parse(str(key)).public for key in keys]
            case _:
                raise AuditError("bad_export", f"{path} has a damaged header")
        self._notes: list[tuple[int, str]] = []
        self._tombstones: list[Tombstone] = []
        self._tiles: dict[int, bytes] = {}

    def explanations(self, findings: Findings) -> Iterator[tuple[int, Object]]:
        for number, line in self._lines():
            try:
                if (
                    line is None
                    or line.keys() - {"proof", "hold"} not in _MEMBERS[str(line["kind"])]
                ):
                    raise ValueError("not a line of an export")
                yield from self._collect(line)
            except _WRONG:
                findings.found("malformed", f"line {number}")

    def notes(self) -> Iterator[str]:
        return (text for _, text in sorted(self._notes, key=lambda one: one[0]))

    def tombstones(self) -> Iterator[Tombstone]:
        return iter(sorted(self._tombstones))

    def tiles(self) -> Mapping[int, bytes]:
        return self._tiles

    def entries(self, findings: Findings) -> Iterator[Entry]:
        for _, line in self._lines():
            if line is None or line.get("kind") != "record":
                continue
            seq = line.get("seq")
            if type(seq) is not int:
                findings.found("out_of_order", seq)
                continue
            try:
                yield _entry(line)
            except _WRONG:
                yield Entry(seq, None, bytes(HASH_BYTES), {}, is_spoilt=True)

    def _lines(self) -> Iterator[tuple[int, dict[str, object] | None]]:
        with self._path.open("rb") as file:
            file.readline()
            for number, raw in enumerate(file, start=2):
                yield number, _line(raw)

    def _collect(self, line: dict[str, object]) -> Iterator[tuple[int, Object]]:
        match line:
            case {"kind": "checkpoint", "note": str(text)}:
                self._notes.append((Checkpoint.parse(note.parse(text).text).size, text))
            case {"kind": "tile", "index": int(index), "hash": str(text)}:
                self._tiles[index] = from_text(text)
            case {"kind": "tombstone", "seq": int(seq), "field": str(field), "day": int(day)}:
                self._tombstones.append(Tombstone(seq, field, day))
            case {"kind": "record", "seq": int(seq), "body": str(body)}:
                if '"cls":"audit"' in body:
                    yield seq, decode(body.encode())


def _entry(line: dict[str, object]) -> Entry:
    match line:
        case {"seq": int(seq), "body": str(body), "personal": dict(personal)}:
            values = {one.field: (one.salt, one.value) for one in personal_from(personal)}
            hold = line.get("hold")
            return Entry(seq, body.encode(), b"", values, None if hold is None else str(hold))
        case {"seq": int(seq), "leaf": str(leaf)}:
            raw = from_text(leaf)
            if len(raw) == HASH_BYTES:
                return Entry(seq, None, raw, {})
    raise ValueError("not a record")


def _line(raw: bytes) -> dict[str, object] | None:
    try:
        value = orjson.loads(raw)
    except orjson.JSONDecodeError:
        return None
    return value if isinstance(value, dict) else None
