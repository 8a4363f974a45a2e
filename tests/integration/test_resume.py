"""Going on after a cut: nothing lost, nothing twice, and the backend is asked once."""

from __future__ import annotations

import asyncio
import random
import re
from collections.abc import AsyncIterator

import aiohttp
import orjson
import pytest

from tests.backend import (
    LAST_CHUNK,
    Exchange,
    ScriptedBackend,
    blocks,
    chunked,
    sse_head,
    streaming,
)
from tests.gateway import Gateway, running_gateway

EVENTS = 300
QUESTION = {"model": "m", "stream": True, "messages": [{"role": "user", "content": "hello"}]}
CHAT = "/v1/chat/completions"
TYPED = "/api/v2/chat-stream?query=hello"
SILENT = {"heartbeat_interval": "0", "silence_threshold": "0"}
on_both_routes = pytest.mark.parametrize("typed", [True, False], ids=["typed", "provider"])


def chat_stream(events: int = EVENTS) -> bytes:
    chunks = [
        b'data: {"choices":[{"index":0,"delta":{"content":"%d "}}]}\n\n' % n for n in range(events)
    ]
    return b"".join(chunks) + b"data: [DONE]\n\n"


@pytest.fixture
async def backend() -> AsyncIterator[ScriptedBackend]:
    async with ScriptedBackend(streaming(chat_stream())) as running:
        yield running


@pytest.fixture
async def gateway(backend: ScriptedBackend) -> AsyncIterator[Gateway]:
    async with running_gateway(backend.url, **SILENT) as running:
        yield running


@pytest.fixture
async def client() -> AsyncIterator[aiohttp.ClientSession]:
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(connector=connector) as session:
        yield session


async def whole_stream(client: aiohttp.ClientSession, gateway: Gateway, typed: bool) -> bytes:
    headers = {"X-Stream-On-Disconnect": "finish"}
    if typed:
        async with client.get(gateway.url + TYPED, headers=headers) as response:
            return await response.read()
    async with client.post(gateway.url + CHAT, json=QUESTION, headers=headers) as response:
        return await response.read()


def complete_events(data: bytes) -> bytes:
    """What a client keeps of a connection that was cut: whole events only."""
    return data[: data.rfind(b"\n\n") + 2] if b"\n\n" in data else b""


def last_id(data: bytes) -> str:
    return re.findall(rb"^id: (\S+)$", data, re.MULTILINE)[-1].decode()


async def resume(client: aiohttp.ClientSession, url: str, cursor: str) -> tuple[int, bytes]:
    headers = {"Accept": "text/event-stream", "Last-Event-ID": cursor}
    async with client.get(url, headers=headers) as response:
        return response.status, await response.read()


@on_both_routes
async def test_real_socket_cut_at_random_bytes_resumes_on_the_url_that_was_asked(
    gateway: Gateway, backend: ScriptedBackend, client: aiohttp.ClientSession, typed: bool
) -> None:
    chance = random.Random(7)
    whole = await whole_stream(client, gateway, typed)
    sid = last_id(whole).partition(".")[0]
    for _ in range(20):
        seen = b""
        while seen != whole:
            headers = {"Last-Event-ID": last_id(seen) if seen else f"{sid}.0"}
            request = (
                client.get(gateway.url + TYPED, headers=headers)
                if typed
                else client.post(gateway.url + CHAT, json=QUESTION, headers=headers)
            )
            async with request as response:
                assert response.status == 200
                part = await response.content.read(chance.randrange(1, 9000))
                response.close()
            seen += complete_events(part)
            assert whole.startswith(seen)
    assert len(backend.exchanges) == 1


@on_both_routes
async def test_ten_readers_that_attach_and_stall_at_random_all_see_the_same(
    client: aiohttp.ClientSession, typed: bool, database_url: str | None
) -> None:
    chance = random.Random(11)
    arrived = asyncio.Event()

    async def script(exchange: Exchange) -> None:
        await exchange.send(sse_head())
        arrived.set()
        for block in blocks(chat_stream()):
            await exchange.send(chunked(block))
            await asyncio.sleep(0.001)
        await exchange.send(LAST_CHUNK)

    async with (
        ScriptedBackend(script) as backend,
        running_gateway(backend.url, database_url=database_url, **SILENT) as gateway,
    ):
        first = asyncio.create_task(whole_stream(client, gateway, typed))
        await arrived.wait()
        [stream_id] = [one.id for one in gateway.services.hub.streams()]

        async def read() -> bytes:
            await asyncio.sleep(chance.random() * 0.04)
            headers = {"Accept": "text/event-stream"}
            url = f"{gateway.url}/api/v2/streams/{stream_id}"
            data = b""
            async with client.get(url, headers=headers) as response:
                while part := await response.content.read(chance.randrange(1, 2000)):
                    data += part
                    await asyncio.sleep(chance.random() * 0.005)
            return data

        readers = await asyncio.gather(*(read() for _ in range(10)))
        assert set(readers) == {await first}
        assert len(backend.exchanges) == 1


@on_both_routes
async def test_fifty_posts_with_one_key_ask_the_backend_once(
    backend: ScriptedBackend, client: aiohttp.ClientSession, typed: bool, database_url: str | None
) -> None:
    path, question = (TYPED.partition("?")[0], {"query": "hello"}) if typed else (CHAT, QUESTION)
    headers = {"Idempotency-Key": "k1", "X-Stream-On-Disconnect": "finish"}

    async def ask() -> tuple[bytes, str | None]:
        async with client.post(gateway.url + path, json=question, headers=headers) as response:
            assert response.status == 200
            return await response.read(), response.headers.get("Idempotent-Replayed")

    async with running_gateway(backend.url, database_url=database_url, **SILENT) as gateway:
        answers = await asyncio.gather(*(ask() for _ in range(50)))
    [data] = {data for data, _ in answers}
    assert data.count(b"\n\n") == (EVENTS + 2 if typed else EVENTS + 1)
    assert [replayed for _, replayed in answers].count("true") == 49
    assert len(backend.exchanges) == 1


async def test_key_of_another_question_is_refused(
    gateway: Gateway, client: aiohttp.ClientSession
) -> None:
    headers = {"Idempotency-Key": "k1"}
    async with client.post(gateway.url + CHAT, json=QUESTION, headers=headers) as response:
        await response.read()
    other = {**QUESTION, "model": "other"}
    async with client.post(gateway.url + CHAT, json=other, headers=headers) as response:
        assert response.status == 422
        assert (await response.json())["error"]["code"] == "idempotency_mismatch"


async def test_cursor_of_the_terminal_event_means_finished(
    gateway: Gateway, client: aiohttp.ClientSession
) -> None:
    whole = await whole_stream(client, gateway, typed=True)
    status, body = await resume(client, gateway.url + TYPED, last_id(whole))
    assert (status, body) == (204, b"")


@pytest.mark.parametrize(
    ("method", "status", "code"), [("GET", 204, None), ("POST", 410, "stream_expired")]
)
async def test_cursor_of_an_unknown_stream_never_starts_another(
    gateway: Gateway,
    backend: ScriptedBackend,
    client: aiohttp.ClientSession,
    method: str,
    status: int,
    code: str | None,
) -> None:
    headers = {"Last-Event-ID": "AAAAAAAAAAAAAAAA.3"}
    body = {"query": "hello"} if method == "POST" else None
    request = client.request(method, gateway.url + TYPED, headers=headers, json=body)
    async with request as response:
        assert response.status == status
        if code is not None:
            assert orjson.loads(await response.read())["error"]["code"] == code
    assert not backend.exchanges


async def test_malformed_cursor_is_refused(gateway: Gateway, client: aiohttp.ClientSession) -> None:
    for cursor in ("x", "AAAAAAAAAAAAAAAA", "AAAAAAAAAAAAAAAA.-1", "AAAAAAAAAAAAAAAA.01"):
        headers = {"Last-Event-ID": cursor}
        async with client.get(gateway.url + TYPED, headers=headers) as response:
            assert response.status == 400
            assert (await response.json())["error"]["code"] == "bad_cursor"


async def test_cursor_with_another_question_is_a_mismatch(
    gateway: Gateway, client: aiohttp.ClientSession
) -> None:
    whole = await whole_stream(client, gateway, typed=True)
    headers = {"Last-Event-ID": last_id(whole).partition(".")[0] + ".1"}
    other = gateway.url + "/api/v2/chat-stream?query=other"
    async with client.get(other, headers=headers) as response:
        assert response.status == 409
        assert (await response.json())["error"]["code"] == "stream_mismatch"


async def test_cursor_older_than_the_log_gets_a_snapshot_or_410(
    backend: ScriptedBackend, client: aiohttp.ClientSession
) -> None:
    small = {"stream_buffer_bytes": "6000", "event_max_bytes": "2000", "heartbeat_interval": "0"}
    async with running_gateway(backend.url, silence_threshold="0", **small) as gateway:
        typed = await whole_stream(client, gateway, typed=True)
        provider = await whole_stream(client, gateway, typed=False)
        said = "".join(f"{n} " for n in range(EVENTS))
        sid = last_id(typed).partition(".")[0]
        await wait_until_trimmed(gateway, sid)
        _, data = await resume(client, gateway.url + TYPED, f"{sid}.1")
        events = data.split(b"\n\n")
        assert b"event: snapshot" in events[0]
        snapshot = orjson.loads(events[0].partition(b"data: ")[2])
        assert snapshot["text"] == said
        assert b"event: complete" in events[-2]
        sid = last_id(provider).partition(".")[0]
        await wait_until_trimmed(gateway, sid)
        url = f"{gateway.url}/api/v2/streams/{sid}"
        status, data = await resume(client, url, f"{sid}.1")
        assert status == 410
        assert orjson.loads(data)["error"]["code"] == "cursor_expired"


async def wait_until_trimmed(gateway: Gateway, sid: str) -> None:
    """What the store doesn't have yet stays in the log."""
    stream = gateway.services.hub.find(sid)
    assert stream is not None
    async with asyncio.timeout(5):
        while stream.log.first <= 2:
            await asyncio.sleep(0.01)


async def test_stream_is_forgotten_after_the_replay_window(
    backend: ScriptedBackend, client: aiohttp.ClientSession
) -> None:
    async with running_gateway(backend.url, resume_ttl_seconds="0.05") as gateway:
        whole = await whole_stream(client, gateway, typed=True)
        sid = last_id(whole).partition(".")[0]
        async with asyncio.timeout(5):
            while gateway.services.hub.streams():
                await asyncio.sleep(0.02)
        assert gateway.services.hub.buffered_bytes == 0
        async with client.get(f"{gateway.url}/api/v2/streams/{sid}") as response:
            assert response.status == 404
