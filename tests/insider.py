"""Somebody with the database's password: rewrites rows by SQL, the triggers dropped first.

What takes the signing key too is given it. Everything that the gateway stores beside a record is
brought in line, as a careful insider would.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import sqlalchemy as sa

from gateway.audit import note, tables
from gateway.audit.canonical import Json, Object, decode, encode, to_text
from gateway.audit.checkpoint import Checkpoint
from gateway.audit.export import Tombstone
from gateway.audit.merkle import Frontier, frontier_of, leaf_hash
from gateway.audit.note import Signer

NUMBERED = (tables.records, tables.personal, tables.pruned, tables.tombstones, tables.unended)
Signing = Callable[[str], Signer]


@dataclass(frozen=True, slots=True)
class Insider:
    """At one log; `of` goes to another."""

    connection: sa.Connection
    id: int
    origin: str

    @classmethod
    def at(cls, connection: sa.Connection) -> Insider:
        """The log that was opened last, triggers gone."""
        _drop_triggers(connection)
        logs = tables.logs
        query = sa.select(logs.c.id, logs.c.origin).where(logs.c.kind == "gateway")
        row = connection.execute(query.order_by(logs.c.id.desc())).first()
        assert row is not None
        return cls(connection, row.id, row.origin)

    def of(self, kind: str) -> Insider:
        """The first log of a kind."""
        logs = tables.logs
        query = sa.select(logs.c.id, logs.c.origin).where(logs.c.kind == kind)
        row = self.connection.execute(query.order_by(logs.c.id)).first()
        assert row is not None
        return Insider(self.connection, row.id, row.origin)

    @property
    def size(self) -> int:
        logs = tables.logs
        return int(self.connection.scalar(sa.select(logs.c.size).where(logs.c.id == self.id)) or 0)

    def seqs(self, type_: str) -> list[int]:
        records = tables.records
        query = sa.select(records.c.seq).where(records.c.log == self.id, records.c.type == type_)
        return list(self.connection.scalars(query.order_by(records.c.seq)))

    def body(self, seq: int) -> Object:
        return decode(bytes(self._row(tables.records, seq).body))

    def put(self, seq: int, body: Object) -> None:
        """Writes a body, new or in another's place."""
        raw = encode(body)
        values = {"ts": body["ts"], "cls": body["cls"], "type": body["type"], "body": raw}
        self.delete(tables.records, seq)
        self.insert(tables.records, seq, **values)

    def alter(self, seq: int, **changes: Json) -> None:
        self.put(seq, {**self.body(seq), **changes})

    def insert(self, table: sa.Table, seq: int, **values: object) -> None:
        self.connection.execute(sa.insert(table).values(log=self.id, seq=seq, **values))

    def delete(self, table: sa.Table, first: int, last: int | None = None) -> None:
        these = table.c.seq.between(first, first if last is None else last)
        self.connection.execute(sa.delete(table).where(table.c.log == self.id, these))

    def prune(self, first: int, last: int) -> None:
        """As a sweep does, leaves kept."""
        records = tables.records
        for seq in range(first, last + 1):
            query = sa.select(records.c.body).where(records.c.log == self.id, records.c.seq == seq)
            raw = self.connection.scalar(query)
            if raw is not None:
                self.insert(tables.pruned, seq, leaf=leaf_hash(bytes(raw)))
        self.delete(records, first, last)
        self.delete(tables.personal, first, last)

    def swap(self, table: sa.Table, one: int, other: int) -> None:
        """The rows of two numbers change places."""
        for before, after in ((one, -1), (other, one), (-1, other)):
            these = (table.c.log == self.id) & (table.c.seq == before)
            self.connection.execute(sa.update(table).where(these).values(seq=after))

    def shift(self, first: int, by: int) -> None:
        """Renumbers everything from `first` on."""
        for table in NUMBERED:
            for step in (1 << 40, by - (1 << 40)):  # no two rows have one number on the way
                these = (table.c.log == self.id) & (table.c.seq >= first)
                moved = {"seq": table.c.seq + step}
                self.connection.execute(sa.update(table).where(these).values(moved))

    def cut(self, size: int) -> None:
        for table in NUMBERED:
            self.delete(table, size, 1 << 40)

    def cut_checkpoints(self, size: int) -> None:
        table = tables.checkpoints
        these = (table.c.log == self.id) & (table.c.size > size)
        self.connection.execute(sa.delete(table).where(these))

    def personal(self, seq: int, field: str, **values: bytes) -> None:
        table = tables.personal
        these = (table.c.log == self.id) & (table.c.seq == seq) & (table.c.field == field)
        self.connection.execute(sa.update(table).where(these).values(values))

    def value(self, seq: int, field: str) -> tuple[bytes, bytes]:
        """Salt and value."""
        table = tables.personal
        these = (table.c.log == self.id) & (table.c.seq == seq) & (table.c.field == field)
        row = self.connection.execute(sa.select(table).where(these)).one()
        return bytes(row.salt), bytes(row.value)

    def stones(self) -> list[Tombstone]:
        table = tables.tombstones
        rows = self.connection.execute(sa.select(table).where(table.c.log == self.id))
        return sorted(Tombstone(row.seq, row.field, row.day) for row in rows)

    def rebuild(self) -> None:
        """Computes the tree anew, and what is stored of it."""
        leaves, logs, tiles = self.leaves(), tables.logs, tables.tiles
        self.connection.execute(sa.delete(tiles).where(tiles.c.log == self.id))
        frontier = Frontier()
        for leaf in leaves:
            for level, index, tile in frontier.append(leaf):
                row = {"log": self.id, "level": level, "idx": index, "hash": tile}
                self.connection.execute(sa.insert(tiles).values(row))
        values = {"size": len(leaves), "frontier": frontier.save()}
        self.connection.execute(sa.update(logs).where(logs.c.id == self.id).values(values))

    def leaves(self) -> list[bytes]:
        found = {}
        for table, name in ((tables.records, "body"), (tables.pruned, "leaf")):
            column = table.c[name]
            query = sa.select(table.c.seq, column).where(table.c.log == self.id)
            for seq, raw in self.connection.execute(query):
                found[seq] = leaf_hash(bytes(raw)) if name == "body" else bytes(raw)
        return [found[seq] for seq in sorted(found)]

    def resign(self, signing: Signing | None) -> None:
        """Signs every checkpoint in the database anew; drops them without a key."""
        table, leaves = tables.checkpoints, self.leaves()
        rows = self.connection.execute(sa.select(table).where(table.c.log == self.id)).all()
        self.connection.execute(sa.delete(table).where(table.c.log == self.id))
        if signing is None:
            return
        for size, ts in {(min(row.size, len(leaves)), row.ts) for row in rows}:
            head = Checkpoint(self.origin, size, frontier_of(leaves[:size]).root())
            signed = str(note.sign(head.text, [signing(self.origin)]))
            values = {"log": self.id, "size": size, "ts": ts, "note": signed}
            self.connection.execute(sa.insert(table).values(values))

    def rewrite_all(self, signing: Signing | None) -> None:
        """Brings tree, checkpoints and the catalogue in line with the rows of this log."""
        self.rebuild()
        self.resign(signing)
        catalogue, leaves = self.of("catalogue"), self.leaves()
        for type_ in ("log.head", "log.closed", "log.abandoned"):
            for seq in catalogue.seqs(type_):
                body = catalogue.body(seq)
                if body["origin"] == self.origin:
                    size = min(int(str(body["size"])), len(leaves))
                    root = to_text(frontier_of(leaves[:size]).root())
                    catalogue.alter(seq, size=size, root=root)
        catalogue.rebuild()
        catalogue.resign(signing)

    def _row(self, table: sa.Table, seq: int) -> sa.Row[tuple[object, ...]]:
        these = (table.c.log == self.id) & (table.c.seq == seq)
        return self.connection.execute(sa.select(table).where(these)).one()


def _drop_triggers(connection: sa.Connection) -> None:
    if connection.dialect.name == "sqlite":
        query = "SELECT name FROM sqlite_master WHERE type = 'trigger'"
        for (name,) in connection.exec_driver_sql(query).all():
            connection.exec_driver_sql(f"DROP TRIGGER {name}")
        return
    for table in _tables():
        connection.exec_driver_sql(f"ALTER TABLE {table} DISABLE TRIGGER ALL")


def _tables() -> Sequence[str]:
    return [table.name for table in tables.metadata.sorted_tables]
