"""Storage limitation: what has been kept for as long as its class says goes, and the log says so.

The `audit.sweep` record is durable before anything is deleted. Only what a stored checkpoint of
that age covers is taken, so that an auditor who holds it can see that the time was over. The class
`audit`, which explains the gaps, isn't swept here. docs/audit-format.md, "Sweeps".
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import sqlalchemy as sa

from gateway.audit import tables
from gateway.audit.canonical import Json
from gateway.audit.ledger import Entry
from gateway.audit.log import AuditLog, now_ms
from gateway.audit.merkle import leaf_hash
from gateway.audit.policy import DAY_S, Cls
from gateway.audit.store import AuditStoreError, LogInfo
from gateway.audit.uuid7 import uuid7
from gateway.errors import AuditError

logger = logging.getLogger("sluice.audit")

#: Deleted in one transaction, and named by one record.
_BATCH = 500
_MAX_RANGES = 50
_PAUSE_S = 0.05
_EVERY_S = 3600.0
#: Further than this the wall clock may not run ahead of the monotonic one: somebody has set it.
_MAX_JUMP_S = DAY_S
_SWEPT = (Cls.QUERY, Cls.AUTH, Cls.SECURITY, Cls.ADMIN)
_ADDRESS = "ip"


@dataclass(frozen=True, slots=True)
class _Task:
    """What of one log is due: whole records of a class, or one personal field of theirs."""

    log: LogInfo
    cls: Cls
    cutoff_ms: int
    field: str | None = None


class Sweeper:
    """Sweeps the logs that nobody else writes to, and this process's own."""

    def __init__(self, log: AuditLog) -> None:
        self._log = log
        self._started = (time.time(), time.monotonic())

    async def run(self) -> None:
        """Sweeps once an hour, jittered, until cancelled. What goes wrong is tried again."""
        while True:
            await asyncio.sleep(_EVERY_S * random.uniform(0.9, 1.1))  # noqa: S311
            try:
                await self.sweep()
            except (AuditStoreError, AuditError, TimeoutError) as error:
                logger.warning("audit.unswept", extra={"problem": type(error).__name__})

    async def sweep(self) -> int:
        """Takes everything that is due; how many records and fields.

        Raises:
            AuditStoreError: the store is away.
            AuditError: `clock_jumped`: the time can't be believed, so nothing is taken.
            TimeoutError: the record of the sweep couldn't be written.
        """
        self._check_clock()
        swept = 0
        for task in await self._tasks():
            while batch := await self._log.store.run(partial(_due, task=task)):
                swept += await self._take(task, batch)
                await asyncio.sleep(_PAUSE_S)
        if swept:
            await self._log.store.tidy()
            logger.info("audit.swept", extra={"count": swept})
        return swept

    def _check_clock(self) -> None:
        wall, monotonic = self._started
        if (time.time() - wall) - (time.monotonic() - monotonic) > _MAX_JUMP_S:
            raise AuditError("clock_jumped", "the clock has been set forward by more than a day")

    async def _tasks(self) -> list[_Task]:
        policy, now = self._log.drafter.policy, now_ms()
        if await self._log.store.run(_is_held):
            return []
        tasks = []
        for log in await self._log.store.logs():
            is_free = log.state != "open" or log.origin == self._log.origin
            if log.kind == "catalogue" or not is_free:
                continue
            cutoff_ms = now - policy.retention_of(Cls.SECURITY, _ADDRESS) * 1000
            tasks.append(_Task(log, Cls.SECURITY, cutoff_ms, _ADDRESS))
            tasks += [_Task(log, cls, now - policy.retention_of(cls) * 1000) for cls in _SWEPT]
        return tasks

    async def _take(self, task: _Task, batch: Sequence[int]) -> int:
        sweep, ranges = uuid7(now_ms()), _ranges(batch)
        told: dict[str, Json] = {
            "sweep": sweep,
            "swept": task.cls.value,
            "cutoff_ms": task.cutoff_ms,
            "ranges": ranges,  # type: ignore[dict-item]
            "count": len(batch),
        }
        if task.field is not None:
            told["field"] = task.field
        if task.log.origin != self._log.origin:
            told["origin"] = task.log.origin
        await self._note_durably("audit.sweep", told)
        await self._log.store.run(partial(_delete, task=task, batch=batch), writes=True)
        self._log.note("audit.sweep.done", {"sweep": sweep, "count": len(batch)})
        return len(batch)

    async def _note_durably(self, type_: str, fields: dict[str, Json]) -> None:
        done = asyncio.get_running_loop().create_future()
        entry = Entry(self._log.drafter.draft(type_, fields), now_ms(), done=done)
        self._log.submit(entry)
        async with asyncio.timeout(self._log.manner.patience_s):
            await done


def _is_held(connection: sa.Connection) -> bool:
    """Whether a hold is in force. As long as holds can't be told apart here, each stops all."""
    table = tables.holds
    query = sa.select(table.c.id).where(table.c.released_ms.is_(None)).limit(1)
    return connection.scalar(query) is not None


def _due(connection: sa.Connection, task: _Task) -> list[int]:
    """Up to one batch of the numbers that are due, in as many ranges as one record may name."""
    records, marks = tables.records, tables.checkpoints
    covered = connection.scalar(
        sa.select(sa.func.max(marks.c.size)).where(
            marks.c.log == task.log.id, marks.c.ts <= task.cutoff_ms
        )
    )
    unended = sa.select(tables.unended.c.seq).where(tables.unended.c.log == task.log.id)
    query = sa.select(records.c.seq).where(
        records.c.log == task.log.id,
        records.c.cls == task.cls.value,
        records.c.ts <= task.cutoff_ms,
        records.c.seq < (covered or 0),
        records.c.seq.not_in(unended),
    )
    if task.field is not None:
        personal = tables.personal
        query = query.join(
            personal,
            (personal.c.log == records.c.log)
            & (personal.c.seq == records.c.seq)
            & (personal.c.field == task.field),
        )
    found = list(connection.scalars(query.order_by(records.c.seq).limit(_BATCH)))
    if len(ranges := _ranges(found)) > _MAX_RANGES:
        found = [seq for seq in found if seq < ranges[_MAX_RANGES - 1][1]]
    return found


def _delete(connection: sa.Connection, task: _Task, batch: Sequence[int]) -> None:
    records, personal, pruned = tables.records, tables.personal, tables.pruned
    values = (personal.c.log == task.log.id) & personal.c.seq.in_(batch)
    if task.field is not None:
        connection.execute(sa.delete(personal).where(values & (personal.c.field == task.field)))
        return
    these = (records.c.log == task.log.id) & records.c.seq.in_(batch)
    rows = connection.execute(sa.select(records.c.seq, records.c.body).where(these)).all()
    leaves = [{"log": task.log.id, "seq": row.seq, "leaf": leaf_hash(row.body)} for row in rows]
    if leaves:
        connection.execute(sa.insert(pruned), leaves)
    connection.execute(sa.delete(personal).where(values))
    connection.execute(sa.delete(records).where(these))


def _ranges(numbers: Sequence[int]) -> list[list[int]]:
    """From and to before, of numbers in order."""
    found: list[list[int]] = []
    for number in numbers:
        if found and found[-1][1] == number:
            found[-1][1] += 1
        else:
            found.append([number, number + 1])
    return found
