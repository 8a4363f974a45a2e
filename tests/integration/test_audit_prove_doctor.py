"""`sluice audit prove` and `doctor`, beside a running gateway."""

from __future__ import annotations

import json
from pathlib import Path

import aiohttp
import pytest
import sqlalchemy as sa

from gateway.audit import tables
from gateway.audit.bundle import Bundle
from gateway.audit.keys import Keys
from scripts import verify_audit
from scripts.mock.server import serving
from tests.auditing import assert_sound, stored
from tests.commands import audit
from tests.insider import Insider
from tests.integration.test_audit import CHAT, audited
from tests.integration.test_audit_commands import QUICK


async def receipt_of(client: aiohttp.ClientSession) -> str:
    async with client.post(CHAT, json={"query": "how?"}) as answer:
        await answer.read()
        return answer.headers["X-Audit-Receipt"]


async def test_receipt_becomes_a_proof_that_both_verifiers_accept(
    tmp_path: Path, database_url: str | None, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "proof.json"
    async with (
        serving(QUICK) as url,
        audited(url, tmp_path, database_url) as gateway,
        aiohttp.ClientSession(gateway.url) as client,
    ):
        receipt = await receipt_of(client)
        done = await audit(
            *("prove", "--id", receipt, "--out", out), folder=tmp_path, database_url=database_url
        )
        assert done.code == 0, done.err
    bundle = Bundle.from_object(json.loads(out.read_text()))
    [signer] = Keys(tmp_path / "audit-keys").signers(bundle.log)
    assert bundle.verify([signer.verifier]).size > bundle.seq
    assert bundle.personal == []
    assert verify_audit.main(["--proof", str(out), "--key", str(signer.verifier)]) == 0
    assert "proven" in capsys.readouterr().out
    await assert_sound(tmp_path, database_url)


async def test_number_alone_is_enough_and_values_are_given_if_asked_for(tmp_path: Path) -> None:
    async with (
        serving(QUICK) as url,
        audited(url, tmp_path) as gateway,
        aiohttp.ClientSession(gateway.url) as client,
    ):
        id_ = (await receipt_of(client)).rpartition("/")[0]
        done = await audit("prove", "--id", id_, "--with-values", folder=tmp_path)
    assert json.loads(done.out)["personal"].keys() == {"query"}


async def test_promise_that_was_not_kept_is_exit_code_2(
    tmp_path: Path, database_url: str | None
) -> None:
    async with (
        serving(QUICK) as url,
        audited(url, tmp_path, database_url) as gateway,
        aiohttp.ClientSession(gateway.url) as client,
    ):
        receipt = await receipt_of(client)
    log, seq, leaf = receipt.rsplit("/", 2)
    asked = {"folder": tmp_path, "database_url": database_url}
    beyond = await audit("prove", "--id", f"{log}/9999/{leaf}", **asked)  # type: ignore[arg-type]
    assert beyond.code == 2
    assert (await audit("prove", "--id", f"{log}/9999", **asked)).code == 1  # type: ignore[arg-type]
    assert (await audit("prove", "--id", "nonsense", **asked)).code == 1  # type: ignore[arg-type]
    async with stored(tmp_path, database_url) as store:
        await store.run(lambda c: Insider.at(c).alter(int(seq), route="proxy"), writes=True)
    altered = await audit("prove", "--id", receipt, **asked)  # type: ignore[arg-type]
    assert altered.code == 2, altered.err


async def test_doctor_finds_nothing_bad_beside_a_running_gateway(
    tmp_path: Path, database_url: str | None
) -> None:
    async with serving(QUICK) as url, audited(url, tmp_path, database_url):
        done = await audit("doctor", "--json", folder=tmp_path, database_url=database_url)
    signs = json.loads(done.out)["signs"]
    assert done.code == 0, signs
    assert {"parser", "disk", "keys", "clock", "checkpoints", "copies"} <= {
        one["name"] for one in signs
    }
    assert ("sqlite" in {one["name"] for one in signs}) == (database_url is None)


async def test_doctor_tells_what_should_be_changed(tmp_path: Path) -> None:
    async with serving(QUICK) as url, audited(url, tmp_path):
        pass
    (tmp_path / "audit.sqlite3").chmod(0o644)
    next((tmp_path / "audit-keys").glob("sign-*.key")).chmod(0o640)
    async with stored(tmp_path) as store:
        ahead = sa.update(tables.logs).values(last_ts=1 << 42)
        await store.run(lambda c: c.execute(ahead), writes=True)
    done = await audit("doctor", folder=tmp_path, AUDIT_MODE="off")
    assert done.code == 1
    bad = [line for line in done.out.splitlines() if line.startswith("bad")]
    assert [line.split()[1] for line in bad] == ["mode:", "permissions:", "permissions:", "clock:"]


async def test_doctor_of_a_database_that_is_away_says_so(tmp_path: Path) -> None:
    away = "postgresql://nobody@127.0.0.1:9/none"
    done = await audit("doctor", folder=tmp_path, database_url=away)
    assert done.code == 1
    assert "bad   database:" in done.out
