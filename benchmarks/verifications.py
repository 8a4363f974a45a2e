"""How fast `sluice audit verify` reads a log, and how much memory it takes for that.

The records are those of questions: a beginning with three personal values, and an end.
"""

from __future__ import annotations

import asyncio
import resource
import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from gateway.audit.keys import Keys
from gateway.audit.ledger import Entry
from gateway.audit.log import now_ms
from gateway.audit.verify.audit import Evidence
from gateway.audit.verify.stored import verify_stored
from tests.auditing import Audited, running_log, stored
from tests.servers import new_database, postgres_server

_WAITING = 5_000


@dataclass(frozen=True, slots=True)
class Figures:
    """Of one store. `cpu_per_s` counts this process's time only; `peak_mib` is its largest size,
    with everything that was done before."""

    store: str
    records: int
    per_s: int
    cpu_per_s: int
    peak_mib: int
    findings: int


async def measure(records: int) -> list[Figures]:
    """SQLite, then PostgreSQL."""
    with TemporaryDirectory() as folder:
        found = [await _measure("SQLite", Path(folder), None, records)]
    with TemporaryDirectory() as folder, postgres_server() as url:
        database_url = await new_database(url)
        found.append(await _measure("PostgreSQL", Path(folder), database_url, records))
    return found


def table(figures: Sequence[Figures]) -> str:
    head = "| store | records | a second | a second of the processor | memory |\n| --- |"
    rows = [
        f"| {one.store} | {one.records:,} | {one.per_s:,} | {one.cpu_per_s:,} "
        f"| {one.peak_mib} MiB |"
        for one in figures
    ]
    return "\n".join([head + " ---: |" * 4, *rows])


async def _measure(name: str, folder: Path, database_url: str | None, records: int) -> Figures:
    async with running_log(folder, database_url, patience_s=3600) as audited:
        await _fill(audited, records)
    keys = [one.verifier.public for one in Keys(folder / "audit-keys").signers("x")]
    async with stored(folder, database_url) as store:
        began, busy = time.perf_counter(), time.process_time()
        found = await verify_stored(store, Evidence(keys))
        took_s, busy_s = time.perf_counter() - began, time.process_time() - busy
    count = sum(one.size for one in found)
    bad = sum(count for one in found for code, count in one.codes.items() if code != "not_anchored")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    return Figures(name, count, round(count / took_s), round(count / busy_s), peak, bad)


async def _fill(audited: Audited, records: int) -> None:
    log = audited.log
    draft = log.drafter.draft
    values = {"subject": bytes(32), "query": bytes(32), "session": bytes(32)}
    keys = {"q": "2026-10.0a1b2c3d", "s": "2026.4e5f6071"}
    for _ in range(0, records, 2):
        rid = str(uuid.uuid4())
        asked = {"rid": rid, "auth": "jwt", "route": "chat", "model": "m-large"}
        begin = Entry(draft("query.start", asked, values, keys), now_ms())
        ended = {"rid": rid, "outcome": "completed", "status": 200, "bytes": 100}
        log.submit(begin)
        log.submit(Entry(draft("query.end", ended), now_ms(), start=begin))
        while log.depth > _WAITING:  # noqa: ASYNC110 - nobody tells
            await asyncio.sleep(0.01)
