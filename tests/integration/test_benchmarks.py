"""The benchmarks measure what there is: they run, and every figure is there."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from benchmarks import erasures, records, sweeps, verifications
from benchmarks.report import session_table
from benchmarks.sessions import all_sessions
from benchmarks.timing import Amount

ROOT = Path(__file__).parents[2]


async def test_sessions_are_measured_everywhere() -> None:
    few = Amount(one_by_one=2, warm_up=1, at_once=3, http_burst=2, bursts=1)
    figures = [timings.figures() for timings in await all_sessions(few)]

    assert all(one["samples"] == 2 for one in figures)
    table = session_table(figures)
    for where in ("no store", "SQLite", "PostgreSQL", "HTTP, SQLite", "HTTP, PostgreSQL"):
        assert all(f"| {what}, {where} " in table for what in ("create", "look up", "stop"))


async def test_records_are_measured_on_both_stores_and_beside_none() -> None:
    written = await records.written(200)
    together = ("PostgreSQL, 4 writers", 1600)
    assert [(one.store, one.records) for one in written] == [
        ("SQLite", 400),
        ("PostgreSQL", 400),
        together,
    ]
    assert "| PostgreSQL | 400 |" in records.written_table(written)
    asked = await records.asked(3)
    assert [(one.mode, len(one.first_ms)) for one in asked] == [("off", 3), ("relay", 3)]
    assert "| `relay` |" in records.asked_table(asked)


async def test_sweeps_are_measured_on_both_stores() -> None:
    figures = await sweeps.measure(400, asking_s=0.1)

    assert [one["store"] for one in figures] == ["SQLite", "PostgreSQL"]
    assert all(one["rows"] >= 400 for one in figures)
    assert all(f"| {one['store']} | 4" in sweeps.table(figures) for one in figures)


async def test_erasures_are_measured_and_leave_nothing() -> None:
    figures = await erasures.measure(erasures.Amount(fields=30, quiet_s=0.05))
    assert [(one.store, one.fields, one.left) for one in figures] == [
        ("SQLite", 30, 0),
        ("PostgreSQL", 30, 0),
    ]
    assert erasures.table(figures).count("| 30 |") == 2


async def test_verifications_are_measured_and_find_nothing() -> None:
    figures = await verifications.measure(40)
    assert [(one.store, one.findings) for one in figures] == [("SQLite", 0), ("PostgreSQL", 0)]
    assert all(one.records >= 40 for one in figures)
    assert "| PostgreSQL | " in verifications.table(figures)


async def test_parts_are_measured() -> None:
    command = [sys.executable, "-m", "pytest", "-q", "-c", "benchmarks/pytest.ini"]
    process = await asyncio.create_subprocess_exec(
        *command, "--benchmark-disable", "benchmarks", cwd=ROOT, stdout=asyncio.subprocess.PIPE
    )
    printed, _ = await process.communicate()
    assert process.returncode == 0, printed.decode()
