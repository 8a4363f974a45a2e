"""What leaves the log to convince somebody else: a receipt in a header, a proof in a file.

A receipt is a promise: whoever has one can ask for the proof and see whether it was kept. A bundle
is that proof, for one record: it verifies without the gateway and without the rest of the log.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from gateway.audit.canonical import Json, Object, from_text, to_text
from gateway.audit.checkpoint import Checkpoint, open_checkpoint
from gateway.audit.merkle import HASH_BYTES, leaf_hash
from gateway.audit.note import Verifier
from gateway.audit.proofs import verify_inclusion
from gateway.audit.record import Personal, Record, check_personal, read_body
from gateway.errors import AuditError

RECEIPT_HEADER = "X-Audit-Receipt"
FORMAT = "sluice-audit-proof/1"

_RECEIPT = re.compile(
    r"(?P<log>[A-Za-z0-9][A-Za-z0-9._/-]{0,127})/(?P<seq>0|[1-9][0-9]{0,15})/(?P<leaf>[A-Za-z0-9_-]{43})",
    re.ASCII,
)


@dataclass(frozen=True, slots=True)
class Receipt:
    """`str` gives the header's value: `log/sequence/leaf`, the leaf's hash in base64url."""

    log: str
    seq: int
    leaf: bytes

    def __str__(self) -> str:
        return f"{self.log}/{self.seq}/{to_text(self.leaf)}"

    @classmethod
    def of(cls, record: Record, log: str) -> Receipt:
        return cls(log, record.seq, record.leaf)

    @classmethod
    def parse(cls, text: str) -> Receipt:
        """
        Raises:
            AuditError: `bad_receipt`.
        """
        match = _RECEIPT.fullmatch(text)
        try:
            if match:
                return cls(match["log"], int(match["seq"]), from_text(match["leaf"]))
        except AuditError:
            pass
        raise AuditError("bad_receipt", "not a receipt")


@dataclass(frozen=True, slots=True)
class Bundle:
    """One record, the way from its leaf to a signed root, and the personal values still there."""

    log: str
    seq: int
    body: bytes
    personal: Sequence[Personal]
    proof: Sequence[bytes]
    checkpoint: str

    def to_object(self) -> Object:
        """As JSON: docs/audit-format.md, "A proof"."""
        return {
            "format": FORMAT,
            "log": self.log,
            "seq": self.seq,
            "body": self.body.decode(),
            "personal": personal_object(self.personal),
            "proof": [to_text(step) for step in self.proof],
            "checkpoint": self.checkpoint,
        }

    @classmethod
    def from_object(cls, value: Mapping[str, Json]) -> Bundle:
        """
        Raises:
            AuditError: `bad_bundle`: malformed. Nothing is verified yet.
        """
        match value:
            case {
                "format": "sluice-audit-proof/1",
                "log": str(log),
                "seq": int(seq),
                "body": str(body),
                "personal": dict(personal),
                "proof": list(proof),
                "checkpoint": str(checkpoint),
            }:
                try:
                    steps = [from_text(step) for step in proof if isinstance(step, str)]
                    values = personal_from(personal)
                    raw = body.encode()
                except (AuditError, UnicodeEncodeError):
                    raise AuditError("bad_bundle", "not a proof bundle") from None
                if len(steps) == len(proof) and {len(step) for step in steps} <= {HASH_BYTES}:
                    return cls(log, seq, raw, values, steps, checkpoint)
        raise AuditError("bad_bundle", "not a proof bundle")

    def verify(self, trusted: Iterable[Verifier]) -> Checkpoint:
        """The checkpoint under which the record stands, once everything has been checked.

        Raises:
            AuditError: `bad_proof`, `bad_commitment`, `bad_record`, `not_canonical`, and those of
                `open_checkpoint`.
        """
        checkpoint = open_checkpoint(self.checkpoint, self.log, trusted)
        leaf = leaf_hash(self.body)
        if verify_inclusion(leaf, self.seq, checkpoint.size, self.proof) != checkpoint.root:
            raise AuditError("bad_proof", "the record isn't in the signed tree")
        body = read_body(self.body, self.log, self.seq)
        for one in self.personal:
            check_personal(body, one)
        return checkpoint


def personal_object(personal: Iterable[Personal]) -> Object:
    """Values and salts as they stand in a bundle and in an export."""
    return {one.field: {"salt": to_text(one.salt), "value": to_text(one.value)} for one in personal}


def personal_from(value: Mapping[str, Json]) -> list[Personal]:
    """
    Raises:
        AuditError: `bad_bundle`.
    """
    found = []
    for name, one in value.items():
        match one:
            case {"salt": str(salt), "value": str(text), **rest} if not rest:
                found.append(Personal(name, from_text(text), from_text(salt)))
            case _:
                raise AuditError("bad_bundle", "not a personal value")
    return found
