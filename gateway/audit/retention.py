"""Storage limitation: what has been kept for as long as its class says goes, and the log says so.

The `audit.sweep` record is durable before anything is deleted; a crash in between leaves the rest
to the next sweep. What is due, `gateway.audit.due` says; how it goes, `gateway.audit.taking`.
docs/audit-format.md, "Sweeps".
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Protocol

from gateway.audit import pruning, ranges
from gateway.audit.clock import ClockGuard
from gateway.audit.closings import Closings
from gateway.audit.due import ADDRESS, PAGE, Task
from gateway.audit.instant import now_ms
from gateway.audit.key_ends import KeyEnds
from gateway.audit.log import AuditLog
from gateway.audit.pace import Pace
from gateway.audit.policy import OVERDUE_S, Cls, Policy
from gateway.audit.ranges import Run
from gateway.audit.store import AuditStoreError
from gateway.audit.taking import MAX_RUNS, Taking, is_enough
from gateway.audit.walk import Walk
from gateway.errors import AuditError

logger = logging.getLogger("sluice.audit")

#: How soon after its start a gateway sweeps.
_SOON_S = 60.0
#: Pages that are given back at a time, and the records that fill as many.
_PAGES, _TIDIED = 250, 1000


class SweepMeter(Protocol):
    """Is told figures."""

    def audit_swept(self, what: str, count: int) -> None: ...

    def audit_oldest(self, ages_s: Mapping[str, float], overdue: int) -> None: ...


@dataclass(frozen=True, slots=True)
class Count:
    """What was done with one class, or one personal field, of one log.

    Args:
        due: Records or fields that were taken, or would be.
        held: Those that a hold keeps, though their time is over.
    """

    log: str
    what: str
    due: int
    held: int


@dataclass(slots=True)
class Swept:
    """What came of a sweep.

    Args:
        is_busy: Another process sweeps, so this one hasn't.
        days: Closed after erasures.
        logs: Dropped, since all of them was over.
        keys: Destroyed.
    """

    is_busy: bool = False
    counts: list[Count] = field(default_factory=list)
    days: int = 0
    logs: int = 0
    keys: int = 0


class Sweeper:
    """Sweeps every log of the deployment; the records of it go to this process's own.

    Args:
        every_s: How often, in seconds; see `run`.
        trusts_clock: Somebody has said that the clock is right.
    """

    def __init__(
        self,
        log: AuditLog,
        meter: SweepMeter | None = None,
        *,
        every_s: float = 3600,
        clock: Callable[[], int] = now_ms,
        trusts_clock: bool = False,
    ) -> None:
        self._log = log
        self._meter = meter
        self._every_s = every_s
        self._clock = clock
        self._guard = None if trusts_clock else ClockGuard(log, clock)
        self._closings = Closings(log)
        self._key_ends = KeyEnds(log)
        self._pace = Pace(lambda: log.depth)
        self._taking = Taking(log, self._pace)
        self._walk = Walk(log.store)

    async def run(self) -> None:
        """Sweeps soon after the start and then once in `every_s`, jittered, until cancelled. What
        goes wrong is tried again."""
        await asyncio.sleep(min(_SOON_S, self._every_s) * random.uniform(0.5, 1))  # noqa: S311
        while True:
            for step in (self.sweep, self.overdue):
                try:
                    await step()
                except (AuditStoreError, AuditError, OSError) as error:
                    problem = error.code if isinstance(error, AuditError) else type(error).__name__
                    logger.warning("audit.unswept", extra={"problem": problem})
            await asyncio.sleep(self._every_s * random.uniform(0.9, 1.1))  # noqa: S311

    async def sweep(self) -> Swept:
        """Takes everything that is due.

        Raises:
            AuditStoreError: the store is away.
            AuditError: `clock_jumped`: the time can't be believed, so nothing is taken.
            TimeoutError: a record of it couldn't be written.
            OSError: a key couldn't be destroyed.
        """
        async with self._log.store.alone("sweep") as is_alone:
            if not is_alone or self._log.origin is None:
                return Swept(is_busy=True)
            if self._guard is not None:
                await self._guard.check()
            swept = await self._sweep()
        total = sum(one.due for one in swept.counts)
        if total:
            await self._tidy(total)
            logger.info("audit.swept", extra={"count": total})
        return swept

    async def plan(self) -> Swept:
        """What a sweep would take now. Nothing is changed.

        Raises:
            AuditStoreError: the store is away.
        """
        planned = Swept()
        async for task in self._walk.tasks(self._log.drafter.policy, self._clock()):
            due = held = 0
            async for page in self._walk.pages(task, takes=False):
                due, held = due + len(page.free), held + page.held
            _count(planned, task, due, held)
        return planned

    async def overdue(self) -> list[str]:
        """Classes, and `ip`, of which something is kept for longer than its time and 25 hours.

        Raises:
            AuditStoreError: the store is away.
        """
        policy, now = self._log.drafter.policy, self._clock()
        oldest = await self._walk.oldest()
        ages = {name: max(0.0, (now - ts) / 1000) for name, ts in oldest.items()}
        late = [name for name, age_s in ages.items() if age_s > _kept_s(policy, name) + OVERDUE_S]
        for name in late:
            logger.error("audit.overdue", extra={"what": name, "age_s": round(ages[name])})
        if self._meter is not None:
            self._meter.audit_oldest(ages, len(late))
        return late

    async def _sweep(self) -> Swept:
        await self._log.signing.sign_ended()
        swept = Swept(days=await self._closings.close(self._clock()))
        async for task in self._walk.tasks(self._log.drafter.policy, self._clock()):
            await self._take(task, swept)
            if task.cls is Cls.AUDIT and task.log.state in ("closed", "abandoned"):
                swept.logs += await self._log.signing.drop(task.log.id)
        while not await self._log.store.run(partial(pruning.clear, most=PAGE), writes=True):
            await self._pace.rest()
        swept.keys = await self._key_ends.destroy(self._clock())
        return swept

    async def _tidy(self, taken: int) -> None:
        """In small steps, as many as what was taken can have freed. A server does that itself."""
        for _ in range(0 if self._log.store.is_shared else taken // _TIDIED + 1):
            await self._log.store.tidy(_PAGES)
            await self._pace.rest()

    async def _take(self, task: Task, swept: Swept) -> None:
        found: Sequence[Run] = []
        taken = held = 0
        async for page in self._walk.pages(task, takes=True):
            held += page.held
            found = ranges.joined([*found, *ranges.runs_of(page.free)])
            while found and (page.reached is None or is_enough(task, found)):
                some, found = found[:MAX_RUNS], found[MAX_RUNS:]
                taken += await self._taking.take(task, some, self._walk.holds)
        _count(swept, task, taken, held)
        if taken and self._meter is not None:
            self._meter.audit_swept(task.name, taken)


def _count(swept: Swept, task: Task, due: int, held: int) -> None:
    if due or held:
        swept.counts.append(Count(task.log.origin, task.name, due, held))


def _kept_s(policy: Policy, name: str) -> int:
    if name == ADDRESS:
        return policy.retention_of(Cls.SECURITY, ADDRESS)
    return policy.retention_of(Cls(name))
