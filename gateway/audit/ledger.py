"""What is appended to a log in one transaction: records, their personal values, and the tree.

Plain functions of a connection, for `Database.run`. The tree in memory moves on only when the
transaction is through; what became of one whose end was never heard, the next one finds out.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import sqlalchemy as sa

from gateway.audit import tables
from gateway.audit.bundle import Receipt
from gateway.audit.checkpoint import Checkpoint
from gateway.audit.draft import Draft
from gateway.audit.merkle import Frontier
from gateway.audit.record import Record, seal
from gateway.database import Database, Parameters
from gateway.database.statement import Statement
from gateway.errors import AuditError

_logs, _unended = tables.logs, tables.unended
#: Nothing, if somebody else has written to the log.
_MOVED = (
    sa.update(_logs)
    .where(
        _logs.c.id == sa.bindparam("of"),
        _logs.c.state == sa.literal_column("'open'"),
        _logs.c.frontier == sa.bindparam("before"),
    )
    .values(
        size=sa.bindparam("now_size"),
        last_ts=sa.bindparam("now_ts"),
        seen_ms=sa.bindparam("now_ts"),
        frontier=sa.bindparam("now_frontier"),
    )
)
_ENDED = sa.delete(_unended).where(
    _unended.c.log == sa.bindparam("of"), _unended.c.seq == sa.bindparam("start")
)


@dataclass(slots=True, eq=False)
class Entry:
    """Something that waits to be recorded.

    Args:
        ts: When it happened, in milliseconds since 1970.
        start: Of an end: the record of its beginning, or that one's number.
        done: Is given the receipt, on the loop that it belongs to.
    """

    draft: Draft
    ts: int
    start: Entry | int | None = None
    done: asyncio.Future[Receipt] | None = None
    receipt: Receipt | None = None
    is_withdrawn: bool = False

    @property
    def rid(self) -> str:
        """The request's number."""
        return str(self.draft.fields.get("rid", ""))

    @property
    def has_no_use(self) -> bool:
        """Whether it needn't be recorded: it was withdrawn, or is the end of one that was."""
        return self.is_withdrawn or (isinstance(self.start, Entry) and self.start.is_withdrawn)


@dataclass(slots=True)
class Head:
    """A log that this process writes to, as far as it is known to be stored."""

    id: int
    origin: str
    last_ts: int
    frontier: Frontier

    @property
    def checkpoint(self) -> Checkpoint:
        return Checkpoint(self.origin, self.frontier.size, self.frontier.root())


@dataclass(frozen=True, slots=True)
class Sealed:
    """What a transaction appends: not true before it is through."""

    head: Head
    records: Sequence[Record]
    before: bytes  #: the tree that it was appended to


@dataclass(slots=True)
class _Rows:
    records: list[Parameters] = field(default_factory=list)
    personal: list[Parameters] = field(default_factory=list)
    tiles: list[Parameters] = field(default_factory=list)
    begun: dict[int, Parameters] = field(default_factory=dict)
    ended: list[int] = field(default_factory=list)


class Ledger:
    """The statements."""

    def __init__(self, database: Database) -> None:
        self._records = Statement(sa.insert(tables.records), database)
        self._personal = Statement(sa.insert(tables.personal), database)
        self._tiles = Statement(sa.insert(tables.tiles), database)
        self._begun = Statement(sa.insert(_unended), database)
        self._ended = Statement(_ENDED, database)
        self._moved = Statement(_MOVED, database)

    def append(
        self,
        connection: sa.Connection,
        head: Head,
        entries: Sequence[Entry],
        doubtful: Sealed | None = None,
    ) -> Sealed:
        """Appends the entries after `head`, in their order.

        `doubtful` is the same, as an earlier try made it whose end wasn't heard: if that is what
        is stored, nothing is done again.

        Raises:
            AuditError: `bad_head`: somebody else has written to this log.
        """
        if doubtful is not None:
            stored = stored_head(connection, head.id)
            if stored.frontier.save() == doubtful.head.frontier.save():
                return doubtful
        sealed, rows = _seal(head, entries)
        self._move(connection, sealed)
        self._records.execute_tuples(connection, rows.records)
        self._personal.execute_tuples(connection, rows.personal)
        self._tiles.execute_tuples(connection, rows.tiles)
        self._begun.execute_tuples(connection, list(rows.begun.values()))
        self._ended.execute(connection, [{"of": head.id, "start": one} for one in rows.ended])
        return sealed

    def _move(self, connection: sa.Connection, sealed: Sealed) -> None:
        head = sealed.head
        row = {
            "of": head.id,
            "before": sealed.before,
            "now_size": head.frontier.size,
            "now_ts": head.last_ts,
            "now_frontier": head.frontier.save(),
        }
        if self._moved.execute(connection, [row]) != 1:
            raise AuditError("bad_head", "the stored log isn't the one that was written last")


def stored_head(connection: sa.Connection, log_id: int, *, locks: bool = False) -> Head:
    """The log as it is stored; `locks` keeps others from appending until the transaction ends.

    Raises:
        AuditError: `bad_frontier`, `bad_head`: there is no such log.
    """
    query = sa.select(tables.logs).where(tables.logs.c.id == log_id)
    row = connection.execute(query.with_for_update() if locks else query).first()
    if row is None:
        raise AuditError("bad_head", "there is no such log")
    return Head(row.id, row.origin, row.last_ts, Frontier.restore(row.frontier))


def _seal(head: Head, entries: Iterable[Entry]) -> tuple[Sealed, _Rows]:
    frontier, last_ts, rows = head.frontier.copy(), head.last_ts, _Rows()
    made: list[Record] = []
    seq_of: dict[Entry, int] = {}
    for entry in entries:
        seq, last_ts = frontier.size, max(entry.ts, last_ts)
        seq_of[entry] = seq
        start = _start_of(entry, head.origin, seq_of)
        record = seal(entry.draft, head.origin, seq, last_ts, start=start)
        made.append(record)
        for tile in frontier.append(record.leaf):
            rows.tiles.append((head.id, *tile))
        _add(rows, head.id, record, entry, start)
    before = head.frontier.save()
    return Sealed(Head(head.id, head.origin, last_ts, frontier), made, before), rows


def _add(rows: _Rows, log: int, record: Record, entry: Entry, start: int | None) -> None:
    rows.records.append((log, record.seq, record.ts, record.cls.value, record.type, record.body))
    if record.personal:
        subject = record.subject
        for name, value, salt in record.personal:
            rows.personal.append((log, record.seq, name, subject, salt, value))
    if record.type == "query.start":
        rows.begun[record.seq] = (log, record.seq, entry.draft.fields["rid"], record.ts)
    elif start is not None and rows.begun.pop(start, None) is None:
        rows.ended.append(start)


def _start_of(entry: Entry, origin: str, seq_of: dict[Entry, int]) -> int | None:
    """The number of an end's beginning, if that is in this log."""
    if not isinstance(entry.start, Entry):
        return entry.start
    if (receipt := entry.start.receipt) is not None:
        return receipt.seq if receipt.log == origin else None
    return seq_of.get(entry.start)
