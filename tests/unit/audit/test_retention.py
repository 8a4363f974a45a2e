"""Sweeps: what was kept long enough goes, the log says so first, and still verifies."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import pytest
import sqlalchemy as sa

from gateway.audit import tables
from gateway.audit.policy import DAY_S, Cls, Policy
from gateway.audit.recorder import Asked, Who
from gateway.audit.retention import Sweeper
from gateway.errors import AuditError
from tests.auditing import Audited, assert_sound, bodies, running_log, stored

ADA = Who("sub:ada", "jwt", "192.0.2.7", email="ada@example.org")
SHORT = Policy(retention_s={**dict.fromkeys(Cls, 1), Cls.AUDIT: 400 * DAY_S}, ip_retention_s=1)


async def ask(audited: Audited) -> None:
    ticket = audited.recorder.begin(Asked(ADA, "chat", "how?"))
    await ticket.durable()
    ticket.end("completed", {})
    assert audited.log._writer is not None
    assert await audited.log._writer.flush(5)


async def outlive() -> None:
    """Longer than the retention of `SHORT`."""
    end = time.monotonic() + 1.05
    while time.monotonic() < end:
        await asyncio.sleep(0.05)


async def types(folder: Path, database_url: str | None) -> list[object]:
    async with stored(folder, database_url) as store:
        return [one["type"] for one in await bodies(store)]


async def test_what_is_over_goes_and_the_log_verifies(
    tmp_path: Path, database_url: str | None
) -> None:
    async with running_log(tmp_path, database_url, policy=SHORT) as audited:
        for _ in range(3):
            await ask(audited)
        await audited.log.sign()
        await outlive()
        await ask(audited)
        swept = await Sweeper(audited.log).sweep()
        assert swept >= 6
        assert await Sweeper(audited.log).sweep() == 0
    left = await types(tmp_path, database_url)
    assert (left.count("query.start"), left.count("query.end")) == (1, 1)
    assert left.index("audit.sweep") < left.index("audit.sweep.done")
    await assert_sound(tmp_path, database_url)
    async with stored(tmp_path, database_url) as store:
        kept = await store.run(lambda c: c.execute(sa.select(tables.personal.c.seq)).all())
        assert len({row.seq for row in kept}) <= 2


async def test_log_of_an_earlier_process_is_swept_too(
    tmp_path: Path, database_url: str | None
) -> None:
    async with running_log(tmp_path, database_url, policy=SHORT) as audited:
        await ask(audited)
    await outlive()
    async with running_log(tmp_path, database_url, policy=SHORT) as audited:
        assert await Sweeper(audited.log).sweep() >= 2
    left = await types(tmp_path, database_url)
    assert "query.start" not in left
    assert "audit.sweep" in left


async def test_request_that_still_runs_and_what_no_checkpoint_covers_stay(tmp_path: Path) -> None:
    async with running_log(tmp_path, policy=SHORT) as audited:
        await audited.recorder.begin(Asked(ADA, "chat", "how?")).durable()
        await audited.log.sign()
        await ask(audited)
        await outlive()
        assert await Sweeper(audited.log).sweep() == 0


async def test_address_goes_before_its_record(tmp_path: Path, database_url: str | None) -> None:
    days = {**dict.fromkeys(Cls, 90 * DAY_S), Cls.AUDIT: 400 * DAY_S}
    async with running_log(
        tmp_path, database_url, policy=Policy(retention_s=days, ip_retention_s=1)
    ) as audited:
        fields = {"reason": "unknown_key"}
        draft = audited.log.drafter.draft("security.auth_failed", fields, {"ip": "192.0.2.7"})
        await _write(audited, draft)
        await audited.log.sign()
        await outlive()
        assert await Sweeper(audited.log).sweep() == 1
    assert "security.auth_failed" in await types(tmp_path, database_url)
    await assert_sound(tmp_path, database_url)


async def test_hold_stops_every_sweep(tmp_path: Path) -> None:
    async with running_log(tmp_path, policy=SHORT) as audited:
        await ask(audited)
        await audited.log.sign()
        await outlive()
        hold = {"id": "h", "scope": "time", "made_ms": 1, "until_ms": 2**40}
        await audited.store.run(lambda c: c.execute(sa.insert(tables.holds), hold), writes=True)
        assert await Sweeper(audited.log).sweep() == 0


async def test_clock_that_was_set_forward_stops_the_sweep(tmp_path: Path) -> None:
    async with running_log(tmp_path, policy=SHORT) as audited:
        sweeper = Sweeper(audited.log)
        sweeper._started = (time.time() - 2 * DAY_S, time.monotonic())
        with pytest.raises(AuditError) as caught:
            await sweeper.sweep()
        assert caught.value.code == "clock_jumped"


async def _write(audited: Audited, draft: object) -> None:
    from gateway.audit.ledger import Entry
    from gateway.audit.log import now_ms

    audited.log.submit(Entry(draft, now_ms()))  # type: ignore[arg-type]
    assert audited.log._writer is not None
    assert await audited.log._writer.flush(5)
