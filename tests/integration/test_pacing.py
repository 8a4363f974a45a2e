"""How often a client is written to, and that neither drips nor floods of a backend change a byte.

Each write of the gateway is one chunk of the response's framing, so chunks are what is counted.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from time import monotonic

import pytest

from tests.backend import (
    LAST_CHUNK,
    Exchange,
    ScriptedBackend,
    blocks,
    chunked,
    sse_head,
)
from tests.client import Client, connected, events, said
from tests.gateway import Gateway, running_gateway
from tests.recordings import ANTHROPIC_STREAM, CHAT_STREAM, RAG_STREAM, RESPONSES_STREAM

CHAT: tuple[str, object] = ("/api/v2/chat-stream", {"query": "Tell me all."})
PROVIDER: tuple[str, object] = ("/v1/chat/completions", {"stream": True, "messages": []})
BOTH = pytest.mark.parametrize("asked", [CHAT, PROVIDER], ids=["typed", "provider"])
INTERVALS = {"high_performance": 0.004, "balanced": 0.008, "battery_saver": 0.033}
AN_HOUR_MS = 3_600_000
DONE = b"data: [DONE]\n\n"


def token(text: str) -> bytes:
    data = {"choices": [{"index": 0, "delta": {"content": text}}]}
    return b"data: %b\n\n" % json.dumps(data).encode()


TOKENS = [f"{number} " for number in range(60)]
STREAM = b"".join(map(token, TOKENS)) + DONE


async def tokens_one_by_one(exchange: Exchange) -> None:
    """A token every 2 ms or so, much faster than the slower modes write."""
    await exchange.send(sse_head())
    for block in blocks(STREAM):
        await exchange.send(chunked(block))
        await asyncio.sleep(0.002)
    await exchange.send(LAST_CHUNK)


@dataclass(frozen=True, slots=True)
class Writes:
    """What a client got, write by write, and how long after its request the last one came."""

    parts: list[bytes]
    seconds: float

    @property
    def body(self) -> bytes:
        return b"".join(self.parts)

    def are_apart(self, interval_s: float) -> bool:
        """Whether there were no more than the mode allows.

        Three are free: the first event, the first token and the end.
        """
        return len(self.parts) <= self.seconds / interval_s + 3


@asynccontextmanager
async def asking(
    gateway: Gateway, asked: tuple[str, object], **headers: str
) -> AsyncIterator[Client]:
    """A client whose answer has begun."""
    async with connected(gateway.port) as client:
        await client.ask(*asked, {name.replace("_", "-"): headers[name] for name in headers})
        assert (await client.head()).startswith(b"HTTP/1.1 200 ")
        yield client


async def writes_of(asked: tuple[str, object], mode: str = "", **settings: object) -> Writes:
    headers = {"X_Performance_Mode": mode} if mode else {}
    async with (
        ScriptedBackend(tokens_one_by_one) as backend,
        running_gateway(backend.url, heartbeat_interval=0, **settings) as gateway,
    ):
        started = monotonic()
        async with asking(gateway, asked, Stream_Ids="off", **headers) as client:
            parts = []
            while part := await client.chunk():
                parts.append(part)
            return Writes(parts, monotonic() - started)


def check_content(asked: tuple[str, object], body: bytes) -> None:
    if asked is PROVIDER:
        assert body == STREAM
    else:
        assert said(events(body)) == "".join(TOKENS)
        assert events(body)[-1].name == "complete"


# update modes


@BOTH
async def test_slower_modes_write_less_often_and_the_same(asked: tuple[str, object]) -> None:
    realtime = await writes_of(asked, "realtime")
    check_content(asked, realtime.body)
    for mode, interval_s in INTERVALS.items():
        paced = await writes_of(asked, mode)
        check_content(asked, paced.body)
        assert paced.are_apart(interval_s)
    assert len(realtime.parts) > 2 * len(paced.parts)  # of the slowest


@BOTH
async def test_mode_and_delay_can_be_set_and_a_request_may_choose(
    asked: tuple[str, object],
) -> None:
    of_all = await writes_of(asked, performance_mode="battery_saver")
    assert of_all.are_apart(INTERVALS["battery_saver"])
    delayed = await writes_of(asked, chunk_delay_ms=50)
    assert delayed.are_apart(0.05)
    slower_of_both = await writes_of(asked, "high_performance", chunk_delay_ms=50)
    assert slower_of_both.are_apart(0.05)
    chosen = await writes_of(asked, "realtime", performance_mode="battery_saver")
    assert len(chosen.parts) > 2 * len(of_all.parts)
    for writes in (of_all, delayed, slower_of_both, chosen):
        check_content(asked, writes.body)


@BOTH
async def test_unknown_mode_is_refused(asked: tuple[str, object]) -> None:
    async with (
        ScriptedBackend(tokens_one_by_one) as backend,
        running_gateway(backend.url) as gateway,
        connected(gateway.port) as client,
    ):
        await client.ask(*asked, {"X-Performance-Mode": "turbo"})
        assert (await client.head()).startswith(b"HTTP/1.1 400 ")
        assert b'"X-Performance-Mode"' in await client.some()
        assert not backend.exchanges


FIRST_TOKENS = {
    "openai": (CHAT_STREAM, PROVIDER[0]),
    "anthropic": (ANTHROPIC_STREAM, "/v1/messages"),
    "openai-responses": (RESPONSES_STREAM, "/v1/responses"),
}


def first_token(stream: bytes) -> list[bytes]:
    """The blocks up to the one with the first token."""
    parts = blocks(stream)
    at = next(i for i, part in enumerate(parts) if "Grüße".encode() in part)
    return parts[: at + 1]


@pytest.mark.parametrize("dialect", FIRST_TOKENS)
async def test_first_token_and_end_of_a_provider_stream_are_never_held(dialect: str) -> None:
    stream, path = FIRST_TOKENS[dialect]
    async with held(stream) as (gateway, go_on):
        body = {"stream": True, "messages": [], "input": ""}
        async with asking(gateway, (path, body), Stream_Ids="off") as client:
            beginning = b"".join(first_token(stream))
            assert await client.body(most=len(beginning)) == beginning
            go_on.set()
            assert beginning + await client.body() == stream


@pytest.mark.parametrize(
    ("dialect", "stream"),
    [
        ("openai", CHAT_STREAM),
        ("anthropic", ANTHROPIC_STREAM),
        ("openai-responses", RESPONSES_STREAM),
        ("rag", RAG_STREAM),
    ],
)
async def test_first_token_and_end_of_a_typed_stream_are_never_held(
    dialect: str, stream: bytes
) -> None:
    async with (
        held(stream, upstream_dialect=dialect) as (gateway, go_on),
        asking(gateway, CHAT) as client,
    ):
        body = b""
        while b"event: content_chunk" not in body:
            body += await client.chunk()
        assert said(events(body)) == "Grüße"
        go_on.set()
        body += await client.body()
        assert said(events(body)) == "Grüße aus Łódź 👋🏽."
        assert events(body)[-1].name == "complete"


@asynccontextmanager
async def held(stream: bytes, **settings: object) -> AsyncIterator[tuple[Gateway, asyncio.Event]]:
    """A gateway that writes once an hour, and a backend that waits after the first token."""
    go_on = asyncio.Event()

    async def script(exchange: Exchange) -> None:
        await exchange.send(sse_head())
        beginning = first_token(stream)
        for block in beginning:
            await exchange.send(chunked(block))
            await asyncio.sleep(0.01)  # else they come together and are one write
        await go_on.wait()
        for block in blocks(stream)[len(beginning) :]:
            await exchange.send(chunked(block))
            await asyncio.sleep(0.01)
        await exchange.send(LAST_CHUNK)

    async with (
        ScriptedBackend(script) as backend,
        running_gateway(
            backend.url, chunk_delay_ms=AN_HOUR_MS, heartbeat_interval=0, **settings
        ) as gateway,
        asyncio.timeout(10),
    ):
        yield gateway, go_on


@BOTH
async def test_failure_of_the_backend_is_not_held_back(asked: tuple[str, object]) -> None:
    async def script(exchange: Exchange) -> None:
        await exchange.send(sse_head())
        for text in TOKENS[:5]:
            await exchange.send(chunked(token(text)))
            await asyncio.sleep(0.005)
        exchange.reset()

    async with (
        ScriptedBackend(script) as backend,
        running_gateway(backend.url, chunk_delay_ms=AN_HOUR_MS, heartbeat_interval=0) as gateway,
        asking(gateway, asked) as client,
        asyncio.timeout(10),
    ):
        body = b""
        while b"upstream_truncated" not in body:
            body += await client.chunk()
        assert body.count(b"4 ") == 1  # the last token came too, before it


@BOTH
async def test_held_events_do_not_stop_the_backend_when_they_fill_the_log(
    asked: tuple[str, object],
) -> None:
    stream = b"".join(token(f"{number:>1000}") for number in range(300)) + DONE
    async with (
        ScriptedBackend(whole(stream)) as backend,
        running_gateway(
            backend.url,
            chunk_delay_ms=AN_HOUR_MS,
            heartbeat_interval=0,
            stream_buffer_bytes=32 * 1024,
            event_max_bytes=4 * 1024,
        ) as gateway,
        asking(gateway, asked, Stream_Ids="off") as client,
        asyncio.timeout(10),
    ):
        body = await client.body()
        assert asked is CHAT or body == stream
        assert asked is PROVIDER or len(said(events(body))) == 300_000


# drips and floods


def whole(stream: bytes) -> Callable[[Exchange], Awaitable[None]]:
    """A script that sends everything at once, in one chunk."""

    async def script(exchange: Exchange) -> None:
        await exchange.send(sse_head() + chunked(stream) + LAST_CHUNK)

    return script


async def drip(exchange: Exchange) -> None:
    """Each byte of the answer, its head too, in a packet of its own."""
    for byte in sse_head() + chunked(STREAM) + LAST_CHUNK:
        await exchange.send(bytes([byte]))
        await asyncio.sleep(0)


async def bytes_of(
    script: Callable[[Exchange], Awaitable[None]], asked: tuple[str, object], **settings: object
) -> bytes:
    async with (
        ScriptedBackend(script) as backend,
        running_gateway(backend.url, heartbeat_interval=0, **settings) as gateway,
        asking(gateway, asked, Stream_Ids="off") as client,
    ):
        return await client.body()


@BOTH
async def test_answer_that_comes_byte_by_byte_is_the_same(asked: tuple[str, object]) -> None:
    check_content(asked, await bytes_of(drip, asked))


@BOTH
async def test_event_of_a_mebibyte_passes(asked: tuple[str, object]) -> None:
    limit = 1024 * 1024
    text = "x" * (limit - len(token("")))
    stream = token(text) + DONE
    assert len(token(text)) == limit
    body = await bytes_of(whole(stream), asked)
    assert asked is CHAT or body == stream
    assert asked is PROVIDER or said(events(body)) == text


@BOTH
async def test_event_of_more_than_a_mebibyte_ends_the_stream(asked: tuple[str, object]) -> None:
    async def script(exchange: Exchange) -> None:
        await exchange.send(sse_head() + chunked(token("before") + token("x" * 1024 * 1024)))
        await exchange.stall()

    async with (
        ScriptedBackend(script) as backend,
        running_gateway(backend.url, heartbeat_interval=0) as gateway,
        asking(gateway, asked, Stream_Ids="off") as client,
    ):
        body = b""
        while b"event_too_large" not in body:
            body += await client.chunk()
        assert b"before" in body
        assert len(body) < 1024
        await backend.wait_until_idle()
        assert gateway.metric("sluice_streams_total", reason="event_too_large") == 1


@BOTH
async def test_ten_thousand_tiny_events_in_one_packet_are_all_there(
    asked: tuple[str, object],
) -> None:
    tokens = [f"{number} " for number in range(10_000)]
    stream = b"".join(map(token, tokens)) + DONE
    body = await bytes_of(whole(stream), asked)
    assert asked is CHAT or body == stream
    assert asked is PROVIDER or said(events(body)) == "".join(tokens)


async def test_ten_thousand_ids_are_gap_free() -> None:
    stream = b"data: {}\n\n" * 9_999 + DONE
    async with (
        ScriptedBackend(whole(stream)) as backend,
        running_gateway(backend.url, heartbeat_interval=0) as gateway,
        asking(gateway, PROVIDER) as client,
    ):
        found = events(await client.body())
    stream_id = found[0].id.partition(".")[0]
    assert [event.id for event in found] == [f"{stream_id}.{n}" for n in range(1, 10_001)]
