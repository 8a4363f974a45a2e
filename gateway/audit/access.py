"""What a person is given of the log: their records, each with its proof. GDPR 15.

The proof is that of `gateway.audit.bundle`, towards a checkpoint that is signed for the occasion,
so that the newest record is covered too. docs/audit-format.md, "A person's export".
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache

import sqlalchemy as sa

from gateway.audit import tables
from gateway.audit.bundle import Bundle
from gateway.audit.canonical import Json, Object, decode, to_text
from gateway.audit.crossing import signed
from gateway.audit.event import CLEAR
from gateway.audit.keyfile import Key
from gateway.audit.ledger import stored_head
from gateway.audit.merkle import NodeReader, leaf_hash
from gateway.audit.policy import Cls, Policy
from gateway.audit.proofs import inclusion_proof
from gateway.audit.record import Personal
from gateway.audit.store import Stored, node_reader
from gateway.audit.subject import Place

FORMAT = "sluice-audit-person/1"
_SLICE = 500
#: Why each class is kept, for who asks what is kept of them.
PURPOSES: Mapping[Cls, str] = {
    Cls.QUERY: "To show that a question was answered, when and how, without what was asked.",
    Cls.AUTH: "To show who was let in.",
    Cls.SECURITY: "To notice and trace misuse.",
    Cls.ADMIN: "To show who changed what in the gateway.",
    Cls.AUDIT: "To show that these rules were kept.",
}


@dataclass(frozen=True, slots=True)
class Found:
    """One record of a person.

    Args:
        until_ms: When it will be swept.
    """

    bundle: Bundle
    cls: str
    type: str
    ts: int
    until_ms: int

    def to_object(self) -> Object:
        return {
            "type": self.type,
            "ts": self.ts,
            "purpose": PURPOSES[Cls(self.cls)],
            "until_ms": self.until_ms,
            "values": {one.field: shown(one) for one in self.bundle.personal},
            "proof": self.bundle.to_object(),
        }


def shown(value: Personal) -> str:
    """What stands in clear, as it is; a keyed hash in base64url."""
    return value.value.decode() if value.field in CLEAR else to_text(value.value)


def signed_heads(
    connection: sa.Connection, logs: Iterable[int], keys: Sequence[Key], now_ms: int
) -> dict[int, str]:
    """A checkpoint for each of these logs as it is stored now, kept like any other."""
    heads = {log: stored_head(connection, log) for log in logs}
    return {
        log: str(signed(connection, head, keys, now_ms, crosses=False))
        for log, head in heads.items()
    }


def read_found(
    connection: sa.Connection,
    places: Sequence[Place],
    notes: Mapping[int, str],
    policy: Policy,
    *,
    with_operator: bool = False,
) -> list[Found]:
    """The records at these places, with their proofs. Who wrote them is somebody else's data."""
    if with_operator:
        places = [replace(one, fields=(*one.fields, "operator")) for one in places]
    found: list[Found] = []
    for log, note in notes.items():
        node = cache(node_reader(connection, log))
        mine = [place for place in places if place.log == log]
        for at in range(0, len(mine), _SLICE):
            stored = _stored(connection, log, [place.seq for place in mine[at : at + _SLICE]])
            found += [
                _found(place, stored[place.seq], note, node, policy)
                for place in mine[at : at + _SLICE]
                if place.seq in stored  # it may have been swept meanwhile
            ]
    return found


def _found(place: Place, stored: Stored, note: str, node: NodeReader, policy: Policy) -> Found:
    origin, size, _ = note.split("\n", 2)
    personal = [one for one in stored.personal if one.field in place.fields]
    proof = inclusion_proof(place.seq, int(size), node)
    body = stored.body or b""
    ts = _whole(decode(body)["ts"])
    until_ms = ts + policy.retention_of(Cls(place.cls)) * 1000
    bundle = Bundle(origin, place.seq, body, personal, proof, note)
    return Found(bundle, place.cls, place.type, ts, until_ms)


def _stored(connection: sa.Connection, log: int, seqs: Sequence[int]) -> dict[int, Stored]:
    """Those of these records that have a body, with their values."""
    records, personal = tables.records, tables.personal
    these = (records.c.log == log) & records.c.seq.in_(seqs)
    found: dict[int, Stored] = {}
    values: dict[int, list[Personal]] = {seq: [] for seq in seqs}
    theirs = (personal.c.log == log) & personal.c.seq.in_(seqs)
    for row in connection.execute(sa.select(personal).where(theirs)):
        values[row.seq].append(Personal(row.field, row.value, row.salt))
    for seq, body in connection.execute(sa.select(records.c.seq, records.c.body).where(these)):
        found[seq] = Stored(seq, leaf_hash(body), body, values[seq])
    return found


def _whole(value: Json) -> int:
    if not isinstance(value, int):
        raise TypeError("not a number")
    return value
