"""The clocks: connect, first token, idle, duration cap, commit delay and heartbeat.

Where an order matters the test turns the hub's clock itself, with the times that the stream holds,
so that no slow machine can change the outcome.
"""

from __future__ import annotations

import asyncio
import json
import re
import socket
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import pytest

from gateway.stream.live import LiveStream
from tests.backend import CHAT_STREAM, Exchange, ScriptedBackend
from tests.framing import LAST_CHUNK, blocks, chunked, json_response, sse_head
from tests.gateway import Gateway, running_gateway
from tests.wire.answers import Answer, ask, events, parsed, request, without_ids
from tests.wire.routes import PROVIDER, TYPED, Route

_TYPED, _PROVIDER = TYPED[0], PROVIDER[0]
_ROUTES = (_TYPED, _PROVIDER)
_BLOCKS = blocks(CHAT_STREAM)
_COMMENT = b": still here\n\n"


class Backend(ScriptedBackend):
    """Sends what the test hands over, in that order, and nothing by itself."""

    def __init__(self) -> None:
        super().__init__(self._play)
        self._lines: asyncio.Queue[bytes] = asyncio.Queue()

    def say(self, *parts: bytes) -> None:
        for part in parts:
            self._lines.put_nowait(part)

    async def until_closed(self) -> None:
        """Returns once the gateway has closed the one connection that it made."""
        (exchange,) = self.exchanges
        async with asyncio.timeout(5):
            await exchange.client_left.wait()

    async def _play(self, exchange: Exchange) -> None:
        while True:
            await exchange.send(await self._lines.get())


class Listener:
    """A client that reads the answer as it comes."""

    def __init__(self, reader: asyncio.StreamReader) -> None:
        self._reader = reader
        self.raw = b""

    async def head(self) -> str:
        head = await self._reader.readuntil(b"\r\n\r\n")
        self.raw += head
        return head.decode()

    async def chunk(self) -> bytes:
        """The next chunk, which is the gateway's next write."""
        line = await self._reader.readuntil(b"\r\n")
        data = await self._reader.readexactly(int(line, 16) + 2)
        self.raw += line + data
        return data[:-2]

    async def rest(self) -> Answer:
        """The whole answer, once the gateway has closed."""
        self.raw += await self._reader.read()
        return parsed(self.raw, was_reset=False)


@asynccontextmanager
async def _listening(gateway: Gateway, route: Route) -> AsyncIterator[Listener]:
    reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
    try:
        writer.write(request(route.path, route.question("?")))
        yield Listener(reader)
    finally:
        writer.close()


def _stream(gateway: Gateway) -> LiveStream:
    (running,) = gateway.services.hub._running.values()
    return running.stream


async def _until_event(stream: LiveStream, after: float | None = None) -> float:
    """The time of the backend's next event."""
    async with asyncio.timeout(5):
        while stream.first_event is None or stream.last_event == after:
            await asyncio.sleep(0.001)
    return stream.last_event


async def _let_the_loop_turn() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


# Connect


@contextmanager
def _blackhole() -> Iterator[str]:
    """An address that answers no connection attempt: its queue is full and nobody accepts."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        waiting = [socket.socket() for _ in range(4)]
        for each in waiting:
            each.setblocking(False)
            each.connect_ex(listener.getsockname())
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        for each in waiting:
            each.close()


@pytest.mark.parametrize("path", [*(route.path for route in _ROUTES), "/v1/files", "/else"])
async def test_backend_that_does_not_take_the_connection_is_a_504(path: str) -> None:
    with _blackhole() as url:
        async with running_gateway(url, upstream_connect_seconds=0.1) as gateway:
            answer = await ask(gateway.port, path, {"query": "?", "stream": True})
    assert (answer.status, answer.json["error"]["code"]) == (504, "upstream_timeout")


async def test_connect_clock_runs_out_within_a_stream_that_has_begun() -> None:
    with _blackhole() as url:
        settings = {"upstream_connect_seconds": 0.1, "commit_delay_ms": 0}
        async with running_gateway(url, **settings) as gateway:
            answer = await ask(gateway.port, _TYPED.path, _TYPED.question("?"))
    assert [event.name for event in events(answer.body)] == ["start", "error"]
    assert events(answer.body)[-1].data["code"] == "upstream_timeout"


# First token


@pytest.mark.parametrize("route", _ROUTES, ids=str)
async def test_backend_that_does_not_answer_is_a_504(route: Route) -> None:
    async with (
        Backend() as backend,
        running_gateway(backend.url, upstream_first_token_seconds=0.1) as gateway,
    ):
        answer = await ask(gateway.port, route.path, route.question("?"))
        assert (answer.status, answer.json["error"]["code"]) == (504, "upstream_timeout")
        await backend.until_closed()


@pytest.mark.parametrize("route", _ROUTES, ids=str)
async def test_comments_are_no_first_token(route: Route) -> None:
    async with Backend() as backend, running_gateway(backend.url) as gateway:
        backend.say(sse_head(), chunked(_COMMENT))
        async with _listening(gateway, route) as client:
            assert "200 OK" in await client.head()
            stream = _stream(gateway)
            backend.say(chunked(_COMMENT))
            await _let_the_loop_turn()
            gateway.services.hub.tick(stream.started + 29.9)
            assert stream.is_active
            gateway.services.hub.tick(stream.started + 30.1)
            assert _error_code(route, await client.rest()) == "upstream_timeout"
        await backend.until_closed()


# Idle


@pytest.mark.parametrize("route", _ROUTES, ids=str)
async def test_events_arm_the_idle_clock_anew_and_comments_do_not(route: Route) -> None:
    async with Backend() as backend, running_gateway(backend.url) as gateway:
        hub = gateway.services.hub
        backend.say(sse_head(), chunked(_BLOCKS[0]))
        async with _listening(gateway, route) as client:
            await client.head()
            stream = _stream(gateway)
            first = await _until_event(stream)
            backend.say(chunked(_BLOCKS[1]))
            second = await _until_event(stream, after=first)
            hub.tick(first + 30)
            assert stream.is_active

            backend.say(chunked(_COMMENT), chunked(b":\n"), chunked(b"id: 1\n\n"))
            await _let_the_loop_turn()
            assert stream.last_event == second
            hub.tick(second + 30.1)
            answer = await client.rest()
        assert _error_code(route, answer) == "upstream_idle"
        await backend.until_closed()


@pytest.mark.parametrize("route", _ROUTES, ids=str)
async def test_pause_for_a_slow_client_is_not_the_backends_silence(route: Route) -> None:
    padding = b'data: {"choices":[{"delta":{"content":"%b"}}]}\n\n' % (b"x" * 16_000)
    sizes = {"stream_buffer_bytes": 65_536, "event_max_bytes": 65_536}
    clocks = {"write_stall_seconds": 0, "stream_max_seconds": 0, "connection_max_age_seconds": 0}
    async with Backend() as backend, running_gateway(backend.url, **sizes, **clocks) as gateway:
        backend.say(sse_head(), *[chunked(padding)] * 500, chunked(_BLOCKS[-1]), LAST_CHUNK)
        async with _listening(gateway, route) as client:
            await client.head()
            stream = _stream(gateway)
            async with asyncio.timeout(10):
                while not stream.is_paused:
                    await asyncio.sleep(0.001)
            gateway.services.hub.tick(time.monotonic() + 1000)
            assert stream.is_active

            answer = await client.rest()
        assert answer.is_whole
        assert answer.body.count(b"x" * 16_000) == 500
        assert gateway.metric("sluice_streams_total", reason="completed") == 1


# Duration cap


@pytest.mark.parametrize("route", _ROUTES, ids=str)
async def test_duration_cap_ends_a_stream_that_flows(route: Route) -> None:
    async def flow(exchange: Exchange) -> None:
        await exchange.send(sse_head())
        while True:
            await exchange.send(chunked(_BLOCKS[1]))
            await asyncio.sleep(0.01)

    caps = {"stream_max_seconds": 0.3, "provider_stream_max_seconds": 0.3}
    async with ScriptedBackend(flow) as backend, running_gateway(backend.url, **caps) as gateway:
        answer = await ask(gateway.port, route.path, route.question("?"))
        await backend.wait_until_idle()
    assert answer.header("X-Stream-Max-Seconds") == "0.3"
    if route.is_typed:
        _, *chunks, last = events(answer.body)
        assert (last.name, last.data["reason"]) == ("complete", "duration_cap")
        assert {event.name for event in chunks} == {"content_chunk"}
        assert last.data["total_chunks"] == len(chunks)
    else:
        assert _error_code(route, answer) == "duration_cap"
        assert without_ids(answer.body).startswith(_BLOCKS[1])


@pytest.mark.parametrize("route", _ROUTES, ids=str)
async def test_clock_of_0_never_runs_out(route: Route) -> None:
    off = (
        "upstream_first_token_seconds",
        "upstream_idle_seconds",
        "stream_max_seconds",
        "provider_stream_max_seconds",
        "connection_max_age_seconds",
        "heartbeat_interval",
    )
    async with (
        Backend() as backend,
        running_gateway(backend.url, **dict.fromkeys(off, 0)) as gateway,
    ):
        hub = gateway.services.hub
        backend.say(sse_head())
        async with _listening(gateway, route) as client:
            assert "X-Stream-Max-Seconds" not in await client.head()
            stream = _stream(gateway)
            hub.tick(time.monotonic() + 1e6)
            backend.say(chunked(_BLOCKS[0]))
            await _until_event(stream)
            hub.tick(time.monotonic() + 1e6)
            assert stream.is_active
            backend.say(chunked(_BLOCKS[-1]), LAST_CHUNK)
            answer = await client.rest()
    assert answer.is_whole
    assert b"heartbeat" not in answer.body


# Commit delay


@pytest.mark.parametrize("route", _ROUTES, ids=str)
async def test_early_failure_keeps_its_status(route: Route) -> None:
    busy = b'{"error":{"message":"Slow down.","code":"busy"}}'
    async with Backend() as backend, running_gateway(backend.url) as gateway:
        backend.say(json_response(busy, "429 Too Many Requests", "Retry-After: 7"))
        answer = await ask(gateway.port, route.path, route.question("?"))
    assert (answer.status, answer.header("Retry-After")) == (429, "7")
    assert "Slow down" in answer.json["error"]["message"]


@pytest.mark.parametrize("delay_ms", [0, 30])
@pytest.mark.parametrize("route", _ROUTES, ids=str)
async def test_after_the_delay_come_200_heartbeats_and_the_failure_as_an_event(
    route: Route, delay_ms: int
) -> None:
    async with (
        Backend() as backend,
        running_gateway(backend.url, commit_delay_ms=delay_ms, heartbeat_interval=0.1) as gateway,
    ):
        async with _listening(gateway, route) as client:
            head = await client.head()
            assert head.startswith("HTTP/1.1 200 OK\r\n")
            assert re.search("\r\nX-Stream-Id: [A-Za-z0-9_-]{16}\r\n", head)
            assert "\r\nContent-Type: text/event-stream; charset=utf-8\r\n" in head
            if route.is_typed:
                assert events(await client.chunk())[0].name == "start"
            for _ in range(2):
                assert _is_heartbeat(route, await client.chunk())
            backend.say(json_response(b"{}", "503 Service Unavailable"))
            answer = await client.rest()
        assert _error_code(route, answer) == "upstream_error"
        assert gateway.metric("sluice_streams_total", reason="upstream_error") == 1


@pytest.mark.parametrize("route", _ROUTES, ids=str)
async def test_without_a_delay_the_response_begins_before_the_backend_is_heard(
    route: Route,
) -> None:
    async with (
        Backend() as backend,
        running_gateway(backend.url, commit_delay_ms=0, heartbeat_interval=0) as gateway,
    ):
        async with _listening(gateway, route) as client:
            assert "200 OK" in await client.head()
            backend.say(sse_head(), chunked(CHAT_STREAM), LAST_CHUNK)
            answer = await client.rest()
        assert answer.is_whole
        assert gateway.metric("sluice_streams_total", reason="completed") == 1


# Heartbeats


async def test_typed_heartbeat_tells_where_the_stream_is() -> None:
    async with (
        Backend() as backend,
        running_gateway(backend.url, commit_delay_ms=0, stream_max_seconds=60) as gateway,
    ):
        before = time.time()
        async with _listening(gateway, _TYPED) as client:
            head = await client.head()
            (start,) = events(await client.chunk())
            beats = [await _beat(gateway, client)]
            backend.say(sse_head(), chunked(_BLOCKS[1]))
            (chunk,) = events(await client.chunk())
            beats += [await _beat(gateway, client), await _beat(gateway, client)]
            backend.say(chunked(_BLOCKS[-1]), LAST_CHUNK)
            answer = await client.rest()

    known = {
        "stream_id": start.data["stream_id"],
        "trace_id": start.data["trace_id"],
        "max_duration": 60,
    }
    assert f"\r\nX-Stream-Id: {known['stream_id']}\r\n" in head
    assert f"\r\nX-Trace-ID: {known['trace_id']}\r\n" in head
    assert chunk.name == "content_chunk"
    for count, beat in enumerate(beats, 1):
        assert {name: beat.pop(name) for name in known} == known
        assert beat.pop("heartbeat_count") == count
        assert beat.pop("total_chunks") == min(count - 1, 1)
        assert (beat.pop("total_tokens") > 0) == (count > 1)
        assert before - 1 < beat.pop("timestamp") < time.time() + 1
        uptime_s, remaining_s = beat.pop("uptime_seconds"), beat.pop("remaining_seconds")
        assert uptime_s >= 0
        assert uptime_s + remaining_s == pytest.approx(60, abs=0.1)
        assert beat == {}
    names = [event.name for event in events(answer.body)]
    assert names == ["start", "heartbeat", "content_chunk", "heartbeat", "heartbeat", "complete"]
    without_ids(answer.body)  # numbered without a gap, as if there were no heartbeats


async def test_providers_heartbeat_is_one_line_between_blocks() -> None:
    async with (
        Backend() as backend,
        running_gateway(backend.url, commit_delay_ms=0) as gateway,
        _listening(gateway, _PROVIDER) as client,
    ):
        await client.head()
        assert await _next_beat(gateway, client) == b":\n"
        backend.say(sse_head(), chunked(_BLOCKS[0]))
        await client.chunk()
        assert await _next_beat(gateway, client) == b":\n"
        assert await _next_beat(gateway, client) == b":\n"
        backend.say(*map(chunked, _BLOCKS[1:]), LAST_CHUNK)
        answer = await client.rest()
    whole = CHAT_STREAM.replace(_BLOCKS[0], b":\n" + _BLOCKS[0] + b":\n:\n", 1)
    assert without_ids(answer.body) == whole
    assert re.findall(rb":\n(?!:\n|id: )", answer.body) == []


@pytest.mark.parametrize("route", _ROUTES, ids=str)
async def test_silence_is_broken_sooner_before_the_first_token(route: Route) -> None:
    async with (
        Backend() as backend,
        running_gateway(backend.url, commit_delay_ms=0, heartbeat_interval=5) as gateway,
        _listening(gateway, route) as client,
    ):
        await client.head()
        if route.is_typed:
            await client.chunk()
        stream = _stream(gateway)
        assert await _writes_after(gateway, 2.4) == 0
        assert await _writes_after(gateway, 2.6) == 1
        assert _is_heartbeat(route, await client.chunk())
        backend.say(sse_head(), chunked(_BLOCKS[1]))
        await _until_event(stream)
        await client.chunk()
        assert await _writes_after(gateway, 4.9) == 0
        assert await _writes_after(gateway, 5.1) == 1
        assert _is_heartbeat(route, await client.chunk())


@pytest.mark.parametrize("route", _ROUTES, ids=str)
async def test_stream_that_flows_faster_than_the_interval_has_no_heartbeat(route: Route) -> None:
    async with Backend() as backend, running_gateway(backend.url) as gateway:
        backend.say(sse_head())
        async with _listening(gateway, route) as client:
            await client.head()
            if route.is_typed:
                await client.chunk()
            for _ in range(20):
                backend.say(chunked(_BLOCKS[1]))
                assert b"Gr" in await client.chunk()
                assert await _writes_after(gateway, 4.9) == 0
            backend.say(chunked(_BLOCKS[-1]), LAST_CHUNK)
            answer = await client.rest()
    if route.is_typed:
        names = [event.name for event in events(answer.body)]
        assert names == ["start", *["content_chunk"] * 20, "complete"]
    else:
        assert without_ids(answer.body) == _BLOCKS[1] * 20 + _BLOCKS[-1]


@pytest.mark.parametrize("route", _ROUTES, ids=str)
async def test_block_that_comes_byte_by_byte_has_no_heartbeat_inside(route: Route) -> None:
    async with Backend() as backend, running_gateway(backend.url) as gateway:
        backend.say(sse_head(), chunked(_BLOCKS[0]))
        async with _listening(gateway, route) as client:
            await client.head()
            beats = 0
            for byte in b"".join(_BLOCKS[1:3]):
                backend.say(chunked(bytes([byte])))
                await _let_the_loop_turn()
                beats += await _writes_after(gateway, 5.1)
            backend.say(*map(chunked, _BLOCKS[3:]), LAST_CHUNK)
            answer = await client.rest()
    assert beats > 100
    assert answer.is_whole
    if route.is_typed:
        found = events(answer.body)
        assert sum(event.name == "heartbeat" for event in found) == beats
        assert found[-1].data["total_chunks"] == 4
    else:
        assert without_ids(re.sub(rb"(?<=\n)(?::\n)+", b"", answer.body)) == CHAT_STREAM
        assert len(answer.body) - len(without_ids(answer.body)) > 0


async def _writes_after(gateway: Gateway, seconds: float) -> int:
    """How many heartbeats are written when the client has been written nothing for so long."""
    await _let_the_loop_turn()
    (reader,) = _stream(gateway).readers
    before = reader._beats
    gateway.services.hub.tick(reader.last_write + seconds)
    await _let_the_loop_turn()
    return reader._beats - before


async def _next_beat(gateway: Gateway, client: Listener) -> bytes:
    assert await _writes_after(gateway, 5.1) == 1
    return await client.chunk()


async def _beat(gateway: Gateway, client: Listener) -> dict[str, Any]:
    (event,) = events(await _next_beat(gateway, client))
    assert (event.name, event.id) == ("heartbeat", b"")
    return event.data


def _is_heartbeat(route: Route, chunk: bytes) -> bool:
    if route.is_typed:
        return events(chunk)[0].name == "heartbeat"
    return chunk == b":\n"


def _error_code(route: Route, answer: Answer) -> str:
    if route.is_typed:
        assert answer.is_whole
        last = events(answer.body)[-1]
        assert last.name == "error"
        return str(last.data["code"])
    assert not answer.is_whole
    return str(json.loads(answer.body.rpartition(b"data: ")[2])["error"]["code"])
