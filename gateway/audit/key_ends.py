"""When the keys of pseudonyms and questions have served: then they are destroyed, and the log says
so.

A key goes seven days after the last record that may hold a hash of it has expired, and never while
such a record, or a hold on a person, is there. docs/audit.md, "Keys".
"""

from __future__ import annotations

import asyncio
import logging
from functools import partial

import sqlalchemy as sa

from gateway.audit import tables
from gateway.audit.event import TYPES
from gateway.audit.holds import in_force
from gateway.audit.keys import GRACE_MS, KeyInfo, destroyable_from
from gateway.audit.log import AuditLog
from gateway.audit.policy import DAY_S, Policy

logger = logging.getLogger("sluice.audit")

#: The fields that are hashes of each kind of key.
FIELDS = {"query": frozenset({"query", "session"}), "subject": frozenset({"subject", "target"})}
#: A process notices a new month or year this late at most.
_LAG_MS = DAY_S * 1000


class KeyEnds:
    """Destroys the keys of a log's folder as they end."""

    def __init__(self, log: AuditLog) -> None:
        self._log = log

    async def destroy(self, now_ms: int) -> int:
        """Destroys what has ended; how many.

        Raises:
            AuditError, OSError: a key can't be read or removed.
            AuditStoreError: the store is away.
            TimeoutError: the record of it couldn't be written; the key is still there.
        """
        gone = 0
        for key in await asyncio.to_thread(self._log.people.keys.infos):
            if not has_ended(key, self._log.drafter.policy, now_ms):
                continue
            if await self._log.store.run(partial(is_needed, key=key)):
                continue
            await self._log.record("audit.key.destroyed", {"kind": key.kind, "key": key.id})
            await asyncio.to_thread(self._log.people.keys.destroy, key.kind, key.id)
            logger.info("audit.key_destroyed", extra={"kind": key.kind, "key": key.id})
            gone += 1
        return gone


def has_ended(key: KeyInfo, policy: Policy, now_ms: int) -> bool:
    """Whether every record that may need it has had its time, and seven days more."""
    if key.kind not in FIELDS:
        return False
    classes = {one.cls for one in TYPES.values() if one.personal & FIELDS[key.kind]}
    kept_s = max(policy.retention_s[cls] for cls in classes)
    return now_ms >= destroyable_from(key.id, kept_s)


def is_needed(connection: sa.Connection, key: KeyInfo) -> bool:
    """Whether a record that may hold a hash of it, or a hold on a person, is still there."""
    if key.kind == "subject" and any(
        hold.scope == "subject" and hold.made_ms >= key.created_ms for hold in in_force(connection)
    ):
        return True
    records, personal, marks = tables.records, tables.personal, tables.checkpoints
    last_ms = destroyable_from(key.id, 0) - GRACE_MS + _LAG_MS
    later = sa.select(sa.func.min(marks.c.size)).where(
        marks.c.log == records.c.log, marks.c.ts > last_ms
    )
    query = (
        sa.select(personal.c.seq)
        .join(records, (records.c.log == personal.c.log) & (records.c.seq == personal.c.seq))
        .where(
            personal.c.field.in_(FIELDS[key.kind]),
            records.c.ts <= last_ms,
            records.c.ts >= key.created_ms - _LAG_MS,
            records.c.seq < sa.func.coalesce(later.scalar_subquery(), 2**62),
        )
    )
    return connection.scalar(query.limit(1)) is not None
