"""config/postgres-roles.sql: what each role may and may not, asked of a real server, and that a
gateway and the commands get by with theirs."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlsplit

import aiohttp
import asyncpg
import pytest

from scripts.mock.behaviour import Behaviour
from scripts.mock.server import serving
from tests.auditing import assert_sound
from tests.commands import audit
from tests.forked import Result
from tests.integration.test_audit import CHAT, audited, of_type
from tests.servers import new_database

ROLES = Path(__file__).parents[2] / "config" / "postgres-roles.sql"
BRIEF = {"audit_retention_days": 0.00001, "audit_checkpoint_seconds": 0.1}
#: Of each role: what it may, what it may not.
READ_RECORDS = "SELECT body FROM audit_record"
READ_VALUES = "SELECT value FROM audit_personal"
READ_SALTS = "SELECT salt FROM audit_personal"
TAKE_RECORDS = "DELETE FROM audit_record WHERE log = -1"
TAKE_VALUES = "DELETE FROM audit_personal WHERE log = -1"
CHANGE_RECORDS = "UPDATE audit_record SET ts = 0 WHERE log = -1"
CHANGE_VALUES = "UPDATE audit_personal SET value = 'x' WHERE log = -1"
CHANGE_TREE = "UPDATE audit_tile SET hash = 'x' WHERE log = -1"
TAKE_CHECKPOINTS = "DELETE FROM audit_checkpoint WHERE log = -1"
TAKE_TOMBSTONES = "DELETE FROM audit_tombstone WHERE log = -1"
HOLD = "INSERT INTO audit_hold (id, scope, made_ms, until_ms) VALUES ('x', 'time', 1, 1)"
RELEASE = "UPDATE audit_hold SET released_ms = 1 WHERE id = 'y'"
READ_HELD = "SELECT subjects FROM audit_hold"
DROP_GUARD = "DROP TRIGGER audit_record_update ON audit_record"
EMPTY = "TRUNCATE audit_personal"
NOBODY_MAY = (CHANGE_RECORDS, CHANGE_VALUES, CHANGE_TREE, DROP_GUARD, EMPTY)
MAY: Mapping[str, set[str]] = {
    "sluice_writer": {READ_RECORDS},
    "sluice_reader": {READ_RECORDS},
    "sluice_rights": {
        *(READ_RECORDS, READ_VALUES, READ_SALTS, TAKE_RECORDS, TAKE_VALUES),
        *(HOLD, RELEASE, READ_HELD),
    },
    "sluice_sweeper": {
        *(READ_RECORDS, TAKE_RECORDS, TAKE_VALUES, TAKE_CHECKPOINTS, TAKE_TOMBSTONES, READ_HELD),
    },
}
EVERYTHING = sorted({*NOBODY_MAY}.union(*MAY.values()))


async def with_roles(folder: Path, postgres_url: str) -> str:
    """A database with its tables, the roles, and a login for each that is called as it."""
    url = await new_database(postgres_url)
    async with audited("http://127.0.0.1:9", folder, url):
        pass
    connection = await asyncpg.connect(url)
    try:
        for _ in range(2):  # it may be run again
            await connection.execute(ROLES.read_text())
        for role in MAY:
            await connection.execute(f"DROP ROLE IF EXISTS {role}_login")
            await connection.execute(f"CREATE ROLE {role}_login LOGIN IN ROLE {role}")
    finally:
        await connection.close()
    return url


def as_role(url: str, role: str) -> str:
    parts = urlsplit(url)
    return parts._replace(netloc=f"{role}_login@{parts.hostname}:{parts.port}").geturl()


@pytest.mark.parametrize("role", list(MAY))
async def test_role_may_do_what_it_is_for_and_nothing_else(
    tmp_path: Path, postgres_url: str, role: str
) -> None:
    url = await with_roles(tmp_path, postgres_url)
    connection = await asyncpg.connect(as_role(url, role))
    refused = set()
    try:
        for statement in EVERYTHING:
            try:
                async with connection.transaction():
                    await connection.execute(statement)
            except asyncpg.InsufficientPrivilegeError:
                refused.add(statement)
    finally:
        await connection.close()
    assert set(EVERYTHING) - refused == MAY[role]


async def test_gateway_and_commands_get_by_with_their_roles(
    tmp_path: Path, postgres_url: str
) -> None:
    owner = await with_roles(tmp_path, postgres_url)

    async def command(role: str, *words: str, stdin: str = "") -> Result:
        environment = {name.upper(): str(value) for name, value in BRIEF.items()}
        return await audit(
            *words,
            folder=tmp_path,
            database_url=as_role(owner, role),
            stdin=stdin,
            **environment,
        )

    async with serving(Behaviour(first=0, pace=1, tokens=5)) as upstream:
        for _ in range(2):
            async with (
                audited(
                    upstream,
                    tmp_path,
                    as_role(owner, "sluice_writer"),
                    audit_sweep_seconds=0,
                    **BRIEF,
                ) as gateway,
                aiohttp.ClientSession(gateway.url) as client,
            ):
                for number in range(3):
                    async with client.post(CHAT, json={"query": f"{number}"}) as answer:
                        assert answer.status == 200
                        await answer.read()
    assert len(await of_type(tmp_path, owner, "query.start")) == 6
    span = ("--from", "2020-01-01", "--to", "2090-01-01")
    until = ("--reason", "other", "--until", "2090-01-01")
    held = await command("sluice_rights", "hold", *span, *until, "--json")
    assert held.code == 0, held.err
    dumped = await command("sluice_rights", "dump", "--out", str(tmp_path / "dump"))
    assert dumped.code == 0, dumped.err
    end = asyncio.get_running_loop().time() + 1.2
    while asyncio.get_running_loop().time() < end:
        await asyncio.sleep(0.05)
    kept = await command("sluice_sweeper", "sweep", "--json")
    assert kept.code == 0, kept.err
    assert {one["due"] for one in kept.json["counts"]} == {0}
    released = await command("sluice_rights", "release", held.json["holds"][0]["id"])
    assert released.code == 0, released.err
    swept = await command("sluice_sweeper", "sweep")
    assert swept.code == 0, swept.err
    assert await of_type(tmp_path, owner, "query.start") == []
    refused = await command("sluice_writer", "sweep")
    assert refused.code == 5
    await assert_sound(tmp_path, owner)
