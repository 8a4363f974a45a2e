"""`sluice audit` beside a running gateway, and what its exit code says."""

from __future__ import annotations

import asyncio
import json
import stat
from pathlib import Path
from typing import Any

import aiohttp

from gateway.audit.note import Signer
from scripts.mock.behaviour import Behaviour
from scripts.mock.server import serving
from tests.auditing import assert_sound, exported, stored, verify
from tests.commands import audit
from tests.integration.test_audit import CHAT, audited

QUICK = Behaviour(first=0, pace=1, tokens=5)


async def ask(client: aiohttp.ClientSession, count: int) -> None:
    for number in range(count):
        async with client.post(CHAT, json={"query": f"question {number}"}) as answer:
            assert answer.status == 200
            await answer.read()


async def test_checkpoint_signs_what_a_running_gateway_has_written(
    tmp_path: Path, database_url: str | None
) -> None:
    held = tmp_path / "held.jsonl"
    async with (
        serving(QUICK) as url,
        audited(url, tmp_path, database_url) as gateway,
        aiohttp.ClientSession(gateway.url) as client,
    ):
        await ask(client, 3)
        done = await audit("checkpoint", "--out", held, folder=tmp_path, database_url=database_url)
        assert done.code == 0, done.err
        assert done.out == ""
        async with stored(tmp_path, database_url) as store:
            [log] = [one for one in await store.logs() if one.kind == "gateway"]
            notes = await store.checkpoints(log.id)
            assert int(notes[-1][1].split("\n")[1]) == log.size
            code, told = verify(*await exported(store, tmp_path), held=held)
        assert code == 0, told
        assert stat.S_IMODE(held.stat().st_mode) == 0o600
        await ask(client, 1)
    logs = await assert_sound(tmp_path, database_url)
    assert sorted((one.kind, one.state) for one in logs) == [
        ("catalogue", "open"),
        ("command", "closed"),
        ("gateway", "closed"),
    ]


async def test_checkpoints_are_printed_as_lines_of_an_export(tmp_path: Path) -> None:
    async with serving(QUICK) as url, audited(url, tmp_path):
        done = await audit("checkpoint", folder=tmp_path)
    lines = [json.loads(line) for line in done.out.splitlines()]
    assert {line["kind"] for line in lines} == {"checkpoint"}
    assert len({line["note"].split("\n")[0] for line in lines}) == 3


async def test_commands_and_a_gateway_write_to_one_database_at_once(
    tmp_path: Path, database_url: str | None
) -> None:
    async with (
        serving(QUICK) as url,
        audited(url, tmp_path, database_url) as gateway,
        aiohttp.ClientSession(gateway.url) as client,
    ):
        commands = [
            audit("checkpoint", folder=tmp_path, database_url=database_url) for _ in range(3)
        ]
        *done, _ = await asyncio.gather(*commands, ask(client, 40))
        assert [one.code for one in done if one is not None] == [0, 0, 0]
    logs = await assert_sound(tmp_path, database_url)
    assert sum(one.kind == "command" for one in logs) == 3


async def test_dump_of_a_log_that_is_written_to_verifies_by_itself(
    tmp_path: Path, database_url: str | None
) -> None:
    out = tmp_path / "dump"
    async with (
        serving(QUICK) as url,
        audited(url, tmp_path, database_url, audit_checkpoint_seconds=0.05) as gateway,
        aiohttp.ClientSession(gateway.url) as client,
    ):
        asking = asyncio.create_task(ask(client, 10_000))
        for _ in range(3):
            done = await audit("dump", "--out", out, folder=tmp_path, database_url=database_url)
            assert done.code == 0, done.err
            paths = [Path(line) for line in done.out.splitlines()]
            assert {stat.S_IMODE(path.stat().st_mode) for path in paths} == {0o600}
            code, told = verify(*paths)
            assert code == 0, told
        asking.cancel()
        again = await audit("verify", *paths, folder=tmp_path, database_url=database_url)
        assert again.code == 0, again.out + again.err
    types = [record["type"] for path in paths for record in bodies(path)]
    assert types.count("query.start") > 3
    assert types.count("audit.export") == 2  # the two before


def bodies(path: Path) -> list[dict[str, Any]]:
    """The records of an export."""
    lines = [json.loads(line) for line in path.read_bytes().splitlines()]
    return [json.loads(line["body"]) for line in lines if "body" in line]


async def test_dump_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    done = await audit("dump", "--out", file / "dump", folder=tmp_path)
    assert done.code == 1
    assert done.err.count("\n") == 1
    assert done.err.startswith("error: ")


async def test_wrong_command_line_is_exit_code_1(tmp_path: Path) -> None:
    for arguments in (["checkpoint", "--nonsense"], ["nonsense"], []):
        done = await audit(*arguments, folder=tmp_path)
        assert done.code == 1, done.err
        assert "usage:" in done.err


async def test_file_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    done = await audit("checkpoint", "--out", tmp_path / "none" / "held.jsonl", folder=tmp_path)
    assert done.code == 1
    assert done.err.startswith("error: ")


async def test_verify_reads_beside_a_running_gateway_and_after_it(
    tmp_path: Path, database_url: str | None
) -> None:
    async with (
        serving(QUICK) as url,
        audited(url, tmp_path, database_url) as gateway,
        aiohttp.ClientSession(gateway.url) as client,
    ):
        await ask(client, 3)
        done = await audit("verify", folder=tmp_path, database_url=database_url)
        assert done.code == 0, done.out + done.err
        assert done.out.endswith("Good.\n")
        assert "not_anchored" in done.out
    done = await audit(
        *("verify", "--checkpoints", tmp_path / "checkpoints.jsonl", "--require-anchor", "--json"),
        folder=tmp_path,
        database_url=database_url,
    )
    told = json.loads(done.out)
    assert (done.code, told["code"]) == (0, 0)
    [catalogue, log] = told["logs"]
    assert catalogue["log"] == "sluice/catalogue"
    assert log["size"] == log["full"] > 6
    assert log["findings"] == []


async def test_verify_without_an_anchor_exits_with_3_if_one_is_required(tmp_path: Path) -> None:
    async with serving(QUICK) as url, audited(url, tmp_path):
        pass
    assert (await audit("verify", folder=tmp_path)).code == 0
    assert (await audit("verify", "--require-anchor", folder=tmp_path)).code == 3


async def test_verify_trusts_the_key_that_it_is_given(tmp_path: Path) -> None:
    async with serving(QUICK) as url, audited(url, tmp_path):
        pass
    stranger = Signer("sluice", bytes(32)).verifier
    done = await audit("verify", "--key", str(stranger), folder=tmp_path)
    assert done.code == 2
    assert "unsigned" in done.out


async def test_verify_of_what_is_not_there_is_one_line(tmp_path: Path) -> None:
    for arguments in ([], ["--checkpoints", tmp_path / "none"], [tmp_path / "none"]):
        done = await audit("verify", *arguments, folder=tmp_path)
        assert done.code == 1
        assert done.err.startswith("error: ")
        assert len(done.err.splitlines()) == 1
    assert not (tmp_path / "audit.sqlite3").exists()


async def test_values_outside_of_the_time_asked_for_are_not_looked_at(tmp_path: Path) -> None:
    async with (
        serving(QUICK) as url,
        audited(url, tmp_path) as gateway,
        aiohttp.ClientSession(gateway.url) as client,
    ):
        await ask(client, 2)
    told = [
        json.loads((await audit("verify", *span, "--json", folder=tmp_path)).out)["logs"][1]
        for span in (["--to", "2020-01-01"], ["--from", "2020-01-01"])
    ]
    assert "full" not in told[0]
    assert told[1]["full"] == told[1]["size"]
    assert [one["checkpoints"] for one in told] == [2, 2]
