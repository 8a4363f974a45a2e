"""How long it takes to forget a person of whom much is kept, and what who writes feels of it."""

from __future__ import annotations

import asyncio
import math
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import sqlalchemy as sa

from gateway.audit import subject, tables
from gateway.audit.erasure import Eraser
from gateway.audit.journal import Journal
from gateway.audit.keys import Keys
from gateway.audit.person import Person
from gateway.audit.recorder import Asked, Who
from gateway.tasks import TaskOwner
from tests.auditing import Audited, running_log
from tests.servers import new_database, postgres_server

_ADA = Who("sub:ada", "jwt", "192.0.2.7")
_BOB = Who("sub:bob", "jwt", "192.0.2.8")
_AT_ONCE = 2_000


class _NoAnswers:
    async def erase(self, streams: Sequence[str]) -> int:
        return 0


@dataclass(frozen=True, slots=True)
class Amount:
    """Values of the person, and for how long commits are timed without an erasure."""

    fields: int = 100_000
    quiet_s: float = 2


@dataclass(frozen=True, slots=True)
class Figures:
    """Seconds, but for `commit_ms`: the 99th percentile of commits beside it, and without it."""

    store: str
    fields: int
    plan_s: float
    erase_s: float
    check_s: float
    commit_ms: float
    quiet_ms: float
    left: int  #: bytes, or rows, in which a value is still found


async def measure(amount: Amount) -> list[Figures]:
    """On SQLite and on PostgreSQL, with as many values of somebody else beside them."""
    found = [await _measure("SQLite", amount, None)]
    with postgres_server() as url:
        found.append(await _measure("PostgreSQL", amount, await new_database(url)))
    return found


def table(figures: Sequence[Figures]) -> str:
    """As it stands in docs/benchmarks.md."""
    head = "| store | values | to plan | to erase | to check | commit p99 beside, without | left |"
    rows = [
        f"| {one.store} | {one.fields:,} | {one.plan_s:.2f} s | {one.erase_s:.2f} s "
        f"| {one.check_s:.2f} s | {one.commit_ms:.1f}, {one.quiet_ms:.1f} ms | {one.left} |"
        for one in figures
    ]
    return "\n".join([head, "| --- |" + " ---: |" * 6, *rows])


async def _measure(store: str, amount: Amount, database_url: str | None) -> Figures:
    with TemporaryDirectory() as name:
        folder = Path(name)
        async with running_log(folder, database_url) as audited:
            for at in range(0, amount.fields // 3, _AT_ONCE):
                await _fill(audited, min(_AT_ONCE, amount.fields // 3 - at))
            quiet_ms = await _commits(audited, asyncio.sleep(amount.quiet_s))
            eraser = Eraser(audited.log, Journal(folder / "erasures.jsonl"), _NoAnswers())
            keys = Keys(folder / "audit-keys").all("subject")
            person = Person.parse("sub:ada")
            look = partial(subject.of_person, person=person, keys=keys)
            began = time.monotonic()
            findings = await audited.store.run(look)
            plan = await eraser.plan(findings, [])
            planned = time.monotonic()
            commit_ms = await _commits(audited, eraser.erase(plan, {}))
            erased = time.monotonic()
            await eraser.check()
            checked = time.monotonic()
            left = await _left(audited, folder, findings.pseudonyms[0], database_url)
        times = (planned - began, erased - planned, checked - erased)
        return Figures(store, plan.fields, *times, commit_ms, quiet_ms, left)


async def _fill(audited: Audited, count: int) -> None:
    for who in (_ADA, _BOB):
        for _ in range(count):
            audited.recorder.begin(Asked(who, "chat", "how?", "c")).end("completed", {})
        assert audited.log._writer is not None
        assert await audited.log._writer.flush(60)


async def _commits(audited: Audited, beside: object) -> float:
    """The 99th percentile of commits while something else is done, in ms."""
    took: list[float] = []

    async def commit() -> None:
        while True:
            began = time.perf_counter()
            await audited.recorder.begin(Asked(_BOB, "chat", "how?")).durable()
            took.append(time.perf_counter() - began)
            await asyncio.sleep(0.01)

    tasks = TaskOwner()
    tasks.spawn(commit(), name="commits")
    try:
        await beside  # type: ignore[misc]
    finally:
        await tasks.cancel()
    return 1000 * statistics.quantiles(took, n=100)[98] if len(took) > 1 else math.nan


async def _left(audited: Audited, folder: Path, pseudonym: bytes, url: str | None) -> int:
    if url is None:
        return await asyncio.to_thread(_in_files, folder, pseudonym)
    personal = tables.personal
    mine = (personal.c.subject == pseudonym) | (personal.c.value == pseudonym)
    query = sa.select(sa.func.count()).select_from(personal).where(mine)
    return int(await audited.store.run(lambda c: c.execute(query).scalar_one()))


def _in_files(folder: Path, value: bytes) -> int:
    return sum(path.read_bytes().count(value) for path in folder.glob("*") if path.is_file())
