"""Who may ask: API keys made by the command line, tokens of a real issuer, and what passes on."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from yarl import URL

from gateway.tokens import jwks
from tests.backend import (
    ANTHROPIC_STREAM,
    CHAT_STREAM,
    Exchange,
    ScriptedBackend,
    json_response,
    streaming,
)
from tests.gateway import Gateway, running_gateway
from tests.servers import free_port
from tests.unit.auth.issuer import ED_KEY, P256_KEY, RSA_KEY, RSA_OTHER, forge, jwk, pem, sign

CHAT = "/api/v2/chat-stream"
COMPLETIONS = "/v1/chat/completions"
ASKED = {"query": "hi", "stream": True, "messages": [], "model": "m"}
PROBES = ("/livez", "/readyz", "/health", "/healthz", "/metrics", "/playground")
GUARDED = (
    CHAT,
    COMPLETIONS,
    "/v1/models",
    "/v1/unknown",
    "/v1/messages",
    "/",
    "/x",
    "/livez/",
    "//livez",
    "/livez%2f",
    "/LIVEZ",
    "/livez;x",
    "/healthy",
    "/livez/../x",
    "/livez%2f..%2fx",
)


def run(*arguments: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """The command `sluice`, as a process of its own."""
    return subprocess.run(
        [sys.executable, "-m", "gateway.cli", *arguments],
        env={
            "PATH": os.environ["PATH"],
            "PYTHONPATH": str(Path(__file__).parents[2]),
            "API_KEYS_FILE": "keys.jsonl",
            "DATA_DIR": "data",
        },
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


async def add_key(folder: Path, owner: str) -> str:
    result = await asyncio.to_thread(run, "keys", "add", "--owner", owner, folder=folder)
    assert result.returncode == 0, result.stderr
    return result.stdout.strip()


@dataclass(frozen=True, slots=True)
class Ring:
    """A file with two keys, made by the command line."""

    folder: Path
    anna: str
    bert: str


@pytest.fixture(scope="module")
def ring(tmp_path_factory: pytest.TempPathFactory) -> Ring:
    folder = tmp_path_factory.mktemp("ring")
    keys = [run("keys", "add", "--owner", name, folder=folder) for name in ("anna", "bert")]
    return Ring(folder, *(result.stdout.strip() for result in keys))


def keys_of(folder: Path) -> dict[str, object]:
    return {
        "auth_mode": "api_key",
        "api_keys_file": folder / "keys.jsonl",
        "data_dir": folder / "data",
    }


async def ask(
    gateway: Gateway, path: str = CHAT, headers: Mapping[str, str] | None = None
) -> tuple[int, str]:
    """The status, and the code of the error if it is one."""
    async with (
        aiohttp.ClientSession() as session,
        session.post(gateway.url + path, json=ASKED, headers=headers) as response,
    ):
        body = await response.read()
        if response.status < 400 or path == "/v1/messages":
            return response.status, ""
        return response.status, json.loads(body)["error"]["code"]


def bearer(credential: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {credential}"}


async def test_keys_of_the_command_line_open_a_running_gateway_until_they_are_revoked(
    tmp_path: Path,
) -> None:
    first = await add_key(tmp_path, "anna")
    async with (
        ScriptedBackend(streaming(CHAT_STREAM)) as backend,
        running_gateway(backend.url, **keys_of(tmp_path)) as gateway,
    ):
        assert await ask(gateway, headers=bearer(first)) == (200, "")
        assert await ask(gateway, headers={"x-api-key": first}) == (200, "")
        second = await add_key(tmp_path, "bert")
        await _until(gateway, second, 200)
        listed = await asyncio.to_thread(run, "keys", "list", folder=tmp_path)
        rows = [line.split("\t") for line in listed.stdout.splitlines()]
        assert [(row[1], row[3]) for row in rows] == [("anna", "active"), ("bert", "active")]
        assert first not in listed.stdout
        assert second not in listed.stdout
        revoked = await asyncio.to_thread(run, "keys", "revoke", rows[0][0], folder=tmp_path)
        assert revoked.returncode == 0
        await _until(gateway, first, 401)
        assert await ask(gateway, headers=bearer(first)) == (401, "invalid_api_key")
        assert await ask(gateway, headers=bearer(second)) == (200, "")
        listed = await asyncio.to_thread(run, "keys", "list", folder=tmp_path)
        assert [line.split("\t")[3].split()[0] for line in listed.stdout.splitlines()] == [
            "revoked",
            "active",
        ]


async def _until(gateway: Gateway, key: str, status: int) -> None:
    async with asyncio.timeout(10):
        while (await ask(gateway, headers=bearer(key)))[0] != status:
            await asyncio.sleep(0.05)


async def test_revoking_a_key_that_is_not_there_fails_with_one_line(tmp_path: Path) -> None:
    result = await asyncio.to_thread(run, "keys", "revoke", "nobody", folder=tmp_path)
    assert result.returncode == 1
    assert result.stderr == "error: there is no key nobody\n"


def test_key_itself_is_in_no_file_and_the_files_are_for_their_owner_only(ring: Ring) -> None:
    files = [path for path in ring.folder.rglob("*") if path.is_file() and path.stat().st_size]
    assert len(files) == 2
    for path in files:
        assert ring.anna.rsplit("-", 1)[1].encode() not in path.read_bytes()
        assert path.stat().st_mode & 0o077 == 0


@pytest.mark.parametrize(
    ("headers", "code"),
    [
        ({}, "missing_credential"),
        ({"Authorization": ""}, "missing_credential"),
        ({"Authorization": "Bearer"}, "invalid_authorization"),
        ({"Authorization": "Bearer a b"}, "invalid_authorization"),
        ({"Authorization": "Basic YTpi"}, "invalid_authorization"),
        ({"Authorization": "Bearer wrong"}, "invalid_api_key"),
        ({"x-api-key": "wrong"}, "invalid_api_key"),
        ({"X-User-Id": "anna"}, "missing_credential"),
        ({"Cookie": "key=x"}, "missing_credential"),
    ],
)
async def test_without_a_good_key_nothing_reaches_the_backend(
    ring: Ring, headers: dict[str, str], code: str
) -> None:
    async with (
        ScriptedBackend(streaming(CHAT_STREAM)) as backend,
        running_gateway(backend.url, **keys_of(ring.folder)) as gateway,
        aiohttp.ClientSession() as session,
        session.post(gateway.url + CHAT, json=ASKED, headers=headers) as response,
    ):
        assert response.status == 401
        assert response.headers["WWW-Authenticate"] == "Bearer"
        assert (await response.json())["error"]["code"] == code
    assert backend.exchanges == []


async def test_every_path_but_probes_metrics_and_pages_needs_a_credential(ring: Ring) -> None:
    async with (
        ScriptedBackend(streaming(CHAT_STREAM)) as backend,
        running_gateway(backend.url, **keys_of(ring.folder)) as gateway,
        aiohttp.ClientSession() as session,
    ):
        for path in PROBES:
            async with session.get(gateway.url + path) as response:
                assert (path, response.status) == (path, 200)
        for path in GUARDED:
            for method in ("GET", "POST", "PUT", "DELETE", "HEAD"):
                async with session.request(
                    method, URL(gateway.url + path, encoded=True)
                ) as response:
                    assert response.status in (401, 405), (method, path)
    assert backend.exchanges == []


async def test_owner_of_the_key_is_who_is_counted(ring: Ring) -> None:
    settings = {**keys_of(ring.folder), "rate_limit": "1/year", "trusted_proxies": "127.0.0.0/8"}
    async with (
        ScriptedBackend(streaming(CHAT_STREAM)) as backend,
        running_gateway(backend.url, **settings) as gateway,
    ):
        forged = {**bearer(ring.anna), "X-User-Id": "bert"}
        assert (await ask(gateway, headers=bearer(ring.anna)))[0] == 200
        assert (await ask(gateway, headers=forged))[0] == 429
        assert (await ask(gateway, headers=bearer(ring.bert)))[0] == 200


async def seen_by_the_backend(
    headers: Mapping[str, str], path: str, **settings: object
) -> dict[str, str]:
    """Which credentials the backend got."""
    stream = ANTHROPIC_STREAM if path.endswith("messages") else CHAT_STREAM
    async with (
        ScriptedBackend(streaming(stream)) as backend,
        running_gateway(backend.url, **settings) as gateway,
    ):
        assert (await ask(gateway, path, headers))[0] == 200
    got = backend.exchanges[0].headers
    return {name: got[name] for name in ("authorization", "x-api-key") if name in got}


PATHS = (CHAT, COMPLETIONS, "/v1/messages", "/v1/models", "/x")


@pytest.mark.parametrize("path", PATHS)
async def test_credential_of_a_client_is_consumed(ring: Ring, path: str) -> None:
    for headers in (
        bearer(ring.anna),
        {"x-api-key": ring.anna},
        {**bearer(ring.anna), "x-api-key": "other"},
    ):
        assert await seen_by_the_backend(headers, path, **keys_of(ring.folder)) == {}


@pytest.mark.parametrize("path", PATHS)
async def test_credential_of_the_gateway_takes_the_place_of_the_clients(
    ring: Ring, path: str
) -> None:
    ours = {"x-api-key": "sk-up"} if path.endswith("messages") else bearer("sk-up")
    expected = {name.lower(): value for name, value in ours.items()}
    for auth in (keys_of(ring.folder), {}):
        for headers in (bearer(ring.anna), {"x-api-key": ring.anna}):
            settings = {**auth, "upstream_api_key": "sk-up"}
            assert await seen_by_the_backend(headers, path, **settings) == expected


async def test_anthropic_backend_of_the_typed_route_gets_its_own_header() -> None:
    settings = {"upstream_dialect": "anthropic", "upstream_api_key": "sk-up"}
    async with (
        ScriptedBackend(streaming(ANTHROPIC_STREAM)) as backend,
        running_gateway(backend.url, **settings) as gateway,
    ):
        assert (await ask(gateway, headers=bearer("mine")))[0] == 200
    assert backend.exchanges[0].headers["x-api-key"] == "sk-up"
    assert "authorization" not in backend.exchanges[0].headers


@pytest.mark.parametrize("path", PATHS)
async def test_credential_of_a_client_passes_where_that_is_wished(ring: Ring, path: str) -> None:
    settings = {**keys_of(ring.folder), "upstream_forward_authorization": True}
    expected = {"authorization": f"Bearer {ring.anna}"}
    assert await seen_by_the_backend(bearer(ring.anna), path, **settings) == expected
    assert await seen_by_the_backend(bearer("any"), path) == {"authorization": "Bearer any"}
    assert await seen_by_the_backend({"x-api-key": "any"}, path) == {"x-api-key": "any"}


@asynccontextmanager
async def issuer(keys: list[dict[str, object]], port: int = 0) -> AsyncIterator[str]:
    """An issuer that publishes `keys`, which a test may change."""

    async def publish(_: web.Request) -> web.Response:
        return web.json_response({"keys": keys})

    app = web.Application()
    app.router.add_get("/jwks", publish)
    async with TestServer(app, port=port or None) as server:
        yield str(server.make_url("/jwks"))


@asynccontextmanager
async def guarded_by(url: str, **settings: object) -> AsyncIterator[Gateway]:
    values = {"auth_mode": "jwt", "jwt_jwks_url": url, **settings}
    async with (
        ScriptedBackend(streaming(CHAT_STREAM)) as backend,
        running_gateway(backend.url, **values) as gateway,
    ):
        yield gateway


@pytest.mark.parametrize(
    ("key", "alg"), [(RSA_KEY, "RS256"), (P256_KEY, "ES256"), (ED_KEY, "EdDSA")]
)
async def test_token_of_the_issuer_opens_the_gateway(key: object, alg: str) -> None:
    async with issuer([jwk(key, "one")]) as url, guarded_by(url) as gateway:
        token = sign(key, alg, "one")
        for headers in (bearer(token), {"x-api-key": token}):
            assert await ask(gateway, headers=headers) == (200, "")


async def test_bad_tokens_are_refused_each_with_its_code() -> None:
    good = {"aud": "sluice", "iss": "https://issuer.example"}
    now = time.time()
    refused = {
        sign(RSA_KEY, "RS256", "one", **good, exp=now - 60): "token_expired",
        sign(RSA_KEY, "RS256", "one", **good, nbf=now + 600): "invalid_token",
        sign(RSA_KEY, "RS256", "one", **good, sub=...): "invalid_token",
        sign(RSA_KEY, "RS256", "one", **good, exp=...): "invalid_token",
        sign(RSA_KEY, "RS256", "one", **(good | {"aud": "other"})): "invalid_token",
        sign(RSA_KEY, "RS256", "one", **(good | {"iss": "https://evil"})): "invalid_token",
        sign(RSA_OTHER, "RS256", "one", **good): "invalid_token",
        sign(RSA_OTHER, "RS256", "two", **good): "invalid_token",
        forge({"alg": "none"}, {"sub": "alice", "exp": now + 60, **good}): "invalid_token",
        forge(
            {"alg": "HS256", "kid": "one"}, {"sub": "alice", "exp": now + 60, **good}, pem(RSA_KEY)
        ): "invalid_token",
        "nonsense": "invalid_token",
    }
    settings = {"jwt_audience": "sluice", "jwt_issuer": "https://issuer.example"}
    async with issuer([jwk(RSA_KEY, "one")]) as url, guarded_by(url, **settings) as gateway:
        assert await ask(gateway, headers=bearer(sign(RSA_KEY, "RS256", "one", **good))) == (
            200,
            "",
        )
        for token, code in refused.items():
            assert await ask(gateway, headers=bearer(token)) == (401, code)


async def test_key_that_the_issuer_adds_opens_and_one_it_removes_stops_opening(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(jwks, "FETCH_INTERVAL_S", 0.0)
    keys = [jwk(RSA_KEY, "one")]
    old, new = sign(RSA_KEY, "RS256", "one"), sign(P256_KEY, "ES256", "two")
    async with issuer(keys) as url, guarded_by(url) as gateway:
        assert await ask(gateway, headers=bearer(old)) == (200, "")
        keys[:] = [jwk(P256_KEY, "two")]
        assert await ask(gateway, headers=bearer(new)) == (200, "")
        assert await ask(gateway, headers=bearer(old)) == (401, "invalid_token")


async def test_issuer_that_goes_away_does_not_stop_the_known_keys(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(jwks, "FETCH_INTERVAL_S", 0.0)
    monkeypatch.setattr(jwks, "TTL_S", 0.0)
    token = bearer(sign(RSA_KEY, "RS256", "one"))
    async with AsyncExitStack() as stack:
        url = await stack.enter_async_context(issuer([jwk(RSA_KEY, "one")]))
        async with guarded_by(url) as gateway:
            assert (await ask(gateway, headers=token))[0] == 200
            await stack.aclose()
            other = bearer(sign(RSA_KEY, "RS256", "one", sub="bert"))
            for headers in (token, other, other):
                assert (await ask(gateway, headers=headers))[0] == 200


async def test_issuer_that_is_away_at_the_start_is_a_503_until_it_comes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(jwks, "FETCH_INTERVAL_S", 0.0)
    port = free_port()
    token = sign(RSA_KEY, "RS256", "one")
    async with guarded_by(f"http://127.0.0.1:{port}/jwks") as gateway:
        for path in (CHAT, COMPLETIONS, "/x"):
            assert await ask(gateway, path, bearer(token)) == (503, "auth_unavailable")
        assert await ask(gateway) == (401, "missing_credential")
        async with aiohttp.ClientSession() as session:
            async with session.post(gateway.url + CHAT, headers=bearer(token)) as response:
                assert int(response.headers["Retry-After"]) >= 1
            async with session.get(f"{gateway.url}/livez") as response:
                assert response.status == 200
        async with issuer([jwk(RSA_KEY, "one")], port):
            assert await ask(gateway, headers=bearer(token)) == (200, "")


async def test_public_key_file_serves_without_an_issuer(tmp_path: Path) -> None:
    file = tmp_path / "key.pem"
    file.write_bytes(pem(RSA_KEY))

    async def script(exchange: Exchange) -> None:
        await exchange.send(json_response(b"{}"))

    settings = {"auth_mode": "jwt", "jwt_public_key_file": file}
    async with (
        ScriptedBackend(script) as backend,
        running_gateway(backend.url, **settings) as gateway,
    ):
        assert await ask(gateway, "/x", bearer(sign(RSA_KEY, "RS256"))) == (200, "")
        assert await ask(gateway, "/x", bearer(sign(RSA_OTHER, "RS256"))) == (401, "invalid_token")
