"""Erasing a person: their values go, the log says how many and not whose, and every proof stays.

In this order, so that a crash anywhere leaves nothing half said: the erasure journal, by which
`check` finishes what was begun; the records of the intent; values and tombstones in small
transactions; the records of what was done. docs/audit-format.md, "Erasures".
"""

from __future__ import annotations

import asyncio
import os
import uuid
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Protocol

from gateway.audit import removal, settlement
from gateway.audit.canonical import Json
from gateway.audit.instant import now_ms
from gateway.audit.journal import Erased, ErasedStream, Erasures, Journal
from gateway.audit.log import AuditLog
from gateway.audit.plan import Plan, planned
from gateway.audit.policy import DAY_S
from gateway.audit.removal import Taken
from gateway.audit.subject import Findings, Place
from gateway.errors import AuditError

_PAUSE_S = 0.005
_DAY_MS = DAY_S * 1000

Progress = Callable[[int, int], None]


class Answers(Protocol):
    """What is kept of answers outside the log, by the ids of their streams."""

    async def erase(self, streams: Sequence[str]) -> int:
        """Deletes those that are there, with every byte of theirs; how many."""
        ...


@dataclass(slots=True)
class Erasure:
    """What came of it: the receipt for who asked."""

    request: str
    day: int
    records: int = 0
    fields: int = 0
    streams: int = 0
    is_clean: bool = False  #: nothing of the values is in the database's files any more
    receipts: list[str] = field(default_factory=list)


class Eraser:
    """Erases from every log of the deployment, and tells of it in `log`."""

    def __init__(
        self, log: AuditLog, journal: Journal, answers: Answers, *, is_patient: bool = False
    ) -> None:
        """`is_patient`: see `AuditStore.scrub`."""
        self._is_patient = is_patient
        self._log = log
        self._journal = journal
        self._answers = answers

    async def plan(
        self, findings: Findings, streams: Sequence[str], *, is_whole: bool = False
    ) -> Plan:
        """What an erasure of these findings would take. Nothing is changed.

        With `is_whole` bodies go too, and the ends of the requests. The log's records about itself
        keep theirs, as do requests that are under way.
        """
        work = partial(planned, findings=findings, is_whole=is_whole)
        return replace(await self._log.store.run(work), streams=tuple(streams))

    async def refuse(self, plan: Plan, words: Mapping[str, str]) -> str:
        """Records that nothing is erased: of what is held, GDPR 17(3)(e), or since nothing was
        found. The number of the case."""
        case = str(uuid.uuid4())
        fields: dict[str, Json] = {"request": case, "reason": "not_found"}
        if plan.hold is not None:
            fields |= {"reason": "art_17_3_e", "hold": plan.hold}
        await self._log.record("audit.erase.refused", fields, words)
        return case

    async def erase(
        self, plan: Plan, words: Mapping[str, str], progress: Progress = lambda *_: None
    ) -> Erasure:
        """Carries a plan out.

        `words` are the operator's name and the case's reference, where there are any. Cancelled or
        killed, it is finished by the next `check`.

        Raises:
            AuditStoreError: the store is away.
            AuditError: `busy`: another erasure is under way; `bad_journal`.
            TimeoutError: a record of it couldn't be written.
        """
        async with _alone(self._journal):
            return await self._erase(plan, words, progress)

    async def check(self) -> int:
        """Erases anew what a restored backup has brought back, or a crash has left, and records
        how many; to be called before anybody reads. While another process erases, that one has
        done so.

        Raises:
            As `erase`, but for `busy`.
        """
        lock = await asyncio.to_thread(_try_lock, self._journal)
        if lock is None:
            return 0
        try:
            await settlement.settle(self._log)
            return await self._check()
        finally:
            os.close(lock)

    async def _check(self) -> int:
        known = await asyncio.to_thread(self._journal.read)
        again = await self._answers.erase([one.id for one in known.streams])
        plan = Plan(await self._log.store.run(partial(removal.returned, erased=known.records)))
        if plan.places:
            again += (await self._erase(plan, {}, lambda *_: None)).fields
        if again:
            await self._log.record("audit.restored", {"applied": again})
        return again

    async def _erase(self, plan: Plan, words: Mapping[str, str], progress: Progress) -> Erasure:
        made = Erasure(str(uuid.uuid4()), now_ms() // _DAY_MS)
        origins = {log.id: log.origin for log in await self._log.store.logs()}
        await self._keep(plan, origins, made.day)
        by_log = _by_log(plan.places)
        for log, places in by_log.items():
            told = self._told(made, origins[log], len(places), sum(len(p.fields) for p in places))
            receipt = await self._log.record("audit.erase", _whole(told, plan), words)
            made.receipts.append(str(receipt))
        if not by_log:
            told = self._told(made, self._log.origin or "", 0, 0)
            made.receipts.append(str(await self._log.record("audit.erase", told, words)))
        for log, places in by_log.items():
            taken = await self._take(log, places, made, partial(_of, progress, plan.fields))
            told = self._told(made, origins[log], taken.records, taken.fields)
            made.receipts.append(str(await self._log.record("audit.erase.done", told)))
        made.streams = await self._answers.erase(plan.streams)
        made.is_clean = await self._log.store.scrub(is_patient=self._is_patient)
        return made

    async def _take(
        self, log: int, places: Sequence[Place], made: Erasure, progress: Callable[[int], None]
    ) -> Taken:
        records = fields = 0
        for some in removal.batches(places):
            work = partial(removal.take, log=log, places=some, day=made.day)
            taken = await self._log.store.run(work, writes=True)
            records, fields = records + taken.records, fields + taken.fields
            progress(made.fields + fields)
            await asyncio.sleep(_PAUSE_S)
        made.records, made.fields = made.records + records, made.fields + fields
        return Taken(records, fields)

    async def _keep(self, plan: Plan, origins: Mapping[int, str], day: int) -> None:
        """In the journal, before anything goes."""
        records: set[Erased] = set()
        for log, places in _by_log(plan.places).items():
            seqs = [place.seq for place in places]
            leaves = await self._log.store.run(partial(removal.leaves, log=log, seqs=seqs))
            records |= {
                Erased(day, origins[log], one.seq, leaves[one.seq], one.fields)
                for one in places
                if one.seq in leaves
            }
        streams = frozenset(ErasedStream(day, one) for one in plan.streams)
        new = Erasures(frozenset(records), streams)
        longest = max(self._log.drafter.policy.retention_s.values())
        since = day - longest // DAY_S - 31
        await asyncio.to_thread(self._journal.add, new, since_day=since)

    def _told(self, made: Erasure, origin: str, records: int, fields: int) -> dict[str, Json]:
        told: dict[str, Json] = {"request": made.request, "day": made.day}
        told |= {"fields": fields, "records": records}
        return told | ({"origin": origin} if origin != self._log.origin else {})


def _whole(told: dict[str, Json], plan: Plan) -> dict[str, Json]:
    return told | ({"whole": True} if plan.is_whole else {})


def _of(progress: Progress, total: int, done: int) -> None:
    progress(done, total)


def _by_log(places: Sequence[Place]) -> dict[int, list[Place]]:
    found: dict[int, list[Place]] = {}
    for place in places:
        found.setdefault(place.log, []).append(place)
    return found


@asynccontextmanager
async def _alone(journal: Journal) -> AsyncIterator[None]:
    lock = await asyncio.to_thread(journal.lock)
    try:
        yield
    finally:
        os.close(lock)


def _try_lock(journal: Journal) -> int | None:
    try:
        return journal.lock()
    except AuditError as error:
        if error.code == "busy":
            return None
        raise
