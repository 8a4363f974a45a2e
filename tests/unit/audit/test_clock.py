"""A clock that leaps stops sweeps for a day, and the log says so."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path

import pytest
import sqlalchemy as sa

from gateway.audit import tables
from gateway.audit.instant import now_ms
from gateway.audit.policy import DAY_S
from gateway.audit.retention import Sweeper
from gateway.errors import AuditError
from tests.auditing import assert_sound, bodies, running_log, stored
from tests.unit.audit.test_retention import SHORT, ask, outlive, taken

pytestmark = pytest.mark.usefixtures("wall_clock")

DAY_MS = DAY_S * 1000


class Clock:
    """Ours runs ahead of the machine's as a test wants."""

    ahead_ms = 0

    def __call__(self) -> int:
        return now_ms() + self.ahead_ms


async def refused(sweeper: Sweeper) -> bool:
    try:
        await sweeper.sweep()
    except AuditError as error:
        return error.code == "clock_jumped"
    return False


async def test_leap_forward_stops_sweeps_for_a_day(
    tmp_path: Path, database_url: str | None
) -> None:
    clock = Clock()
    async with running_log(tmp_path, database_url, policy=SHORT) as audited:
        await ask(audited)
        await audited.log.signing.sign()
        outlive()
        sweeper = Sweeper(audited.log, clock=clock)
        clock.ahead_ms = 91 * DAY_MS
        assert [await refused(sweeper), await refused(sweeper)] == [True, True]
        assert await refused(Sweeper(audited.log))  # another process, or the next
        (told,) = [one for one in await bodies(audited.store) if one["type"] == "audit.clock"]
        assert told["action"] == "sweep_refused"
        assert abs(int(str(told["offset_ms"])) - 91 * DAY_MS) < 60_000
        trusting = Sweeper(audited.log, trusts_clock=True)
        assert taken(await trusting.sweep()) == {"query": 2}
    await assert_sound(tmp_path, database_url)


async def test_clock_that_is_put_right_is_believed_again_and_watched_as_before(
    tmp_path: Path, database_url: str | None
) -> None:
    clock = Clock()
    async with running_log(tmp_path, database_url, policy=SHORT) as audited:
        sweeper = Sweeper(audited.log, clock=clock)
        for _ in range(2):
            clock.ahead_ms = 3650 * DAY_MS
            assert await refused(sweeper)
            clock.ahead_ms -= DAY_MS
            assert await refused(sweeper)  # that isn't where it was
            clock.ahead_ms = 0
            assert [await refused(sweeper), await refused(sweeper)] == [False, False]
        assert not await refused(Sweeper(audited.log))
        told = [
            one["action"] for one in await bodies(audited.store) if one["type"] == "audit.clock"
        ]
        assert told == ["sweep_refused", "sweep_resumed"] * 2
    await assert_sound(tmp_path, database_url)


async def test_log_of_a_clock_that_was_ahead_is_not_gone_on_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as ahead:
        ahead.setattr("gateway.audit.log.now_ms", lambda: now_ms() + 2 * DAY_MS)
        async with running_log(tmp_path, is_closed=False) as audited:
            first = audited.log.origin
    async with running_log(tmp_path) as audited:
        assert audited.log.origin != first
    async with stored(tmp_path) as store:
        states = {log.origin: log.state for log in await store.logs()}
        (opened,) = [
            one
            for one in await bodies(store)
            if one["type"] == "audit.open" and one["log"] != first
        ]
    assert states[str(first)] == "abandoned"
    assert int(str(opened["ts"])) < now_ms() + DAY_MS
    await assert_sound(tmp_path)


async def test_leap_of_less_than_a_day_or_backwards_stops_nothing(tmp_path: Path) -> None:
    clock = Clock()
    async with running_log(tmp_path, policy=SHORT) as audited:
        sweeper = Sweeper(audited.log, clock=clock)
        for ahead_ms in (DAY_MS - 60_000, -DAY_MS):
            clock.ahead_ms = ahead_ms
            assert not await refused(sweeper)


async def test_silence_before_the_start_looks_like_a_leap(
    tmp_path: Path, database_url: str | None
) -> None:
    async with running_log(tmp_path, database_url, policy=SHORT) as audited:
        await ask(audited)
    async with running_log(tmp_path, database_url, policy=SHORT) as audited:
        assert not await refused(Sweeper(audited.log))
    async with stored(tmp_path, database_url) as store:
        long_ago = sa.update(tables.logs).values(seen_ms=now_ms() - 3 * DAY_MS)
        await store.run(lambda c: c.execute(long_ago), writes=True)
    async with running_log(tmp_path, database_url, policy=SHORT) as audited:
        assert await refused(Sweeper(audited.log))
    async with running_log(tmp_path, database_url, policy=SHORT) as audited:
        assert await refused(Sweeper(audited.log))
    await assert_sound(tmp_path, database_url)


async def test_what_is_kept_too_long_is_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    clock = Clock()
    ages: dict[str, float] = {}
    overdue: list[int] = []

    class Meter:
        def audit_swept(self, what: str, count: int) -> None: ...

        def audit_oldest(self, ages_s: Mapping[str, float], overdue_: int) -> None:
            ages.update(ages_s)
            overdue.append(overdue_)

    async with running_log(tmp_path, policy=SHORT) as audited:
        await ask(audited)
        sweeper = Sweeper(audited.log, Meter(), clock=clock)
        assert await sweeper.overdue() == []
        clock.ahead_ms = 26 * 3_600_000
        with caplog.at_level(logging.ERROR, "sluice.audit"):
            assert await sweeper.overdue() == ["query"]
        told = [one.message for one in caplog.records if one.name == "sluice.audit"]
        assert told == ["audit.overdue"]
        assert overdue == [0, 1]
        assert ages.keys() == {"query", "audit"}
        assert ages["query"] > 25 * 3600
