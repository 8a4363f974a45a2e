"""Flags, roll-out, rate limit, leases and sessions, seen by a client."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass

import aiohttp
import pytest

from tests.backend import (
    ANTHROPIC_STREAM,
    CHAT_STREAM,
    Exchange,
    Script,
    ScriptedBackend,
    json_response,
    sse_head,
    streaming,
)
from tests.clock import young_window
from tests.gateway import Gateway, running_gateway
from tests.raw import ask_raw

CHAT = "/api/v2/chat-stream"
COMPLETIONS = "/v1/chat/completions"
MESSAGES = "/v1/messages"
ASKED = {"query": "hi", "stream": True, "messages": [], "model": "m"}
LOCAL = "127.0.0.0/8"
OURS = ("x-stream-id", "ratelimit", "x-ratelimit-limit-requests", "x-heartbeat-interval")


@dataclass(frozen=True, slots=True)
class Place:
    gateway: Gateway
    backend: ScriptedBackend
    session: aiohttp.ClientSession

    @asynccontextmanager
    async def ask(
        self, path: str = CHAT, *, body: object = None, headers: Mapping[str, str] | None = None
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        asked = ASKED if body is None else body
        url = self.gateway.url + path
        async with self.session.post(url, json=asked, headers=headers) as response:
            yield response

    async def status(
        self, path: str = CHAT, *, body: object = None, headers: Mapping[str, str] | None = None
    ) -> int:
        """The status of an answer that was read to its end."""
        async with self.ask(path, body=body, headers=headers) as response:
            await response.read()
            return response.status


@asynccontextmanager
async def place(script: Script | None = None, **settings: object) -> AsyncIterator[Place]:
    async with (
        ScriptedBackend(script or streaming(CHAT_STREAM)) as backend,
        running_gateway(backend.url, **settings) as gateway,
        aiohttp.ClientSession() as session,
    ):
        yield Place(gateway, backend, session)


async def never_answer(exchange: Exchange) -> None:
    await exchange.stall()


async def start_and_stall(exchange: Exchange) -> None:
    await exchange.send(sse_head())
    await exchange.stall()


async def test_switched_off_the_typed_route_says_so_and_asks_nobody() -> None:
    async with place(enable_sse_streaming=False) as here:
        for headers in ({}, {"X-User-Id": "anna"}):
            async with here.ask(headers=headers) as response:
                assert response.status == 404
                error = (await response.json())["error"]
                assert error["code"] == "streaming_disabled"
        assert here.backend.exchanges == []
        assert here.gateway.metric("sluice_sessions_created_total") == 0


async def test_switched_off_v1_is_a_plain_proxy() -> None:
    settings = {"enable_sse_streaming": False, "rate_limit": "1/year", "heartbeat_interval": 0.05}
    async with place(**settings) as here:
        for _ in range(3):
            async with here.ask(COMPLETIONS) as response:
                assert response.status == 200
                assert await response.read() == CHAT_STREAM
                assert not {name.lower() for name in response.headers} & set(OURS)
        assert here.gateway.metric("sluice_sessions_created_total") == 0
        assert here.gateway.metric("sluice_streams_active") == 0


async def test_switched_off_what_cannot_be_read_is_the_backends_to_judge() -> None:
    async with place(enable_sse_streaming=False, request_max_bytes=1) as here:
        assert await here.status(COMPLETIONS, body=["not", "an", "object"]) == 200
    assert json.loads(here.backend.exchanges[0].body) == ["not", "an", "object"]


async def test_other_paths_do_not_depend_on_the_flag() -> None:
    async def script(exchange: Exchange) -> None:
        await exchange.send(json_response(b"{}", "200 OK", "X-Backend: 1"))

    seen = []
    for enabled in (False, True):
        async with place(script, enable_sse_streaming=enabled) as here, here.ask("/x") as response:
            assert response.status == 200
            own = {"Date", "X-Trace-ID", "traceparent"}
            seen.append({k: v for k, v in response.headers.items() if k not in own})
    assert seen[0] == seen[1]


def is_chosen(key: str, percent: float) -> bool:
    """The rule as documented: a bucket of ten thousand by SHA-256 of flag and key."""
    digest = hashlib.sha256(f"sse_streaming:{key}".encode()).digest()
    return int.from_bytes(digest[:8]) % 10_000 < percent * 100


USERS = [f"user-{number}" for number in range(120)]


@pytest.mark.parametrize("percent", [0, 5, 25, 50, 100])
async def test_rollout_by_user_id_is_sticky_and_the_documented_share(percent: int) -> None:
    async with place(sse_streaming_rollout_percent=percent) as here:
        rounds = [
            [await here.status(headers={"X-User-Id": user}) for user in USERS] for _ in range(2)
        ]
    assert rounds[0] == rounds[1]
    assert rounds[0] == [200 if is_chosen(f"user:{user}", percent) else 404 for user in USERS]


async def test_who_is_in_a_small_rollout_stays_in_while_it_grows() -> None:
    chosen: set[str] = set()
    for percent in (5, 25, 50, 100):
        async with place(sse_streaming_rollout_percent=percent) as here:
            now = {user for user in USERS if await here.status(headers={"X-User-Id": user}) == 200}
        assert chosen < now
        chosen = now
    assert chosen == set(USERS)


async def test_rollout_by_mail_ignores_capitals() -> None:
    mails = [f"Anna.{number}@Example.com" for number in range(40)]
    async with place(sse_streaming_rollout_percent=50) as here:
        statuses = [
            await here.status(body={"query": "hi", "user_email": spelling})
            for mail in mails
            for spelling in (mail, mail.lower())
        ]
    assert statuses[::2] == statuses[1::2]
    expected = [200 if is_chosen(f"mail:{mail.lower()}", 50) else 404 for mail in mails]
    assert statuses[::2] == expected


async def test_rollout_by_address_takes_the_forwarded_one_only_from_a_trusted_proxy() -> None:
    addresses = [f"198.51.100.{number}" for number in range(40)]
    expected = [200 if is_chosen(f"addr:{address}", 50) else 404 for address in addresses]
    own = 200 if is_chosen("addr:127.0.0.1", 50) else 404
    for trusted, wanted in ((LOCAL, expected), ("", [own] * 40)):
        async with place(sse_streaming_rollout_percent=50, trusted_proxies=trusted) as here:
            assert wanted == [
                await here.status(headers={"X-Forwarded-For": address}) for address in addresses
            ]


async def test_user_outside_the_rollout_has_a_plain_proxy_on_v1() -> None:
    outside = next(user for user in USERS if not is_chosen(f"user:{user}", 50))
    async with (
        place(sse_streaming_rollout_percent=50) as here,
        here.ask(COMPLETIONS, headers={"X-User-Id": outside}) as response,
    ):
        assert await response.read() == CHAT_STREAM
        assert "X-Stream-Id" not in response.headers
        assert here.gateway.metric("sluice_sessions_created_total") == 0


@pytest.mark.parametrize("path", [CHAT, COMPLETIONS])
async def test_twenty_requests_a_minute_are_answered_and_the_next_is_refused(path: str) -> None:
    await young_window(60)
    async with place(rate_limit="20/minute") as here:
        for left in reversed(range(20)):
            async with here.ask(path) as response:
                await response.read()
                assert response.status == 200
                assert response.headers["x-ratelimit-limit-requests"] == "20"
                assert response.headers["x-ratelimit-remaining-requests"] == str(left)
                assert response.headers["RateLimit"].startswith(f'"default";r={left};t=')
                assert response.headers["RateLimit-Policy"] == '"default";q=20;w=60'
        async with here.ask(path) as response:
            assert response.status == 429
            assert 1 <= int(response.headers["Retry-After"]) <= 60
            assert response.headers["x-ratelimit-remaining-requests"] == "0"
            error = (await response.json())["error"]
        assert (error["type"], error["code"]) == ("rate_limit_error", "rate_limited")
        assert len(here.backend.exchanges) == 20
        assert here.gateway.metric("sluice_rate_limited_total") == 1


async def test_refusal_on_the_messages_route_has_anthropics_shape() -> None:
    async with place(streaming(ANTHROPIC_STREAM), rate_limit="1/year") as here:
        assert await here.status(MESSAGES) == 200
        async with here.ask(MESSAGES) as response:
            assert response.status == 429
            body = await response.json()
    assert body["type"] == "error"
    assert body["error"]["type"] == "rate_limit_error"


async def test_limit_is_told_on_errors_too() -> None:
    async def refuse(exchange: Exchange) -> None:
        await exchange.send(json_response(b"{}", "500 Oh"))

    async with place(refuse, rate_limit="9/year") as here:
        for path, body, status in (
            (CHAT, {"query": ""}, 400),
            (CHAT, {"query": "hi"}, 500),
            (COMPLETIONS, [], 400),
            (COMPLETIONS, ASKED, 500),
            (COMPLETIONS, {"stream": False}, 500),
        ):
            async with here.ask(path, body=body) as response:
                assert (response.status, path) == (status, path)
                assert "RateLimit" in response.headers
                assert response.headers["x-ratelimit-limit-requests"] == "9"


async def test_health_models_and_passthrough_are_not_limited() -> None:
    async with place(rate_limit="1/year") as here:
        await here.status()
        assert await here.status() == 429
        for path in ("/livez", "/readyz", "/health", "/metrics", "/v1/models", "/x"):
            for _ in range(3):
                async with here.session.get(here.gateway.url + path) as response:
                    assert response.status == 200
                    assert "RateLimit" not in response.headers
        assert await here.status("/v1/embeddings") == 200


async def test_users_are_counted_apart_only_on_the_word_of_a_trusted_proxy() -> None:
    for trusted, statuses in ((LOCAL, [200, 200, 429]), ("", [200, 429, 429])):
        async with place(rate_limit="1/year", trusted_proxies=trusted) as here:
            assert statuses == [
                await here.status(headers={"X-User-Id": user}) for user in ("a", "b", "a")
            ]


async def test_addresses_are_counted_apart_only_on_the_word_of_a_trusted_proxy() -> None:
    asked = ("198.51.100.1", "198.51.100.2", "198.51.100.1", "203.0.113.9, 198.51.100.2")
    for trusted, statuses in ((LOCAL, [200, 200, 429, 429]), ("", [200, 429, 429, 429])):
        async with place(rate_limit="1/year", trusted_proxies=trusted) as here:
            assert statuses == [
                await here.status(headers={"X-Forwarded-For": address}) for address in asked
            ]


async def test_one_household_of_ipv6_addresses_is_one_client() -> None:
    asked = ("2001:db8:1:2::1", "2001:db8:1:2:ffff::9", "2001:db8:1:3::1")
    async with place(rate_limit="1/year", trusted_proxies=LOCAL) as here:
        assert [await here.status(headers={"X-Forwarded-For": address}) for address in asked] == [
            200,
            429,
            200,
        ]


async def test_both_routes_share_one_count() -> None:
    async with place(rate_limit="2/year") as here:
        assert [await here.status(path) for path in (CHAT, COMPLETIONS, CHAT, COMPLETIONS)] == [
            200,
            200,
            429,
            429,
        ]


async def test_owner_with_too_many_streams_is_refused_until_one_ends() -> None:
    release = asyncio.Event()

    async def script(exchange: Exchange) -> None:
        await exchange.send(sse_head())
        await release.wait()
        await exchange.close()

    async with place(script, stream_max_per_owner=2, commit_delay_ms=0) as here:
        async with here.ask() as one, here.ask(COMPLETIONS) as two, here.ask() as three:
            assert (one.status, two.status, three.status) == (200, 200, 429)
            assert (await three.json())["error"]["code"] == "too_many_streams"
            assert int(three.headers["Retry-After"]) >= 1
            release.set()
            await one.read()
        await here.gateway.wait_for_streams(0)
        async with here.ask() as response:
            assert response.status == 200


async def test_each_owner_has_places_of_its_own() -> None:
    settings = {"stream_max_per_owner": 1, "trusted_proxies": LOCAL, "commit_delay_ms": 0}
    async with (
        place(start_and_stall, **settings) as here,
        here.ask(headers={"X-User-Id": "anna"}) as anna,
        here.ask(headers={"X-User-Id": "bert"}) as bert,
        here.ask(headers={"X-User-Id": "anna"}) as again,
    ):
        assert (anna.status, bert.status, again.status) == (200, 200, 429)


async def unavailable(exchange: Exchange) -> None:
    await exchange.send(json_response(b'{"error": "busy"}', "503 Busy"))


async def reset_at_once(exchange: Exchange) -> None:
    exchange.reset()


async def reset_in_the_middle(exchange: Exchange) -> None:
    await exchange.send(sse_head())
    exchange.reset()


@pytest.mark.parametrize("path", [CHAT, COMPLETIONS])
@pytest.mark.parametrize(
    "script", [streaming(CHAT_STREAM), unavailable, reset_at_once, reset_in_the_middle]
)
async def test_place_comes_back_however_the_backend_behaves(script: Script, path: str) -> None:
    async with place(script, stream_max_per_owner=8) as here:
        for _ in range(10):
            async with asyncio.TaskGroup() as tasks:
                for _ in range(6):
                    tasks.create_task(_read_what_comes(here, path))
            await here.gateway.wait_for_streams(0)
        assert len(here.gateway.services.leases) == 0
        assert here.gateway.metric("sluice_rate_limited_total") == 0
        assert here.gateway.metric("sluice_sessions_created_total") == 60


async def _read_what_comes(here: Place, path: str) -> None:
    async with here.ask(path) as response:
        assert response.status != 429
        try:
            await response.read()
        except aiohttp.ClientError:
            return


@pytest.mark.parametrize("path", [CHAT, COMPLETIONS])
@pytest.mark.parametrize("script", [never_answer, start_and_stall])
async def test_place_comes_back_when_clients_leave(script: Script, path: str) -> None:
    request = json.dumps(ASKED).encode()
    head = f"POST {path} HTTP/1.1\r\nHost: gateway\r\nContent-Type: application/json\r\n"
    head += f"X-Stream-On-Disconnect: cancel\r\nContent-Length: {len(request)}\r\n\r\n"
    async with place(script, stream_max_per_owner=50) as here:
        for turn in range(1, 5):
            writers = []
            for _ in range(25):
                _, writer = await asyncio.open_connection("127.0.0.1", here.gateway.port)
                writer.write(head.encode() + request)
                writers.append(writer)
            await here.backend.wait_for_exchanges(25 * turn)
            for writer in writers:
                writer.close()
            await here.gateway.wait_for_streams(0)
        await here.backend.wait_until_idle()
        assert len(here.gateway.services.leases) == 0


async def test_errors_before_the_start_take_no_place() -> None:
    async with place(stream_max_per_owner=1) as here:
        for body in ({}, {"query": ""}, {"query": 1}, []):
            for _ in range(25):
                assert await here.status(body=body) == 400
        assert len(here.gateway.services.leases) == 0
        assert await here.status() == 200


async def test_gateway_full_of_streams_answers_503_and_keeps_no_place_for_the_refused() -> None:
    settings = {"max_stream_sessions": 2, "stream_max_per_owner": 9, "commit_delay_ms": 0}
    async with place(start_and_stall, **settings) as here:
        async with here.ask(), here.ask(COMPLETIONS):
            for path in (CHAT, COMPLETIONS) * 50:
                async with here.ask(path) as response:
                    assert response.status == 503
                    assert int(response.headers["Retry-After"]) >= 1
                    assert (await response.json())["error"]["code"] == "too_many_sessions"
            assert here.gateway.services.leases.count("addr:127.0.0.1") == 2
            assert here.gateway.metric("sluice_streams_active") == 2
        assert len(here.backend.exchanges) == 2


@pytest.mark.parametrize(
    "path",
    [
        "/v1/./chat/completions",
        "/v1/x/../chat/completions",
        "/x/../v1/chat/completions",
        "/v1//chat/completions",
        "/v1/chat/completions/",
        "/V1/chat/completions",
        "/%76%31/chat/completions",
        "/v1/chat%2Fcompletions",
        "/v1/chat%252Fcompletions",
        "/v1\\chat\\completions",
    ],
)
async def test_no_spelling_of_a_path_leads_past_the_limits(path: str) -> None:
    async with (
        ScriptedBackend(streaming(CHAT_STREAM)) as backend,
        running_gateway(backend.url) as gateway,
    ):
        target = path.encode()
        answer = await ask_raw(
            gateway.port,
            [b"POST " + target + b" HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}"],
        )
        assert answer.status == 400
        assert not backend.exchanges
