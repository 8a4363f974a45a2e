"""Logs as they stand in the database. Functions of one connection, whose transaction sees one state
of all of them, however much is written and swept meanwhile."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import sqlalchemy as sa

from gateway.audit import holds, tables
from gateway.audit.canonical import Object, decode
from gateway.audit.export import Tombstone
from gateway.audit.holds import Hold
from gateway.audit.policy import Cls
from gateway.audit.store import AuditStore, LogInfo, all_logs, at_one_moment, read_tiles
from gateway.audit.verify.audit import Evidence, Progress, verify
from gateway.audit.verify.findings import Findings
from gateway.audit.verify.source import Entry
from gateway.errors import AuditError

_AT_ONCE = 2048
#: What of the class `audit` says nothing about anything else.
_EXPLAINING = (
    *("audit.sweep", "audit.erase", "audit.erase.done", "audit.tombstones", "audit.policy"),
    *("audit.hold", "audit.release", "audit.key.rotated", "audit.key.created"),
    *("log.opened", "log.head", "log.closed", "log.abandoned", "log.dropped"),
)


async def verify_stored(
    store: AuditStore, evidence: Evidence, progress: Progress | None = None
) -> list[Findings]:
    """Every log of the database, in one transaction that only reads.

    Raises:
        AuditStoreError: the store is away, or there is no log in it.
    """
    now_ms = time.time_ns() // 1_000_000
    return await store.run(lambda connection: verify(logs(connection, now_ms), evidence, progress))


def logs(connection: sa.Connection, now_ms: int) -> list[StoredLog]:
    """Every log that isn't dropped, the catalogue among them."""
    at_one_moment(connection)
    in_force = holds.in_force(connection)
    found = [one for one in all_logs(connection) if one.state != "dropped"]
    return [StoredLog(connection, one, now_ms, in_force) for one in found]


class StoredLog:
    """See `gateway.audit.verify.source.Source`."""

    def __init__(
        self, connection: sa.Connection, info: LogInfo, now_ms: int, in_force: Sequence[Hold]
    ) -> None:
        self._connection = connection
        self._id = info.id
        self._holds = in_force
        self.origin = info.origin
        self.size = info.size
        self.made_ms = now_ms

    def explanations(self, findings: Findings) -> Iterator[tuple[int, Object]]:
        records = tables.records
        columns = (records.c.seq, records.c.body)
        these = (records.c.log == self._id) & (records.c.cls == Cls.AUDIT.value)
        query = sa.select(*columns).where(these, records.c.type.in_(_EXPLAINING))
        for row in self._pages(query, records.c.seq):
            try:
                yield row.seq, decode(bytes(row.body))
            except AuditError:
                continue  # told when its turn comes

    def notes(self) -> Iterator[str]:
        table = tables.checkpoints
        columns = (table.c.size, table.c.ts, table.c.note)
        query = sa.select(*columns).where(table.c.log == self._id)
        return (row.note for row in self._pages(query, table.c.size, table.c.ts))

    def tombstones(self) -> Iterator[Tombstone]:
        table = tables.tombstones
        columns = (table.c.seq, table.c.field, table.c.day)
        query = sa.select(*columns).where(table.c.log == self._id)
        return (
            Tombstone(row.seq, row.field, row.day)
            for row in self._pages(query, table.c.seq, table.c.field)
        )

    def tiles(self) -> Mapping[int, bytes]:
        return {index: bytes(tile) for index, tile in read_tiles(self._connection, self._id)}

    def entries(self, findings: Findings) -> Iterator[Entry]:
        start = 0
        while (start := self._next(start)) is not None:  # type: ignore[assignment]
            yield from self._between(start, start + _AT_ONCE)
            start += _AT_ONCE

    def _next(self, start: int) -> int | None:
        """The first number from `start` on that there is something of."""
        found = [
            self._connection.scalar(
                sa.select(sa.func.min(table.c.seq)).where(
                    table.c.log == self._id, table.c.seq >= start
                )
            )
            for table in (tables.records, tables.pruned)
        ]
        return min((one for one in found if one is not None), default=None)

    def _between(self, start: int, end: int) -> Iterator[Entry]:
        connection, records, pruned = self._connection, tables.records, tables.pruned
        held = holds.held_by(connection, self._id, start, end, self._holds)
        personal = self._personal(start, end)
        none: Mapping[str, tuple[bytes, bytes]] = {}
        rows = connection.execute(self._select(records, start, end)).all()
        gone = connection.execute(self._select(pruned, start, end)).all()
        found = [
            Entry(
                *(seq, bytes(body), b"", personal.get(seq, none)),
                held.get(seq),
                (ts, cls, type_),
            )
            for _, seq, ts, cls, type_, body in rows
        ]
        if gone:
            found += [Entry(seq, None, bytes(leaf), none) for _, seq, leaf in gone]
            found.sort(key=lambda one: one.seq)
        yield from found

    def _personal(self, start: int, end: int) -> dict[int, dict[str, tuple[bytes, bytes]]]:
        found: dict[int, dict[str, tuple[bytes, bytes]]] = {}
        table = tables.personal
        columns = (table.c.seq, table.c.field, table.c.salt, table.c.value)
        these = (table.c.log == self._id) & table.c.seq.between(start, end - 1)
        # All at once: a row that is fetched by itself costs as much as the hash of its value.
        rows = self._connection.execute(sa.select(*columns).where(these)).all()
        for seq, field, salt, value in rows:
            if seq in found:
                found[seq][field] = (bytes(salt), bytes(value))
            else:
                found[seq] = {field: (bytes(salt), bytes(value))}
        return found

    def _select(self, table: sa.Table, start: int, end: int) -> sa.Select[Any]:
        where = (table.c.log == self._id) & table.c.seq.between(start, end - 1)
        return sa.select(*table.c).where(where).order_by(table.c.seq)

    def _pages(self, query: sa.Select[Any], *order: sa.ColumnElement[Any]) -> Iterator[sa.Row[Any]]:
        """Rows in this order, a page at a time. The query begins with the columns of the order."""
        at: tuple[object, ...] | None = None
        paged = query.order_by(*order).limit(_AT_ONCE)
        while True:
            beyond = sa.true() if at is None else sa.tuple_(*order) > sa.tuple_(*at)
            rows = self._connection.execute(paged.where(beyond)).all()
            yield from rows
            if len(rows) < _AT_ONCE:
                return
            at = tuple(rows[-1][: len(order)])
