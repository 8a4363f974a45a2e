"""`sluice audit report`: what an auditor is handed."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

import aiohttp

from gateway.settings import Settings
from scripts.mock.server import serving
from tests.auditing import assert_sound, stored
from tests.commands import audit
from tests.insider import Insider
from tests.integration.test_audit import audited
from tests.integration.test_audit_commands import QUICK, ask


def this_month() -> str:
    return datetime.now(UTC).strftime("%Y-%m")


async def test_month_tells_what_happened_and_whether_it_verifies(
    tmp_path: Path, database_url: str | None
) -> None:
    asked = {"folder": tmp_path, "database_url": database_url}
    async with (
        serving(QUICK) as url,
        audited(url, tmp_path, database_url) as gateway,
        aiohttp.ClientSession(gateway.url) as client,
    ):
        await ask(client, 3)
        begin = ("hold", "--from", "2020-01-01", "--to", "2020-01-02", "--reason", "authority")
        held = await audit(*begin, "--until", "2099-01-01", "--json", **asked)  # type: ignore[arg-type]
        assert held.code == 0, held.err
        done = await audit("report", "--json", **asked)  # type: ignore[arg-type]
        assert done.code == 0, done.err
    told = json.loads(done.out)
    assert told["month"] == this_month()
    assert (told["counts"]["query.start"], told["counts"]["query.end"]) == (3, 3)
    assert told["unknown_ends"] == 0
    assert {"audit.hold", "audit.key.created", "audit.policy"} <= {
        one["type"] for one in told["events"]
    }
    assert len(told["holds"]) == 1
    assert {tuple(sorted(one.keys() & {"findings", "log"})) for one in told["verify"]} == {
        ("findings", "log")
    }
    assert told["oldest"]["query"]["overdue"] is False
    await assert_sound(tmp_path, database_url)


async def test_ends_that_nobody_saw_are_counted(tmp_path: Path, database_url: str | None) -> None:
    async with (
        serving(QUICK) as url,
        audited(url, tmp_path, database_url) as gateway,
        aiohttp.ClientSession(gateway.url) as client,
    ):
        await ask(client, 2)
    asked = {"folder": tmp_path, "database_url": database_url}
    async with stored(tmp_path, database_url) as store:

        def forge(insider: Insider) -> None:
            insider.alter(insider.seqs("query.end")[0], outcome="unknown")

        await store.run(lambda c: forge(Insider.at(c)), writes=True)
    done = await audit("report", "--json", "--no-verify", **asked)  # type: ignore[arg-type]
    assert json.loads(done.out)["unknown_ends"] == 1
    broken = await audit("report", **asked)  # type: ignore[arg-type]
    assert broken.code == 2
    assert "root_mismatch" in broken.out


async def test_another_month_is_empty_and_a_wrong_one_is_refused(tmp_path: Path) -> None:
    async with serving(QUICK) as url, audited(url, tmp_path):
        pass
    done = await audit("report", "--month", "2020-12", "--json", folder=tmp_path)
    assert json.loads(done.out)["counts"] == {}
    assert (await audit("report", "--month", "2020-13", folder=tmp_path)).code == 1


async def test_text_has_a_heading_for_each_thing_that_an_auditor_asks(tmp_path: Path) -> None:
    done = await audit("report", folder=tmp_path)
    headings = [line[3:] for line in done.out.splitlines() if line.startswith("## ")]
    assert headings == [
        *("Rules", "Completeness", "Integrity", "Storage limitation", "Rights", "Keys"),
        *("Time", "Access", "Software"),
    ]


async def test_record_of_processing_is_that_of_the_active_settings(tmp_path: Path) -> None:
    changed = {"AUDIT_RETENTION_DAYS": "45", "AUDIT_TRUNCATE_IP": "true"}
    done = await audit("report", "--ropa", "--json", folder=tmp_path, **changed)
    entry = json.loads(done.out)
    assert "query: 45 days" in entry["Erasure"]
    assert (
        "Address, in records of violations only: 24 bits of IPv4, 48 of IPv6"
        in (entry["Categories of data"])
    )
    assert f"Recording: {Settings(upstream_url='http://x').audit_mode}" in " ".join(
        entry["Security measures"]
    )
    assert not (tmp_path / "audit.sqlite3").exists()
