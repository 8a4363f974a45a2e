"""The proof of one record, for whoever has its number or a receipt of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import sqlalchemy as sa

from gateway.audit import tables
from gateway.audit.access import signed_heads
from gateway.audit.bundle import Bundle, Receipt
from gateway.audit.keyfile import Key
from gateway.audit.proofs import inclusion_proof
from gateway.audit.store import node_reader, read_records
from gateway.errors import AuditError


@dataclass(frozen=True, slots=True)
class Wanted:
    """A record that somebody asks about. With a `leaf` it must be that one."""

    log: str
    seq: int
    leaf: bytes | None = None

    @classmethod
    def parse(cls, text: str) -> Wanted:
        """From a receipt, or its first two parts.

        Raises:
            AuditError: `bad_receipt`.
        """
        log, _, seq = text.rpartition("/")
        if log and seq.isdecimal() and seq.isascii():
            return cls(log, int(seq))
        receipt = Receipt.parse(text)
        return cls(receipt.log, receipt.seq, receipt.leaf)


def prove(
    connection: sa.Connection,
    wanted: Wanted,
    keys: Sequence[Key],
    now_ms: int,
    *,
    with_values: bool = False,
) -> Bundle:
    """Signs the log as it is stored now and gives the way from the record to that root.

    Raises:
        AuditError: `not_kept`: the log doesn't have this record, though a receipt promised it, or
            nobody did; `pruned`: it has been swept or erased; `bad_proof`: it isn't the one of the
            receipt.
    """
    logs = tables.logs
    log_id = connection.scalar(sa.select(logs.c.id).where(logs.c.origin == wanted.log))
    found = read_records(connection, log_id, wanted.seq, wanted.seq + 1) if log_id else []
    if log_id is None or not found:
        raise AuditError("not_kept", "the log doesn't have this record")
    (stored,) = found
    if wanted.leaf is not None and stored.leaf != wanted.leaf:
        raise AuditError("bad_proof", "the record isn't the one that the receipt promised")
    if stored.body is None:
        raise AuditError("pruned", "the record has been swept or erased; its hash is still there")
    note = signed_heads(connection, [log_id], keys, now_ms)[log_id]
    steps = inclusion_proof(wanted.seq, int(note.split("\n")[1]), node_reader(connection, log_id))
    values = stored.personal if with_values else ()
    return Bundle(wanted.log, wanted.seq, stored.body, values, steps, note)
