"""How what is due is taken: told, durable, then deleted in small transactions, then counted.

Of the log's own records, what still holds is told again before they go.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial

from gateway.audit import pruning, ranges
from gateway.audit.canonical import Json
from gateway.audit.due import Task
from gateway.audit.explanations import Day, Expiring, Gap, expiring
from gateway.audit.holds import Hold
from gateway.audit.instant import now_ms
from gateway.audit.log import AuditLog
from gateway.audit.pace import Pace
from gateway.audit.policy import Cls
from gateway.audit.ranges import Run
from gateway.audit.uuids import uuid7

#: What one record may name: of 16 digits twice, with the rest below 4 KiB.
MAX_RUNS = 50
#: Numbers that one record covers, and of the class that is read before it goes.
MOST = 10_000
MOST_READ = 1_000


def is_enough(task: Task, runs: Sequence[Run]) -> bool:
    """Whether this is as much as one record tells."""
    most = MOST_READ if task.cls is Cls.AUDIT else MOST
    return len(runs) > MAX_RUNS or ranges.count(runs) >= most


class Taking:
    """Takes from any log, and tells of it in this process's own."""

    def __init__(self, log: AuditLog, pace: Pace) -> None:
        self._log = log
        self._pace = pace

    async def take(self, task: Task, runs: Sequence[Run], holds: Sequence[Hold]) -> int:
        """Takes what these runs name; how many records or fields.

        Raises:
            AuditStoreError: the store is away; the next sweep goes on.
            TimeoutError: the record of it couldn't be written; nothing was taken.
        """
        days: Mapping[int, Day] = {}
        if task.cls is Cls.AUDIT:
            work = partial(expiring, task=task, runs=runs, holds=holds)
            ends = await self._log.store.run(work)
            await self._tell_again(task, ends)
            days, runs = ends.days, self._without_last_rules(task, runs, ends)
        if not runs:
            return 0
        sweep = await self._tell(task.log.origin, task, task.field, runs)
        gone = 0
        while runs:
            some, runs = ranges.cut(runs, self._pace.rows)
            gone += await self._delete(task, some, days)
        self._log.note("audit.sweep.done", {"sweep": sweep, "count": gone})
        return gone

    async def _delete(self, task: Task, runs: Sequence[Run], days: Mapping[int, Day]) -> int:
        closed = {seq: day for seq, day in days.items() if ranges.holds(runs, seq)}
        work = partial(pruning.delete, task=task, runs=runs, closed=closed)
        gone = await self._log.store.run(self._pace.timed(work), writes=True)
        await self._pace.rest()
        return gone

    async def _tell(self, origin: str, task: Task, field: str | None, runs: Sequence[Run]) -> str:
        """The number of the sweep."""
        sweep = uuid7(now_ms())
        named: list[Json] = [[start, end] for start, end in runs]
        fields: dict[str, Json] = {"sweep": sweep, "swept": task.cls.value, "ranges": named}
        fields |= {"cutoff_ms": task.cutoff_ms, "count": ranges.count(runs)}
        if field is not None:
            fields["field"] = field
        if origin != self._log.origin:
            fields["origin"] = origin
        await self._log.record("audit.sweep", fields)
        return sweep

    async def _tell_again(self, task: Task, ends: Expiring) -> None:
        for gap in ends.gaps:
            await self._explain(task, gap)
        for type_, fields in ends.again:
            await self._log.record(type_, fields)
        await self._log.signing.tell(ends.statements)
        if ends.policy is not None and task.log.origin == self._log.origin:
            await self._log.record("audit.policy", {"rules": self._log.drafter.policy.rules()})

    async def _explain(self, task: Task, gap: Gap) -> None:
        for some in ranges.chunks(gap.runs, MAX_RUNS):
            await self._tell(gap.origin, task, gap.field, some)

    def _without_last_rules(self, task: Task, runs: Sequence[Run], ends: Expiring) -> Sequence[Run]:
        """The rules of a log that another process writes to are that one's to tell again."""
        is_others = task.log.state == "open" and task.log.origin != self._log.origin
        if ends.policy is None or not is_others:
            return runs
        return ranges.without(runs, ends.policy)
