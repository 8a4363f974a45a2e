"""Which pages of which sites may ask from a browser."""

from __future__ import annotations

import aiohttp
import pytest

from tests.backend import (
    CHAT_STREAM,
    Exchange,
    ScriptedBackend,
    json_response,
    streaming,
)
from tests.gateway import running_gateway

CHAT = "/api/v2/chat-stream"
ALLOWED = "https://app.example.com"
OTHER_ALLOWED = "http://localhost:3000"
ORIGINS = f"{ALLOWED},{OTHER_ALLOWED}"
FOREIGN = (
    "null",
    "",
    "*",
    "https://",
    "https://app.example.com/",
    "https://app.example.com.",
    "https://app.example.com:443",
    "https://app.example.com:8443",
    "http://app.example.com",
    "ftp://app.example.com",
    "HTTPS://app.example.com",
    "https://APP.example.com",
    "https://app.example.com.evil.example",
    "https://app.example.comevil.example",
    "https://evil-app.example.com",
    "https://evilapp.example.com",
    "https://sub.app.example.com",
    "https://example.com",
    "https://app-example.com",
    "https://appXexample.com",
    "https://app.example.co",
    "https://user@app.example.com",
    "https://app.example.com@evil.example",
    "https://evil.example/https://app.example.com",
    "https://evil.example?https://app.example.com",
    "https://evil.example#https://app.example.com",
    "https://app.example.com https://evil.example",
    "https://app.example.com,https://evil.example",
    "https://evil.example, https://app.example.com",
    "https://app.example.com%00.evil.example",
    "https://app.example.com%2eevil.example",
    "app.example.com",
    "//app.example.com",
    "file://",
    "chrome-extension://app.example.com",
    "http://localhost",
    "http://localhost:3001",
    "http://localhost:30000",
    "https://localhost:3000",
    "http://127.0.0.1:3000",
    "http://[::1]:3000",
)
EXPOSED = {
    "x-trace-id",
    "traceparent",
    "x-stream-id",
    "x-stream-max-seconds",
    "x-heartbeat-interval",
    "x-silence-threshold",
    "ratelimit",
    "ratelimit-policy",
    "retry-after",
}


def cors_headers(response: aiohttp.ClientResponse) -> set[str]:
    return {name for name in response.headers if name.lower().startswith("access-control-")}


def words(value: str) -> set[str]:
    return {word.strip().lower() for word in value.split(",")}


@pytest.mark.parametrize("origin", [ALLOWED, OTHER_ALLOWED])
@pytest.mark.parametrize("path", [CHAT, "/v1/chat/completions"])
async def test_allowed_origin_may_read_a_stream_and_its_headers(path: str, origin: str) -> None:
    body = {"query": "hi", "stream": True, "messages": []}
    async with (
        ScriptedBackend(streaming(CHAT_STREAM)) as backend,
        running_gateway(backend.url, allowed_origins=ORIGINS) as gateway,
        aiohttp.ClientSession() as session,
        session.post(gateway.url + path, json=body, headers={"Origin": origin}) as response,
    ):
        assert response.status == 200
        assert response.headers["Access-Control-Allow-Origin"] == origin
        assert response.headers["Access-Control-Allow-Credentials"] == "true"
        assert words(response.headers["Access-Control-Expose-Headers"]) >= EXPOSED
        assert "origin" in words(response.headers["Vary"])


@pytest.mark.parametrize("path", [CHAT, "/v1/chat/completions"])
async def test_preflight_of_an_allowed_origin_is_answered_by_the_gateway(path: str) -> None:
    headers = {
        "Origin": ALLOWED,
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "authorization, content-type",
    }
    async with (
        ScriptedBackend(streaming(CHAT_STREAM)) as backend,
        running_gateway(backend.url, allowed_origins=ORIGINS, rate_limit="1/year") as gateway,
        aiohttp.ClientSession() as session,
    ):
        for _ in range(3):
            async with session.options(gateway.url + path, headers=headers) as response:
                assert (response.status, await response.read()) == (204, b"")
                assert response.headers["Access-Control-Allow-Origin"] == ALLOWED
                assert "post" in words(response.headers["Access-Control-Allow-Methods"])
                assert words(response.headers["Access-Control-Allow-Headers"]) == {
                    "authorization",
                    "content-type",
                }
                assert int(response.headers["Access-Control-Max-Age"]) > 0
    assert backend.exchanges == []


@pytest.mark.parametrize("origin", FOREIGN)
async def test_origin_that_is_not_exactly_an_allowed_one_gets_no_permission(origin: str) -> None:
    preflight = {"Origin": origin, "Access-Control-Request-Method": "POST"}
    asked = {"Origin": origin}
    async with (
        ScriptedBackend(streaming(CHAT_STREAM)) as backend,
        running_gateway(backend.url, allowed_origins=ORIGINS) as gateway,
        aiohttp.ClientSession() as session,
    ):
        url = gateway.url + CHAT
        async with session.options(url, headers=preflight) as response:
            assert cors_headers(response) == set()
        async with session.get(f"{url}?query=hi", headers=asked) as response:
            assert cors_headers(response) == set()
            assert response.status == 403
            assert (await response.json())["error"]["code"] == "cross_site_refused"
        assert backend.exchanges == []
        async with session.post(url, json={"query": "hi"}, headers=asked) as response:
            assert cors_headers(response) == set()


async def test_errors_can_be_read_by_an_allowed_origin_too() -> None:
    async with (
        ScriptedBackend(streaming(CHAT_STREAM)) as backend,
        running_gateway(backend.url, allowed_origins=ORIGINS) as gateway,
        aiohttp.ClientSession() as session,
        session.post(gateway.url + CHAT, json={}, headers={"Origin": ALLOWED}) as response,
    ):
        assert response.status == 400
        assert response.headers["Access-Control-Allow-Origin"] == ALLOWED
        assert words(response.headers["Access-Control-Expose-Headers"]) >= EXPOSED


async def test_other_paths_keep_the_backends_own_cors() -> None:
    async def script(exchange: Exchange) -> None:
        lines = ("Access-Control-Allow-Origin: https://backend.example", "Vary: Origin")
        await exchange.send(json_response(b"{}", "200 OK", *lines))

    headers = {"Origin": ALLOWED, "Access-Control-Request-Method": "PUT"}
    async with (
        ScriptedBackend(script) as backend,
        running_gateway(backend.url, allowed_origins=ORIGINS) as gateway,
        aiohttp.ClientSession() as session,
        session.options(f"{gateway.url}/other", headers=headers) as response,
    ):
        assert response.headers["Access-Control-Allow-Origin"] == "https://backend.example"
        assert response.headers.getall("Vary") == ["Origin"]
    assert [exchange.method for exchange in backend.exchanges] == ["OPTIONS"]


async def test_without_allowed_origins_a_preflight_on_v1_is_the_backends_to_answer() -> None:
    async def script(exchange: Exchange) -> None:
        await exchange.send(json_response(b"", "200 OK", "Access-Control-Allow-Origin: *"))

    headers = {"Origin": ALLOWED, "Access-Control-Request-Method": "POST"}
    async with (
        ScriptedBackend(script) as backend,
        running_gateway(backend.url) as gateway,
        aiohttp.ClientSession() as session,
        session.options(f"{gateway.url}/v1/chat/completions", headers=headers) as response,
    ):
        assert response.headers["Access-Control-Allow-Origin"] == "*"


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Sec-Fetch-Site": "cross-site"}, 403),
        ({"Sec-Fetch-Site": "cross-site", "Origin": "https://evil.example"}, 403),
        ({"Sec-Fetch-Site": "cross-site", "Origin": ALLOWED}, 200),
        ({"Sec-Fetch-Site": "same-origin"}, 200),
        ({"Sec-Fetch-Site": "none"}, 200),
        ({"Origin": ALLOWED}, 200),
        ({}, 200),
    ],
)
async def test_get_from_another_site_is_refused_before_it_costs_anything(
    headers: dict[str, str], status: int
) -> None:
    async with (
        ScriptedBackend(streaming(CHAT_STREAM)) as backend,
        running_gateway(backend.url, allowed_origins=ORIGINS) as gateway,
        aiohttp.ClientSession() as session,
        session.get(f"{gateway.url}{CHAT}?query=hi", headers=headers) as response,
    ):
        assert response.status == status
        if status == 403:
            assert (await response.json())["error"]["code"] == "cross_site_refused"
    assert len(backend.exchanges) == (status == 200)


@pytest.mark.parametrize(
    ("origin", "host", "status"),
    [
        ("http://chat.example", "chat.example", 200),
        ("https://chat.example", "chat.example", 200),
        ("http://chat.example:8080", "chat.example:8080", 200),
        ("http://chat.example", "chat.example:8080", 403),
        ("http://chat.example:8080", "chat.example", 403),
        ("http://chat.example.evil.example", "chat.example", 403),
        ("http://evil.example://chat.example", "chat.example", 403),
        ("null", "null", 403),
        ("chat.example", "chat.example", 403),
    ],
)
async def test_get_of_the_gateways_own_pages_is_same_site(
    origin: str, host: str, status: int
) -> None:
    headers = {"Origin": origin, "Host": host}
    async with (
        ScriptedBackend(streaming(CHAT_STREAM)) as backend,
        running_gateway(backend.url) as gateway,
        aiohttp.ClientSession() as session,
        session.get(f"{gateway.url}{CHAT}?query=hi", headers=headers) as response,
    ):
        assert response.status == status
