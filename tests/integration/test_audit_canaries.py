"""Words that clients and backends put wherever they can are in no record, line or metric, but where
the table of docs/audit.md lets them."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import sys
from contextlib import closing, suppress
from itertools import count
from pathlib import Path

import aiohttp
import orjson

from gateway.keys import KeyRing, pepper_path
from tests.backend import LAST_CHUNK, Exchange, ScriptedBackend, chunked, sse_head
from tests.gateway import gateway_environment, wait_until_ready
from tests.servers import free_port

CHAT = "/api/v2/chat-stream"
OWNER = "canary-owner@example.org"
_numbers = count(1)
planted: list[str] = []


def canary(kind: str) -> str:
    """A word that stands nowhere else."""
    word = f"canary{next(_numbers)}x{kind}"
    planted.append(word)
    return word


async def backend(exchange: Exchange) -> None:
    """Says, refuses, fails and breaks off, with canaries everywhere."""
    path = exchange.target
    header = f"X-Backend: {canary('backendheader')}\r\n".encode()
    if "refuse" in path or b"refuse" in exchange.body:
        body = orjson.dumps({"error": {"message": canary("refusal")}})
        await exchange.send(
            b"HTTP/1.1 400 " + canary("phrase").encode() + b"\r\n" + header,
            b"Content-Type: application/json\r\n",
            b"Content-Length: %d\r\n\r\n%b" % (len(body), body),
        )
        return
    if b"fail" in exchange.body:
        block = orjson.dumps({"error": {"message": canary("failure")}})
        await exchange.send(sse_head(), chunked(b"data: %b\n\n" % block), LAST_CHUNK)
        return
    content = canary("answer")
    model = canary("backendmodel")
    block = orjson.dumps({"model": model, "choices": [{"index": 0, "delta": {"content": content}}]})
    await exchange.send(sse_head(), chunked(b"data: %b\n\n" % block))
    if b"break" in exchange.body:
        await exchange.close()
    else:
        await exchange.send(chunked(b"data: [DONE]\n\n"), LAST_CHUNK)


async def plant(client: aiohttp.ClientSession, key: str) -> None:
    headers = {
        "Authorization": f"Bearer {key}",
        "User-Agent": canary("agent"),
        "Referer": f"http://{canary('referer')}/",
        "Cookie": f"session={canary('cookie')}",
        "X-Connection-Id": canary("connection"),
        "X-User-Id": canary("user"),
        "X-Forwarded-For": canary("forwarded"),
        "X-Custom": canary("header"),
        f"X-{canary('headername')}": "1",
        "baggage": f"a={canary('baggage')}",
        "tracestate": f"a={canary('tracestate')}",
        "Stream-Ids": "on",
    }
    for word in ("", "refuse", "fail", "break"):
        asked = {
            "query": f"{word} {canary('query')}",
            "user_email": f"{canary('email')}@example.org",
            "user_role": canary("role"),
            "conversation_id": canary("conversation"),
            "conversation_history": [{"role": "user", "content": canary("history")}],
            canary("key"): canary("value"),
        }
        keyed = {**headers, "Idempotency-Key": canary("idempotency")}
        async with client.post(CHAT, json=asked, headers=keyed) as answer:
            stream = answer.headers.get("X-Stream-Id")
            await _read(answer)
        if stream is not None:
            body = {"sessionId": stream, "reason": canary("reason")}
            await (await client.post("/api/terminate-stream", json=body, headers=headers)).read()
        body = {
            "model": canary("model"),
            "user": canary("enduser"),
            "metadata": {canary("metakey"): canary("meta")},
            "messages": [
                {"role": "system", "content": canary("system")},
                {"role": "user", "content": f"{word} {canary('message')}"},
            ],
        }
        for streams in (True, False):
            told = {**body, "stream": streams}
            async with client.post("/v1/chat/completions", json=told, headers=headers) as answer:
                await _read(answer)
    await _violate(client, headers)


async def _violate(client: aiohttp.ClientSession, headers: dict[str, str]) -> None:
    wrong = {**headers, "Authorization": f"Bearer {canary('credential')}"}
    basic = {**headers, "Authorization": f"Basic {canary('basic')}"}
    for path, told in (
        (f"/{canary('path')}/refuse?{canary('parameter')}={canary('argument')}", headers),
        (f"/v1/{canary('v1path')}", headers),
        (f"/api/v2/streams/{canary('stream')}", headers),
        (f"/api/v2/streams/AAAAAAAAAAAAAAAA?link={canary('link')}", {}),
        (f"{CHAT}?query={canary('getquery')}", {**headers, "Origin": f"http://{canary('origin')}"}),
        (f"{CHAT}?query={canary('deniedquery')}", wrong),
        (f"{CHAT}?query=x", basic),
        (f"{CHAT}?query=x", {**headers, "Last-Event-ID": canary("cursor")}),
        (f"{CHAT}?query=x", {**headers, "Host": f"{canary('host')} "}),
    ):
        async with client.get(path, headers=told) as answer:
            await _read(answer)


async def _read(answer: aiohttp.ClientResponse) -> None:
    with suppress(aiohttp.ClientError):  # some break off, as they should
        await answer.read()


async def test_canaries_are_found_nowhere(tmp_path: Path) -> None:
    keys = tmp_path / "keys.json"
    key = KeyRing.load(keys, pepper_path(tmp_path)).add(OWNER)
    port = free_port()
    async with ScriptedBackend(backend) as upstream:
        backend_url = upstream.url
        environment = {
            "PATH": os.environ["PATH"],
            "PYTHONPATH": os.pathsep.join(sys.path),
            **gateway_environment(upstream.url, port, tmp_path),
            "AUDIT_MODE": "end",
            "AUDIT_LINES": "records",
            "AUDIT_PROXIED": "true",
            "AUTH_MODE": "api_key",
            "API_KEYS_FILE": str(keys),
            "LOG_LEVEL": "debug",
            "AUDIT_CHECKPOINT_FILE": str(tmp_path / "checkpoints.jsonl"),
            "AUDIT_CHECKPOINT_SECONDS": "0.2",
        }
        output, errors = tmp_path / "stdout", tmp_path / "stderr"
        with output.open("wb") as out, errors.open("wb") as err:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "gateway.cli", "serve"),
                env=environment,
                stdout=out,
                stderr=err,
            )
        url = f"http://127.0.0.1:{port}"
        async with aiohttp.ClientSession(url) as client:
            await wait_until_ready(client, url)
            async with asyncio.timeout(40):
                await plant(client, key)
            seen = b""
            for path in ("/metrics", "/health"):
                async with client.get(path) as answer:
                    seen += await answer.read()
            wal = (tmp_path / "audit.sqlite3-wal").read_bytes()
            process.kill()  # what a crash leaves is looked at, too
            await process.wait()
    places = read_files(tmp_path) | {"http": seen, "wal": wal}
    assert len(planted) >= 40
    assert len(output.read_bytes().splitlines()) > 20
    secret = key.rpartition("_")[2].encode()
    for place, data in places.items():
        assert [word for word in planted if word.encode() in data] == [], place
        assert secret not in data, place
        if "audit.sqlite3" not in place and place != "wal":
            assert OWNER.encode() not in data, place
            assert b"127.0.0.1" not in data.replace(url.encode(), b"").replace(
                backend_url.encode(), b""
            ), place
    check_allowed(tmp_path)


def read_files(folder: Path) -> dict[str, bytes]:
    """All that the log writes, and what the process has said."""
    found = [*folder.glob("audit*"), *folder.glob("audit-keys/*")]
    found += [folder / name for name in ("stdout", "stderr", "checkpoints.jsonl")]
    return {str(path): path.read_bytes() for path in found if path.is_file()}


def check_allowed(folder: Path) -> None:
    """What the table lets in stands where values are apart, with a salt."""
    with closing(sqlite3.connect(folder / "audit.sqlite3")) as file:
        values = file.execute(
            "SELECT r.type, p.field, p.value FROM audit_personal p "
            "JOIN audit_record r ON r.log = p.log AND r.seq = p.seq"
        ).fetchall()
        bodies = [row[0] for row in file.execute("SELECT body FROM audit_record")]
    clear = {(kind, name, value) for kind, name, value in values if len(value) != 32}
    assert ("auth.login", "email", OWNER.encode()) in clear
    assert {(kind.partition(".")[0], name) for kind, name, _ in clear} == {
        ("auth", "email"),
        ("security", "ip"),
    }
    assert not [body for body in bodies if OWNER.encode() in body or b"127.0.0.1" in body]
