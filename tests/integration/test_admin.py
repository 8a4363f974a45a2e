"""What operators may do, and that nobody else may."""

from __future__ import annotations

import asyncio
from pathlib import Path

import aiohttp
import pytest

from gateway.audit.canonical import Object
from gateway.errors import SettingsError
from gateway.settings import load_settings
from scripts.mock.behaviour import Behaviour
from scripts.mock.server import serving
from tests.auditing import bodies, stored
from tests.backend import Exchange, ScriptedBackend, json_response
from tests.gateway import ADMIN_TOKEN, AS_ADMIN, running_gateway

CHAT = "/api/v2/chat-stream"
LONG = Behaviour(first=0, pace=20, tokens=1000)
ADMIN_PATHS = ["/api/admin/streams/abc", "/api/admin/nothing/here"]
WRONG = {
    "none": ({}, "missing_credential"),
    "another": ({"Authorization": "Bearer another-token-for-tests"}, "invalid_admin_token"),
    "longer": ({"Authorization": f"Bearer {ADMIN_TOKEN}x"}, "invalid_admin_token"),
    "unreadable": ({"Authorization": ADMIN_TOKEN}, "invalid_authorization"),
}


async def records(folder: Path, *types: str) -> list[Object]:
    async with stored(folder, None) as store:
        return [one for one in await bodies(store) if one["type"] in types]


@pytest.mark.parametrize("path", ADMIN_PATHS)
async def test_without_a_token_set_there_is_nothing_to_administer(path: str) -> None:
    async def script(exchange: Exchange) -> None:
        await exchange.send(json_response(b"{}"))

    async with (
        ScriptedBackend(script) as backend,
        running_gateway(backend.url) as gateway,
        aiohttp.ClientSession(gateway.url, headers=AS_ADMIN) as client,
    ):
        async with client.delete(path) as answer:
            assert answer.status == 404
        assert backend.exchanges == []


@pytest.mark.parametrize("path", ADMIN_PATHS)
@pytest.mark.parametrize("given", WRONG)
async def test_who_does_not_hold_the_token_is_turned_away(path: str, given: str) -> None:
    headers, code = WRONG[given]
    async with (
        running_gateway("http://127.0.0.1:1", admin_token=ADMIN_TOKEN) as gateway,
        aiohttp.ClientSession(gateway.url, headers=headers) as client,
        client.delete(path) as answer,
    ):
        assert answer.status == 401
        assert answer.headers["WWW-Authenticate"] == "Bearer"
        assert (await answer.json())["error"]["code"] == code


async def test_client_key_opens_nothing_here_and_the_admin_token_nothing_elsewhere(
    tmp_path: Path,
) -> None:
    keys = tmp_path / "keys.json"
    settings = {"auth_mode": "api_key", "api_keys_file": keys, "admin_token": ADMIN_TOKEN}
    async with (
        running_gateway("http://127.0.0.1:1", **settings) as gateway,
        aiohttp.ClientSession(gateway.url, headers=AS_ADMIN) as operator,
    ):
        async with operator.delete("/api/admin/streams/abc") as answer:
            assert answer.status == 404
            assert (await answer.json())["error"]["code"] == "stream_not_found"
        async with operator.get("/api/v2/streams/abc") as answer:
            assert answer.status == 401


async def test_operator_stops_anybodys_stream_without_seeing_the_answer(tmp_path: Path) -> None:
    settings = {"admin_token": ADMIN_TOKEN, "audit_mode": "relay", "data_dir": tmp_path}
    async with (
        serving(LONG) as url,
        running_gateway(url, upstream_dialect="rag", **settings) as gateway,
        aiohttp.ClientSession(gateway.url) as client,
        client.post(CHAT, json={"query": "how?"}) as answer,
    ):
        stream = answer.headers["X-Stream-Id"]
        await answer.content.readline()
        for _ in range(2):
            path = f"/api/admin/streams/{stream}"
            async with client.delete(path, headers=AS_ADMIN) as stopped:
                told = {"stream_id": stream, "status": "TERMINATED", "reason": "operator"}
                assert await stopped.json() == told
        async with asyncio.timeout(5):
            assert b'"reason":"operator"' in await answer.read()
        await gateway.wait_for_streams(0)
    (stopped_record,) = await records(tmp_path, "stream.stopped")
    assert stopped_record["by"] == "admin"
    assert stopped_record["auth"] == "admin"


async def test_wrong_token_leaves_a_violation(tmp_path: Path) -> None:
    settings = {"admin_token": ADMIN_TOKEN, "audit_mode": "relay", "data_dir": tmp_path}
    wrong = {"Authorization": "Bearer another-token-for-tests"}
    async with (
        running_gateway("http://127.0.0.1:1", **settings) as gateway,
        aiohttp.ClientSession(gateway.url, headers=wrong) as client,
        client.delete("/api/admin/streams/abc") as answer,
    ):
        assert answer.status == 401
    (violation,) = await records(tmp_path, "security.auth_failed")
    assert violation["reason"] == "admin_token"


@pytest.mark.parametrize("token", ["short", "with spaces in between", "ünïcode-is-no-header"])
def test_token_that_is_too_easy_or_does_not_fit_a_header_stops_the_start(
    token: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ADMIN_TOKEN", token)
    with pytest.raises(SettingsError, match="ADMIN_TOKEN") as caught:
        load_settings()
    assert token not in str(caught.value)
