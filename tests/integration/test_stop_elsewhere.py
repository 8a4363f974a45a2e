"""Stopping what only the store knows any more, by other kinds of strangers, and for any reason."""

from __future__ import annotations

import logging
import secrets
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import aiohttp
import pytest

from gateway.stream.model import ENDING_REASONS, StreamId
from tests.backend import ScriptedBackend
from tests.client import connected
from tests.gateway import running_gateway
from tests.integration.stage import CHAT, Stage
from tests.integration.stops import (
    ROUTES,
    SAID,
    TYPED,
    WAYS,
    House,
    Keys,
    Visit,
    visiting,
    ways_of,
)
from tests.unit.auth.issuer import ED_KEY, pem, sign

EVERY_WAY = pytest.mark.parametrize("way", ["terminate", "delete", "graphql"])
EVERY_STORE = pytest.mark.parametrize("store", ["sqlite", "postgresql"])


@asynccontextmanager
async def living_in(
    stage: Stage, owner: str, stranger: str, **settings: object
) -> AsyncIterator[House]:
    async with AsyncExitStack() as stack:
        enter = stack.enter_async_context
        backend = await enter(ScriptedBackend(stage))
        gateway = await enter(running_gateway(backend.url, commit_delay_ms=0, **settings))
        client = await enter(aiohttp.ClientSession())
        yield House(stage, gateway, gateway, 0, client, owner, stranger)


# from the store only


@EVERY_STORE
async def test_stop_after_a_restart_finds_the_end_that_there_was(
    store: str, tmp_path: Path, request: pytest.FixtureRequest, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger="sluice")
    keys = Keys.made_in(tmp_path)
    settings = dict(keys.settings)
    if store == "postgresql":
        settings["database_url"] = request.getfixturevalue("postgres_url")
    ended: list[tuple[Visit, dict[str, object], bytes]] = []
    async with living_in(Stage(), keys.anna, keys.bert, **settings) as house:
        for route in ROUTES:
            for state in ("completed", "failed", "speaking"):
                async with visiting(house, route, state) as visit:
                    if state == "speaking":
                        await WAYS["terminate"](visit, visit.own, "Enough.")
                    ended.append((visit, await visit.told(), await visit.replay()))
    caplog.clear()
    async with living_in(Stage(), keys.anna, keys.bert, **settings) as house:
        for visit, told, replayed in ended:
            visit.house = house
            # OpenAI's own cancel is only for what is held in memory.
            for way in ("terminate", "delete", "graphql", "link"):
                assert (await WAYS[way](visit, visit.foreign, "theft")).status == 404
                for _ in range(2):
                    stopped = await WAYS[way](visit, visit.own, "too_late")
                    assert (stopped.status, stopped.text) == (200, SAID)
            assert await visit.told() == told
            assert await visit.replay() == replayed
            assert told["reason"] in ("completed", "upstream_truncated", "Enough.")
            record = await house.gateway.services.store.load(visit.sid)
            assert record is not None
            assert (record.status, record.reason) == (told["status"], told["reason"])
        assert "sluice_streams_total{" not in house.gateway.services.metrics.render().decode()
    assert "stream.ended" not in [record.getMessage() for record in caplog.records]


# strangers


@pytest.mark.parametrize("route", ROUTES)
async def test_another_subjects_token_stops_nothing(route: str, tmp_path: Path) -> None:
    (tmp_path / "key.pem").write_bytes(pem(ED_KEY))
    anna, bert = (sign(ED_KEY, "EdDSA", sub=name, aud="sluice") for name in ("anna", "bert"))
    settings = {"jwt_public_key_file": tmp_path / "key.pem", "jwt_audience": "sluice"}
    async with living_in(Stage(), anna, bert, auth_mode="jwt", **settings) as house:
        await check_stranger(house, route, {})


@pytest.mark.parametrize("route", ROUTES)
async def test_nobody_becomes_the_owner_by_a_user_id_or_an_address(
    route: str, tmp_path: Path
) -> None:
    keys = Keys.made_in(tmp_path)
    trusting = {**keys.settings, "trusted_proxies": "127.0.0.0/8"}
    async with living_in(Stage(), keys.anna, keys.bert, **trusting) as house:
        await check_stranger(house, route, {"X-User-Id": "anna", "X-Forwarded-For": "127.0.0.1"})


async def check_stranger(house: House, route: str, claims: dict[str, str]) -> None:
    async with visiting(house, route, "speaking") as visit:
        for name in ways_of(route, "speaking"):
            assert (await WAYS[name](visit, {**visit.foreign, **claims}, "theft")).status == 404
        assert visit.live.is_active
        assert (await WAYS["delete"](visit, visit.own, None)).status == 200
        assert visit.live.ending is not None
        assert visit.live.ending.reason == "user_requested"


@EVERY_WAY
async def test_without_authentication_the_id_is_the_proof(way: str) -> None:
    """From another address and under another name; an id that is wrong in one letter is none."""
    async with (
        living_in(Stage(), "", "", trusted_proxies="127.0.0.0/8") as house,
        visiting(house, TYPED, "speaking") as visit,
    ):
        elsewhere = {"X-User-Id": "bert", "X-Forwarded-For": "192.0.2.7"}
        sid = visit.sid
        visit.sid = StreamId(sid[:-1] + ("A" if sid[-1] != "A" else "B"))
        assert (await WAYS[way](visit, elsewhere, None)).status == 404
        visit.sid = sid
        assert visit.live.is_active
        assert (await WAYS[way](visit, elsewhere, None)).status == 200
        assert not visit.live.is_active


# reasons


@pytest.mark.parametrize("word", sorted(ENDING_REASONS))
async def test_word_of_ours_is_no_reason(word: str) -> None:
    """It would lie about who ended the stream, in capitals too: those are the store's."""
    async with living_in(Stage(), "", "") as house:
        for way, reason in (("terminate", word), ("graphql", word.upper())):
            async with visiting(house, CHAT, "speaking") as visit:
                assert (await WAYS[way](visit, {}, reason)).status == 200
                assert (await visit.told())["reason"] == "user_requested"
                await house.gateway.services.keeper.flush(5)
                record = await house.gateway.services.store.load(visit.sid)
                assert record is not None
                assert record.reason == "user_requested"
        assert house.gateway.metric("sluice_streams_total", reason="user_requested") == 2


@pytest.mark.parametrize("reason", ["a", "Custom.Reason-1", "x" * 64, "custom"])
async def test_own_word_is_kept_as_it_is(reason: str) -> None:
    async with living_in(Stage(), "", "") as house:
        async with visiting(house, TYPED, "speaking") as visit:
            await WAYS["terminate"](visit, {}, reason)
            assert (await visit.told())["reason"] == reason
            assert f'"reason":"{reason}"'.encode() in await visit.read_rest()
        assert house.gateway.metric("sluice_streams_total", reason="custom") == 1


async def test_stop_of_an_answer_that_is_not_to_be_named_goes_to_the_backend() -> None:
    """Other ids of responses are the backend's, with their own rules."""
    stage = Stage()
    async with living_in(stage, "", "") as house:
        path = f"/v1/responses/resp_{secrets.token_hex(6)}/cancel"
        async with connected(house.gateway.port) as client:
            await client.ask(path, {})
            assert b" 404 " in await client.head()
    assert stage.strays == [f"POST {path}"]
