"""The rights of who is in the log, by the real command beside a running gateway."""

from __future__ import annotations

import asyncio
import json
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import asyncpg
import pytest
import sqlalchemy as sa

from gateway.audit import tables
from gateway.audit.canonical import from_text
from gateway.audit.keys import Keys
from gateway.audit.note import Signer
from gateway.audit.person import Person
from gateway.audit.recorder import Asked, Who
from gateway.errors import SettingsError
from scripts.mock.behaviour import Behaviour
from scripts.mock.server import serving
from tests.auditing import ROOT, bodies, running_log, stored
from tests.commands import assert_good, audit, begin
from tests.forked import Result
from tests.gateway import Gateway, running_gateway

CHAT = "/api/v2/chat-stream"
QUICK = Behaviour(first=0, pace=1, tokens=5)


@dataclass(frozen=True)
class Operator:
    """Runs commands on one deployment."""

    folder: Path
    database_url: str | None

    async def audit(self, *arguments: str, stdin: str = "") -> Result:
        return await audit(
            *arguments, folder=self.folder, database_url=self.database_url, stdin=stdin
        )


@dataclass
class Deployment:
    """A gateway with a client and an operator."""

    gateway: Gateway
    client: aiohttp.ClientSession
    operator: Operator

    async def ask(self, who: str, question: str = "how?") -> str:
        """The id of the stream that answered."""
        body = {"query": question, "conversation_id": f"of-{who}"}
        headers = {"X-User-Id": who}
        async with self.client.post(CHAT, json=body, headers=headers) as answer:
            assert answer.status == 200, await answer.text()
            await answer.read()
            return answer.headers["X-Stream-Id"]

    async def is_readable(self, who: str, stream: str) -> bool:
        path, headers = f"/api/v2/streams/{stream}", {"X-User-Id": who}
        async with self.client.get(path, headers=headers) as answer:
            return answer.status == 200


@asynccontextmanager
async def deployed(
    folder: Path, database_url: str | None = None, **settings: object
) -> AsyncIterator[Deployment]:
    told = {"database_url": database_url} if database_url is not None else {}
    async with (
        serving(QUICK) as url,
        running_gateway(
            url,
            audit_mode="relay",
            data_dir=folder,
            audit_checkpoint_file=folder / "checkpoints.jsonl",
            trusted_proxies="127.0.0.1/32",
            **told,
            **settings,
        ) as gateway,
        aiohttp.ClientSession(gateway.url) as client,
    ):
        yield Deployment(gateway, client, Operator(folder, database_url))


async def types(folder: Path, database_url: str | None) -> list[str]:
    async with stored(folder, database_url) as store:
        return [str(one["type"]) for one in await bodies(store)]


async def test_find_tells_ids_of_a_person_and_of_who_asked_a_question(
    tmp_path: Path, database_url: str | None
) -> None:
    async with deployed(tmp_path, database_url) as here:
        for who in ("ada", "ada", "bob"):
            await here.ask(who)
        await here.ask("ada", "why?")
        found = await here.operator.audit("find", "--subject-stdin", "--json", stdin="user:ada\n")
        assert found.code == 0, found.err
        assert len(found.json["records"]) == 3
        asked = await here.operator.audit("find", "--query-stdin", "--json", stdin="how?\n")
        assert len(asked.json["records"]) == 3
        assert len({*asked.json["records"]} & {*found.json["records"]}) == 2
        nobody = await here.operator.audit("find", "--subject-stdin", stdin="eve")
        assert nobody.out == "Nothing is there.\n"
    assert (await types(tmp_path, database_url)).count("audit.read") == 3
    await assert_good(tmp_path, database_url)


async def test_export_is_proven_record_by_record(tmp_path: Path, database_url: str | None) -> None:
    async with deployed(tmp_path, database_url) as here:
        await here.ask("bob")
        await here.ask("ada")
        out = tmp_path / "ada.json"
        export = ("export", "--subject-stdin", "--out", str(out), "--reference", "case 7")
        ran = await here.operator.audit(*export, stdin="user:ada\n")
        assert ran.code == 0, ran.err
        again = await here.operator.audit("export", "--subject-stdin", stdin="user:ada")
        page = await here.operator.audit("export", "--subject-stdin", "--html", stdin="user:ada")
    made = json.loads(await asyncio.to_thread(out.read_text))
    (record,) = made["records"]
    assert record["type"] == "query.start"
    assert record["values"].keys() == {"subject", "query", "session"}
    assert record["until_ms"] - record["ts"] == 90 * 86_400_000
    assert len(made["answers"]) == 1
    assert made["answers"][0]["text"]
    assert [one["type"] for one in again.json["records"]] == ["query.start", "audit.export"]
    assert again.json["records"][1]["values"].keys() == {"target", "reference"}
    assert page.out.startswith("<!doctype html>")
    assert made["answers"][0]["text"] in page.out
    (signer,) = Keys(tmp_path / "audit-keys").signers(record["proof"]["log"])
    assert await _proof(out, signer) == (0, f"{out}: proven\n")
    made["records"][0]["proof"]["body"] = record["proof"]["body"].replace("chat", "chaT")
    await asyncio.to_thread(out.write_text, json.dumps(made))
    assert (await _proof(out, signer))[0] == 2
    await assert_good(tmp_path, database_url)


async def test_erased_person_is_gone_from_log_store_and_memory(
    tmp_path: Path, database_url: str | None
) -> None:
    async with deployed(tmp_path, database_url) as here:
        mine, theirs = await here.ask("ada"), await here.ask("bob")
        name = "user:ada\n"
        dry = await here.operator.audit(
            "erase", "--subject-stdin", "--dry-run", "--json", stdin=name
        )
        assert dry.json == {
            "classes": {"query": {"records": 1, "fields": 3}},
            "answers": 1,
            "hold": None,
        }
        asked = await here.operator.audit("erase", "--subject-stdin", stdin=name)
        assert (asked.code, "say --yes" in asked.err) == (1, True)
        assert await here.is_readable("ada", mine)
        done = await here.operator.audit("erase", "--subject-stdin", "--yes", "--json", stdin=name)
        assert done.code == 0, done.err
        assert (done.json["fields"], done.json["answers"]) == (3, 1)
        async with asyncio.timeout(10):
            while await here.is_readable("ada", mine):
                await asyncio.sleep(0.05)
        assert await here.is_readable("bob", theirs)
        assert here.gateway.services.conversations.find("user:ada", "of-ada") is None
        nothing = await here.operator.audit("erase", "--subject-stdin", "--yes", stdin=name)
        assert nothing.code == 1
        await here.ask("ada")  # and the log goes on
    seen = await types(tmp_path, database_url)
    assert seen.count("audit.erase.refused") == 1
    assert seen.count("audit.erase.done") == 1
    await assert_good(tmp_path, database_url)


async def test_held_person_isnt_erased_until_the_hold_is_released(
    tmp_path: Path, database_url: str | None
) -> None:
    name, erase = "user:ada", ("erase", "--subject-stdin", "--yes")
    why = ("--reason", "legal_claim", "--until", "2099-01-01")
    async with deployed(tmp_path, database_url) as here:
        await here.ask("ada")
        held = await here.operator.audit("hold", "--subject-stdin", *why, "--json", stdin=name)
        assert held.code == 0, held.err
        hold = held.json["holds"][0]["id"]
        refused = await here.operator.audit(*erase, stdin=name)
        assert (refused.code, "17(3)(e)" in refused.err) == (1, True)
        listed = await here.operator.audit("holds", "--json")
        assert [(one["id"], one["state"]) for one in listed.json["holds"]] == [(hold, "in force")]
        assert (await here.operator.audit("release", hold)).code == 0
        assert (await here.operator.audit("release", hold)).code == 1
        assert (await here.operator.audit(*erase, stdin=name)).code == 0
        left = await here.operator.audit("find", "--subject-stdin", "--json", stdin=name)
        assert left.json == {"records": []}
    await assert_good(tmp_path, database_url)


async def test_gateway_that_starts_on_a_backup_brings_nothing_back(
    tmp_path: Path, database_url: str | None
) -> None:
    async with deployed(tmp_path, database_url) as here:
        mine = await here.ask("ada")
    backup = await _backed_up(tmp_path, database_url)
    async with deployed(tmp_path, database_url) as here:
        done = await here.operator.audit("erase", "--subject-stdin", "--yes", stdin="user:ada")
        assert done.code == 0, done.err
    if database_url is None:
        for name in ("audit.sqlite3", "streams.sqlite3"):
            await asyncio.to_thread(shutil.copy, Path(backup) / name, tmp_path / name)
    else:
        database_url = backup
    async with deployed(tmp_path, database_url) as here:
        assert not await here.is_readable("ada", mine)
        left = await here.operator.audit("find", "--subject-stdin", "--json", stdin="user:ada")
        assert left.json == {"records": []}
    async with stored(tmp_path, database_url) as store:
        (restored,) = [one for one in await bodies(store) if one["type"] == "audit.restored"]
    assert restored["applied"] == 4  # three values and an answer


async def _backed_up(folder: Path, database_url: str | None) -> str:
    """A copy of all that is stored: a folder, or another database of the same server."""
    if database_url is None:
        backup = folder.with_name(f"{folder.name}-backup")
        await asyncio.to_thread(shutil.copytree, folder, backup)
        return str(backup)
    server, _, name = database_url.rpartition("/")
    connection = await asyncpg.connect(f"{server}/postgres")
    await connection.execute(f'CREATE DATABASE "{name}_backup" TEMPLATE "{name}"')
    await connection.close()
    return f"{database_url}_backup"


async def test_no_byte_of_an_erased_person_is_left(
    tmp_path: Path, database_url: str | None
) -> None:
    key = Keys(tmp_path / "audit-keys")
    async with deployed(tmp_path, database_url) as here:
        streams = [await here.ask("ada", f"question {n}") for n in range(30)]
        await here.ask("bob")
        export = await here.operator.audit("export", "--subject-stdin", stdin="user:ada")
        (mine,) = Person.parse("user:ada").pseudonyms(key.all("subject"))
        gone = [mine, *(stream.encode() for stream in streams)]
        gone += [_decoded(v) for one in export.json["records"] for v in one["values"].values()]
        assert len(gone) == 31 + 30 * 3
        assert await _left(tmp_path, database_url, mine) > 30
        done = await here.operator.audit(
            "erase", "--subject-stdin", "--whole-record", "--yes", "--json", stdin="user:ada"
        )
        assert done.json["clean"] is (database_url is None)
        assert await _left(tmp_path, database_url, mine) == 0
        if database_url is None:
            async with asyncio.timeout(10):  # the ends that the gateway had yet to write
                while found := await asyncio.to_thread(_found, tmp_path, gone):
                    assert not found & {*gone[31:]}
                    await asyncio.sleep(0.05)
    await assert_good(tmp_path, database_url)


async def test_killed_erasure_is_finished_by_the_next_command(
    tmp_path: Path, database_url: str | None
) -> None:
    async with running_log(tmp_path, database_url) as audited:
        for _ in range(2000):
            asked = Asked(Who("user:ada", "proxy", "192.0.2.7"), "chat", "how?", "c")
            audited.recorder.begin(asked).end("completed", {})
        assert audited.log._writer is not None
        assert await audited.log._writer.flush(30)
    operator = Operator(tmp_path, database_url)
    process = await begin(
        *("erase", "--subject-stdin", "--yes"), folder=tmp_path, database_url=database_url
    )
    assert process.stdin is not None
    process.stdin.write(b"user:ada")
    process.stdin.close()
    async with stored(tmp_path, database_url) as store, asyncio.timeout(60):
        stones = sa.select(sa.func.count()).select_from(tables.tombstones)
        while not await store.run(lambda c: c.execute(stones).scalar_one()):
            await asyncio.sleep(0.001)
    process.kill()
    await process.wait()
    left = await operator.audit("find", "--subject-stdin", "--json", stdin="user:ada")
    assert left.json == {"records": []}
    async with stored(tmp_path, database_url) as store:
        told = [one for one in await bodies(store) if one["type"] == "audit.erase.done"]
    assert sum(int(str(one["fields"])) for one in told) == 6000
    await assert_good(tmp_path, database_url)


async def test_gateway_that_cant_read_the_journal_doesnt_start(tmp_path: Path) -> None:
    journal = tmp_path / "erasures.jsonl"
    await asyncio.to_thread(journal.write_text, "damaged")
    with pytest.raises(SettingsError, match="AUDIT_ERASURES_FILE"):
        async with deployed(tmp_path, audit_erasures_file=journal):
            pass
    ran = await audit("holds", folder=tmp_path, AUDIT_ERASURES_FILE=str(journal))
    assert (ran.code, "AUDIT_ERASURES_FILE" in ran.err) == (1, True)


async def test_running_gateway_takes_over_new_keys(
    tmp_path: Path, database_url: str | None
) -> None:
    keys = Keys(tmp_path / "audit-keys")
    async with deployed(tmp_path, database_url, audit_checkpoint_seconds="0.2") as here:
        await here.ask("ada")
        old = keys.all("sign")[0]
        for kind in ("query", "subject", "sign"):
            ran = await here.operator.audit("rotate-key", "--kind", kind, "--json")
            assert ran.code == 0, ran.err
        new = {kind: keys.all(kind)[0].id for kind in ("query", "subject")}
        async with asyncio.timeout(20):
            while (await types(tmp_path, database_url)).count("audit.key.rotated") < 4:
                await asyncio.sleep(0.05)
        await here.ask("ada")
        found = await here.operator.audit("find", "--subject-stdin", "--json", stdin="user:ada")
        assert len(found.json["records"]) == 2
        asked = await here.operator.audit("find", "--query-stdin", "--json", stdin="how?")
        assert asked.json == found.json
    async with stored(tmp_path, database_url) as store:
        starts = [one for one in await bodies(store) if one["type"] == "query.start"]
    assert starts[-1]["kid"] == {"q": new["query"], "s": new["subject"]}
    await assert_good(tmp_path, database_url)
    public = Signer("key", old.secret).verifier
    await assert_good(tmp_path, database_url, key=str(public))


async def _proof(path: Path, signer: Signer) -> tuple[int, str]:
    command = [sys.executable, str(ROOT / "scripts/verify_audit.py"), "--proof", str(path)]
    command += ["--key", str(signer.verifier)]
    done = await asyncio.to_thread(
        subprocess.run, command, capture_output=True, text=True, check=False
    )
    return done.returncode, done.stdout


def _decoded(text: str) -> bytes:
    return from_text(text)


async def _left(folder: Path, database_url: str | None, pseudonym: bytes) -> int:
    """In how many rows somebody's pseudonym still is."""
    personal = tables.personal
    mine = (personal.c.subject == pseudonym) | (personal.c.value == pseudonym)
    query = sa.select(sa.func.count()).select_from(personal).where(mine)
    async with stored(folder, database_url) as store:
        return int(await store.run(lambda c: c.execute(query).scalar_one()))


def _found(folder: Path, values: list[bytes]) -> set[bytes]:
    """Which of these are in any file but the keys and the journal, which names streams."""
    files = [path for path in folder.glob("*") if path.is_file()]
    everything = b"".join(path.read_bytes() for path in files)
    return {value for value in values if value in everything}
