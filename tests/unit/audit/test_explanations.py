"""The log's records about itself are swept too, and what still holds is told again first."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
import sqlalchemy as sa

from gateway.audit import holds, removal, tables
from gateway.audit.canonical import Json
from gateway.audit.holds import Hold
from gateway.audit.policy import DAY_S, Cls, Policy
from gateway.audit.retention import Sweeper
from gateway.audit.subject import Place
from tests.auditing import Audited, assert_sound, bodies, running_log, stored
from tests.servers import new_database
from tests.unit.audit.test_retention import (
    BOB,
    HOLD,
    ask,
    flush,
    outlive,
    sweep,
    taken,
    types,
)

pytestmark = pytest.mark.usefixtures("wall_clock")

#: Everything is kept for a second.
BRIEF = Policy(retention_s=dict.fromkeys(Cls, 1), ip_retention_s=1)


async def age(audited: Audited) -> None:
    """Has all that is there over its time, and a checkpoint that shows it."""
    await flush(audited)
    await audited.log.signing.sign()
    outlive()


async def test_gaps_are_explained_again_and_again(tmp_path: Path, database_url: str | None) -> None:
    async with running_log(tmp_path, database_url, policy=BRIEF) as audited:
        for _ in range(3):
            await ask(audited)
            await ask(audited, BOB)
            await age(audited)
            assert taken(await sweep(audited))["audit"] > 0
            await assert_sound(tmp_path, database_url)
        left = await bodies(audited.store)
    assert Counter(str(one["type"]) for one in left)["query.start"] == 0
    assert min(int(str(one["seq"])) for one in left) > 20


async def test_rules_in_force_are_told_again_before_they_go(
    tmp_path: Path, database_url: str | None
) -> None:
    async with running_log(tmp_path, database_url, policy=BRIEF) as audited:
        await age(audited)
        await sweep(audited)
        told = [one for one in await bodies(audited.store) if one["type"] == "audit.policy"]
        assert [one["rules"] for one in told] == [BRIEF.rules()]
        assert int(str(told[0]["seq"])) > 1
    await assert_sound(tmp_path, database_url)


async def test_rules_of_a_log_that_another_process_writes_to_stay(
    tmp_path: Path, postgres_url: str
) -> None:
    url = await new_database(postgres_url)
    async with (
        running_log(tmp_path, url, policy=BRIEF, instance="two") as other,
        running_log(tmp_path, url, policy=BRIEF) as audited,
    ):
        await age(audited)
        await sweep(audited)
        found = await bodies(audited.store)
        left = [one["type"] for one in found if one["log"] == other.log.origin]
        assert "audit.policy" in left
        assert "audit.open" not in left
    await assert_sound(tmp_path, url)


async def test_hold_in_force_is_told_again_and_its_records_stay(
    tmp_path: Path, database_url: str | None
) -> None:
    async with running_log(tmp_path, database_url, policy=BRIEF) as audited:
        await ask(audited)
        asked = [one for one in await bodies(audited.store) if one["type"] == "query.start"]
        hold = Hold(HOLD.id, "request", 1, 2**41, rid=str(asked[0]["rid"]))
        first = await audited.log.record(
            "audit.hold",
            {"hold": hold.id, "until_ms": 2**41, "scope": "request", "reason": "legal_claim"},
            {"operator": "Grace"},
        )
        await audited.store.run(lambda c: holds.place(c, hold), writes=True)
        for _ in range(2):
            await age(audited)
            await sweep(audited)
        left = await bodies(audited.store)
        assert Counter(str(one["type"]) for one in left)["query.start"] == 1
        (told,) = [one for one in left if one["type"] == "audit.hold"]
        assert (told["reason"], told["hold"]) == ("legal_claim", hold.id)
        assert int(str(told["seq"])) > first.seq
        assert told["commit"] == {}
    await assert_sound(tmp_path, database_url)


async def test_days_of_erasures_are_closed_once_and_tombstones_go_with_the_closing(
    tmp_path: Path, database_url: str | None
) -> None:
    day = int(time.time()) // DAY_S - 2  # yesterday is over an hour after midnight
    async with running_log(tmp_path, database_url, policy=BRIEF) as audited:
        await ask(audited)
        await ask(audited, BOB)
        await erase_earlier(audited, day)
        await audited.log.signing.sign()
        sweeper = Sweeper(audited.log)
        assert (await sweeper.sweep()).days == 1
        assert (await sweeper.sweep()).days == 0
        assert (await Sweeper(audited.log).sweep()).days == 0
        told = [one for one in await bodies(audited.store) if one["type"] == "audit.tombstones"]
        assert [(one["day"], one["count"]) for one in told] == [(day, 3)]
        await flush(audited)
        await assert_sound(tmp_path, database_url)
        await age(audited)
        await sweep(audited)
        stones = await audited.store.run(
            lambda c: c.scalar(sa.select(sa.func.count()).select_from(tables.tombstones))
        )
        assert stones == 0
    await assert_sound(tmp_path, database_url)


async def test_value_erased_before_its_record_was_held_stays_explained(
    tmp_path: Path, database_url: str | None
) -> None:
    day = int(time.time()) // DAY_S - 2  # yesterday is over an hour after midnight
    async with running_log(tmp_path, database_url, policy=BRIEF) as audited:
        await ask(audited)
        await erase_earlier(audited, day, is_whole=False)
        hold = HOLD
        rids = [one["rid"] for one in await bodies(audited.store) if one["type"] == "query.start"]
        hold = Hold(HOLD.id, "request", 1, 2**41, rid=str(rids[0]))
        await audited.log.record(
            "audit.hold", {"hold": hold.id, "until_ms": 2**41, "scope": "request"}
        )
        await audited.store.run(lambda c: holds.place(c, hold), writes=True)
        await audited.log.signing.sign()
        await Sweeper(audited.log).sweep()
        for _ in range(2):
            await age(audited)
            await sweep(audited)
            await assert_sound(tmp_path, database_url)
    assert "query.start" in await types(tmp_path, database_url)


async def test_log_of_which_all_is_over_is_dropped(
    tmp_path: Path, database_url: str | None
) -> None:
    async with running_log(tmp_path, database_url, policy=BRIEF) as audited:
        for _ in range(150):
            await ask(audited)
        gone = audited.log.origin
    async with running_log(tmp_path, database_url, policy=BRIEF) as audited:
        outlive()
        assert (await sweep(audited)).logs == 1
        await flush(audited)
        assert gone not in [log.origin for log in await audited.store.logs()]
        rows = await audited.store.run(
            lambda c: [
                c.scalar(sa.select(sa.func.count()).select_from(table).where(table.c.log == 2))
                for table in (tables.pruned, tables.tiles, tables.checkpoints)
            ]
        )
        assert rows == [0, 0, 0]
        await audited.log.signing.sign()
        await assert_sound(tmp_path, database_url)
    async with stored(tmp_path, database_url) as store:
        told = await bodies(store, catalogue=True)
    assert ("log.dropped", gone) in [(one["type"], one["origin"]) for one in told]
    assert ("log.opened", gone) not in [(one["type"], one["origin"]) for one in told]
    await assert_sound(tmp_path, database_url)


async def erase_earlier(audited: Audited, day: int, *, is_whole: bool = True) -> None:
    """The first question as a whole, or only its values; of the others the values."""
    found = await bodies(audited.store)
    starts = [int(str(one["seq"])) for one in found if one["type"] == "query.start"]
    log = next(one for one in await audited.store.logs() if one.kind == "gateway")
    places = [Place(log.id, seq, "query", "query.start", ("query", "subject")) for seq in starts]
    if is_whole:
        places[0] = replace(places[0], fields=("*",))
    told: dict[str, Json] = {"request": HOLD.id, "day": day}
    told |= {"fields": sum(len(one.fields) for one in places), "records": len(places)}
    await audited.log.record("audit.erase", told)
    await audited.store.run(lambda c: removal.take(c, log.id, places, day), writes=True)
    await audited.log.record("audit.erase.done", told)
