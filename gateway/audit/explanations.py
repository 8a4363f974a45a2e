"""What the log's records about itself still have to say when their own time is over.

They explain gaps, name holds and rules, close the days of erasures and the logs of the catalogue.
What of that still holds is told again before they go. docs/audit-format.md, "Sweeps".
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import sqlalchemy as sa

from gateway.audit import tables
from gateway.audit.canonical import Object, decode
from gateway.audit.due import Task
from gateway.audit.event import TYPES
from gateway.audit.export import WHOLE_RECORD
from gateway.audit.holds import Hold
from gateway.audit.ranges import Run, between, runs_of

_POLICY = "audit.policy"
#: A log's origin, and a field or None for whole records.
_Key = tuple[str, str | None]
#: The type and the fields of a record, without what is personal in it.
Statement = tuple[str, Object]


@dataclass(frozen=True, slots=True)
class Gap:
    """What is missing of a log, whole records or one field, and has to be explained anew."""

    origin: str
    field: str | None
    runs: Sequence[Run]


@dataclass(frozen=True, slots=True)
class Day:
    """A day whose erasures in one log were closed by a record."""

    log_id: int
    day: int


@dataclass(slots=True)
class Expiring:
    """What goes with some records of the class `audit`.

    Args:
        days: By the number of the record that closes each.
        again: Holds in force, to be told again without who had placed them.
        policy: The number of the newest rules of this log, if they are among the records.
        statements: Of the catalogue.
    """

    gaps: list[Gap] = field(default_factory=list)
    days: dict[int, Day] = field(default_factory=dict)
    again: list[Statement] = field(default_factory=list)
    policy: int | None = None
    statements: list[Statement] = field(default_factory=list)


def expiring(
    connection: sa.Connection, task: Task, runs: Sequence[Run], holds: Sequence[Hold]
) -> Expiring:
    """Of the records that these runs name."""
    ids, found = _ids(connection), Expiring()
    hulls: dict[_Key, Run] = {}
    for body in _bodies(connection, task, runs):
        origin = str(body.get("origin", task.log.origin))
        match body["type"]:
            case "audit.sweep":
                _widen(hulls, (origin, _name(body)), _hull(body))
            case "audit.tombstones" if origin in ids:
                found.days[_number(body, "seq")] = Day(ids[origin], _number(body, "day"))
            case "audit.hold" if any(body["hold"] == hold.id for hold in holds):
                found.again.append(("audit.hold", _facts(body)))
            case "audit.policy" if _number(body, "seq") == _newest_policy(connection, task):
                found.policy = _number(body, "seq")
            case "log.closed" | "log.abandoned" as type_ if origin in ids:
                found.statements.append((type_, _facts(body)))
            case "log.dropped" if holds:
                found.statements.append(("log.dropped", _facts(body)))
    _widen_by_tombstones(connection, ids, found.days.values(), hulls)
    found.gaps = list(_gaps(connection, ids, hulls))
    return found


def _gaps(
    connection: sa.Connection, ids: Mapping[str, int], hulls: Mapping[_Key, Run]
) -> Iterator[Gap]:
    for (origin, name), hull in sorted(hulls.items(), key=str):
        if origin in ids and (missing := _missing(connection, ids[origin], name, hull)):
            yield Gap(origin, name, missing)


def _widen_by_tombstones(
    connection: sa.Connection,
    ids: Mapping[str, int],
    days: Iterable[Day],
    hulls: dict[_Key, Run],
) -> None:
    """The tombstones of a day go with the record that closes it."""
    names = {log_id: origin for origin, log_id in ids.items()}
    for day in days:
        for name, hull in _erased(connection, day):
            _widen(hulls, (names[day.log_id], name), hull)


def _missing(connection: sa.Connection, log_id: int, name: str | None, hull: Run) -> list[Run]:
    """Everything in the hull that isn't there: it is all as old as what was said about it."""
    records, personal = tables.records, tables.personal
    query = sa.select(records.c.seq).where(
        records.c.log == log_id, records.c.seq.between(hull[0], hull[1] - 1)
    )
    query = query.order_by(records.c.seq)
    if name is None:
        return between(*hull, connection.scalars(query))
    has = sa.exists(personal.c.seq).where(
        personal.c.log == log_id, personal.c.seq == records.c.seq, personal.c.field == name
    )
    types = [one.name for one in TYPES.values() if name in one.personal]
    return runs_of(connection.scalars(query.where(sa.not_(has), records.c.type.in_(types))))


def _erased(connection: sa.Connection, day: Day) -> Iterator[tuple[str | None, Run]]:
    """What the tombstones of a day are about."""
    table = tables.tombstones
    first, last = sa.func.min(table.c.seq), sa.func.max(table.c.seq)
    query = sa.select(table.c.field, first, last).where(
        table.c.log == day.log_id, table.c.day == day.day
    )
    for name, start, end in connection.execute(query.group_by(table.c.field)):
        yield None if name == WHOLE_RECORD else name, (start, end + 1)


def _facts(body: Object) -> Object:
    event = TYPES[str(body["type"])]
    return {name: body[name] for name in (*event.needed, *event.others) if name in body}


def _newest_policy(connection: sa.Connection, task: Task) -> int | None:
    records = tables.records
    query = sa.select(records.c.seq).where(
        records.c.log == task.log.id, records.c.cls == task.cls.value, records.c.type == _POLICY
    )
    return connection.scalar(query.order_by(records.c.seq.desc()).limit(1))


def _bodies(connection: sa.Connection, task: Task, runs: Sequence[Run]) -> Iterator[Object]:
    records = tables.records
    for start, end in runs:
        these = (records.c.log == task.log.id) & records.c.seq.between(start, end - 1)
        query = sa.select(records.c.body).where(these, records.c.cls == task.cls.value)
        yield from map(decode, connection.scalars(query.order_by(records.c.seq)).all())


def _ids(connection: sa.Connection) -> dict[str, int]:
    logs = tables.logs
    query = sa.select(logs.c.origin, logs.c.id).where(logs.c.state != "dropped")
    return {row.origin: row.id for row in connection.execute(query)}


def _name(body: Object) -> str | None:
    return str(body["field"]) if "field" in body else None


def _number(body: Object, name: str) -> int:
    return int(str(body[name]))


def _hull(body: Object) -> Run:
    ranges = body["ranges"]
    pairs = [one for one in ranges if isinstance(one, list)] if isinstance(ranges, list) else []
    return int(str(pairs[0][0])), int(str(pairs[-1][1]))


def _widen(hulls: dict[_Key, Run], key: _Key, hull: Run) -> None:
    start, end = hulls.get(key, hull)
    hulls[key] = min(start, hull[0]), max(end, hull[1])
