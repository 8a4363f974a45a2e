"""Streams of 300 events, cut after every byte and resumed each time: the pieces are the whole.

Walkers go through one stream side by side. Each reads some bytes further than it has come, is cut,
keeps the whole events it has seen, as clients do, and resumes after the last of them. With as many
walkers as one stride has bytes, every offset is some walker's cut.
"""

from __future__ import annotations

import asyncio
import random
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.backend import LAST_CHUNK, Exchange, ScriptedBackend, chunked, sse_head, streaming
from tests.client import Client, connected
from tests.gateway import running_gateway
from tests.wire.answers import unchunked

EVENTS = 300
#: How many go through an ended stream, each as many bytes at a time, and through a running one.
WALKERS = STRIDE = 200
WANDERERS = 12
PROVIDER, TYPED = "/v1/chat/completions", "/api/v2/chat-stream"
QUESTIONS: dict[str, dict[str, object]] = {PROVIDER: {"stream": True}, TYPED: {"query": "count"}}
FINISH = {"X-Stream-On-Disconnect": "finish", "X-Trace-ID": "t"}
SETTINGS = {"heartbeat_interval": "0", "silence_threshold": "0", "stream_max_readers": "0"}

on_both_routes = pytest.mark.parametrize("path", [TYPED, PROVIDER], ids=["typed", "provider"])
Walk = Callable[["Streamed", bytes, range], Awaitable[None]]


def backend_blocks(path: str) -> list[bytes]:
    """What makes 300 events on `path`, all different and as small as they can be."""
    if path == PROVIDER:
        return [*(b'data: {"n":%d}\n\n' % n for n in range(EVENTS - 1)), b"data: [DONE]\n\n"]
    chunk = b'data: {"choices":[{"delta":{"content":"%d"}}]}\n\n'
    return [*(chunk % n for n in range(EVENTS - 2)), b"data: [DONE]\n\n"]


@dataclass(frozen=True, slots=True)
class Streamed:
    """A stream of the gateway's, running or ended, and how it is asked for."""

    port: int
    path: str
    sid: str
    keep_alive: bool = False

    @asynccontextmanager
    async def resumed(self, seen: bytes, chance: int) -> AsyncIterator[Client]:
        """A client that has asked for what follows `seen`; `chance` varies where, and its leave.

        With `keep_alive` the connection has served a complete answer before.
        """
        async with connected(self.port) as client:
            if self.keep_alive:
                await whole_answer(client)
            await self.resume(client, seen, chance)
            yield client
            client.leave(reset=bool(chance & 1))

    async def resume(self, client: Client, seen: bytes, chance: int) -> None:
        cursor = {"Last-Event-ID": last_id(seen) or f"{self.sid}.0"}
        if chance & 2:
            await client.ask(self.path, QUESTIONS[self.path], cursor)
        else:
            accept = {"Accept": "text/event-stream", **cursor}
            await client.ask(f"/api/v2/streams/{self.sid}", headers=accept)

    async def rest(self, client: Client, seen: bytes, chance: int) -> bytes:
        """Everything that follows `seen`; the connection can be used again."""
        await self.resume(client, seen, chance)
        answered = await status(client)
        assert answered in (200, 204)
        return await client.body() if answered == 200 else b""


async def status(client: Client) -> int:
    return int((await client.head()).split(b" ", 2)[1])


async def whole_answer(client: Client) -> None:
    await client.ask("/livez")
    head = (await client.head()).lower()
    assert b"connection: close" not in head
    await client.exactly(int(re.findall(rb"content-length: (\d+)", head)[0]))


def whole_events(data: bytes) -> bytes:
    """What a client keeps of an answer that was cut."""
    return data[: data.rfind(b"\n\n") + 2] if b"\n\n" in data else b""


def last_id(data: bytes) -> str | None:
    at = data.rfind(b"id: ")
    return data[at + 4 : data.index(b"\n", at)].decode() if at >= 0 else None


@asynccontextmanager
async def asked(port: int, path: str) -> AsyncIterator[tuple[Client, str]]:
    """The client that asks first, its answer's head read, and the stream's id."""
    async with connected(port) as client:
        await client.ask(path, QUESTIONS[path], FINISH)
        head = (await client.head()).decode()
        yield client, head.partition("X-Stream-Id: ")[2].partition("\r\n")[0]


async def walk(streamed: Streamed, whole: bytes, cuts: range) -> None:
    """Cut after so many bytes, one connection after another."""
    seen = b""
    for offset in cuts:
        async with streamed.resumed(seen, offset) as client:
            assert await status(client) == 200
            got = await client.first(offset - len(seen))
        assert seen + got == whole[:offset]
        seen += whole_events(got)
    async with connected(streamed.port) as client:
        assert seen + await streamed.rest(client, seen, cuts[0]) == whole


async def walk_on_one_connection(streamed: Streamed, whole: bytes, cuts: range) -> None:
    """Cut elsewhere: the resumes are answered to the end, on a connection that is kept alive."""
    async with connected(streamed.port) as client:
        for offset in cuts:
            seen = whole_events(whole[:offset])
            assert seen + await streamed.rest(client, seen, offset) == whole


async def step(streamed: Streamed, ready: asyncio.Semaphore) -> None:
    """Cut after each event, which comes while this walker reads or, by turns, while it's away."""
    seen = b""
    for number in range(EVENTS):
        comes_early = number % 4 > 1
        if comes_early:
            ready.release()
        async with streamed.resumed(seen, number) as client:
            assert await status(client) == 200
            if not comes_early:
                ready.release()
            got = await client.body(1)
        seen += got[: got.index(b"\n\n") + 2]


async def wander(streamed: Streamed, chance: random.Random) -> bytes:
    """Cut anywhere, until the stream ends; what was kept of it."""
    seen = b""
    while True:
        async with streamed.resumed(seen, chance.getrandbits(2)) as client:
            if await status(client) == 204:
                return seen
            wanted = chance.randrange(1, 600)
            got = await client.first(wanted)
        seen += whole_events(got)
        if len(got) < wanted:
            return seen


@on_both_routes
@pytest.mark.parametrize("go", [walk, walk_on_one_connection], ids=["fresh", "keep-alive"])
async def test_ended_stream_cut_after_every_byte_goes_on_exactly(path: str, go: Walk) -> None:
    stream = b"".join(backend_blocks(path))
    async with (
        ScriptedBackend(streaming(stream)) as backend,
        running_gateway(backend.url, **SETTINGS) as gateway,
    ):
        async with asked(gateway.port, path) as (client, sid):
            whole = await client.body()
        assert whole.count(b"\n\n") == whole.count(b"id: ") == EVENTS
        streamed = Streamed(gateway.port, path, sid)
        async with asyncio.TaskGroup() as group:
            for first in range(WALKERS):
                group.create_task(go(streamed, whole, range(first, len(whole) + 1, STRIDE)))
        assert len(backend.exchanges) == 1


@on_both_routes
async def test_answer_cut_after_every_byte_on_the_wire_goes_on_exactly(path: str) -> None:
    """Also within the head, the size of a chunk and the last chunk: framing has offsets too."""
    async with (
        ScriptedBackend(streaming(b"".join(backend_blocks(path)[-3:]))) as backend,
        running_gateway(backend.url, **SETTINGS) as gateway,
    ):
        async with asked(gateway.port, path) as (client, sid):
            whole = await client.body()
        streamed, raw = Streamed(gateway.port, path, sid), b""
        while not raw.endswith(LAST_CHUNK):
            async with streamed.resumed(b"", len(raw)) as client:
                raw = await client.exactly(len(raw) + 1)
            body, is_whole = unchunked(raw.partition(b"\r\n\r\n")[2])
            assert is_whole == raw.endswith(LAST_CHUNK)
            seen = whole_events(body)
            async with connected(gateway.port) as client:
                assert seen + await streamed.rest(client, seen, len(raw)) == whole
        assert len(backend.exchanges) == 1


@on_both_routes
async def test_stream_cut_while_it_is_made_goes_on_exactly(
    path: str, database_url: str | None
) -> None:
    """One walker is cut after each event, before the next has come; the others anywhere."""
    blocks, ready = backend_blocks(path), asyncio.Semaphore(0)

    async def script(exchange: Exchange) -> None:
        await exchange.send(sse_head())
        for block in blocks:
            await ready.acquire()
            await exchange.send(chunked(block))
        await exchange.send(LAST_CHUNK)

    async with (
        ScriptedBackend(script) as backend,
        running_gateway(backend.url, database_url=database_url, **SETTINGS) as gateway,
        asked(gateway.port, path) as (client, sid),
    ):
        fresh, kept = (Streamed(gateway.port, path, sid, each) for each in (False, True))
        async with asyncio.TaskGroup() as group:
            first = group.create_task(client.body())
            group.create_task(step(kept, ready))
            wanderers = [
                group.create_task(wander(kept if seed % 2 else fresh, random.Random(seed)))
                for seed in range(WANDERERS)
            ]
        whole = first.result()
        assert whole.count(b"\n\n") == whole.count(b"id: ") == EVENTS
        assert {each.result() for each in wanderers} == {whole}
        assert len(backend.exchanges) == 1


@on_both_routes
async def test_stream_cut_anywhere_goes_on_exactly_after_a_restart(
    path: str, database_url: str | None, tmp_path: Path
) -> None:
    """Then it's read from the store."""
    stored = {"database_url": database_url, "data_dir": tmp_path, **SETTINGS}
    async with ScriptedBackend(streaming(b"".join(backend_blocks(path)))) as backend:
        async with (
            running_gateway(backend.url, **stored) as gateway,
            asked(gateway.port, path) as (client, sid),
        ):
            whole = await client.body()
        async with running_gateway(backend.url, **stored) as gateway:
            streamed = Streamed(gateway.port, path, sid)
            for first in range(0, STRIDE, 20):
                await walk(streamed, whole, range(first, len(whole) + 1, STRIDE))
                await walk_on_one_connection(streamed, whole, range(first, len(whole) + 1, STRIDE))
        assert len(backend.exchanges) == 1
