"""What operators may do, and that nobody else may."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import orjson
import pytest

from gateway.audit.canonical import Object
from gateway.environment import load_settings
from gateway.errors import SettingsError
from scripts.mock.behaviour import Behaviour
from scripts.mock.server import serving
from tests.auditing import assert_sound, bodies, stored
from tests.backend import Exchange, ScriptedBackend, json_response
from tests.gateway import ADMIN_TOKEN, AS_ADMIN, running_gateway

CHAT = "/api/v2/chat-stream"
OVERVIEW = "/api/admin/overview"
CONTROLS = "/api/admin/controls"
EVENTS = {"Accept": "text/event-stream"}
QUESTION = "how do I brew it?"
LONG = Behaviour(first=0, pace=20, tokens=1000)
ADMIN_PATHS = ["/api/admin/streams/abc", OVERVIEW, "/api/admin/nothing/here"]
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


@asynccontextmanager
async def watching(client: aiohttp.ClientSession) -> AsyncIterator[Viewer]:
    async with client.get(OVERVIEW, headers=AS_ADMIN | EVENTS) as answer:
        assert answer.status == 200
        yield Viewer(answer)


@dataclass(frozen=True)
class Viewer:
    answer: aiohttp.ClientResponse

    async def next(self) -> tuple[str, dict[str, Any]]:
        """The name and the data of the next event."""
        async with asyncio.timeout(5):
            name = (await self.answer.content.readuntil(b"\n")).decode().strip()
            data = await self.answer.content.readuntil(b"\n\n")
        return name.removeprefix("event: "), orjson.loads(data.removeprefix(b"data: "))


async def test_overview_tells_of_every_stream_and_of_no_person() -> None:
    async with (
        serving(LONG) as url,
        running_gateway(url, upstream_dialect="rag", admin_token=ADMIN_TOKEN) as gateway,
        aiohttp.ClientSession(gateway.url) as client,
        client.post(CHAT, json={"query": QUESTION, "user_email": "ada@example.com"}) as one,
        client.post(CHAT, json={"query": QUESTION, "conversation_id": "secret"}) as two,
    ):
        for asked in (one, two):
            await asked.content.readuntil(b"content_chunk")
        async with client.get(OVERVIEW, headers=AS_ADMIN) as answer:
            text = await answer.text()
            overview = orjson.loads(text)
        rows = overview["streams"]["rows"]
        assert [row["id"] for row in rows] == [a.headers["X-Stream-Id"] for a in (one, two)]
        assert {row["state"] for row in rows} == {"streaming"}
        assert len({row["owner"] for row in rows}) == 1
        assert overview["streams"]["total"] == 2
        assert overview["health"]["sessions"]["active"] == 2
        for secret in (QUESTION, "ada@example.com", "secret", "127.0.0.1:", "addr:"):
            assert secret not in text.replace(url, "")


async def test_viewers_get_the_history_and_then_a_snapshot_every_second() -> None:
    async with (
        serving(Behaviour(first=0, pace=1, tokens=5)) as url,
        running_gateway(url, upstream_dialect="rag", admin_token=ADMIN_TOKEN) as gateway,
        aiohttp.ClientSession(gateway.url) as client,
        watching(client) as one,
        watching(client) as other,
    ):
        for viewer in (one, other):
            assert (await viewer.next())[0] == "history"
            assert (await viewer.next())[0] == "overview"
        async with client.post(CHAT, json={"query": QUESTION}) as answer:
            await answer.read()
        seen = [await one.next(), await other.next()]
        assert seen[0] == seen[1]
        name, snapshot = seen[0]
        assert name == "overview"
        assert snapshot["endings"] == {"completed": 1}
        assert snapshot["first_token"]["p50"] > 0


async def test_seventeenth_viewer_is_asked_to_wait_and_finds_a_place_that_was_left() -> None:
    async with (
        running_gateway("http://127.0.0.1:1", admin_token=ADMIN_TOKEN) as gateway,
        aiohttp.ClientSession(gateway.url) as client,
        AsyncExitStack() as stack,
    ):
        viewers = [await stack.enter_async_context(watching(client)) for _ in range(16)]
        async with client.get(OVERVIEW, headers=AS_ADMIN | EVENTS) as answer:
            assert answer.status == 429
            assert (await answer.json())["error"]["code"] == "too_many_viewers"
            assert "Retry-After" in answer.headers
        viewers[0].answer.close()
        async with asyncio.timeout(5):
            while True:
                async with client.get(OVERVIEW, headers=AS_ADMIN | EVENTS) as answer:
                    if answer.status == 200:
                        break
                await asyncio.sleep(0.02)


async def test_viewers_do_not_hold_up_the_end_of_the_gateway() -> None:
    async with aiohttp.ClientSession() as client:
        async with running_gateway("http://127.0.0.1:1", admin_token=ADMIN_TOKEN) as gateway:
            url = gateway.url + OVERVIEW
            answer = await client.get(url, headers=AS_ADMIN | EVENTS)
            await answer.content.readuntil(b"overview")
        async with asyncio.timeout(5):
            assert await answer.content.read()
        assert answer.content.at_eof()


async def test_dashboard_is_there_only_with_a_token() -> None:
    for token, status in ((None, 404), (ADMIN_TOKEN, 200)):
        async with (
            running_gateway("http://127.0.0.1:1", admin_token=token) as gateway,
            aiohttp.ClientSession(gateway.url) as client,
            client.get("/dashboard") as answer,
        ):
            assert answer.status == status


async def change(client: aiohttp.ClientSession, **wanted: object) -> dict[str, Any]:
    async with client.patch(CONTROLS, json=wanted, headers=AS_ADMIN) as answer:
        assert answer.status == 200
        told: dict[str, Any] = await answer.json()
        return told


@pytest.fixture
def root_level() -> Iterator[None]:
    """Puts the log's level back."""
    before = logging.getLogger().level
    yield
    logging.getLogger().setLevel(before)


@pytest.mark.usefixtures("root_level")
async def test_flags_change_while_it_runs_and_go_back_to_the_settings() -> None:
    async with (
        serving(Behaviour(first=0, pace=0, tokens=3)) as url,
        running_gateway(url, upstream_dialect="rag", admin_token=ADMIN_TOKEN) as gateway,
        aiohttp.ClientSession(gateway.url) as client,
    ):

        async def status() -> int:
            async with client.post(CHAT, json={"query": "hi"}) as answer:
                await answer.read()
                return answer.status

        assert await status() == 200
        for off in ({"streaming_enabled": False}, {"rollout_percent": 0}, {"emergency": True}):
            told = await change(client, **off)
            assert told.items() >= off.items()
            assert await status() == 404
            async with client.delete(CONTROLS, headers=AS_ADMIN) as answer:
                assert not (await answer.json()).items() >= off.items()
            assert await status() == 200


@pytest.mark.usefixtures("root_level")
async def test_streaming_that_the_settings_left_off_is_switched_on() -> None:
    settings = {"enable_sse_streaming": False, "admin_token": ADMIN_TOKEN}
    async with (
        serving(Behaviour(first=0, pace=0, tokens=3)) as url,
        running_gateway(url, upstream_dialect="rag", **settings) as gateway,
        aiohttp.ClientSession(gateway.url) as client,
    ):
        await change(client, streaming_enabled=True)
        async with client.post(CHAT, json={"query": "hi"}) as answer:
            assert b"event: complete" in await answer.read()
        async with client.get("/health") as answer:
            assert (await answer.json())["streaming_enabled"] is True


@pytest.mark.usefixtures("root_level")
async def test_emergency_makes_the_provider_routes_a_plain_proxy_and_spares_what_runs() -> None:
    body = {"model": "m", "stream": True, "messages": [{"role": "user", "content": "hi"}]}
    async with (
        serving(LONG) as url,
        running_gateway(url, admin_token=ADMIN_TOKEN) as gateway,
        aiohttp.ClientSession(gateway.url) as client,
        client.post("/v1/chat/completions", json=body) as before,
    ):
        assert "X-Stream-Id" in before.headers
        await change(client, emergency=True)
        async with client.post("/v1/chat/completions", json=body) as after:
            assert after.status == 200
            assert "X-Stream-Id" not in after.headers
        await before.content.readuntil(b"data: ")
        assert len(gateway.services.hub) == 1


@pytest.mark.usefixtures("root_level")
async def test_update_mode_is_that_of_the_controls_unless_the_client_says(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with (
        running_gateway("http://127.0.0.1:1", admin_token=ADMIN_TOKEN) as gateway,
        aiohttp.ClientSession(gateway.url) as client,
    ):
        told = await change(client, performance_mode="battery_saver", debug=True)
        assert told["performance_mode"] == "battery_saver"
        assert gateway.services.controls.state.performance_mode == "battery_saver"
        assert logging.getLogger().isEnabledFor(logging.DEBUG)
        async with client.delete(CONTROLS, headers=AS_ADMIN):
            assert not logging.getLogger().isEnabledFor(logging.DEBUG)
    lines = [record for record in caplog.records if record.message == "controls.changed"]
    assert [line.__dict__["performance_mode"] for line in lines] == ["battery_saver", "realtime"]


@pytest.mark.usefixtures("root_level")
@pytest.mark.parametrize(
    ("wanted", "code"),
    [
        ({"rollout_percent": 101}, "invalid_control"),
        ({"rollout_percent": True}, "invalid_control"),
        ({"emergency": "no"}, "invalid_control"),
        ({"performance_mode": "warp"}, "invalid_control"),
        ({"performance_mode": ["realtime"]}, "invalid_control"),
        ({"speed": 1}, "unknown_control"),
    ],
)
async def test_change_that_makes_no_sense_changes_nothing(
    wanted: dict[str, object], code: str
) -> None:
    async with (
        running_gateway("http://127.0.0.1:1", admin_token=ADMIN_TOKEN) as gateway,
        aiohttp.ClientSession(gateway.url) as client,
    ):
        before = gateway.services.controls.state
        body = {"streaming_enabled": False, **wanted}
        async with client.patch(CONTROLS, json=body, headers=AS_ADMIN) as answer:
            assert answer.status == 400
            assert (await answer.json())["error"]["code"] == code
        assert gateway.services.controls.state == before


@pytest.mark.usefixtures("root_level")
async def test_change_of_the_controls_is_on_record(tmp_path: Path) -> None:
    settings = {
        "admin_token": ADMIN_TOKEN,
        "audit_mode": "relay",
        "audit_checkpoint_file": tmp_path / "checkpoints.jsonl",
        "data_dir": tmp_path,
    }
    async with (
        running_gateway("http://127.0.0.1:1", **settings) as gateway,
        aiohttp.ClientSession(gateway.url) as client,
    ):
        await change(client, rollout_percent=12.5, emergency=True)
    (changed,) = await records(tmp_path, "admin.config")
    assert changed["rollout_bp"] == 1250
    assert changed["emergency"] is True
    await assert_sound(tmp_path)


async def test_clean_up_ends_what_nobody_reads_and_spares_what_somebody_reads() -> None:
    settings = {"admin_token": ADMIN_TOKEN, "session_timeout_ms": 1}
    async with (
        serving(LONG) as url,
        running_gateway(url, upstream_dialect="rag", **settings) as gateway,
        aiohttp.ClientSession(gateway.url) as client,
        client.post(CHAT, json={"query": "hi", "conversation_id": "c"}) as kept,
    ):
        await kept.content.readuntil(b"content_chunk")
        async with client.post(CHAT, json={"query": "hi"}) as left:
            await left.content.readuntil(b"content_chunk")
        async with asyncio.timeout(5):
            while all(one.is_attached for one in gateway.services.hub.running()):
                await asyncio.sleep(0.01)
        async with client.post("/api/admin/cleanup", headers=AS_ADMIN) as answer:
            assert await answer.json() == {"detached": 1, "expired": 0, "conversations": 1}
        (running,) = gateway.services.hub.running()
        assert running.id == kept.headers["X-Stream-Id"]
