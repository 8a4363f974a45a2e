"""A cursor lets a client go on with its stream for free. It is no way round the rate limit."""

from __future__ import annotations

import re

import aiohttp
import pytest

from scripts.mock.behaviour import Behaviour
from scripts.mock.server import serving
from tests.gateway import running_gateway

QUICK = Behaviour(first=0, pace=0, seed=1)
CHAT = {"model": "demo", "messages": [{"role": "user", "content": "hello"}]}


async def backend_calls(session: aiohttp.ClientSession, backend: str) -> int:
    async with session.get(f"{backend}/stats") as response:
        return int((await response.json())["requests"])


@pytest.mark.parametrize("cursor", ["", "x", "AAAAAAAAAAAAAAAA.1"])
@pytest.mark.parametrize("rollout", [100, 0])
@pytest.mark.parametrize("stream", [False, True])
async def test_cursor_is_no_way_round_the_rate_limit(
    cursor: str, rollout: int, stream: bool
) -> None:
    settings = {"rate_limit": "1/year", "sse_streaming_rollout_percent": rollout}
    async with (
        serving(QUICK) as backend,
        running_gateway(backend, **settings) as gateway,
        aiohttp.ClientSession(headers={"Last-Event-ID": cursor}) as session,
    ):
        for _ in range(4):
            url = f"{gateway.url}/v1/chat/completions"
            async with session.post(url, json={**CHAT, "stream": stream}) as response:
                await response.read()
        assert await backend_calls(session, backend) <= 1


async def test_empty_cursor_is_none_and_the_question_counts() -> None:
    async with (
        serving(QUICK) as backend,
        running_gateway(backend, rate_limit="2/year") as gateway,
        aiohttp.ClientSession(headers={"Last-Event-ID": ""}) as session,
    ):
        statuses = []
        for _ in range(3):
            async with session.get(f"{gateway.url}/api/v2/chat-stream?query=hello") as response:
                await response.read()
                statuses.append(response.status)
        assert statuses == [200, 200, 429]


async def test_resuming_still_costs_nothing() -> None:
    async with (
        serving(QUICK) as backend,
        running_gateway(backend, rate_limit="1/year") as gateway,
        aiohttp.ClientSession() as session,
    ):
        url = f"{gateway.url}/api/v2/chat-stream?query=hello"
        async with session.get(url) as response:
            whole = await response.text()
            cursor = f"{response.headers['X-Stream-Id']}.1"
        for _ in range(3):
            async with session.get(url, headers={"Last-Event-ID": cursor}) as response:
                assert response.status == 200
                assert await response.text() == whole.partition("\n\n")[2]


async def test_number_of_a_response_that_is_not_kept_is_gone() -> None:
    asked = {"model": "demo", "input": "hello", "stream": True}
    async with (
        serving(QUICK) as backend,
        running_gateway(backend) as gateway,
        aiohttp.ClientSession(gateway.url) as session,
    ):
        async with session.post("/v1/responses", json=asked) as response:
            found = re.search(r'"id":\s*"(resp_[^"]+)"', await response.text())
        assert found is not None
        query = {"stream": "true", "starting_after": "99999"}
        async with session.get(f"/v1/responses/{found[1]}", params=query) as response:
            assert response.status == 410
            assert (await response.json())["error"]["code"] == "cursor_expired"
