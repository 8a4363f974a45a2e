"""Sweeps: what was kept long enough goes, the log says so first, and still verifies."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
import sqlalchemy as sa

from gateway.audit import holds, tables
from gateway.audit.holds import Hold
from gateway.audit.policy import DAY_S, Cls, Policy
from gateway.audit.recorder import Asked, Who
from gateway.audit.retention import Sweeper, Swept
from gateway.audit.store import AuditStore, AuditStoreError
from tests.auditing import Audited, assert_sound, bodies, running_log, stored
from tests.clock import put_forward

pytestmark = pytest.mark.usefixtures("wall_clock")

ADA = Who("sub:ada", "jwt", "192.0.2.7", email="ada@example.org")
BOB = Who("sub:bob", "jwt", "192.0.2.8")
SHORT = Policy(retention_s={**dict.fromkeys(Cls, 1), Cls.AUDIT: 400 * DAY_S}, ip_retention_s=1)
HOLD = Hold("0199c2f0-0000-7000-8000-000000000000", "time", 1, 2**41, from_ms=0, to_ms=2**41)


async def ask(audited: Audited, who: Who = ADA) -> None:
    ticket = audited.recorder.begin(Asked(who, "chat", "how?"))
    await ticket.durable()
    ticket.end("completed", {})
    await flush(audited)


async def flush(audited: Audited) -> None:
    assert audited.log._writer is not None
    assert await audited.log._writer.flush(5)


def outlive() -> None:
    """Lets pass what is longer than the retention of `SHORT`."""
    put_forward(1.05)


async def sweep(audited: Audited) -> Swept:
    swept = await Sweeper(audited.log).sweep()
    await flush(audited)
    return swept


def taken(swept: Swept) -> dict[str, int]:
    found: dict[str, int] = {}
    for one in swept.counts:
        found[one.what] = found.get(one.what, 0) + one.due
    return {what: count for what, count in found.items() if count}


async def types(folder: Path, database_url: str | None) -> list[object]:
    async with stored(folder, database_url) as store:
        return [one["type"] for one in await bodies(store)]


async def test_what_is_over_goes_and_the_log_verifies(
    tmp_path: Path, database_url: str | None
) -> None:
    async with running_log(tmp_path, database_url, policy=SHORT) as audited:
        for _ in range(3):
            await ask(audited)
        await audited.log.signing.sign()
        outlive()
        await ask(audited)
        assert taken(await sweep(audited)) == {"query": 6}
        assert taken(await sweep(audited)) == {}
    left = await types(tmp_path, database_url)
    assert (left.count("query.start"), left.count("query.end")) == (1, 1)
    assert left.index("audit.sweep") < left.index("audit.sweep.done")
    await assert_sound(tmp_path, database_url)
    async with stored(tmp_path, database_url) as store:
        kept = await store.run(lambda c: c.execute(sa.select(tables.personal.c.seq)).all())
        assert len({row.seq for row in kept}) == 1


async def test_log_of_an_earlier_process_is_swept_too(
    tmp_path: Path, database_url: str | None
) -> None:
    async with running_log(tmp_path, database_url, policy=SHORT) as audited:
        await ask(audited)
    outlive()
    async with running_log(tmp_path, database_url, policy=SHORT) as audited:
        assert taken(await sweep(audited)) == {"query": 2}
    left = await types(tmp_path, database_url)
    assert "query.start" not in left
    assert "audit.sweep" in left
    await assert_sound(tmp_path, database_url)


async def test_last_records_before_a_crash_are_signed_and_swept(
    tmp_path: Path, database_url: str | None
) -> None:
    async with running_log(tmp_path, database_url, policy=SHORT, is_closed=False) as audited:
        await ask(audited)
    async with running_log(tmp_path, database_url, policy=SHORT) as audited:
        outlive()
        assert taken(await sweep(audited)) == {"query": 2}
    await assert_sound(tmp_path, database_url)


async def test_request_that_still_runs_and_what_no_checkpoint_covers_stay(tmp_path: Path) -> None:
    async with running_log(tmp_path, policy=SHORT) as audited:
        ticket = audited.recorder.begin(Asked(ADA, "chat", "how?"))
        await ticket.durable()
        await audited.log.signing.sign()
        await ask(audited)
        outlive()
        sweeper = Sweeper(audited.log)
        assert taken(await sweeper.sweep()) == {}
        ticket.end("completed", {})
        await flush(audited)
        assert taken(await sweeper.sweep()) == {"query": 1}
    await assert_sound(tmp_path)


async def test_address_goes_before_its_record(tmp_path: Path, database_url: str | None) -> None:
    days = {**dict.fromkeys(Cls, 90 * DAY_S), Cls.AUDIT: 400 * DAY_S}
    async with running_log(
        tmp_path, database_url, policy=Policy(retention_s=days, ip_retention_s=1)
    ) as audited:
        for _ in range(3):
            await audited.log.record(
                "security.auth_failed", {"reason": "unknown_key"}, {"ip": "192.0.2.7"}
            )
        await audited.log.signing.sign()
        outlive()
        sweeper = Sweeper(audited.log)
        assert taken(await sweeper.sweep()) == {"ip": 3}
        assert taken(await sweeper.sweep()) == {}
    assert "security.auth_failed" in await types(tmp_path, database_url)
    await assert_sound(tmp_path, database_url)


async def test_hold_keeps_what_it_covers_and_nothing_else(
    tmp_path: Path, database_url: str | None
) -> None:
    async with running_log(tmp_path, database_url, policy=SHORT) as audited:
        for who in (ADA, BOB, ADA):
            await ask(audited, who)
        await audited.log.signing.sign()
        hashes = audited.log.people.hashes("sub:ada", None, None)
        hold = Hold(HOLD.id, "subject", 1, 2**41, subjects=(hashes.personal["subject"],))
        await audited.log.record(
            "audit.hold", {"hold": hold.id, "until_ms": 2**41, "scope": "subject"}
        )
        await audited.store.run(lambda c: holds.place(c, hold), writes=True)
        outlive()
        sweeper = Sweeper(audited.log)
        first = await sweeper.sweep()
        assert [(one.what, one.due, one.held) for one in first.counts] == [("query", 2, 4)]
        await flush(audited)
        await audited.log.signing.sign()
        assert taken(await sweeper.sweep()) == {}
        await assert_sound(tmp_path, database_url)
        await audited.log.record("audit.release", {"hold": hold.id})
        await audited.store.run(lambda c: holds.lift(c, hold.id, 1), writes=True)
        assert taken(await sweeper.sweep()) == {"query": 4}
    await assert_sound(tmp_path, database_url)


async def test_blocks_of_which_nothing_is_left_are_one_hash(
    tmp_path: Path, database_url: str | None
) -> None:
    async with running_log(tmp_path, database_url, policy=SHORT) as audited:
        await asyncio.gather(*(ask(audited) for _ in range(400)))
        await audited.log.signing.sign()
        outlive()
        assert taken(await sweep(audited)) == {"query": 800}
        left = await audited.store.run(lambda c: c.scalars(sa.select(tables.pruned.c.seq)).all())
        blocks = {seq // 256 for seq in left}
        assert 1 not in blocks
        assert 2 not in blocks
        assert 0 in blocks  # the opening is there
    await assert_sound(tmp_path, database_url)


async def test_only_one_process_sweeps(tmp_path: Path, database_url: str | None) -> None:
    async with (
        running_log(tmp_path, database_url, policy=SHORT) as audited,
        stored(tmp_path, database_url) as other,
    ):
        async with other.alone("sweep") as is_alone:
            assert is_alone
            assert (await Sweeper(audited.log).sweep()).is_busy
        assert not (await Sweeper(audited.log).sweep()).is_busy


async def test_plan_says_what_would_go_and_takes_nothing(
    tmp_path: Path, database_url: str | None
) -> None:
    async with running_log(tmp_path, database_url, policy=SHORT) as audited:
        await ask(audited)
        await audited.log.signing.sign()
        outlive()
        sweeper = Sweeper(audited.log)
        for _ in range(2):
            assert taken(await sweeper.plan()) == {"query": 2}
        assert taken(await sweeper.sweep()) == {"query": 2}


async def test_what_a_sweep_told_and_could_not_take_the_next_one_takes(
    tmp_path: Path, database_url: str | None
) -> None:
    async with running_log(tmp_path, database_url, policy=SHORT) as audited:
        await ask(audited)
        await audited.log.signing.sign()
        outlive()
        await refuse_deletes(audited.store, is_refused=True)
        with pytest.raises(AuditStoreError):
            await Sweeper(audited.log).sweep()
        assert "query.start" in [one["type"] for one in await bodies(audited.store)]
        await refuse_deletes(audited.store, is_refused=False)
        assert taken(await sweep(audited)) == {"query": 2}
    left = await types(tmp_path, database_url)
    assert (left.count("audit.sweep"), left.count("audit.sweep.done")) == (2, 1)
    await assert_sound(tmp_path, database_url)


async def refuse_deletes(store: AuditStore, *, is_refused: bool) -> None:
    """By a trigger, as a full disk or a lost connection would."""
    make = ["CREATE TRIGGER refuse BEFORE DELETE ON audit_personal %s"]
    drop = ["DROP TRIGGER refuse%s"]
    if store.is_shared:
        body = "BEGIN RAISE EXCEPTION 'no'; END"
        make.insert(
            0,
            f"CREATE OR REPLACE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ {body} $$",
        )
        ends = ("FOR EACH ROW EXECUTE FUNCTION refuse()", " ON audit_personal")
    else:
        ends = ("BEGIN SELECT RAISE(ABORT, 'no'); END", "")
    statements = [one.replace("%s", ends[0]) for one in make]
    if not is_refused:
        statements = [drop[0].replace("%s", ends[1])]
    for statement in statements:
        await store.run(lambda c, text=statement: c.execute(sa.text(text)), writes=True)


async def test_pages_that_were_freed_are_given_back(tmp_path: Path) -> None:
    def free(connection: sa.Connection) -> object:
        return connection.exec_driver_sql("PRAGMA freelist_count").scalar()

    async with running_log(tmp_path, policy=SHORT, patience_s=60) as audited:
        for _ in range(3):
            await asyncio.gather(*(ask(audited) for _ in range(500)))
        await audited.log.signing.sign()
        outlive()
        assert taken(await sweep(audited)) == {"query": 3000}
        assert await audited.store.run(free) == 0
