"""A client that takes little or nothing: what the backend can send meanwhile, what the gateway
holds, who is disconnected, and that nobody else loses a byte.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from gateway.stream.hub import Hub
from tests.backend import (
    LAST_CHUNK,
    Exchange,
    ScriptedBackend,
    chunked,
    json_response,
    sse_head,
)
from tests.client import BrokenOffError, Client, connected, events, said
from tests.gateway import Gateway, running_gateway

KIB = 1024
BUFFER = 256 * KIB
#: What a relay holds beside the log. aiohttp pauses the backend's connection at 64 KiB, and the
#: event loop's last receive may have brought 256 KiB more; the client's transport pauses the writer
#: at 64 KiB, and its last write may have brought 64 KiB more.
IN_HAND = (64 + 256 + 64 + 64) * KIB
#: What the log may be over its bound: what is fed at once, which ids make a little more of.
ONE_READ = (48 + 12) * KIB
PIECE = 16 * KIB
EVENTS = 8000

CHAT: tuple[str, object] = ("/api/v2/chat-stream", {"query": "Tell me all."})
PROVIDER: tuple[str, object] = ("/v1/chat/completions", {"stream": True, "messages": []})
AS_THEY_ARE = {"Stream-Ids": "off"}
FINISH = {"X-Stream-On-Disconnect": "finish"}


def token(number: int) -> str:
    return f"{number:07d}" + "x" * 993


def block(content: str) -> bytes:
    data = {"choices": [{"index": 0, "delta": {"content": content}}]}
    return b"data: %b\n\n" % json.dumps(data).encode()


TOKENS = [token(number) for number in range(EVENTS)]
LONG = b"".join(map(block, TOKENS)) + b"data: [DONE]\n\n"


async def pour(exchange: Exchange) -> None:
    """The long stream, as fast as it is taken."""
    await exchange.send(sse_head())
    for at in range(0, len(LONG), PIECE):
        await exchange.send(chunked(LONG[at : at + PIECE]))
    await exchange.send(LAST_CHUNK)


async def pour_or_fall_silent(exchange: Exchange) -> None:
    if b"silent" not in exchange.body:
        await pour(exchange)
        return
    await exchange.send(sse_head() + chunked(block("one")))
    await exchange.stall()


@dataclass(frozen=True, slots=True)
class Scene:
    backend: ScriptedBackend
    gateway: Gateway

    @property
    def hub(self) -> Hub:
        return self.gateway.services.hub

    @asynccontextmanager
    async def asking(
        self, asked: tuple[str, object], *, rcvbuf: int = 16 * KIB, **headers: str
    ) -> AsyncIterator[Client]:
        async with connected(self.gateway.port, rcvbuf=rcvbuf) as client:
            await client.ask(*asked, {name.replace("_", "-"): headers[name] for name in headers})
            yield client

    async def stalled(self, number: int = 1) -> Exchange:
        """The exchange, once the backend can send no more of it."""
        exchange = await self.backend.wait_for_exchanges(number)
        await settled(lambda: exchange.bytes_accepted)
        return exchange

    async def wait_for_ending(self, reason: str, count: int = 1) -> None:
        await until(lambda: self.gateway.metric("sluice_streams_total", reason=reason) == count)


@asynccontextmanager
async def scene(
    script: Callable[[Exchange], Awaitable[None]] = pour, **settings: object
) -> AsyncIterator[Scene]:
    bounds: dict[str, object] = {
        "resume_ttl_seconds": 0,
        "stream_buffer_bytes": BUFFER,
        "event_max_bytes": 64 * KIB,
        "heartbeat_interval": 0,
    }
    async with (
        ScriptedBackend(script, sndbuf=16 * KIB) as backend,
        running_gateway(backend.url, **{**bounds, **settings}) as gateway,
    ):
        yield Scene(backend, gateway)


async def until(is_so: Callable[[], bool], seconds: float = 10) -> None:
    async with asyncio.timeout(seconds):
        while not is_so():
            await asyncio.sleep(0.005)


async def settled(count: Callable[[], int]) -> int:
    """The count, once it has stopped to grow."""
    last, unchanged = -1, 0
    while unchanged < 20:
        await asyncio.sleep(0.01)
        unchanged = unchanged + 1 if count() == last else 0
        last = count()
    return last


def kernel_bytes(*ports: int) -> int:
    """What the kernel holds, sent or received, for the connections of these ports."""
    size = 0
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        fields = line.split()
        used = {int(address.rpartition(":")[2], 16) for address in fields[1:3]}
        if used & set(ports):
            size += sum(int(queue, 16) for queue in fields[4].split(":"))
    return size


@asynccontextmanager
async def watched(hub: Hub) -> AsyncIterator[list[int]]:
    """The most that the logs held at any turn of the loop, in the one element of a list."""
    peak = [0]

    async def watch() -> None:
        while True:
            peak[0] = max(peak[0], hub.buffered_bytes)
            await asyncio.sleep(0)

    task = asyncio.create_task(watch())
    try:
        yield peak
    finally:
        task.cancel()


# pause


@pytest.mark.parametrize("asked", [CHAT, PROVIDER], ids=["typed", "provider"])
async def test_client_that_reads_nothing_stops_the_backends_sending(
    asked: tuple[str, object],
) -> None:
    async with scene() as on, on.asking(asked):
        exchange = await on.stalled()
        in_kernel = kernel_bytes(on.backend.port, on.gateway.port)
        assert 0 < exchange.bytes_accepted - in_kernel <= BUFFER + IN_HAND
        assert exchange.bytes_accepted < len(LONG) / 3  # the kernels take up to 2 MiB of it
        assert len(on.hub) == 1


async def test_client_that_reads_on_gets_every_byte_of_a_provider_stream() -> None:
    async with scene() as on, on.asking(PROVIDER, **AS_THEY_ARE) as client:
        await on.stalled()
        await client.head()
        assert await client.body() == LONG
        await on.wait_for_ending("completed")


async def test_client_that_reads_on_gets_every_event_of_a_typed_stream() -> None:
    async with scene() as on, on.asking(CHAT) as client:
        await on.stalled()
        await client.head()
        stream = events(await client.body())
        assert said(stream) == "".join(TOKENS)
        assert stream[-1].json["reason"] == "completed"


async def test_client_that_stalls_again_and_again_gets_every_byte() -> None:
    async with scene() as on, on.asking(PROVIDER, rcvbuf=128 * KIB, **AS_THEY_ARE) as client:
        exchange = await on.stalled()
        await client.head()
        got = b""
        for _ in range(3):
            before = exchange.bytes_accepted
            got += await client.body(most=1024 * KIB)
            assert await settled(lambda: exchange.bytes_accepted) > before
        assert got + await client.body() == LONG


async def test_paused_stream_does_not_run_into_the_idle_clock() -> None:
    silent = (PROVIDER[0], {"stream": True, "messages": ["silent"]})
    async with (
        scene(pour_or_fall_silent, upstream_idle_seconds=0.3) as on,
        on.asking(PROVIDER, **AS_THEY_ARE) as client,
    ):
        await on.stalled()
        async with on.asking(silent):
            await on.wait_for_ending("upstream_idle")  # of the one that came later
        await client.head()
        assert await client.body() == LONG
        await on.wait_for_ending("completed")


@pytest.mark.parametrize("policy", ["pause", "detach"])
@pytest.mark.parametrize("asked", [CHAT, PROVIDER], ids=["typed", "provider"])
async def test_log_never_holds_more_than_its_bound_and_one_read(
    asked: tuple[str, object], policy: str
) -> None:
    async with scene(backpressure_policy=policy) as on, watched(on.hub) as peak:
        async with on.asking(asked, **FINISH) as client:
            await on.stalled()
            await client.head()
            with contextlib.suppress(BrokenOffError):
                await client.body()
        await on.wait_for_ending("completed")
        assert peak[0] > BUFFER - PIECE
        assert peak[0] <= BUFFER + ONE_READ
        await until(lambda: on.hub.buffered_bytes == 0)


# who takes nothing for too long


async def test_stalled_client_of_a_provider_stream_is_cut_and_the_backend_closed() -> None:
    async with scene(write_stall_seconds=0.3) as on, on.asking(PROVIDER, **AS_THEY_ARE) as client:
        exchange = await on.backend.wait_for_exchanges()
        await on.wait_for_ending("client_gone")
        await on.backend.wait_until_idle()
        assert exchange.bytes_accepted < len(LONG) / 3  # the kernels take up to 2 MiB of it
        await client.head()
        with pytest.raises(BrokenOffError) as error:
            await client.body()
        assert LONG.startswith(error.value.got)


async def test_typed_stream_goes_on_for_its_grace_when_its_stalled_client_is_cut() -> None:
    async with scene(write_stall_seconds=0.3, detach_grace_seconds=1) as on:
        on.backend.script = pour_for_ever
        async with on.asking(CHAT):
            exchange = await on.backend.wait_for_exchanges()
            watched = on.gateway.services.stalls.waiting
            await until(lambda: len(watched) == 1)
            await until(lambda: not watched)
            paused_at = exchange.bytes_accepted
            await until(lambda: exchange.bytes_accepted > 2 * paused_at)
            assert len(on.hub) == 1
            await on.wait_for_ending("client_gone")
            await on.backend.wait_until_idle()
            await until(lambda: on.hub.buffered_bytes == 0)


async def pour_for_ever(exchange: Exchange) -> None:
    await exchange.send(sse_head())
    while True:
        await exchange.send(chunked(block("x" * 4000)))
        await asyncio.sleep(0)


async def test_typed_stream_finishes_without_its_stalled_client_when_told_to() -> None:
    async with scene(write_stall_seconds=0.3) as on, on.asking(CHAT, **FINISH):
        exchange = await on.backend.wait_for_exchanges()
        await on.wait_for_ending("completed")
        assert exchange.bytes_accepted > len(LONG)
        await until(lambda: on.hub.buffered_bytes == 0)


# detach


async def test_with_detach_the_backend_is_not_paused_and_its_stream_completes() -> None:
    async with scene(backpressure_policy="detach") as on, on.asking(PROVIDER, **FINISH):
        await on.wait_for_ending("completed")
        assert on.backend.exchanges[0].bytes_accepted > len(LONG)


@pytest.mark.parametrize("asked", [CHAT, PROVIDER], ids=["typed", "provider"])
async def test_with_detach_a_client_behind_the_log_is_disconnected_at_once(
    asked: tuple[str, object],
) -> None:
    settings = {"backpressure_policy": "detach", "write_stall_seconds": 0}
    async with scene(**settings) as on, on.asking(asked, **FINISH) as client:
        await on.wait_for_ending("completed")
        await until(lambda: not on.gateway.services.stalls.waiting)  # although it never reads
        await client.head()
        with pytest.raises(BrokenOffError) as error:
            await client.body()
        whole = error.value.got.decode().rpartition("\n\n")[0]
        got = "".join(part for part in TOKENS if part in whole)
        assert got
        assert "".join(TOKENS).startswith(got)  # its beginning and no tail without the middle


async def test_with_detach_a_client_that_keeps_up_gets_every_byte() -> None:
    async with scene(backpressure_policy="detach") as on:
        on.backend.script = pour_at_the_readers_pace
        async with on.asking(PROVIDER, rcvbuf=256 * KIB, **AS_THEY_ARE) as client:
            await client.head()
            assert await client.body() == LONG


async def pour_at_the_readers_pace(exchange: Exchange) -> None:
    await exchange.send(sse_head())
    for at in range(0, len(LONG), PIECE):
        await exchange.send(chunked(LONG[at : at + PIECE]))
        await asyncio.sleep(0.001)
    await exchange.send(LAST_CHUNK)


# all logs together


async def test_full_buffers_refuse_new_streams_while_running_ones_go_on() -> None:
    async with scene(buffer_total_bytes=2 * BUFFER) as on, contextlib.AsyncExitStack() as stack:
        stalled = []
        for number in range(1, 3):
            asking = on.asking(PROVIDER, **AS_THEY_ARE)
            stalled.append(await stack.enter_async_context(asking))
            await on.stalled(number)
        assert 2 * BUFFER <= on.hub.buffered_bytes <= 2 * BUFFER + 2 * ONE_READ
        for asked in (PROVIDER, CHAT):
            head, answer = await refused(on, asked)
            assert head.startswith(b"HTTP/1.1 503 ")
            assert b"\r\nRetry-After: " in head
            assert b'"buffers_full"' in answer
        assert len(on.backend.exchanges) == 2
        for client in stalled:
            await client.head()
        assert await asyncio.gather(*(client.body() for client in stalled)) == [LONG] * 2
        await on.gateway.wait_for_streams(0)
        async with on.asking(PROVIDER, **AS_THEY_ARE) as client:
            await client.head()
            assert await client.body() == LONG


async def refused(on: Scene, asked: tuple[str, object]) -> tuple[bytes, bytes]:
    async with on.asking(asked, Connection="close") as client:
        head = await client.head()
        answer = b""
        with contextlib.suppress(BrokenOffError):
            while True:
                answer += await client.some()
        return head, answer


@pytest.mark.parametrize("policy", ["pause", "detach"])
async def test_full_buffers_do_not_cost_a_running_stream_that_is_read_a_byte(policy: str) -> None:
    release = asyncio.Event()

    async def pour_or_wait(exchange: Exchange) -> None:
        if b"later" in exchange.body:
            await exchange.send(sse_head())
            await release.wait()
            await pour_body(exchange)
        else:
            await pour_for_ever(exchange)

    settings = {"buffer_total_bytes": BUFFER, "backpressure_policy": policy}
    async with scene(pour_or_wait, **settings) as on:
        asked = (PROVIDER[0], {"stream": True, "messages": ["later"]})
        async with on.asking(asked, rcvbuf=256 * KIB, **AS_THEY_ARE) as client:
            await client.head()
            async with on.asking(PROVIDER, **FINISH):
                await on.backend.wait_for_exchanges(2)
                await until(lambda: on.hub.buffered_bytes > BUFFER - 8 * KIB)
                release.set()
                assert await client.body() == LONG


SHORT = b"".join(map(block, TOKENS[:100])) + b"data: [DONE]\n\n"


async def test_ended_streams_make_way_for_a_running_one_and_are_read_from_the_store() -> None:
    release = asyncio.Event()

    async def pour_later_or_briefly(exchange: Exchange) -> None:
        if b"later" in exchange.body:
            await release.wait()
            await pour_for_ever(exchange)
        else:
            await exchange.send(sse_head() + chunked(SHORT) + LAST_CHUNK)

    settings = {"buffer_total_bytes": BUFFER, "resume_ttl_seconds": 60}
    async with scene(pour_later_or_briefly, **settings) as on:
        asked = (PROVIDER[0], {"stream": True, "messages": ["later"]})
        async with on.asking(asked, **AS_THEY_ARE) as client:
            await on.backend.wait_for_exchanges()
            for _ in range(3):
                async with on.asking(PROVIDER, **AS_THEY_ARE) as other:
                    await other.head()
                    assert await other.body() == SHORT
            await on.gateway.wait_for_streams(1)
            ended = [stream.id for stream in on.hub.streams() if not stream.is_active]
            assert len(ended) > 1
            release.set()
            await client.head()
            await until(lambda: all(on.hub.find(sid) is None for sid in ended))
            await until(lambda: on.hub.buffered_bytes > BUFFER - 8 * KIB)
        for sid in ended:
            async with on.asking((f"/api/v2/streams/{sid}", None), Accept="text/event-stream") as c:
                assert b" 200 " in await c.head()
                assert (await c.body()).endswith(SHORT)


async def pour_body(exchange: Exchange) -> None:
    for at in range(0, len(LONG), PIECE):
        await exchange.send(chunked(LONG[at : at + PIECE]))
        await asyncio.sleep(0)
    await exchange.send(LAST_CHUNK)


# the plain proxy

DOWNLOAD = bytes(range(256)) * 8 * KIB


async def download(exchange: Exchange) -> None:
    await exchange.send(json_response(DOWNLOAD))


@pytest.mark.parametrize("path", ["/files/large", "/v1/files/large"])
async def test_download_of_a_client_that_reads_nothing_stops_the_backends_sending(
    path: str,
) -> None:
    async with scene(download) as on, on.asking((path, None)) as client:
        exchange = await on.stalled()
        in_kernel = kernel_bytes(on.backend.port, on.gateway.port)
        assert 0 < exchange.bytes_accepted - in_kernel <= IN_HAND
        await client.head()
        assert await client.exactly(len(DOWNLOAD)) == DOWNLOAD


async def test_stalled_download_is_cut_and_the_backend_closed() -> None:
    async with (
        scene(download, write_stall_seconds=0.3) as on,
        on.asking(("/large", None)) as client,
    ):
        await on.backend.wait_for_exchanges()
        await on.backend.wait_until_idle()
        await client.head()
        with pytest.raises(BrokenOffError):
            await client.exactly(len(DOWNLOAD))


async def test_slow_but_steady_client_is_not_taken_for_a_stalled_one() -> None:
    """For longer than the clock so little that the kernel doesn't ask the gateway for more."""
    async with (
        scene(download, write_stall_seconds=0.3) as on,
        on.asking(("/large", None), rcvbuf=4 * KIB) as client,
    ):
        await client.head()
        reading = asyncio.create_task(in_sips(client))
        for _ in range(3):
            async with on.asking(("/large", None)):
                await until(lambda: len(on.gateway.services.stalls.waiting) == 2)
                await until(lambda: len(on.gateway.services.stalls.waiting) == 1)
        reading.cancel()
        got = b"".join(await reading)
        assert got + await client.exactly(len(DOWNLOAD) - len(got)) == DOWNLOAD


async def in_sips(client: Client) -> list[bytes]:
    """What is read slowly until the task is cancelled."""
    got = []
    with contextlib.suppress(asyncio.CancelledError):
        while True:
            await asyncio.sleep(0.01)
            got.append(await client.some(512))
    return got
