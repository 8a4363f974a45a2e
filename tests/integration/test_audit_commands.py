"""`sluice audit` beside a running gateway, and what its exit code says."""

from __future__ import annotations

import asyncio
import json
import stat
from pathlib import Path

import aiohttp

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


async def test_wrong_command_line_is_exit_code_1(tmp_path: Path) -> None:
    for arguments in (["checkpoint", "--nonsense"], ["nonsense"], []):
        done = await audit(*arguments, folder=tmp_path)
        assert done.code == 1, done.err
        assert "usage:" in done.err


async def test_file_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    done = await audit("checkpoint", "--out", tmp_path / "none" / "held.jsonl", folder=tmp_path)
    assert done.code == 1
    assert done.err.startswith("error: ")
