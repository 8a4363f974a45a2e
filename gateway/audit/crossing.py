"""The first signature of a new key over a log that another has signed before.

The new key is announced in the log itself, and the checkpoint after that carries both signatures:
who trusts the old key trusts the new one from there on. docs/audit-format.md, "Keys that sign".
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import sqlalchemy as sa

from gateway.audit import note, tables
from gateway.audit.canonical import Object, to_text
from gateway.audit.keyfile import Key
from gateway.audit.note import Signer


@dataclass(frozen=True, slots=True)
class Crossing:
    """From one key to another."""

    before: Key
    after: Key

    def announcement(self) -> Object:
        """The fields of `audit.key.rotated`."""
        public = Signer("key", self.after.secret).verifier.public
        told: Object = {"kind": "sign", "key": self.after.id, "before": self.before.id}
        return told | {"public": to_text(public)}


def crossing(
    connection: sa.Connection, log_id: int, origin: str, keys: Sequence[Key]
) -> Crossing | None:
    """None where nothing was signed yet, or the current key signed last, or the old one is gone.

    `keys` are those that may sign, the current one first.
    """
    before = _signed_last(connection, log_id, origin, keys)
    return None if before is None or before.id == keys[0].id else Crossing(before, keys[0])


def signers(
    connection: sa.Connection, log_id: int, origin: str, keys: Sequence[Key], *, crosses: bool
) -> list[Signer]:
    """Who signs this log now: the current key, at a crossing the one before too.

    Only who writes to a log `crosses`: it has announced the new key. Others sign with the key that
    signed last.
    """
    before = _signed_last(connection, log_id, origin, keys) or keys[0]
    both = dict.fromkeys((before.id, keys[0].id)) if crosses else {before.id: None}
    return [Signer(origin, key.secret) for key in keys if key.id in both]


def _signed_last(
    connection: sa.Connection, log_id: int, origin: str, keys: Sequence[Key]
) -> Key | None:
    """The newest of these keys that has signed the log's last checkpoint."""
    table = tables.checkpoints
    query = sa.select(table.c.note).where(table.c.log == log_id)
    last = connection.scalar(query.order_by(table.c.size.desc(), table.c.ts.desc()).limit(1))
    signed = {one.key_id for one in note.parse(last).signatures} if last is not None else set()
    made = (key for key in keys if Signer(origin, key.secret).verifier.key_id in signed)
    return next(made, None)
