"""Capability links: who holds one reads or stops one stream for a time, and nothing else."""

from __future__ import annotations

import json
import logging
import shutil
import stat
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from gateway.errors import SettingsError
from gateway.keys import KeyRing, pepper_path
from gateway.tokens.links import Links, Scope, link_key_path
from tests.backend import CHAT_STREAM, Exchange, ScriptedBackend, chunked, sse_head, streaming
from tests.gateway import Gateway, running_gateway

CHAT = "/api/v2/chat-stream?query=hi"
STREAMS = "/api/v2/streams"
EVENT_STREAM = {"Accept": "text/event-stream"}
FORGED = "A" * 43


@dataclass(frozen=True, slots=True)
class Place:
    """A gateway with two users, and a client without any credential."""

    gateway: Gateway
    backend: ScriptedBackend
    anna: dict[str, str]
    bert: dict[str, str]
    client: aiohttp.ClientSession

    async def ask(self) -> tuple[str, bytes]:
        """A stream of Anna's, read to its end: its id and its events."""
        async with self.client.get(CHAT, headers=self.anna) as response:
            return response.headers["X-Stream-Id"], await response.read()

    async def link(self, sid: str, scope: Scope = "read", **more: object) -> str:
        path, body = f"{STREAMS}/{sid}/links", {"scope": scope, **more}
        async with self.client.post(path, json=body, headers=self.anna) as response:
            assert response.status == 201
            return str((await response.json())["url"])

    async def status(self, method: str, path: str, **options: Any) -> tuple[int, str | None]:
        """The status, and the code of the error if it is one."""
        async with self.client.request(method, path, **options) as response:
            if response.status < 400:
                return response.status, None
            return response.status, (await response.json())["error"]["code"]


@asynccontextmanager
async def place(folder: Path, backend: ScriptedBackend) -> AsyncIterator[Place]:
    ring = KeyRing.load(folder / "keys.jsonl", pepper_path(folder))
    anna, bert = ({"X-Api-Key": ring.add(name)} for name in ("anna", "bert"))
    settings = {"auth_mode": "api_key", "api_keys_file": folder / "keys.jsonl"}
    async with (
        running_gateway(backend.url, data_dir=folder, **settings) as gateway,
        aiohttp.ClientSession(gateway.url) as client,
    ):
        yield Place(gateway, backend, anna, bert, client)


@pytest.fixture
async def here(tmp_path: Path) -> AsyncIterator[Place]:
    async with (
        ScriptedBackend(streaming(CHAT_STREAM)) as backend,
        place(tmp_path, backend) as found,
    ):
        yield found


async def speak_and_stall(exchange: Exchange) -> None:
    await exchange.send(sse_head() + chunked(CHAT_STREAM.partition(b"\n\n")[0] + b"\n\n"))
    await exchange.stall()


@pytest.fixture
async def running(tmp_path: Path) -> AsyncIterator[tuple[Place, str]]:
    """The same, with a stream of Anna's that doesn't end by itself."""
    async with (
        ScriptedBackend(speak_and_stall) as backend,
        place(tmp_path, backend) as found,
        found.client.get(CHAT, headers=found.anna) as response,
    ):
        yield found, response.headers["X-Stream-Id"]


async def test_holder_of_a_link_reads_the_stream_without_a_credential(here: Place) -> None:
    sid, whole = await here.ask()
    url = await here.link(sid)
    assert (await here.status("GET", f"{STREAMS}/{sid}"))[0] == 401
    async with here.client.get(url) as response:
        assert (await response.json())["stream_id"] == sid
    async with here.client.get(url, headers=EVENT_STREAM) as response:
        assert await response.read() == whole
    rest = whole.partition(b"\n\n")[2]
    for headers, query in (({"Last-Event-ID": f"{sid}.1"}, ""), ({}, f"&last_event_id={sid}.1")):
        async with here.client.get(url + query, headers={**EVENT_STREAM, **headers}) as response:
            assert await response.read() == rest


async def test_link_says_when_it_expires(here: Place) -> None:
    sid, _ = await here.ask()
    for ttl_s, asked in ((60, {"ttl_seconds": 60}), (600, {})):
        path, body = f"{STREAMS}/{sid}/links", {"scope": "read", **asked}
        async with here.client.post(path, json=body, headers=here.anna) as response:
            answer = await response.json()
        assert answer.keys() == {"url", "expires_at"}
        left_s = (datetime.fromisoformat(answer["expires_at"]) - datetime.now(UTC)).total_seconds()
        assert ttl_s - 5 < left_s <= ttl_s


async def test_link_to_stop_stops_and_one_to_read_does_not(running: tuple[Place, str]) -> None:
    place, sid = running
    body = {"json": {"sessionId": sid}}
    query = (await place.link(sid)).partition("?")[2]
    for method, path, sent in (
        ("DELETE", f"{STREAMS}/{sid}?{query}", {}),
        ("POST", f"/api/terminate-stream?{query}", body),
    ):
        assert await place.status(method, path, **sent) == (403, "link_scope")
    assert len(place.gateway.services.hub) == 1
    url = await place.link(sid, "stop")
    assert (await place.status("GET", url))[0] == 200
    async with place.client.delete(url) as response:
        assert (await response.json())["reason"] == "user_requested"
    await place.gateway.wait_for_streams(0)


async def test_link_to_stop_serves_terminate_stream_too(running: tuple[Place, str]) -> None:
    place, sid = running
    query = (await place.link(sid, "stop")).partition("?")[2]
    path = f"/api/terminate-stream?{query}"
    assert (await place.status("POST", path, json={"sessionId": "x"}))[0] == 403
    assert (await place.status("POST", path, json={}))[0] == 400
    async with place.client.post(path, json={"sessionId": sid}) as response:
        assert (await response.json())["success"] is True
    await place.gateway.wait_for_streams(0)


async def test_link_is_good_for_no_other_stream(here: Place) -> None:
    sid, _ = await here.ask()
    other, _ = await here.ask()
    query = (await here.link(sid, "stop")).partition("?")[2]
    for method in ("GET", "DELETE"):
        refused = await here.status(method, f"{STREAMS}/{other}?{query}")
        assert refused == (403, "invalid_link")


async def test_link_that_was_tampered_with_is_refused(here: Place) -> None:
    sid, _ = await here.ask()
    scope, expiry, signature = (await here.link(sid)).partition("link=")[2].split(".")
    changed = f"{'B' if signature[0] == 'A' else 'A'}{signature[1:]}"
    for token in (
        f"stop.{expiry}.{signature}",
        f"{scope}.{int(expiry) + 1}.{signature}",
        f"{scope}.{expiry}.{changed}",
        f"{scope}.{expiry}.{FORGED}",
        f"{scope}.{expiry}.{signature}A",
        f"{scope}.0{expiry}.{signature}",
        f"all.{expiry}.{signature}",
        f"{scope}.{expiry}.",
        "",
    ):
        for headers in ({}, here.bert):
            url = f"{STREAMS}/{sid}?link={token}"
            assert await here.status("GET", url, headers=headers) == (403, "invalid_link")


async def test_link_that_has_expired_is_refused(here: Place, tmp_path: Path) -> None:
    sid, _ = await here.ask()
    key = link_key_path(tmp_path).read_bytes()
    token, expires_at = Links(key, lambda: time.time() - 61).sign(sid, "stop", 60)
    assert expires_at < time.time()
    for method in ("GET", "DELETE"):
        refused = await here.status(method, f"{STREAMS}/{sid}?link={token}")
        assert refused == (403, "link_expired")


async def test_only_the_owner_gets_a_link_and_nobody_gets_one_by_a_link(here: Place) -> None:
    sid, _ = await here.ask()
    query = (await here.link(sid, "stop")).partition("?")[2]
    asked = {"json": {"scope": "read"}}
    path = f"{STREAMS}/{sid}/links"
    refused = await here.status("POST", path, headers=here.bert, **asked)
    unknown = await here.status("POST", f"{STREAMS}/x/links", headers=here.anna, **asked)
    assert refused == unknown == (404, "stream_not_found")
    assert (await here.status("POST", path, **asked))[0] == 401
    assert (await here.status("POST", f"{path}?{query}", **asked))[0] == 401


@pytest.mark.parametrize("path", [STREAMS, "/api/v2/chat-stream", "/v1/models", "/graphql", "/x"])
async def test_link_opens_no_other_path(here: Place, path: str) -> None:
    sid, _ = await here.ask()
    query = (await here.link(sid, "stop")).partition("?")[2]
    assert (await here.status("GET", f"{path}?{query}&query=hi"))[0] == 401


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({}, "scope"),
        ({"scope": "write"}, "scope"),
        ({"scope": ["read"]}, "scope"),
        *(
            ({"scope": "read", "ttl_seconds": ttl}, "ttl_seconds")
            for ttl in (0, -1, 601, 1.5, True, "60")
        ),
    ],
)
async def test_what_cannot_be_granted_is_refused(here: Place, body: object, param: str) -> None:
    sid, _ = await here.ask()
    path = f"{STREAMS}/{sid}/links"
    async with here.client.post(path, json=body, headers=here.anna) as response:
        assert response.status == 400
        error = (await response.json())["error"]
    assert (error["code"], error["param"]) == ("invalid_parameter", param)


async def test_links_outlive_a_restart_and_hold_wherever_the_key_is(tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    async with ScriptedBackend(streaming(CHAT_STREAM)) as backend:
        async with place(tmp_path, backend) as first:
            sid, whole = await first.ask()
            url = await first.link(sid)
        file = link_key_path(tmp_path)
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
        assert [each.name for each in file.parent.glob("*links*")] == ["links.key"]
        async with (
            place(tmp_path, backend) as again,
            again.client.get(url, headers=EVENT_STREAM) as response,
        ):
            assert await response.read() == whole
    link_key_path(elsewhere).parent.mkdir(parents=True)
    shutil.copy(file, link_key_path(elsewhere))
    token = url.partition("link=")[2]
    Links.load(link_key_path(elsewhere)).check(token, sid, "read")


def test_key_that_is_cut_short_is_no_key(tmp_path: Path) -> None:
    (tmp_path / "links.key").write_bytes(b"short")
    with pytest.raises(SettingsError, match=r"links\.key must hold 32 bytes"):
        Links.load(tmp_path / "links.key")


async def test_link_is_in_no_log_line(here: Place, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    sid, _ = await here.ask()
    url = await here.link(sid)
    signature = url.rpartition(".")[2]
    forged = url.replace(signature, FORGED)
    for asked in (url, forged):
        await here.status("GET", asked)
        await here.status("GET", asked, headers=EVENT_STREAM)
        await here.status("DELETE", asked)
    lines = [json.dumps(vars(record), default=str) for record in caplog.records]
    assert any("link.made" in line for line in lines)
    assert not [line for line in lines if signature in line or FORGED in line]
