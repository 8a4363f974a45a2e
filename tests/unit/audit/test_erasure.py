"""Erasing a person: what goes, what the log says of it, and that nothing brings it back."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import sqlalchemy as sa

from gateway.audit import holds, settlement, subject, tables
from gateway.audit.canonical import Object
from gateway.audit.erasure import Eraser, Erasure, Plan
from gateway.audit.holds import Hold
from gateway.audit.journal import Journal
from gateway.audit.keys import Keys
from gateway.audit.person import Person
from gateway.audit.policy import Cls, Policy
from gateway.audit.recorder import Asked, Who
from gateway.audit.subject import Findings
from gateway.errors import AuditError
from tests.auditing import Audited, assert_sound, bodies, running_log, stored

ADA = Who("sub:ada@example.org", "jwt", "192.0.2.7", email="ada@example.org")
BOB = Who("sub:bob", "jwt", "192.0.2.8")
NAME = Person.parse("ada@example.org")


@dataclass
class Kept:
    """Stored answers of a test."""

    streams: set[str] = field(default_factory=set)

    async def erase(self, streams: Sequence[str]) -> int:
        gone = self.streams & {*streams}
        self.streams -= gone
        return len(gone)


async def ask(audited: Audited, who: Who, times: int = 1) -> None:
    for _ in range(times):
        audited.recorder.begin(Asked(who, "chat", "how?", "c")).end("completed", {})
    assert audited.log._writer is not None
    assert await audited.log._writer.flush(5)


def eraser(audited: Audited, folder: Path, kept: Kept | None = None) -> Eraser:
    return Eraser(audited.log, Journal(folder / "keys" / "erasures.jsonl"), kept or Kept())


async def found(audited: Audited, folder: Path, person: Person = NAME) -> Findings:
    keys = Keys(folder / "audit-keys").all("subject")
    return await audited.store.run(lambda c: subject.of_person(c, person, keys))


async def erase(
    audited: Audited, folder: Path, kept: Kept | None = None, **how: bool
) -> tuple[Plan, Erasure]:
    made = eraser(audited, folder, kept)
    plan = await made.plan(await found(audited, folder), ["s1"], **how)
    return plan, await made.erase(plan, {"operator": "root", "reference": "case 7"})


async def types(folder: Path, database_url: str | None) -> list[str]:
    async with stored(folder, database_url) as store:
        return [str(one["type"]) for one in await bodies(store)]


async def told(folder: Path, database_url: str | None, type_: str) -> list[Object]:
    async with stored(folder, database_url) as store:
        return [one for one in await bodies(store) if one["type"] == type_]


def raw(folder: Path) -> bytes:
    """Every byte that is kept, but for the keys."""
    files = [path for path in folder.rglob("*") if path.is_file() and "audit-keys" not in str(path)]
    return b"".join(path.read_bytes() for path in files)


async def test_values_go_and_the_log_verifies(tmp_path: Path, database_url: str | None) -> None:
    kept = Kept({"s1", "s2"})
    async with running_log(tmp_path, database_url) as audited:
        await ask(audited, ADA, 3)
        await ask(audited, BOB, 2)
        audited.recorder.login(ADA, "chat")
        await ask(audited, ADA)
        plan, made = await erase(audited, tmp_path, kept)
        assert plan.counts() == {"auth": (1, 2), "query": (4, 12)}
        assert (made.records, made.fields, made.streams) == (5, 14, 1)
        assert (await found(audited, tmp_path)).places == []
        assert len((await found(audited, tmp_path, Person.parse("bob"))).places) == 2
    assert kept.streams == {"s2"}
    seen = await types(tmp_path, database_url)
    assert seen.count("query.start") == 6
    assert seen.index("audit.erase") < seen.index("audit.erase.done")
    await assert_sound(tmp_path, database_url)


async def test_whole_records_go_with_the_ends_of_their_requests(
    tmp_path: Path, database_url: str | None
) -> None:
    async with running_log(tmp_path, database_url) as audited:
        await ask(audited, ADA, 2)
        await ask(audited, BOB)
        _, made = await erase(audited, tmp_path, is_whole=True)
        assert (made.records, made.fields) == (4, 4)
    seen = await types(tmp_path, database_url)
    assert (seen.count("query.start"), seen.count("query.end")) == (1, 1)
    await assert_sound(tmp_path, database_url)


async def test_no_byte_of_the_values_is_left(tmp_path: Path) -> None:
    async with running_log(tmp_path) as audited:
        await ask(audited, ADA, 40)
        await ask(audited, BOB)
        personal = tables.personal
        mine = sa.select(personal.c.value, personal.c.salt).where(
            personal.c.seq.in_([place.seq for place in (await found(audited, tmp_path)).places])
        )
        doomed = await audited.store.run(lambda c: [v for row in c.execute(mine) for v in row])
        pseudonym = (await found(audited, tmp_path)).pseudonyms[0]
        await audited.log.record(
            "audit.export",
            {"request": "0199c2f0-0000-7000-8000-000000000000", "records": 40},
            {"target": pseudonym, "reference": "case of Ada", "operator": "root"},
        )
        assert len(doomed) == 2 * 40 * 3
        assert all(value in raw(tmp_path) for value in doomed)
        await erase(audited, tmp_path)
        left = raw(tmp_path)
        survivors = [value for value in (*doomed, b"case of Ada", b"ada@") if value in left]
        assert survivors == []
        assert pseudonym not in left
    await assert_sound(tmp_path)


async def test_held_person_is_refused(tmp_path: Path, database_url: str | None) -> None:
    async with running_log(tmp_path, database_url) as audited:
        await ask(audited, ADA)
        findings = await found(audited, tmp_path)
        id_ = "0199c2f0-0000-7000-8000-000000000000"
        hold = Hold(id_, "subject", 1, 2**41, subjects=findings.pseudonyms)
        await audited.store.run(lambda c: holds.place(c, hold), writes=True)
        made = eraser(audited, tmp_path)
        plan = await made.plan(findings, [])
        assert plan.hold == hold.id
        await made.refuse(plan, {"reference": "case 7"})
        assert len((await found(audited, tmp_path)).places) == 1
    (refusal,) = await told(tmp_path, database_url, "audit.erase.refused")
    assert (refusal["reason"], refusal["hold"]) == ("art_17_3_e", hold.id)


async def test_restored_backup_brings_nothing_back(tmp_path: Path) -> None:
    async with running_log(tmp_path) as audited:
        await ask(audited, ADA, 3)
        await audited.store.scrub()
        shutil.copy(tmp_path / "audit.sqlite3", tmp_path / "backup")
        await ask(audited, BOB)
        await erase(audited, tmp_path, Kept({"s1"}))
    (tmp_path / "backup").rename(tmp_path / "audit.sqlite3")
    kept = Kept({"s1"})
    async with running_log(tmp_path) as audited:
        await ask(audited, ADA, 3)  # perhaps with the numbers of those that were erased
        assert len((await found(audited, tmp_path)).places) == 6
        assert await eraser(audited, tmp_path, kept).check() == 10
        assert len((await found(audited, tmp_path)).places) == 3
        assert kept.streams == set()
        assert await eraser(audited, tmp_path, kept).check() == 0
    assert [one["applied"] for one in await told(tmp_path, None, "audit.restored")] == [10]


async def test_crash_in_the_middle_is_finished_and_told(
    tmp_path: Path, database_url: str | None
) -> None:
    def crash(done: int, total: int) -> None:
        raise RuntimeError

    async with running_log(tmp_path, database_url) as audited:
        await ask(audited, ADA, 510)
        made = eraser(audited, tmp_path)
        plan = await made.plan(await found(audited, tmp_path), [])
        with pytest.raises(RuntimeError):
            await made.erase(plan, {}, crash)
        assert [one.fields for one in await audited.store.run(settlement.unsettled)] == [1500]
        assert await eraser(audited, tmp_path).check() == 30
        assert (await found(audited, tmp_path)).places == []
        assert await audited.store.run(settlement.unsettled) == []
    done = await told(tmp_path, database_url, "audit.erase.done")
    assert [(one["records"], one["fields"]) for one in done] == [(500, 1500), (10, 30)]
    await assert_sound(tmp_path, database_url)


async def test_only_one_erases_at_a_time(tmp_path: Path) -> None:
    async with running_log(tmp_path) as audited:
        await ask(audited, ADA)
        made = eraser(audited, tmp_path)
        plan = await made.plan(await found(audited, tmp_path), [])
        lock = Journal(tmp_path / "keys" / "erasures.jsonl").lock()
        try:
            with pytest.raises(AuditError) as caught:
                await made.erase(plan, {})
            assert caught.value.code == "busy"
            assert await made.check() == 0
        finally:
            os.close(lock)


async def test_damaged_journal_is_told(tmp_path: Path) -> None:
    path = tmp_path / "keys" / "erasures.jsonl"
    path.parent.mkdir()
    path.write_text("{}\n")
    async with running_log(tmp_path) as audited:
        with pytest.raises(AuditError) as caught:
            await eraser(audited, tmp_path).check()
    assert caught.value.code == "bad_journal"


async def test_who_only_said_the_email_is_told_apart(tmp_path: Path) -> None:
    policy = Policy(email_classes=frozenset({Cls.AUTH, Cls.QUERY}))
    mallory = Who("sub:mallory", "jwt", "192.0.2.9", email="ada@example.org")
    async with running_log(tmp_path, policy=policy) as audited:
        await ask(audited, mallory)
        await ask(audited, ADA)
        findings = await found(audited, tmp_path)
        assert [place.fields for place in findings.places] == [
            ("email",),
            ("email", "query", "session", "subject"),
        ]
        assert len(findings.linked) == 1
        keys = Keys(tmp_path / "audit-keys").all("subject")
        everything = await audited.store.run(
            lambda c: subject.of_person(c, NAME, keys, is_linked=True)
        )
        assert [len(place.fields) for place in everything.places] == [4, 4]
        assert everything.linked == ()


async def test_address_goes_from_violations_and_nothing_else(
    tmp_path: Path, database_url: str | None
) -> None:
    async with running_log(tmp_path, database_url) as audited:
        nobody = Who("addr:192.0.2.8", "none", "192.0.2.8")
        for who, reason in ((BOB, "requests"), (nobody, "streams"), (ADA, "requests")):
            audited.recorder.violated("security.rate_limited", reason, who, {"status": 429})
        await ask(audited, BOB)
        findings = await found(audited, tmp_path, Person.parse("addr:192.0.2.8"))
        assert [place.fields for place in findings.places] == [("ip",), ("ip",)]
        made = eraser(audited, tmp_path)
        done = await made.erase(await made.plan(findings, []), {})
        assert done.fields == 2
    await assert_sound(tmp_path, database_url)
