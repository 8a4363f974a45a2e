"""Holds: which records they cover, and that an export names them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import sqlalchemy as sa

from gateway.audit import holds, tables
from gateway.audit.canonical import Object
from gateway.audit.holds import Hold, Scope
from gateway.audit.recorder import Asked, Who
from gateway.audit.store import AuditStore
from tests.auditing import Audited, bodies, exported, running_log, stored

ADA = Who("sub:ada", "jwt", "192.0.2.7", email="ada@example.org")
BOB = Who("sub:bob", "jwt", "192.0.2.8")
HOLD = Hold("0199c2f0-0000-7000-8000-000000000000", "time", 1, 2**41)


async def ask(audited: Audited, who: Who) -> None:
    ticket = audited.recorder.begin(Asked(who, "chat", "how?"))
    await ticket.durable()
    ticket.end("completed", {})
    assert audited.log._writer is not None
    assert await audited.log._writer.flush(5)


async def held(store: AuditStore, *which: Hold) -> list[Object]:
    """The bodies of the records under these holds."""

    def read(connection: sa.Connection) -> set[tuple[int, int]]:
        records = tables.records
        query = sa.select(records.c.log, records.c.seq).where(holds.is_held(which))
        return {(row.log, row.seq) for row in connection.execute(query)}

    found = await store.run(read)
    ids = {log.origin: log.id for log in await store.logs()}
    return [one for one in await bodies(store) if (ids[str(one["log"])], one["seq"]) in found]


async def test_person_is_held_with_the_ends_of_their_requests(
    tmp_path: Path, database_url: str | None
) -> None:
    async with running_log(tmp_path, database_url) as audited:
        for who in (ADA, BOB, ADA):
            await ask(audited, who)
        audited.recorder.login(ADA, "chat")
        pseudonym = audited.log.people.hashes("sub:ada", None, None).personal["subject"]
    async with stored(tmp_path, database_url) as store:
        found = await held(store, replace(HOLD, scope="subject", subjects=(bytes(32), pseudonym)))
        assert sorted(str(one["type"]) for one in found) == [
            *("auth.login", "query.end", "query.end", "query.start", "query.start")
        ]
        assert await held(store, replace(HOLD, scope="subject", subjects=(bytes(32),))) == []


async def test_request_or_time_is_held(tmp_path: Path, database_url: str | None) -> None:
    async with running_log(tmp_path, database_url) as audited:
        for who in (ADA, BOB):
            await ask(audited, who)
    async with stored(tmp_path, database_url) as store:
        everything = await bodies(store)
        rid = next(str(one["rid"]) for one in everything if one["type"] == "query.start")
        found = await held(store, replace(HOLD, scope="request", rid=rid))
        assert [one["type"] for one in found] == ["query.start", "query.end"]
        first = int(str(everything[0]["ts"]))
        span = replace(HOLD, scope="time", from_ms=first, to_ms=first + 1)
        assert [one["ts"] for one in await held(store, span)] == [
            one["ts"] for one in everything if one["ts"] == first
        ]
        assert await held(store, replace(HOLD, from_ms=first - 1, to_ms=first)) == []
        assert await held(store) == []


async def test_hold_is_in_force_until_it_is_released(
    tmp_path: Path, database_url: str | None
) -> None:
    async with running_log(tmp_path, database_url) as audited:
        await ask(audited, ADA)
        hold = replace(HOLD, scope="subject", subjects=(b"a" * 32, b"b" * 32))
        await audited.store.run(lambda c: holds.place(c, hold), writes=True)
        assert await audited.store.run(holds.in_force) == [hold]

        def lift(connection: sa.Connection) -> bool:
            return holds.lift(connection, hold.id, 7)

        assert await audited.store.run(lift, writes=True)
        assert not await audited.store.run(lift, writes=True)
        assert await audited.store.run(holds.in_force) == []
        released = replace(hold, released_ms=7, subjects=())
        assert await audited.store.run(holds.all_holds) == [released]


@pytest.mark.parametrize("is_placed", [True, False])
async def test_export_names_what_holds_a_record(tmp_path: Path, is_placed: bool) -> None:
    async with running_log(tmp_path) as audited:
        await ask(audited, ADA)
        span = replace(HOLD, from_ms=0, to_ms=2**41)
        if is_placed:
            await audited.store.run(lambda c: holds.place(c, span), writes=True)
    async with stored(tmp_path) as store:
        paths = await exported(store, tmp_path)
    lines = [json.loads(line) for path in paths for line in path.read_text().splitlines()]
    named = {line.get("hold") for line in lines if line.get("kind") == "record"}
    assert named == ({HOLD.id} if is_placed else {None})


@pytest.mark.parametrize("scope", ["subject", "time", "request"])
async def test_what_no_hold_covers_can_be_asked_for(
    tmp_path: Path, database_url: str | None, scope: Scope
) -> None:
    nothing = replace(HOLD, scope=scope, rid="none", from_ms=0, to_ms=1, subjects=(b"",))
    everything = sa.select(sa.func.count()).select_from(tables.records)
    free = everything.where(sa.not_(holds.is_held([nothing])))
    async with running_log(tmp_path, database_url) as audited:
        await ask(audited, ADA)
        counts = await audited.store.run(lambda c: (c.scalar(everything), c.scalar(free)))
        assert counts[0] == counts[1]
