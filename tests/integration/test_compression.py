"""Compressed event streams: every event at once, every cut seen, and only for those who ask."""

from __future__ import annotations

import asyncio
import re
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import Protocol

import aiohttp
import httpx2
import pytest
import zstandard

from tests.backend import (
    LAST_CHUNK,
    Exchange,
    Script,
    ScriptedBackend,
    chunked,
    sse_head,
    streaming,
)
from tests.client import BrokenOffError, Client, connected
from tests.gateway import Gateway, running_gateway

PROVIDER, TYPED = "/v1/chat/completions", "/api/v2/chat-stream"
QUESTIONS: dict[str, dict[str, object]] = {PROVIDER: {"stream": True}, TYPED: {"query": "count"}}
FINISH = {"X-Stream-On-Disconnect": "finish"}
WORDS = ("Grüß", " dich", ", Łódź", " 👋🏽", "!")
SILENT = {"heartbeat_interval": "0", "silence_threshold": "0"}

on_both_routes = pytest.mark.parametrize("path", [TYPED, PROVIDER], ids=["typed", "provider"])
in_both_codings = pytest.mark.parametrize("coding", ["gzip", "zstd"])


def block(word: str) -> bytes:
    return b'data: {"choices":[{"delta":{"content":"%b"}}]}\n\n' % word.encode()


WHOLE = b"".join(map(block, WORDS)) + b"data: [DONE]\n\n"


class Decoder(Protocol):
    """zlib's and zstandard's decoders alike."""

    @property
    def eof(self) -> bool: ...

    def decompress(self, data: bytes, /) -> bytes: ...


DECODERS: dict[str, Callable[[], Decoder]] = {
    "gzip": lambda: zlib.decompressobj(16 + zlib.MAX_WBITS),
    "zstd": lambda: zstandard.ZstdDecompressor().decompressobj(),
}


@dataclass(slots=True)
class Prompter:
    """A backend's script that says each word when it is told to, and then ends or breaks off."""

    breaks_off: bool = False
    _told: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(0))

    def tell(self) -> None:
        self._told.release()

    async def __call__(self, exchange: Exchange) -> None:
        await exchange.send(sse_head())
        for word in WORDS:
            await self._told.acquire()
            await exchange.send(chunked(block(word)))
        await self._told.acquire()
        if self.breaks_off:
            exchange.reset()
        else:
            await exchange.send(chunked(b"data: [DONE]\n\n") + LAST_CHUNK)


@asynccontextmanager
async def compressing(script: Script, **settings: object) -> AsyncIterator[Gateway]:
    settings = {"stream_compression": "auto", **SILENT, **settings}
    async with (
        ScriptedBackend(script) as backend,
        running_gateway(backend.url, **settings) as running,
    ):
        yield running
        assert len(backend.exchanges) == 1


@asynccontextmanager
async def asked(
    gateway: Gateway, path: str, coding: str, **headers: str
) -> AsyncIterator[tuple[Client, str, Decoder]]:
    """A client that has its answer's head, the stream's id, and what decodes the body."""
    async with connected(gateway.port) as client:
        await client.ask(path, QUESTIONS[path], {"Accept-Encoding": coding, **FINISH, **headers})
        head = (await client.head()).decode()
        assert f"\r\nContent-Encoding: {coding}\r\n" in head
        assert "\r\nVary: Accept-Encoding\r\n" in head
        [sid] = re.findall("X-Stream-Id: (.*)\r\n", head)
        yield client, sid, DECODERS[coding]()


@on_both_routes
@in_both_codings
async def test_each_event_can_be_decoded_before_the_next_is_said(path: str, coding: str) -> None:
    prompter = Prompter()
    async with (
        compressing(prompter) as gateway,
        asked(gateway, path, coding) as (client, _, decoder),
    ):
        if path == TYPED:
            assert b"event: start" in decoder.decompress(await client.chunk())
        for word in WORDS:
            prompter.tell()
            event = decoder.decompress(await client.chunk())
            assert word.encode() in event
            assert event.endswith(b"\n\n")
        prompter.tell()
        last = decoder.decompress(await client.body())
        assert (b"event: complete" if path == TYPED else b"[DONE]") in last
        assert decoder.eof


@on_both_routes
@in_both_codings
async def test_heartbeats_can_be_decoded_at_once(path: str, coding: str) -> None:
    prompter = Prompter()
    beat = b"event: heartbeat" if path == TYPED else b":\n"
    async with (
        compressing(prompter, heartbeat_interval="0.1") as gateway,
        asked(gateway, path, coding) as (client, _, decoder),
    ):
        seen = b""
        async with asyncio.timeout(5):
            while seen.count(beat) < 2:
                seen += decoder.decompress(await client.chunk())
        for _ in range(len(WORDS) + 1):
            prompter.tell()
        rest = decoder.decompress(await client.body())
        assert all(word.encode() in rest for word in WORDS)
        assert decoder.eof


@in_both_codings
async def test_decoder_sees_that_a_stream_was_broken_off(coding: str) -> None:
    prompter = Prompter(breaks_off=True)
    async with (
        compressing(prompter) as gateway,
        asked(gateway, PROVIDER, coding) as (client, _, decoder),
    ):
        for _ in range(len(WORDS) + 1):
            prompter.tell()
        with pytest.raises(BrokenOffError) as broken:
            await client.body()
        data = decoder.decompress(broken.value.got)
        assert not decoder.eof
        assert all(word.encode() in data for word in WORDS)
        assert b"upstream_truncated" in data.rpartition(b"data: ")[2]


@on_both_routes
@in_both_codings
async def test_compressed_stream_cut_after_every_byte_goes_on_exactly(
    path: str, coding: str
) -> None:
    async with compressing(streaming(WHOLE)) as gateway:
        async with asked(gateway, path, coding) as (client, sid, decoder):
            packed = await client.body()
            whole = decoder.decompress(packed)
        plain = {"Last-Event-ID": f"{sid}.0", "Accept-Encoding": "identity"}
        async with connected(gateway.port) as client:
            await client.ask(path, QUESTIONS[path], plain)
            assert b"Content-Encoding" not in await client.head()
            assert await client.body() == whole
        for length in range(len(packed)):
            seen = decoded_events(coding, packed[:length])
            assert whole.startswith(seen)
            if seen == whole:
                continue
            ids = re.findall(r"id: (\S+)", seen.decode())
            cursor = {"Last-Event-ID": ids[-1] if ids else f"{sid}.0"}
            async with asked(gateway, path, coding, **cursor) as (client, _, decoder):
                assert seen + decoder.decompress(await client.body()) == whole


def decoded_events(coding: str, packed: bytes) -> bytes:
    """The whole events in the first bytes of a compressed stream, decoded byte by byte."""
    decoder, data = DECODERS[coding](), b""
    for at in range(len(packed)):
        data += decoder.decompress(packed[at : at + 1])
    return data[: data.rfind(b"\n\n") + 2] if b"\n\n" in data else b""


@pytest.mark.parametrize(
    ("accepted", "coding"),
    [
        ("gzip", "gzip"),
        ("GZIP", "gzip"),
        ("x-gzip", "gzip"),
        ("zstd", "zstd"),
        ("gzip, deflate, br, zstd", "zstd"),
        ("gzip;q=1.0, zstd;q=0.5", "gzip"),
        ("gzip ; q=0.5 , zstd;q=0.8", "zstd"),
        ("gzip;q=0", None),
        ("gzip;q=0.000, zstd;q=0", None),
        ("zstd;q=0, gzip;q=0.001", "gzip"),
        ("identity, gzip;q=0.5", None),
        ("identity;q=0.5, gzip", "gzip"),
        ("gzip;q=high", None),
        ("gzip;q=-1", None),
        ("deflate, br", None),
        ("identity", None),
        ("*", None),
        ("", None),
    ],
)
async def test_client_gets_the_coding_that_it_likes_best(accepted: str, coding: str | None) -> None:
    async with compressing(streaming(WHOLE)) as gateway, connected(gateway.port) as client:
        await client.ask(PROVIDER, QUESTIONS[PROVIDER], {"Accept-Encoding": accepted})
        head = (await client.head()).decode()
        assert "\r\nVary: Accept-Encoding\r\n" in head
        assert re.findall("Content-Encoding: (.*)\r\n", head) == ([coding] if coding else [])
        body = await client.body()
        data = DECODERS[coding]().decompress(body) if coding else body
        assert b"".join(re.split(rb"id: .*\n", data)) == WHOLE


async def test_client_that_names_no_coding_gets_none() -> None:
    async with compressing(streaming(WHOLE)) as gateway, connected(gateway.port) as client:
        await client.ask(PROVIDER, QUESTIONS[PROVIDER])
        head = await client.head()
        assert b"Content-Encoding" not in head
        assert b"\r\nVary: Accept-Encoding\r\n" in head


async def test_nothing_is_compressed_unless_it_is_switched_on() -> None:
    async with (
        ScriptedBackend(streaming(WHOLE)) as backend,
        running_gateway(backend.url) as gateway,
        connected(gateway.port) as client,
    ):
        await client.ask(PROVIDER, QUESTIONS[PROVIDER], {"Accept-Encoding": "gzip, zstd"})
        head = await client.head()
        assert b"Content-Encoding" not in head
        assert b"Vary" not in head
        assert b"[DONE]" in await client.body()


Body = AsyncIterator[bytes]
Ask = Callable[[str, AsyncExitStack], Awaitable[Body]]


async def by_aiohttp(url: str, stack: AsyncExitStack) -> Body:
    session = await stack.enter_async_context(aiohttp.ClientSession())
    response = await stack.enter_async_context(session.get(url))
    assert response.headers["Content-Encoding"] == "gzip"
    return response.content.iter_any()


async def by_httpx(url: str, stack: AsyncExitStack) -> Body:
    session = await stack.enter_async_context(httpx2.AsyncClient())
    response = await stack.enter_async_context(session.stream("GET", url))
    assert response.headers["Content-Encoding"] in ("gzip", "zstd")
    return response.aiter_bytes()


async def by_curl(url: str, stack: AsyncExitStack) -> Body:
    process = await asyncio.create_subprocess_exec(
        "curl", "--compressed", "--no-buffer", "--silent", url, stdout=asyncio.subprocess.PIPE
    )
    stack.push_async_callback(process.wait)
    assert process.stdout is not None
    return _pieces(process.stdout)


async def _pieces(reader: asyncio.StreamReader) -> Body:
    while data := await reader.read(1 << 16):
        yield data


@pytest.mark.parametrize("ask", [by_aiohttp, by_httpx, by_curl])
async def test_client_decodes_each_event_before_the_next_is_said(ask: Ask) -> None:
    prompter = Prompter()
    async with compressing(prompter) as gateway, AsyncExitStack() as stack:
        body = await ask(f"{gateway.url}{TYPED}?query=count", stack)
        data = b""
        for expected in ("event: start", *WORDS, "event: complete"):
            async with asyncio.timeout(5):
                while expected.encode() not in data:
                    data += await anext(body)
            prompter.tell()
        assert [piece async for piece in body] == []
