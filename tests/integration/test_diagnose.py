"""The bundle for who helps: what is in it, and what never is."""

from __future__ import annotations

import asyncio
import os
import sys
import tarfile
from asyncio.subprocess import PIPE
from pathlib import Path

import aiohttp
import orjson

from tests.backend import Exchange, ScriptedBackend, chunked, sse_head
from tests.certificates import make_certificate
from tests.gateway import ADMIN_TOKEN, Gateway, running_gateway

TYPED = "/api/v2/chat-stream"
SECRETS = {
    "ADMIN_TOKEN": ADMIN_TOKEN,
    "UPSTREAM_API_KEY": "secret-canary-upstream",
    "PARTIAL_ENCRYPTION_KEY": "11" * 32,
    "AUDIT_CHECKPOINT_COMMAND": "curl -H secret-canary-command",
}
WORDS = ["canaryquery", "canaryconversation", "canarysaid", "canarytrace", "canaryuser"]


async def diagnose(*arguments: str, **settings: str) -> str:
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": ":".join(sys.path), **settings}
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "gateway.cli", "diagnose", *arguments),
        env=environment,
        stdout=PIPE,
    )
    printed, _ = await process.communicate()
    assert process.returncode == 0
    return printed.decode()


def told(gateway: Gateway, folder: Path) -> dict[str, str]:
    return {
        "PORT": str(gateway.port),
        "UPSTREAM_URL": gateway.services.settings.upstream_url or "",
        "DATA_DIR": str(folder),
        **SECRETS,
    }


async def speak_and_wait(exchange: Exchange) -> None:
    block = orjson.dumps({"choices": [{"index": 0, "delta": {"content": "canarysaid"}}]})
    await exchange.send(sse_head(), chunked(b"data: %b\n\n" % block))
    await exchange.stall()


async def test_bundle_shows_a_running_gateway_without_secrets_and_people(tmp_path: Path) -> None:
    made = {name.lower(): value for name, value in SECRETS.items()}
    asked = {"query": "canaryquery", "conversation_id": "canaryconversation"}
    headers = {"X-Trace-ID": "canarytrace", "X-User-Id": "canaryuser"}
    out = tmp_path / "bundle.tar.gz"
    async with (
        ScriptedBackend(speak_and_wait) as backend,
        running_gateway(backend.url, data_dir=tmp_path, **made) as gateway,
        aiohttp.ClientSession(gateway.url) as client,
        client.post(TYPED, json=asked, headers=headers) as response,
    ):
        await response.content.readuntil(b"canarysaid")
        printed = await diagnose("--out", str(out), **told(gateway, tmp_path))
        sid = response.headers["X-Stream-Id"]
    assert printed == f"{out}\n"
    assert out.stat().st_mode & 0o077 == 0
    with tarfile.open(out) as bundle:
        files = {
            Path(member.name).name: found.read()
            for member in bundle
            if (found := bundle.extractfile(member)) is not None
        }
    assert set(files) == {
        "about.json",
        "settings.json",
        "data_dir.json",
        "gateway.json",
        "metrics.txt",
    }
    seen = orjson.loads(files["gateway.json"])
    (stream,) = seen["streams"]
    assert (stream["route"], stream["events"], stream["readers"]) == ("chat", 1, [0])
    assert seen["health"]["grade"] == "A"
    assert seen["tasks"]["stream keeper"] == 1
    assert b"sluice_streams_active 1.0" in files["metrics.txt"]
    assert orjson.loads(files["settings.json"])["UPSTREAM_API_KEY"] == "********"
    everything = b"".join(files.values()).decode()
    assert [word for word in [*WORDS, sid, *SECRETS.values()] if word in everything] == []


async def test_remembered_errors_are_in_it(tmp_path: Path) -> None:
    async with (
        running_gateway("http://127.0.0.1:1", admin_token=ADMIN_TOKEN) as gateway,
        aiohttp.ClientSession(gateway.url) as client,
    ):
        for _ in range(30):
            async with client.get(TYPED, params={"query": "hello"}) as response:
                assert response.status == 502
        bundle = orjson.loads(await diagnose("--json", **told(gateway, tmp_path)))
    errors = bundle["gateway"]["errors"]
    assert [error["code"] for error in errors] == ["upstream_unavailable"] * 30


async def test_gateway_that_listens_on_a_socket_is_asked_there(tmp_path: Path) -> None:
    path = tmp_path / "sluice.sock"
    async with running_gateway(
        "http://127.0.0.1:1", admin_token=ADMIN_TOKEN, unix_socket=path, allowed_hosts="api.example"
    ):
        told = {"UNIX_SOCKET": str(path), "ALLOWED_HOSTS": "api.example", **SECRETS}
        bundle = orjson.loads(await diagnose("--json", **told))
    assert bundle["gateway"]["versions"] == bundle["about"]["versions"]


async def test_gateways_own_certificate_is_trusted(tmp_path: Path) -> None:
    cert, key = make_certificate(tmp_path), tmp_path / "key.pem"
    files = {"tls_cert": cert, "tls_key": key}
    async with running_gateway("http://127.0.0.1:1", admin_token=ADMIN_TOKEN, **files) as gateway:
        told_files = {"TLS_CERT": str(cert), "TLS_KEY": str(key)}
        bundle = orjson.loads(await diagnose("--json", **told(gateway, tmp_path), **told_files))
    assert bundle["gateway"]["health"]["status"] == "ok"


async def test_without_a_gateway_it_says_so_and_has_the_rest(tmp_path: Path) -> None:
    (tmp_path / "some.file").write_bytes(b"12345")
    bundle = orjson.loads(await diagnose("--json", PORT="1", DATA_DIR=str(tmp_path)))
    assert "Cannot connect" in bundle["gateway"]["error"]
    assert bundle["data_dir"] == {"some.file": 5}
    assert bundle["settings"]["PORT"] == "1"
    assert bundle["about"]["versions"]["aiohttp"]


async def test_wrong_token_is_told(tmp_path: Path) -> None:
    async with running_gateway("http://127.0.0.1:1", admin_token=ADMIN_TOKEN) as gateway:
        settings = told(gateway, tmp_path) | {"ADMIN_TOKEN": "another-token-of-16"}
        bundle = orjson.loads(await diagnose("--json", **settings))
    assert "is ADMIN_TOKEN the gateway's?" in bundle["gateway"]["error"]
    assert "sluice_streams_active" in bundle["metrics"]
