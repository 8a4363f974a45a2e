"""The audit log through the running gateway."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import pytest

from gateway.audit.canonical import Object
from scripts.mock.behaviour import Behaviour
from scripts.mock.server import serving
from tests.auditing import assert_sound, bodies, stored
from tests.gateway import Gateway, running_gateway
from tests.raw import ask_raw

CHAT = "/api/v2/chat-stream"
COMPLETIONS = "/v1/chat/completions"
QUICK = Behaviour(first=0, pace=1, tokens=5)


@asynccontextmanager
async def audited(
    upstream: str, folder: Path, database_url: str | None = None, **settings: object
) -> AsyncIterator[Gateway]:
    told: dict[str, object] = {"audit_mode": "relay", "data_dir": folder, **settings}
    if database_url is not None:
        told["database_url"] = database_url
    folder_settings = {"audit_checkpoint_file": folder / "checkpoints.jsonl"}
    async with running_gateway(upstream, **folder_settings, **told) as gateway:
        yield gateway


async def of_type(folder: Path, database_url: str | None, *types: str) -> list[Object]:
    async with stored(folder, database_url) as store:
        return [one for one in await bodies(store) if one["type"] in types]


async def test_every_request_for_an_answer_is_recorded_from_beginning_to_end(
    tmp_path: Path, database_url: str | None
) -> None:
    async with (
        serving(QUICK) as url,
        audited(url, tmp_path, database_url, audit_models="m-large") as gateway,
        aiohttp.ClientSession(gateway.url) as client,
    ):
        async with client.post(CHAT, json={"query": "how?", "conversation_id": "c"}) as answer:
            assert answer.status == 200
            receipt = answer.headers["X-Audit-Receipt"]
            stream = answer.headers["X-Stream-Id"]
            await answer.read()
        messages = [{"role": "user", "content": "how?"}]
        for streams in (True, False):
            body = {"model": "m-large", "messages": messages, "stream": streams}
            async with client.post(COMPLETIONS, json=body) as answer:
                assert answer.status == 200
                assert "X-Audit-Receipt" in answer.headers
                await answer.read()
    starts = await of_type(tmp_path, database_url, "query.start")
    ends = await of_type(tmp_path, database_url, "query.end")
    assert [one["route"] for one in starts] == ["chat", COMPLETIONS, COMPLETIONS]
    assert [one["streaming"] for one in starts] == [True, True, False]
    assert [one["outcome"] for one in ends] == ["completed"] * 3
    assert [one["start"] for one in ends] == [one["seq"] for one in starts]
    assert starts[0]["stream"] == stream
    assert receipt.startswith(f"{starts[0]['log']}/{starts[0]['seq']}/")
    assert {one.get("model") for one in starts[1:]} == {"m-large"}
    await assert_sound(tmp_path, database_url)


async def test_stop_resume_limits_and_refusals_are_recorded(tmp_path: Path) -> None:
    async with (
        serving(Behaviour(first=0, pace=20, tokens=1000)) as url,
        audited(url, tmp_path, rate_limit="2/year") as gateway,
        aiohttp.ClientSession(gateway.url) as client,
    ):
        async with client.post(CHAT, json={"query": "how?"}) as answer:
            stream = answer.headers["X-Stream-Id"]
            await answer.content.readline()
        accept = {"Accept": "text/event-stream"}
        async with client.get(f"/api/v2/streams/{stream}", headers=accept) as answer:
            await answer.content.readline()
            async with client.delete(f"/api/v2/streams/{stream}") as stopped:
                assert stopped.status == 200
        for _ in range(5):
            async with client.post(CHAT, json={"query": "how?"}) as answer:
                await answer.content.readline()
                if answer.status == 429:
                    break
        headers = {"Sec-Fetch-Site": "cross-site"}
        await client.get(CHAT, params={"query": "x"}, headers=headers)
    found = [
        str(one["type"])
        for one in await of_type(
            tmp_path,
            None,
            "stream.stopped",
            "stream.resumed",
            "security.rate_limited",
            "security.origin_denied",
        )
    ]
    assert "stream.stopped" in found
    assert "stream.resumed" in found
    assert "security.rate_limited" in found
    await assert_sound(tmp_path)


async def test_sdk_that_asks_again_for_what_it_left_is_recorded(tmp_path: Path) -> None:
    thinking = Behaviour(head=0.3, first=0, pace=0, tokens=3)
    async with (
        serving(thinking) as url,
        audited(url, tmp_path) as gateway,
        aiohttp.ClientSession(gateway.url) as client,
    ):
        asking = asyncio.create_task(
            client.post(CHAT, json={"query": "how?"}, headers={"X-Stainless-Retry-Count": "0"})
        )
        await gateway.wait_for_streams(1)
        asking.cancel()
        again = {"X-Stainless-Retry-Count": "1"}
        async with client.post(CHAT, json={"query": "how?"}, headers=again) as answer:
            assert answer.headers["Idempotent-Replayed"] == "true"
            stream = answer.headers["X-Stream-Id"]
            await answer.read()
    (resumed,) = await of_type(tmp_path, None, "stream.resumed")
    assert (resumed["stream"], resumed["after"]) == (stream, 0)
    assert len(await of_type(tmp_path, None, "query.start")) == 1
    await assert_sound(tmp_path)


@pytest.mark.parametrize(
    "malformed",
    [
        b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
        b"POST /api/v2/chat-stream HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"\x16\x03\x01 what is this\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
    ],
)
async def test_request_that_is_no_http_is_recorded(tmp_path: Path, malformed: bytes) -> None:
    async with serving(QUICK) as url, audited(url, tmp_path) as gateway:
        assert (await ask_raw(gateway.port, [malformed])).status == 400
    (found,) = await of_type(tmp_path, None, "security.smuggling")
    assert (found["reason"], found["status"]) == ("bad_framing", 400)
    assert isinstance(found["commit"], dict)
    assert "ip" in found["commit"]
    await assert_sound(tmp_path)


@pytest.mark.parametrize("mode", ["async", "relay", "dispatch", "end"])
async def test_each_mode_records_the_same(tmp_path: Path, mode: str) -> None:
    async with (
        serving(QUICK) as url,
        audited(url, tmp_path, audit_mode=mode) as gateway,
        aiohttp.ClientSession(gateway.url) as client,
    ):

        async def ask(number: int) -> None:
            async with client.post(CHAT, json={"query": f"{number}"}) as answer:
                assert b"event: complete" in await answer.read()

        await asyncio.gather(*(ask(number) for number in range(20)))
    ends = await of_type(tmp_path, None, "query.end")
    assert [one["outcome"] for one in ends] == ["completed"] * 20
    await assert_sound(tmp_path)
