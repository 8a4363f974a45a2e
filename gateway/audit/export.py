"""The lines of an exported log, for an auditor and for scripts/verify_audit.py. Pure.

docs/audit-format.md, "An export", says what they mean and in which order they stand. Every
function here gives one line with its line feed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from gateway.audit.bundle import personal_object
from gateway.audit.canonical import Object, encode, to_text
from gateway.audit.note import Note, Verifier
from gateway.audit.record import Personal

FORMAT = "sluice-audit-export/1"
#: The field of a tombstone that stands for the whole record.
WHOLE_RECORD = "*"


@dataclass(frozen=True, slots=True, order=True)
class Tombstone:
    """That a value, or a whole record, was erased. Only the day: a request's number would tie the
    records of one person together."""

    seq: int
    field: str
    day: int


def tombstone_digest(tombstones: Iterable[Tombstone]) -> str:
    """What `audit.tombstones` commits to: all that were set in a day, in any order."""
    hashed = hashlib.sha256(b"gw-audit/1 tombstones\0")
    for one in sorted(tombstones):
        hashed.update(f"{one.seq} {one.field}\n".encode())
    return to_text(hashed.digest())


def header(
    log: str, size: int, made_ms: int, keys: Sequence[Verifier], checkpoint: Note | None = None
) -> bytes:
    """The first line. With a `checkpoint` the export holds only some records, each with its proof
    towards it."""
    whole: Object = {"whole": checkpoint is None}
    if checkpoint is not None:
        whole["checkpoint"] = str(checkpoint)
    return _line(
        {
            "format": FORMAT,
            "log": log,
            "size": size,
            "made_ms": made_ms,
            "keys": [str(key) for key in keys],
            **whole,
        }
    )


def record(
    seq: int,
    body: bytes,
    personal: Iterable[Personal],
    *,
    proof: Sequence[bytes] | None = None,
    hold: str | None = None,
) -> bytes:
    """A record whose body is there. `hold` is the id of what keeps it beyond its time."""
    line: Object = {"kind": "record", "seq": seq, "body": body.decode()}
    line["personal"] = personal_object(personal)
    if proof is not None:
        line["proof"] = [to_text(step) for step in proof]
    if hold is not None:
        line["hold"] = hold
    return _line(line)


def pruned(seq: int, leaf: bytes) -> bytes:
    """A record of which only the leaf's hash is left."""
    return _line({"kind": "record", "seq": seq, "leaf": to_text(leaf)})


def tile(index: int, tile_hash: bytes) -> bytes:
    """The hash over the 256 records from `256 * index`. It may stand for all of them."""
    return _line({"kind": "tile", "index": index, "hash": to_text(tile_hash)})


def tombstone(one: Tombstone) -> bytes:
    return _line({"kind": "tombstone", "seq": one.seq, "field": one.field, "day": one.day})


def checkpoint(note: Note, ts: int) -> bytes:
    """Also the line that goes to standard output, where a log shipper keeps it elsewhere."""
    return _line({"kind": "checkpoint", "ts": ts, "note": str(note)})


def _line(value: Object) -> bytes:
    return encode(value) + b"\n"
