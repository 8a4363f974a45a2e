"""Streams far larger and faster than their logs: the store has them whole all the same."""

from __future__ import annotations

import logging
import sqlite3
import time
from contextlib import closing
from pathlib import Path

import aiohttp
import pytest

from tests.backend import LAST_CHUNK, Exchange, ScriptedBackend, chunked, sse_head
from tests.client import events, said
from tests.gateway import running_gateway

EVENTS = 20_000
TYPED = "/api/v2/chat-stream?query=hello"
CHAT = "/v1/chat/completions"
QUESTION: dict[str, object] = {"stream": True, "messages": []}
FINISH = {"X-Stream-On-Disconnect": "finish"}
SMALL: dict[str, object] = {"stream_buffer_bytes": 16_384, "event_max_bytes": 4096}
WORDS = "".join(f"{number} " for number in range(EVENTS))
BODY = b"".join(
    b'data: {"choices":[{"index":0,"delta":{"content":"%d "}}]}\n\n' % n for n in range(EVENTS)
)
PIECE = 8192


async def pour(exchange: Exchange) -> None:
    """All of it, as fast as it is taken."""
    await exchange.send(sse_head())
    whole = BODY + b"data: [DONE]\n\n"
    for at in range(0, len(whole), PIECE):
        await exchange.send(chunked(whole[at : at + PIECE]))
    await exchange.send(LAST_CHUNK)


@pytest.mark.parametrize("is_typed", [True, False], ids=["typed", "provider"])
@pytest.mark.parametrize("is_left", [False, True], ids=["read", "left"])
async def test_stream_faster_than_the_store_is_stored_without_a_gap(
    is_typed: bool,
    is_left: bool,
    database_url: str | None,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    settings = {**SMALL, "database_url": database_url, "data_dir": tmp_path}
    async with ScriptedBackend(pour) as backend:
        async with (
            running_gateway(backend.url, **settings) as gateway,
            aiohttp.ClientSession(gateway.url) as client,
        ):
            asking = (
                client.get(TYPED, headers=FINISH)
                if is_typed
                else client.post(CHAT, json=QUESTION, headers=FINISH)
            )
            async with asking as response:
                sid = response.headers["X-Stream-Id"]
                if not is_left:
                    whole = await response.read()
            await gateway.wait_for_streams(0)
            assert await gateway.services.keeper.flush(5)
            stream = gateway.services.hub.find(sid)  # type: ignore[arg-type]
            assert stream is None or stream.log.bytes <= 16_384
        async with (
            running_gateway(backend.url, **settings) as gateway,
            aiohttp.ClientSession(gateway.url) as client,
        ):
            headers = {"Accept": "text/event-stream"}
            async with client.get(f"/api/v2/streams/{sid}", headers=headers) as response:
                kept = await response.read()
            async with client.get(f"/api/v2/streams/{sid}") as response:
                assert (await response.json())["text"] == WORDS
    assert is_left or kept == whole
    if is_typed:
        assert said(events(kept)) == WORDS
    assert "store.gap" not in [record.getMessage() for record in caplog.records]


async def test_store_that_is_stuck_holds_a_stream_up_for_seconds_and_the_gap_is_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    async with (
        ScriptedBackend(pour) as backend,
        running_gateway(backend.url, data_dir=tmp_path, **SMALL) as gateway,
        aiohttp.ClientSession(gateway.url) as client,
    ):
        file = tmp_path / "streams.sqlite3"
        with closing(sqlite3.connect(file, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            began = time.monotonic()
            async with client.get(TYPED) as response:
                sid = response.headers["X-Stream-Id"]
                assert said(events(await response.read())) == WORDS
            assert time.monotonic() - began < 15
        assert await gateway.services.keeper.flush(10)
        gaps = [vars(one) for one in caplog.records if one.getMessage() == "store.gap"]
        record = await gateway.services.store.load(sid)  # type: ignore[arg-type]
        assert record is not None
        segments = await gateway.services.store.segments(record.id, 0)
        kept = sum(len(one.lengths) for one in segments)
        assert sum(gap["events"] for gap in gaps) == record.last_seq - kept > 0
    async with (
        ScriptedBackend(pour) as backend,
        running_gateway(backend.url, data_dir=tmp_path, **SMALL) as gateway,
        aiohttp.ClientSession(gateway.url) as client,
        client.get(f"/api/v2/streams/{sid}") as response,
    ):
        told = await response.json()
        assert told["first_event_id"] not in (None, f"{sid}.1")
