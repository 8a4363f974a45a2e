"""The first signature of a new key over a log that another has signed before.

The new key is announced in the log itself, and the checkpoint after that carries both signatures:
who trusts the old key trusts the new one from there on. docs/audit-format.md, "Keys that sign".
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import sqlalchemy as sa

from gateway.audit import tables
from gateway.audit.canonical import Object, to_text
from gateway.audit.keyfile import Key
from gateway.audit.ledger import Head
from gateway.audit.note import Note, Signer, parse
from gateway.audit.store import keep_checkpoint


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


def crossing(connection: sa.Connection, head: Head, keys: Sequence[Key]) -> Crossing | None:
    """None where nothing was signed yet, or the current key signed last, or all old ones are gone.

    `keys` are those that may sign, the current one first.
    """
    last = _last_signers(connection, head, keys)
    if last is None or len(keys) == 1:
        return None
    before = last[0] if last else keys[1]
    return Crossing(before, keys[0]) if before.id != keys[0].id else None


def signed(
    connection: sa.Connection, head: Head, keys: Sequence[Key], now_ms: int, *, crosses: bool
) -> Note:
    """The log's checkpoint as far as it has come; stored, unless one with these signatures is.

    The key that signed last signs. With `crosses` the current one does too: only for who has
    announced it in what is signed. Where the last one isn't among these keys, since another process
    is ahead of this one, all of them sign.
    """
    last = _last_signers(connection, head, keys)
    by = {one.id for one in (keys[:1] if last is None else last[:1] or keys)}
    by |= {keys[0].id} if crosses else set()
    signers = [Signer(head.origin, key.secret) for key in keys if key.id in by]
    note = head.checkpoint.signed_by(signers)
    return _kept(connection, head, note, now_ms)


def _last_signers(connection: sa.Connection, head: Head, keys: Sequence[Key]) -> list[Key] | None:
    """Those of these keys that signed the last checkpoint up to here, the newest first; None if
    there is no checkpoint. Another process may have signed a larger one already."""
    table = tables.checkpoints
    upto = (table.c.log == head.id) & (table.c.size <= head.frontier.size)
    newest = sa.select(table.c.note).where(upto).order_by(table.c.size.desc(), table.c.ts.desc())
    last = connection.scalar(newest.limit(1))
    if last is None:
        return None
    ids = {one.key_id for one in parse(last).signatures}
    return [key for key in keys if Signer(head.origin, key.secret).verifier.key_id in ids]


def _kept(connection: sa.Connection, head: Head, note: Note, now_ms: int) -> Note:
    table, size = tables.checkpoints, head.frontier.size
    same = (table.c.log == head.id) & (table.c.size == size)
    ts = now_ms
    for row in connection.execute(sa.select(table.c.ts, table.c.note).where(same)):
        if row.note.startswith(note.text) and all(str(one) in row.note for one in note.signatures):
            return parse(row.note)
        ts = max(ts, row.ts + 1)
    keep_checkpoint(connection, head.id, size, ts, str(note))
    return note
