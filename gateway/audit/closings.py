"""Days of erasures that are over: a record commits to all tombstones of each.

Their number can't be changed any more without being seen. docs/audit-format.md, "Erasures".
"""

from __future__ import annotations

from functools import partial

import sqlalchemy as sa

from gateway.audit import tables
from gateway.audit.canonical import Json, decode
from gateway.audit.export import Tombstone, tombstone_digest
from gateway.audit.log import AuditLog
from gateway.audit.policy import DAY_S, Cls

#: An erasure that began before midnight may end after it.
_GRACE_MS = 3_600_000
_CLOSING = "audit.tombstones"


class Closings:
    """Closes days, once each as far as the records say."""

    def __init__(self, log: AuditLog) -> None:
        self._log = log
        self._known: set[tuple[str, int]] = set()

    async def close(self, now_ms: int) -> int:
        """Closes every day that is over; how many.

        Raises:
            AuditStoreError: the store is away.
            TimeoutError: a record couldn't be written.
        """
        last = (now_ms - _GRACE_MS) // (DAY_S * 1000)
        days = await self._log.store.run(partial(_days, before=last))
        if days - self._known:
            self._known |= await self._log.store.run(_closed)
        for origin, day in sorted(days - self._known):
            count, digest = await self._log.store.run(partial(_sum, origin=origin, day=day))
            fields: dict[str, Json] = {"day": day, "count": count, "list": digest}
            if origin != self._log.origin:
                fields["origin"] = origin
            await self._log.record(_CLOSING, fields)
        closed, self._known = len(days - self._known), self._known | days
        return closed


def _days(connection: sa.Connection, before: int) -> set[tuple[str, int]]:
    """Log and day of all tombstones from before a day."""
    stones, logs = tables.tombstones, tables.logs
    query = sa.select(logs.c.origin, stones.c.day).join(logs, logs.c.id == stones.c.log)
    found = connection.execute(query.where(stones.c.day < before).distinct())
    return {(row.origin, row.day) for row in found}


def _closed(connection: sa.Connection) -> set[tuple[str, int]]:
    """What has been closed. Reads the class `audit`, so only when there may be something new."""
    records = tables.records
    query = sa.select(records.c.body).where(
        records.c.cls == Cls.AUDIT.value, records.c.type == _CLOSING
    )
    bodies = [decode(body) for body in connection.scalars(query)]
    return {(str(one.get("origin", one["log"])), int(str(one["day"]))) for one in bodies}


def _sum(connection: sa.Connection, origin: str, day: int) -> tuple[int, str]:
    """How many tombstones a day has, and what commits to them."""
    stones, logs = tables.tombstones, tables.logs
    query = sa.select(stones.c.seq, stones.c.field, stones.c.day)
    query = query.join(logs, logs.c.id == stones.c.log).where(logs.c.origin == origin)
    found = [Tombstone(*row) for row in connection.execute(query.where(stones.c.day == day))]
    return len(found), tombstone_digest(found)
