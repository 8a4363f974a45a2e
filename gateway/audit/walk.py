"""A sweep's way through the logs, page by page, and where the next one may begin.

What a hold keeps is looked at once and then passed over, until the holds change.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from functools import partial

from gateway.audit import due
from gateway.audit.due import Page, Task
from gateway.audit.holds import Hold, in_force
from gateway.audit.policy import Cls, Policy
from gateway.audit.store import AuditStore


class Walk:
    """Every method may raise `AuditStoreError`."""

    def __init__(self, store: AuditStore) -> None:
        self._store = store
        self._starts: dict[tuple[int, str], int] = {}
        self.holds: Sequence[Hold] = ()

    async def tasks(self, policy: Policy, now_ms: int) -> AsyncIterator[Task]:
        """What may be due, the catalogue's last: it tells of logs that may be over by then."""
        await self._refresh()
        logs = await self._store.logs()
        for log in sorted(logs, key=lambda one: one.kind == "catalogue"):
            for task in due.tasks_of(log, policy, now_ms):
                yield task

    async def pages(self, task: Task, *, takes: bool) -> AsyncIterator[Page]:
        """`takes`: all that is free is gone before the next page is asked for."""
        key = (task.log.id, task.name)
        at: int | None = self._starts.get(key, 0)
        reached, running = at or 0, None
        while at is not None:
            look = partial(due.look, task=task, start=at, holds=self.holds)
            page = await self._store.run(look)
            yield page
            at, reached = page.reached, page.reached or reached
            running = page.running if running is None else running
        # Of the class `audit`, some may have to wait for another process.
        if takes and task.cls is not Cls.AUDIT:
            self._starts[key] = reached if running is None else min(running, reached)

    async def oldest(self) -> dict[str, int]:
        """The time of the oldest record of each class, and of the oldest address, that isn't
        held."""
        await self._refresh()
        found: dict[str, int] = {}
        for log in await self._store.logs():
            starts = {name: at for (log_id, name), at in self._starts.items() if log_id == log.id}
            look = partial(due.oldest, log_id=log.id, starts=starts, holds=self.holds)
            for name, ts in (await self._store.run(look)).items():
                found[name] = min(ts, found.get(name, ts))
        return found

    async def _refresh(self) -> None:
        holds = await self._store.run(in_force)
        if holds != self.holds:
            self.holds, self._starts = holds, {}
