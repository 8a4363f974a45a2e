"""Erasures that a crash has cut short are told as far as they came.

The tombstones of a day must be as many as the records say were done; what a process that died has
left to say, the next one that looks says.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import sqlalchemy as sa

from gateway.audit import tables
from gateway.audit.canonical import Json, Object, decode
from gateway.audit.log import AuditLog

_INTENT = "audit.erase"
_DONE = "audit.erase.done"


@dataclass(frozen=True, slots=True)
class Unsettled:
    """An intent without a record of what was done.

    Args:
        log: Whose records it was about.
        records, fields: What of that day was erased and nobody told.
    """

    request: str
    log: str
    day: int
    records: int
    fields: int


async def settle(log: AuditLog) -> int:
    """Tells what nobody told; how many erasures. Only while no erasure is under way.

    Raises:
        AuditStoreError: the store is away.
        TimeoutError: a record couldn't be written.
    """
    left = await log.store.run(unsettled)
    for one in left:
        told: dict[str, Json] = {"request": one.request, "day": one.day}
        told |= {"records": one.records, "fields": one.fields}
        if one.log != log.origin:
            told["origin"] = one.log
        await log.record(_DONE, told)
    return len(left)


def unsettled(connection: sa.Connection) -> list[Unsettled]:
    """Every one that there is; those of one day and log share what was erased: the first has it."""
    told = list(_told(connection))
    done = {_key(one) for one in told if one["type"] == _DONE}
    fields, records = Counter[tuple[str, int]](), Counter[tuple[str, int]]()
    for one in told:
        if one["type"] == _DONE:
            fields[_place(one)] += int(str(one["fields"]))
            records[_place(one)] += int(str(one["records"]))
    found = []
    for one in told:
        if one["type"] != _INTENT or _key(one) in done:
            continue
        (origin, day), at = _place(one), _place(one)
        erased = _erased(connection, origin, day)
        left = (max(0, erased[0] - records[at]), max(0, erased[1] - fields[at]))
        records[at], fields[at] = records[at] + left[0], fields[at] + left[1]
        found.append(Unsettled(str(one["request"]), origin, day, *left))
    return found


def _told(connection: sa.Connection) -> list[Object]:
    records, logs = tables.records, tables.logs
    query = (
        sa.select(records.c.body)
        .join(logs, logs.c.id == records.c.log)
        .where(logs.c.kind != "catalogue", records.c.cls == "audit")
        .where(records.c.type.in_((_INTENT, _DONE)))
        .order_by(records.c.log, records.c.seq)
    )
    return [decode(body) for body in connection.scalars(query)]


def _key(body: Object) -> tuple[object, ...]:
    return (body["request"], *_place(body))


def _place(body: Object) -> tuple[str, int]:
    return str(body.get("origin", body["log"])), int(str(body["day"]))


def _erased(connection: sa.Connection, origin: str, day: int) -> tuple[int, int]:
    """Records and values with a tombstone of that day."""
    stones, logs = tables.tombstones, tables.logs
    query = (
        sa.select(sa.func.count(sa.distinct(stones.c.seq)), sa.func.count())
        .select_from(stones.join(logs, logs.c.id == stones.c.log))
        .where(logs.c.origin == origin, stones.c.day == day)
    )
    records, fields = connection.execute(query).one()
    return records, fields
