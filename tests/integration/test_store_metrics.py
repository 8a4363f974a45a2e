"""What the metrics tell of resumes and of the store, seen through the running gateway."""

from __future__ import annotations

import asyncio
from pathlib import Path

import aiohttp
import pytest

from tests.backend import CHAT_STREAM, Exchange, ScriptedBackend, chunked, sse_head, streaming
from tests.client import events
from tests.gateway import Gateway, running_gateway

EVENTS = 300
TYPED = "/api/v2/chat-stream?query=hello"
CHAT = "/v1/chat/completions"
QUESTION: dict[str, object] = {"stream": True, "messages": []}
CHUNKS = [
    b'data: {"choices":[{"index":0,"delta":{"content":"%d "}}]}\n\n' % n for n in range(EVENTS)
]
LONG = b"".join(CHUNKS) + b"data: [DONE]\n\n"
SMALL = {"stream_buffer_bytes": 6000, "event_max_bytes": 2000}
FINISH = {"X-Stream-On-Disconnect": "finish"}


def resumes(gateway: Gateway) -> dict[str, float]:
    results = ("replayed", "live", "snapshot", "gone", "done", "unknown", "refused")
    counts = {one: gateway.metric("sluice_resumes_total", result=one) for one in results}
    return {result: count for result, count in counts.items() if count}


def operations(gateway: Gateway, operation: str) -> float:
    return gateway.metric("sluice_store_seconds_count", operation=operation)


async def until_stored(gateway: Gateway) -> None:
    async with asyncio.timeout(60):
        while gateway.metric("sluice_store_queue"):
            await asyncio.sleep(0.005)


async def read_again(client: aiohttp.ClientSession, path: str, cursor: str = "") -> int:
    headers = {"Accept": "text/event-stream", **({"Last-Event-ID": cursor} if cursor else {})}
    async with client.get(path, headers=headers) as response:
        await response.read()
        return response.status


@pytest.mark.parametrize("is_typed", [True, False], ids=["typed", "provider"])
async def test_every_resume_is_counted_by_what_became_of_it(is_typed: bool) -> None:
    async with (
        ScriptedBackend(streaming(LONG)) as backend,
        running_gateway(backend.url, **SMALL) as gateway,
        aiohttp.ClientSession(gateway.url) as client,
    ):
        asking = client.get(TYPED) if is_typed else client.post(CHAT, json=QUESTION, headers=FINISH)
        async with asking as response:
            sid, seen = response.headers["X-Stream-Id"], events(await response.read())
        await until_stored(gateway)  # an ended stream keeps what the store doesn't have yet
        assert resumes(gateway) == {}
        last = int(seen[-1].id.partition(".")[2])
        path = f"/api/v2/streams/{sid}"
        expected: dict[str, float] = {}
        for cursor, status, result in (
            (f"{sid}.{last - 1}", 200, "replayed"),
            (f"{sid}.{last}", 204, "done"),
            (f"{sid}.1", *((200, "snapshot") if is_typed else (410, "gone"))),
            (f"{sid}.{last + 1}", 409, "refused"),
            ("AAAAAAAAAAAAAAAA.1", 409, "refused"),
        ):
            assert await read_again(client, path, cursor) == status
            expected[result] = expected.get(result, 0) + 1
            assert resumes(gateway) == expected
        assert await read_again(client, "/api/v2/streams/AAAAAAAAAAAAAAAA") == 404
        assert await read_again(client, TYPED, "AAAAAAAAAAAAAAAA.1") == 204
        assert resumes(gateway) == {**expected, "unknown": 2}
        async with client.get(path):
            pass  # a look is no resume
        assert resumes(gateway) == {**expected, "unknown": 2}


async def test_client_that_missed_nothing_goes_on_live() -> None:
    release = asyncio.Event()

    async def speak_twice(exchange: Exchange) -> None:
        await exchange.send(sse_head() + chunked(CHUNKS[0]))
        await release.wait()
        await exchange.send(chunked(LONG))

    async with (
        ScriptedBackend(speak_twice) as backend,
        running_gateway(backend.url, heartbeat_interval=0) as gateway,
        aiohttp.ClientSession(gateway.url) as client,
    ):
        async with client.get(TYPED) as response:
            sid = response.headers["X-Stream-Id"]
            await response.content.readuntil(b"content_chunk")
            await response.content.readuntil(b"\n\n")
        headers = {"Accept": "text/event-stream", "Last-Event-ID": f"{sid}.2"}
        async with client.get(f"/api/v2/streams/{sid}", headers=headers) as response:
            assert resumes(gateway) == {"live": 1}
            release.set()
            assert events(await response.read())[-1].name == "complete"


async def test_store_is_timed_by_transaction_and_not_by_event(tmp_path: Path) -> None:
    async with (
        ScriptedBackend(streaming(LONG)) as backend,
        running_gateway(backend.url, data_dir=tmp_path, stream_cleanup_interval_ms=20) as gateway,
        aiohttp.ClientSession(gateway.url) as client,
    ):
        async with client.get(TYPED) as response:
            sid = response.headers["X-Stream-Id"]
            await response.read()
        assert await gateway.services.keeper.flush(5)
        assert operations(gateway, "open") == operations(gateway, "interrupt") == 1
        assert operations(gateway, "create") == operations(gateway, "end") == 1
        assert 0 < operations(gateway, "append") < EVENTS / 10
        assert gateway.metric("sluice_store_seconds_sum", operation="append") > 0
        async with asyncio.timeout(5):
            while not operations(gateway, "sweep"):
                await asyncio.sleep(0.01)
        assert operations(gateway, "lookup") == 0
    async with (
        ScriptedBackend(streaming(CHAT_STREAM)) as backend,
        running_gateway(backend.url, data_dir=tmp_path) as gateway,
        aiohttp.ClientSession(gateway.url) as client,
    ):
        assert await read_again(client, f"/api/v2/streams/{sid}") == 200
        assert operations(gateway, "lookup") == operations(gateway, "read") == 1
