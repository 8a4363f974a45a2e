"""Words that clients and backends put wherever they can are in no record, line, metric or span, but
where the table of docs/audit.md lets them. Of PostgreSQL all its files are read, its log of writes
among them: what a stream is found and gone on with by is there too, in the tables of streams."""

from __future__ import annotations

import asyncio
import os
import re
import sys
from collections.abc import Iterable, Iterator
from contextlib import suppress
from itertools import count
from pathlib import Path
from urllib.parse import urlsplit

import aiohttp
import asyncpg  # type: ignore[import-untyped]
import orjson
import pytest
import sqlalchemy as sa

from gateway.audit import tables
from gateway.keys import KeyRing, pepper_path
from tests.auditing import stored
from tests.backend import LAST_CHUNK, Exchange, ScriptedBackend, chunked, sse_head
from tests.gateway import gateway_environment, wait_until_ready
from tests.integration.test_spans import Collector, collecting
from tests.postgres import Postgres
from tests.servers import free_port

CHAT = "/api/v2/chat-stream"
OWNER = "canary-owner@example.org"
#: What the store of streams keeps in clear, since it finds them by that.
OF_STREAMS = ("conversation", "idempotency")
STREAMS = ("stream_sessions", "stream_segments")
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


@pytest.fixture(params=["sqlite", "postgres"])
def server(request: pytest.FixtureRequest) -> Iterator[Postgres | None]:
    """A PostgreSQL that nobody else uses; none is SQLite."""
    if request.param == "sqlite":
        yield None
        return
    with Postgres(free_port()) as server:
        yield server


async def test_canaries_are_found_nowhere(tmp_path: Path, server: Postgres | None) -> None:
    planted.clear()
    keys = tmp_path / "keys.json"
    key = KeyRing.load(keys, pepper_path(tmp_path)).add(OWNER)
    port = free_port()
    async with ScriptedBackend(backend) as upstream, collecting() as collector:
        environment = {
            "PATH": os.environ["PATH"],
            "PYTHONPATH": os.pathsep.join(sys.path),
            **gateway_environment(upstream.url, port, tmp_path, server and server.url),
            "AUDIT_MODE": "end",
            "AUDIT_LINES": "records",
            "AUDIT_PROXIED": "true",
            "AUTH_MODE": "api_key",
            "API_KEYS_FILE": str(keys),
            "LOG_LEVEL": "debug",
            "PARTIAL_ENCRYPTION_KEY": os.urandom(32).hex(),
            "AUDIT_CHECKPOINT_FILE": str(tmp_path / "checkpoints.jsonl"),
            "AUDIT_CHECKPOINT_SECONDS": "0.2",
            "OTLP_TRACES_URL": collector.url,
            "OTEL_BSP_SCHEDULE_DELAY": "50",
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
        servers = [urlsplit(one).netloc for one in (url, upstream.url, collector.url)]
        async with aiohttp.ClientSession(url) as client:
            await wait_until_ready(client, url)
            async with asyncio.timeout(40):
                await plant(client, key)
                await until_traced(client, collector)
            seen = b""
            for path in ("/metrics", "/health"):
                async with client.get(path) as answer:
                    seen += await answer.read()
            places = {} if server is not None else _wal(tmp_path)
            process.kill()  # what a crash leaves is looked at, too
            await process.wait()
    spans = b"".join(one.SerializeToString() for one in collector.requests)
    places |= read_files(tmp_path) | {"http": seen, "spans": spans}
    assert len(planted) >= 40
    assert len(output.read_bytes().splitlines()) > 20
    secret = key.rpartition("_")[2].encode()
    for place, data in places.items():
        assert found(planted, data) == [], place
        assert secret not in data, place
        if "audit.sqlite3" not in place:
            assert OWNER.encode() not in data, place
            assert b"127.0.0.1" not in without(servers, data), place
    if server is not None:
        check_cluster(await read_cluster(server), secret)
    await check_allowed(tmp_path, server and server.url)


async def until_traced(client: aiohttp.ClientSession, collector: Collector) -> None:
    """Until the collector has a span of each stream that was answered."""
    async with client.get("/metrics") as answer:
        text = await answer.text()
    ended = sum(map(float, re.findall(r"^sluice_streams_total\{.*\} (\S+)$", text, re.MULTILINE)))
    assert ended
    while len(collector.spans) < ended:
        await asyncio.sleep(0.02)


def found(words: Iterable[str], data: bytes) -> list[str]:
    return [word for word in words if word.encode() in data]


def without(addresses: Iterable[str], data: bytes) -> bytes:
    """With a server's address taken out, which isn't a client's."""
    for one in addresses:
        data = data.replace(one.encode(), b"")
    return data


def _wal(folder: Path) -> dict[str, bytes]:
    """While the process runs: SQLite's own, before it is moved into the file."""
    return {"audit.sqlite3-wal": (folder / "audit.sqlite3-wal").read_bytes()}


def read_files(folder: Path) -> dict[str, bytes]:
    """All that the log writes, and what the process has said."""
    paths = [*folder.glob("audit*"), *folder.glob("audit-keys/*")]
    paths += [folder / name for name in ("stdout", "stderr", "checkpoints.jsonl")]
    return {str(path): path.read_bytes() for path in paths if path.is_file()}


async def read_cluster(server: Postgres) -> dict[str, bytes]:
    """Every file of a server, those of a table under the name of what they hold."""
    connection = await asyncpg.connect(server.url)
    await connection.execute("CHECKPOINT")
    names = dict(
        await connection.fetch(
            "SELECT pg_relation_filepath(c.oid),"
            " coalesce(t.relname, i.relname, c.relname) || ' ' || c.relname FROM pg_class c"
            " LEFT JOIN pg_index x ON x.indexrelid = c.oid"
            " LEFT JOIN pg_class i ON i.oid = x.indrelid"
            " LEFT JOIN pg_class t ON t.reltoastrelid IN (c.oid, x.indrelid)"
            " WHERE pg_relation_filepath(c.oid) IS NOT NULL"
        )
    )
    await connection.close()
    paths = [path for path in server.data.rglob("*") if path.is_file()]
    read = {str(path.relative_to(server.data)): path.read_bytes() for path in paths}
    read["output"] = server.output.read_bytes()
    return {names.get(path, path): data for path, data in read.items()}


def check_cluster(places: dict[str, bytes], secret: bytes) -> None:
    """Values stand in the table for them, streams in theirs, and both on their way there."""
    ours = [word for word in planted if word.endswith(OF_STREAMS)]
    others = [word for word in planted if word not in ours]
    assert {"audit_record audit_record", "audit_personal audit_personal"} <= places.keys()
    assert any(place.startswith("pg_wal/") for place in places)
    for place, data in places.items():
        table, is_wal = place.partition(" ")[0], place.startswith("pg_wal/")
        assert found(others, data) == [], place
        assert secret not in data, place
        if not is_wal and table not in STREAMS:
            assert found(ours, data) == [], place
            if table != "audit_personal":
                assert OWNER.encode() not in data, place
    wal = b"".join(data for place, data in places.items() if place.startswith("pg_wal/"))
    assert set(found([OWNER, *ours], wal)) > {OWNER}  # what is written is found


async def check_allowed(folder: Path, database_url: str | None) -> None:
    """What the table lets in stands where values are apart, with a salt."""
    records, personal = tables.records, tables.personal
    its_record = (records.c.log == personal.c.log) & (records.c.seq == personal.c.seq)
    query = sa.select(records.c.type, personal.c.field, personal.c.value)
    joined = query.select_from(personal.join(records, its_record))
    async with stored(folder, database_url) as store:
        values = await store.run(lambda c: c.execute(joined).all())
        bodies = await store.run(lambda c: c.scalars(sa.select(records.c.body)).all())
    clear = {(kind, name, value) for kind, name, value in values if len(value) != 32}
    assert ("auth.login", "email", OWNER.encode()) in clear
    assert {(kind.partition(".")[0], name) for kind, name, _ in clear} == {
        ("auth", "email"),
        ("security", "ip"),
    }
    assert not [body for body in bodies if OWNER.encode() in body or b"127.0.0.1" in body]
