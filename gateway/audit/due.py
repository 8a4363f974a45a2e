"""What of a log has been kept for long enough, read a page at a time.

Functions of a connection that only read. Due is what is older than the cutoff, is covered by a
stored checkpoint of that age, belongs to no request that still runs and is under no hold.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import sqlalchemy as sa

from gateway.audit import tables
from gateway.audit.holds import Hold, is_held
from gateway.audit.policy import Cls, Policy
from gateway.audit.store import LogInfo

#: Rows that one query looks at, held ones among them.
PAGE = 500
ADDRESS = "ip"


@dataclass(frozen=True, slots=True)
class Task:
    """What of one log may be due: whole records of a class, or one personal field of theirs."""

    log: LogInfo
    cls: Cls
    cutoff_ms: int
    field: str | None = None

    @property
    def name(self) -> str:
        """For whoever counts: the class, or the field."""
        return self.field or self.cls.value


@dataclass(frozen=True, slots=True)
class Page:
    """What one look has found.

    Args:
        free: Numbers that are due, ascending.
        held: How many a hold keeps.
        running: The first that belongs to a request that still runs.
        reached: Everything before this has been looked at; None after the last page.
    """

    free: Sequence[int]
    held: int
    running: int | None
    reached: int | None


def tasks_of(log: LogInfo, policy: Policy, now_ms: int) -> list[Task]:
    """Addresses first, then records by class; those that explain gaps come last. A log that was
    opened after a cutoff has nothing so old."""
    address = now_ms - policy.retention_of(Cls.SECURITY, ADDRESS) * 1000
    tasks = [Task(log, cls, now_ms - policy.retention_of(cls) * 1000) for cls in Cls]
    if log.kind == "gateway":
        tasks.insert(0, Task(log, Cls.SECURITY, address, ADDRESS))
    else:  # the catalogue, and what commands have told
        tasks = [task for task in tasks if task.cls is Cls.AUDIT]
    return [task for task in tasks if log.opened_ms <= task.cutoff_ms]


def look(
    connection: sa.Connection, task: Task, start: int, holds: Sequence[Hold], size: int = PAGE
) -> Page:
    """The next page, from the number `start` on."""
    records, running = tables.records, tables.unended
    is_running = sa.exists().where(running.c.log == records.c.log, running.c.seq == records.c.seq)
    query = sa.select(
        records.c.seq, is_held(holds).label("is_held"), is_running.label("is_running")
    ).where(_in_range(connection, task, start))
    if task.field is not None:
        query = query.where(_has(task.field))
    rows = connection.execute(query.order_by(records.c.seq).limit(size)).all()
    return Page(
        [row.seq for row in rows if not row.is_held and not row.is_running],
        sum(1 for row in rows if row.is_held),
        next((row.seq for row in rows if row.is_running), None),
        rows[-1].seq + 1 if len(rows) == size else None,
    )


def oldest(
    connection: sa.Connection, log_id: int, starts: Mapping[str, int], holds: Sequence[Hold]
) -> dict[str, int]:
    """The time of the oldest record of each class, and of the oldest address, that isn't held.

    `starts`: the number by class or field, before which nothing else is known to be.
    """
    found = {}
    for name in (*Cls, ADDRESS):
        records = tables.records
        cls = Cls.SECURITY if name == ADDRESS else name
        query = sa.select(records.c.ts).where(
            records.c.log == log_id,
            records.c.cls == cls,
            records.c.seq >= starts.get(name, 0),
            sa.not_(is_held(holds)),
        )
        if name == ADDRESS:
            query = query.where(_has(ADDRESS))
        ts = connection.scalar(query.order_by(records.c.seq).limit(1))
        if ts is not None:
            found[str(name)] = ts
    return found


def _in_range(connection: sa.Connection, task: Task, start: int) -> sa.ColumnElement[bool]:
    """Old enough by its own time and by that of a checkpoint, so that an auditor who holds that
    one can see that the time was over."""
    records, marks = tables.records, tables.checkpoints
    covers = (marks.c.log == task.log.id) & (marks.c.ts <= task.cutoff_ms)
    covered = connection.scalar(sa.select(sa.func.max(marks.c.size)).where(covers))
    return sa.and_(
        records.c.log == task.log.id,
        records.c.cls == task.cls.value,
        records.c.seq >= start,
        records.c.seq < (covered or 0),
        records.c.ts <= task.cutoff_ms,
    )


def _has(name: str) -> sa.ColumnElement[bool]:
    records, personal = tables.records, tables.personal
    return sa.exists(personal.c.seq).where(
        personal.c.log == records.c.log,
        personal.c.seq == records.c.seq,
        personal.c.field == name,
    )
