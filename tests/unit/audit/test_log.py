"""The log over both databases: what is reported is stored, signed and found sound."""

from __future__ import annotations

import asyncio
import sqlite3
from collections import Counter
from contextlib import closing
from pathlib import Path

import pytest
import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError, IntegrityError

from gateway.audit.recorder import Asked, Who
from tests.auditing import Audited, assert_sound, bodies, running_log, stored
from tests.servers import new_database

ADA = Who("sub:ada", "jwt", "192.0.2.7")
NOBODY = Who("addr:192.0.2.8", "none", "192.0.2.8")


async def ask(audited: Audited, who: Who = ADA, question: str = "how?") -> None:
    ticket = audited.recorder.begin(Asked(who, "chat", question, "c-1", "m-large"))
    await ticket.durable()
    assert ticket.receipt is not None
    ticket.end("completed", {"status": 200, "dur_ms": 3})


async def test_what_is_reported_is_stored_and_verifies(
    tmp_path: Path, database_url: str | None
) -> None:
    async with running_log(tmp_path, database_url) as audited:
        for _ in range(5):
            await ask(audited)
        await ask(audited, NOBODY)
    async with stored(tmp_path, database_url) as store:
        found = await bodies(store)
        told = await bodies(store, catalogue=True)
    types = Counter(str(one["type"]) for one in found)
    assert (types["query.start"], types["query.end"]) == (6, 6)
    assert [one["type"] for one in found][:2] == ["audit.open", "audit.policy"]
    assert found[-1]["type"] == "audit.close"
    assert [one["type"] for one in told] == ["log.opened", "log.head", "log.closed"]
    starts = {one["seq"]: one for one in found if one["type"] == "query.start"}
    ends = [one for one in found if one["type"] == "query.end"]
    assert {(starts[int(str(one["start"]))]["rid"]) for one in ends} == {one["rid"] for one in ends}
    logs = await assert_sound(tmp_path, database_url)
    assert [(log.kind, log.state) for log in logs] == [("catalogue", "open"), ("gateway", "closed")]


async def test_many_at_once_are_one_transaction(tmp_path: Path, database_url: str | None) -> None:
    async with running_log(tmp_path, database_url) as audited:
        await asyncio.gather(*(ask(audited, question=f"{n}") for n in range(300)))
        assert audited.figures.classes["query"] >= 300
    await assert_sound(tmp_path, database_url)


async def test_records_that_nobody_waits_for_share_a_commit(
    tmp_path: Path, database_url: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.audit.writer._PAUSE_S", 60)
    async with running_log(tmp_path, database_url) as audited:
        await ask(audited)
        before = audited.figures.commits
        tickets = []
        for _ in range(5):
            tickets.append(audited.recorder.begin(Asked(ADA, "chat", "how?")))
            await asyncio.sleep(0.01)
        assert audited.figures.commits == before
        await tickets[-1].durable()
        assert audited.figures.commits == before + 1
        assert all(ticket.receipt for ticket in tickets)
    await assert_sound(tmp_path, database_url)


async def test_record_that_nobody_waits_for_is_written_soon(
    tmp_path: Path, database_url: str | None
) -> None:
    async with running_log(tmp_path, database_url) as audited:
        await ask(audited)
        ticket = audited.recorder.begin(Asked(ADA, "chat", "how?"))
        assert ticket._entry.done is not None
        await asyncio.wait_for(ticket._entry.done, 5)


async def test_equal_questions_look_equal_for_one_person_and_not_for_two(
    tmp_path: Path, database_url: str | None
) -> None:
    async with running_log(tmp_path, database_url) as audited:
        for who in (ADA, ADA, Who("sub:bob", "jwt", "192.0.2.9"), NOBODY):
            await ask(audited, who)
        (log,) = [one for one in await audited.store.logs() if one.kind == "gateway"]
        records = await audited.store.records(log.id, 0, audited.log.size)
    values = [{p.field: p.value for p in one.personal} for one in records if one.personal]
    assert values[0] == values[1]
    assert values[0]["query"] != values[2]["query"] != values[3]["query"]
    assert "subject" not in values[3]


async def test_log_that_a_crash_left_is_gone_on_with_and_its_open_requests_are_unknown(
    tmp_path: Path,
) -> None:
    async with running_log(tmp_path, is_closed=False) as audited:
        await ask(audited)
        await audited.recorder.begin(Asked(ADA, "chat", "how?")).durable()
        assert await audited.log._writer.flush(5)  # type: ignore[union-attr]
    async with running_log(tmp_path) as audited:
        await ask(audited)
    logs = await assert_sound(tmp_path)
    assert len(logs) == 2
    async with stored(tmp_path) as store:
        found = await bodies(store)
    assert [one["outcome"] for one in found if one["type"] == "query.end"] == [
        "completed",
        "unknown",
        "completed",
    ]
    assert [one.get("resumed") for one in found if one["type"] == "audit.open"] == [None, True]


async def test_log_of_a_process_that_died_is_abandoned_on_a_server(
    tmp_path: Path, postgres_url: str
) -> None:
    url = await new_database(postgres_url)
    async with running_log(tmp_path, url, is_closed=False) as audited:
        await audited.recorder.begin(Asked(ADA, "chat", "how?")).durable()
    async with running_log(tmp_path, url) as audited:
        await ask(audited)
    logs = await assert_sound(tmp_path, url)
    assert [log.state for log in logs] == ["open", "abandoned", "closed"]


async def test_rows_never_change_and_a_body_goes_only_after_its_leaf_is_kept(
    tmp_path: Path, database_url: str | None
) -> None:
    async with running_log(tmp_path, database_url) as audited:
        await ask(audited)
        for text in (
            "UPDATE audit_record SET ts = 1",
            "DELETE FROM audit_record WHERE seq = 1",
            "UPDATE audit_checkpoint SET note = ''",
        ):

            def work(connection: sa.Connection, text: str = text) -> None:
                connection.execute(sa.text(text)).close()

            with pytest.raises((IntegrityError, DBAPIError)):
                await audited.store.database.run(work, writes=True)
    await assert_sound(tmp_path, database_url)


async def test_ends_that_wait_beside_the_store_outlive_the_process(
    tmp_path: Path,
) -> None:
    async with running_log(tmp_path, is_closed=False) as audited:
        ticket = audited.recorder.begin(Asked(ADA, "chat", "how?"))
        await ticket.durable()
        with closing(sqlite3.connect(tmp_path / "audit.sqlite3", isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            ticket.end("incomplete", {"status": 200})
            assert audited.log._writer is not None
            await audited.log._reserve.keep_ends(audited.log._writer.waiting())
            # The process dies before the lock is gone.
            await audited.log._tasks.cancel()
        assert b"incomplete" in (tmp_path / "audit.spool").read_bytes()
    async with running_log(tmp_path):
        assert not (tmp_path / "audit.spool").exists()
    async with stored(tmp_path) as store:
        ends = [one for one in await bodies(store) if one["type"] == "query.end"]
    assert [one["outcome"] for one in ends] == ["incomplete"]
    await assert_sound(tmp_path)


async def test_what_a_full_queue_loses_is_told(tmp_path: Path) -> None:
    async with running_log(tmp_path, mode="async") as audited:
        writer = audited.log._writer
        assert writer is not None
        writer._max_queue = 10
        with closing(sqlite3.connect(tmp_path / "audit.sqlite3", isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            audited.recorder.begin(Asked(ADA, "chat", "first"))
            await asyncio.sleep(0.02)
            writer.failures = 1  # as after the driver's own patience
            for number in range(50):
                audited.recorder.begin(Asked(ADA, "chat", f"{number}"))
            other.execute("ROLLBACK")
        assert await writer.flush(10)
        assert audited.figures.lost == 40
    async with stored(tmp_path) as store:
        (gap,) = [one for one in await bodies(store) if one["type"] == "audit.gap"]
    assert (gap["count"], gap["reason"]) == (40, "queue_full")
    await assert_sound(tmp_path)


@pytest.mark.parametrize("state", ["abandoned", "closed"])
async def test_log_that_somebody_gave_up_takes_no_more_and_another_one_does(
    tmp_path: Path, database_url: str | None, state: str
) -> None:
    async with running_log(tmp_path, database_url) as audited:
        begun = audited.recorder.begin(Asked(ADA, "chat", "before"))
        await begun.durable()
        give_up = sa.text("UPDATE audit_log SET state = :state WHERE kind = 'gateway'")

        def work(connection: sa.Connection) -> None:
            connection.execute(give_up, {"state": state}).close()

        first = audited.log.origin
        await audited.store.run(work, writes=True)
        ticket = audited.recorder.begin(Asked(ADA, "chat", "how?"))
        await ticket.durable()
        assert ticket.receipt is not None
        assert ticket.receipt.log == audited.log.origin != first
        ticket.end("completed")
        begun.end("completed")
    found = await assert_sound(tmp_path, database_url)
    assert len([log for log in found if log.kind == "gateway"]) == 2
