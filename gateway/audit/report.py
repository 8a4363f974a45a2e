"""What an auditor wants to see of a month, from the records of the logs about themselves."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import sqlalchemy as sa

from gateway.audit import holds, tables
from gateway.audit.canonical import Object, decode
from gateway.audit.holds import Hold
from gateway.audit.policy import OVERDUE_S, Cls, Policy
from gateway.audit.store import LogInfo, all_logs

_AT_ONCE = 100_000
#: What stands in the report one by one, under its heading, and which members of it.
LISTED: Mapping[str, tuple[str, tuple[str, ...]]] = {
    "audit.policy": ("Rules", ("policy",)),
    "admin.config": ("Rules", ("policy_id",)),
    "audit.gap": ("Completeness", ("count", "reason")),
    "audit.suppressed": ("Completeness", ("count", "reason")),
    "audit.unavailable": ("Completeness", ("count", "reason")),
    "audit.sweep": ("Storage limitation", ("swept", "field", "count")),
    "audit.export": ("Rights", ("request", "records")),
    "audit.erase": ("Rights", ("request", "records", "fields")),
    "audit.erase.done": ("Rights", ("request", "records", "fields")),
    "audit.erase.refused": ("Rights", ("request", "reason")),
    "audit.restored": ("Rights", ("applied",)),
    "audit.hold": ("Rights", ("hold", "scope", "reason")),
    "audit.release": ("Rights", ("hold",)),
    "audit.key.created": ("Keys", ("kind", "key")),
    "audit.key.rotated": ("Keys", ("kind", "key", "before")),
    "audit.key.destroyed": ("Keys", ("kind", "key")),
    "audit.clock": ("Time", ("offset_ms", "action")),
    "audit.read": ("Access", ("verb", "records")),
}


@dataclass(frozen=True, slots=True)
class Event:
    """One record that is listed. Nothing personal: commitments aren't read."""

    ts: int
    log: str
    type: str
    told: Mapping[str, object]


@dataclass(frozen=True, slots=True)
class Oldest:
    """The oldest record of a class that is still there, by the time beside it."""

    cls: Cls
    ts: int | None
    retention_s: int
    is_overdue: bool


@dataclass(frozen=True, slots=True)
class Month:
    """What the database says of one.

    Args:
        counts: Records of the month, by their type.
        unknown: Requests whose end nobody saw.
    """

    since_ms: int
    until_ms: int
    logs: Sequence[LogInfo]
    counts: Counter[str]
    unknown: int
    events: Sequence[Event]
    oldest: Sequence[Oldest]
    holds: Sequence[Hold]


def bounds(month: str) -> tuple[int, int]:
    """The milliseconds that `2026-10` begins at and ends before, in UTC.

    Raises:
        ValueError: it isn't a month.
    """
    begin = datetime.strptime(month, "%Y-%m").replace(tzinfo=UTC)
    year, number = divmod(begin.year * 12 + begin.month, 12)
    end = begin.replace(year=year, month=number + 1)
    return int(begin.timestamp() * 1000), int(end.timestamp() * 1000)


def read_month(connection: sa.Connection, month: str, policy: Policy, now_ms: int) -> Month:
    """
    Raises:
        ValueError: see `bounds`.
    """
    since_ms, until_ms = bounds(month)
    opened = [one for one in all_logs(connection) if one.opened_ms < until_ms]
    within = tables.records.c.ts.between(since_ms, until_ms - 1)
    parts = [part & within for one in opened for part in _parts(one)]
    return Month(
        since_ms,
        until_ms,
        [one for one in opened if one.seen_ms >= since_ms or one.kind == "catalogue"],
        sum((_counts(connection, part) for part in parts), Counter()),
        sum(_unknown(connection, part) for part in parts),
        sorted(_events(connection, within), key=lambda one: one.ts),
        [_oldest(connection, cls, policy, now_ms) for cls in Cls],
        holds.in_force(connection),
    )


def _parts(log: LogInfo) -> Iterator[sa.ColumnElement[bool]]:
    """A log in pieces that a database counts well within its time for a statement."""
    records = tables.records
    for start in range(0, log.size, _AT_ONCE):
        numbers = records.c.seq.between(start, start + _AT_ONCE - 1)
        yield (records.c.log == log.id) & numbers


def _counts(connection: sa.Connection, part: sa.ColumnElement[bool]) -> Counter[str]:
    records = tables.records
    query = sa.select(records.c.type, sa.func.count().label("count"))
    rows = connection.execute(query.where(part).group_by(records.c.type))
    return Counter({row.type: int(row[1]) for row in rows})


def _events(connection: sa.Connection, within: sa.ColumnElement[bool]) -> Iterator[Event]:
    records = tables.records
    classes = (Cls.AUDIT.value, Cls.ADMIN.value)
    these = records.c.cls.in_(classes) & records.c.type.in_(LISTED)
    query = sa.select(records.c.body).where(within, these).order_by(records.c.log, records.c.seq)
    for raw in connection.scalars(query):
        body = decode(bytes(raw))
        yield Event(int(str(body["ts"])), str(body["log"]), str(body["type"]), _told(body))


def _told(body: Object) -> Mapping[str, object]:
    _, names = LISTED[str(body["type"])]
    return {name: body[name] for name in names if name in body}


def _unknown(connection: sa.Connection, part_of: sa.ColumnElement[bool]) -> int:
    records, part = tables.records, b'"outcome":"unknown"'
    if connection.dialect.name == "sqlite":
        has = sa.func.instr(records.c.body, part) > 0
    else:
        has = sa.func.position(sa.literal(part).op("IN")(records.c.body)) > 0
    ends = records.c.type == "query.end"
    query = sa.select(sa.func.count()).select_from(records).where(part_of, ends, has)
    return int(connection.scalar(query) or 0)


def _oldest(connection: sa.Connection, cls: Cls, policy: Policy, now_ms: int) -> Oldest:
    records, logs = tables.records, tables.logs
    found = [
        connection.scalar(
            sa.select(records.c.ts)
            .where(records.c.log == log, records.c.cls == cls.value)
            .order_by(records.c.seq)
            .limit(1)
        )
        for log in connection.scalars(sa.select(logs.c.id))
    ]
    ts = min((one for one in found if one is not None), default=None)
    kept_s = policy.retention_of(cls)
    is_overdue = ts is not None and now_ms - ts > (kept_s + OVERDUE_S) * 1000
    return Oldest(cls, ts, kept_s, is_overdue)
