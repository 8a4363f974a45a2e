"""What a sweep of the audit log takes, and what those who wait for a commit notice of it.

A log is filled with questions that are over. Then it is swept while somebody asks a hundred times
a second, each waiting for its record as `AUDIT_MODE=relay` has it.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from statistics import quantiles
from tempfile import TemporaryDirectory
from typing import Any

from gateway.audit.pace import Pace
from gateway.audit.policy import DAY_S, Cls, Policy
from gateway.audit.recorder import Asked, Recorder, Who
from gateway.audit.retention import Sweeper
from gateway.tasks import TaskOwner
from tests.auditing import Audited, running_log
from tests.servers import new_database, postgres_server

_KEPT_S = 1
_POLICY = Policy(
    retention_s={**dict.fromkeys(Cls, _KEPT_S), Cls.AUDIT: 400 * DAY_S}, ip_retention_s=_KEPT_S
)
_WHO = Who("sub:ada", "jwt", "192.0.2.7")
_EVERY_S = 0.01
_AT_ONCE = 200

Figures = dict[str, Any]


async def measure(rows: int, *, asking_s: float = 5) -> list[Figures]:
    """SQLite, then PostgreSQL. `asking_s` is how long commits are measured before."""
    with TemporaryDirectory() as folder:
        found = [await _measure("SQLite", Path(folder), None, rows, asking_s)]
    with TemporaryDirectory() as folder, postgres_server() as url:
        database_url = await new_database(url)
        found.append(await _measure("PostgreSQL", Path(folder), database_url, rows, asking_s))
    return found


def table(figures: Sequence[Figures]) -> str:
    """Times as p50 / p99 / longest."""
    head = "| store | records | a second | a deletion, ms | a commit before, ms | meanwhile, ms |"
    rows = [
        f"| {one['store']} | {one['rows']:,} | {one['rows_per_s']:,} "
        + "".join(
            "| {p50} / {p99} / {max} ".format(**one[name])
            for name in ("transaction_ms", "commit_before_ms", "commit_during_ms")
        )
        + "|"
        for one in figures
    ]
    return "\n".join([head, "| --- |" + " ---: |" * 5, *rows])


async def _measure(
    name: str, folder: Path, database_url: str | None, rows: int, asking_s: float
) -> Figures:
    async with running_log(folder, database_url, policy=_POLICY) as audited:
        await _fill(audited, rows)
        tasks, waits = TaskOwner(), _Waits()
        tasks.spawn(_ask(audited.recorder, waits), name="asking")
        await asyncio.sleep(asking_s)
        before = waits.take()
        with _timed_transactions() as transactions:
            began = time.perf_counter()
            swept = await Sweeper(audited.log).sweep()
            took_s = time.perf_counter() - began
        during = waits.take()
        await tasks.cancel()
    count = sum(one.due for one in swept.counts)
    return {
        "store": name,
        "rows": count,
        "rows_per_s": round(count / took_s),
        "transaction_ms": _spread(transactions),
        "commit_before_ms": _spread(before),
        "commit_during_ms": _spread(during),
    }


async def _fill(audited: Audited, rows: int) -> None:
    for _ in range(0, rows, 2 * _AT_ONCE):
        await asyncio.gather(*(_question(audited.recorder) for _ in range(_AT_ONCE)))
    assert audited.log._writer is not None
    await audited.log._writer.flush(60)
    await audited.log.signing.sign()
    await asyncio.sleep(_KEPT_S + 0.1)


async def _question(recorder: Recorder) -> None:
    ticket = recorder.begin(Asked(_WHO, "chat", "how?"))
    await ticket.durable()
    ticket.end("completed", {"status": 200})


async def _ask(recorder: Recorder, waits: _Waits) -> None:
    while True:
        began = time.perf_counter()
        await _question(recorder)
        waits.found.append(time.perf_counter() - began)
        await asyncio.sleep(_EVERY_S)


class _Waits:
    """Seconds, since they were taken last."""

    def __init__(self) -> None:
        self.found: list[float] = []

    def take(self) -> list[float]:
        taken, self.found = self.found, []
        return taken


@contextmanager
def _timed_transactions() -> Iterator[list[float]]:
    """What each deletion takes, without the wait for its turn and without its commit."""
    found: list[float] = []
    adapt = Pace._adapt

    def also_kept(pace: Pace, took_s: float) -> None:
        found.append(took_s)
        adapt(pace, took_s)

    Pace._adapt = also_kept  # type: ignore[method-assign]
    try:
        yield found
    finally:
        Pace._adapt = adapt  # type: ignore[method-assign]


def _spread(found_s: list[float]) -> dict[str, float]:
    cuts = quantiles(found_s, n=100, method="inclusive") if len(found_s) > 1 else [0.0] * 99
    spread = {"p50": cuts[49], "p99": cuts[98], "max": max(found_s, default=0.0)}
    return {name: round(value * 1000, 2) for name, value in spread.items()}
