"""One word per ending: the same on the wire, in the log line and in the metric."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp
import pytest

from gateway.stream.model import ENDING_REASONS
from tests.backend import Exchange, Script, ScriptedBackend, streaming
from tests.client import BrokenOffError, connected
from tests.framing import chunked, sse_head
from tests.gateway import Gateway, gateway_process, running_gateway, wait_until_ready
from tests.raw import ask_raw
from tests.servers import free_port
from tests.wire.answers import Answer, ask, events, parsed, request, without_ids
from tests.wire.routes import CHAT, PROVIDER, TYPED, Route

_STREAM = b"".join(CHAT.blocks)
_FIRST = chunked(CHAT.blocks[0])
_ROUTES = (TYPED[0], PROVIDER[0])


async def _stall(exchange: Exchange) -> None:
    await exchange.send(sse_head(), _FIRST)
    await exchange.stall()


async def _say_nothing(exchange: Exchange) -> None:
    await exchange.send(sse_head())
    await exchange.stall()


async def _break_off(exchange: Exchange) -> None:
    await exchange.send(sse_head(), _FIRST)
    await exchange.close()


async def _fail(exchange: Exchange) -> None:
    error = b'data: {"error":{"message":"overloaded","code":"busy"}}\n\n'
    await exchange.send(sse_head(), _FIRST, chunked(error))
    await exchange.stall()


async def _drown(exchange: Exchange) -> None:
    await exchange.send(sse_head(), _FIRST, chunked(b"data: " + b"x" * 5000))
    await exchange.stall()


async def _hang_up(exchange: Exchange) -> None:
    await exchange.close()


_LENGTH = streaming(_STREAM.replace(b'"stop"', b'"length"'))


@dataclass(frozen=True, slots=True)
class Case:
    """What a backend does, and the word for it."""

    reason: str
    script: Script
    settings: Mapping[str, object] = field(default_factory=dict)

    def __str__(self) -> str:
        return self.reason


_COMMITTED = (
    Case("completed", streaming(_STREAM)),
    Case("incomplete", _LENGTH),
    Case("duration_cap", _stall, {"stream_max_seconds": 0.2, "provider_stream_max_seconds": 0.2}),
    Case("upstream_error", _fail),
    Case("upstream_truncated", _break_off),
    Case("upstream_idle", _stall, {"upstream_idle_seconds": 0.2}),
    Case("upstream_timeout", _say_nothing, {"upstream_first_token_seconds": 0.2}),
    Case("upstream_unavailable", _hang_up, {"commit_delay_ms": 0}),
    Case("event_too_large", _drown, {"event_max_bytes": 4000}),
)


@pytest.mark.parametrize("route", _ROUTES, ids=str)
@pytest.mark.parametrize("case", _COMMITTED, ids=str)
async def test_stream_ends_with_one_word(
    case: Case, route: Route, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger="sluice")
    async with (
        ScriptedBackend(case.script) as backend,
        running_gateway(backend.url, **case.settings) as gateway,
    ):
        answer = await ask(gateway.port, route.path, route.question("?"))

        assert answer.status == 200
        assert _word_on_the_wire(route, answer) == _on_the_wire(route, case.reason)
        _check_told_once(gateway, caplog, case.reason)


@pytest.mark.parametrize("route", _ROUTES, ids=str)
async def test_refused_connection_is_upstream_unavailable(
    route: Route, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger="sluice")
    async with running_gateway(f"http://127.0.0.1:{free_port()}") as gateway:
        answer = await ask(gateway.port, route.path, route.question("?"))

        assert answer.status == 502
        assert answer.json["error"]["code"] == "upstream_unavailable"
        _check_told_once(gateway, caplog, "upstream_unavailable")


@pytest.mark.parametrize("route", _ROUTES, ids=str)
async def test_client_that_leaves_ends_its_stream_as_client_gone(
    route: Route, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger="sluice")
    async with (
        ScriptedBackend(_stall) as backend,
        running_gateway(backend.url, detach_grace_seconds=0) as gateway,
    ):
        reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
        writer.write(request(route.path, route.question("?")))
        await reader.readuntil(b"data:")
        writer.close()
        await backend.wait_until_idle()
        await gateway.wait_for_streams(0)

        _check_told_once(gateway, caplog, "client_gone")
        assert gateway.metric("sluice_streams_total", reason="client_gone") == 1


@pytest.mark.parametrize("route", _ROUTES, ids=str)
async def test_shutdown_ends_streams_as_server_shutdown(
    route: Route, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger="sluice")
    async with ScriptedBackend(_stall) as backend, running_gateway(backend.url) as gateway:
        asking = asyncio.create_task(ask(gateway.port, route.path, route.question("?")))
        await backend.wait_for_exchanges()
        await gateway.wait_for_streams(1)
        await _until_first_event(gateway)
        await gateway.services.hub.drain(0)
        answer = await asking

        assert _word_on_the_wire(route, answer) == "server_shutdown"
        _check_told_once(gateway, caplog, "server_shutdown")


@pytest.mark.parametrize("route", _ROUTES, ids=str)
async def test_stop_ends_the_stream_as_user_requested(
    route: Route, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger="sluice")
    async with ScriptedBackend(_stall) as backend, running_gateway(backend.url) as gateway:
        asking = asyncio.create_task(ask(gateway.port, route.path, route.question("?")))
        await backend.wait_for_exchanges()
        await _until_first_event(gateway)
        (stream,) = gateway.services.hub.streams()
        async with aiohttp.request("DELETE", f"{gateway.url}/api/v2/streams/{stream.id}"):
            answer = await asking

        assert _word_on_the_wire(route, answer) == _on_the_wire(route, "user_requested")
        _check_told_once(gateway, caplog, "user_requested")


@pytest.mark.parametrize("route", _ROUTES, ids=str)
async def test_stream_without_reader_and_event_ends_as_timeout(
    route: Route, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger="sluice")
    async with (
        ScriptedBackend(_stall) as backend,
        running_gateway(backend.url, stream_session_timeout_ms=100) as gateway,
    ):
        sid = await _first_event(gateway.port, route, {"X-Stream-On-Disconnect": "finish"})
        await gateway.wait_for_streams(0)

        assert _word_on_the_wire(route, await _read_again(gateway.port, sid)) == "timeout"
        _check_told_once(gateway, caplog, "timeout")


@pytest.mark.parametrize("route", _ROUTES, ids=str)
async def test_stream_whose_process_was_killed_has_ended_as_interrupted(
    route: Route, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    caplog.set_level(logging.INFO, logger="sluice")
    async with ScriptedBackend(_stall) as backend:
        port = free_port()
        async with gateway_process(backend.url, port, tmp_path) as process:
            async with aiohttp.ClientSession() as client:
                await wait_until_ready(client, f"http://127.0.0.1:{port}")
            sid = await _first_event(port, route, {"X-Stream-On-Disconnect": "finish"})
            process.kill()
        async with running_gateway(backend.url, data_dir=tmp_path) as gateway:
            answer = await _read_again(gateway.port, sid)

            assert _word_on_the_wire(route, answer) == "interrupted"
            _check_told_once(gateway, caplog, "interrupted")


@pytest.mark.parametrize("route", _ROUTES, ids=str)
async def test_event_over_the_bound_that_comes_alone_is_told_of(route: Route) -> None:
    """Without anything in front of it, there is nothing to write but the error."""
    has_begun = asyncio.Event()

    async def drown_later(exchange: Exchange) -> None:
        await exchange.send(sse_head(), _FIRST)
        await has_begun.wait()
        await exchange.send(chunked(b"data: " + b"x" * 5000))
        await exchange.stall()

    async with (
        ScriptedBackend(drown_later) as backend,
        running_gateway(backend.url, event_max_bytes=4000) as gateway,
        connected(gateway.port) as client,
    ):
        await client.ask(route.path, route.question("?"))
        await client.head()
        await client.chunk()
        has_begun.set()
        try:
            rest = await client.body()
        except BrokenOffError as error:
            rest = error.got
            assert not route.is_typed
        assert b"event_too_large" in rest


def test_every_ending_of_the_vocabulary_is_shown_here() -> None:
    shown = {case.reason for case in _COMMITTED}
    shown |= {"client_gone", "server_shutdown", "user_requested", "timeout", "interrupted"}
    assert shown == ENDING_REASONS


@pytest.mark.parametrize("route", _ROUTES, ids=str)
async def test_first_ending_decides(route: Route, caplog: pytest.LogCaptureFixture) -> None:
    """A client that leaves after the end, and a shutdown after both, change nothing."""
    caplog.set_level(logging.INFO, logger="sluice")
    async with ScriptedBackend(streaming(_STREAM)) as backend:
        async with running_gateway(backend.url) as gateway:
            await ask(gateway.port, route.path, route.question("?"))
            await gateway.services.hub.drain(0)
        _check_told_once(gateway, caplog, "completed")


async def _first_event(port: int, route: Route, headers: dict[str, str]) -> str:
    """The id of a stream that is left after its first event."""
    async with connected(port) as client:
        await client.ask(route.path, route.question("?"), headers)
        head = (await client.head()).decode()
        await client.body(1)
    return head.partition("X-Stream-Id: ")[2][:16]


async def _read_again(port: int, sid: str) -> Answer:
    head = f"GET /api/v2/streams/{sid} HTTP/1.1\r\nHost: gateway\r\nConnection: close\r\n"
    raw = await ask_raw(port, [f"{head}Accept: text/event-stream\r\n\r\n".encode()])
    return parsed(raw.data, was_reset=False)


async def _until_first_event(gateway: Gateway) -> None:
    (running,) = gateway.services.hub._running.values()
    async with asyncio.timeout(5):
        while running.stream.first_event is None:
            await asyncio.sleep(0.005)


def _on_the_wire(route: Route, reason: str) -> str:
    """A provider's own words for its own endings, where ours can't be said."""
    if route.is_typed:
        return reason
    return {
        "incomplete": "completed",
        "upstream_error": "busy",
        "user_requested": "completed",
    }.get(reason, reason)


def _word_on_the_wire(route: Route, answer: Answer) -> str:
    if route.is_typed:
        assert answer.is_whole
        last = events(answer.body)[-1]
        return str(last.data["reason" if last.name == "complete" else "code"])
    body = without_ids(answer.body)
    last_data = body.rpartition(b"data: ")[2]
    assert answer.is_whole == (last_data == b"[DONE]\n\n")
    return "completed" if answer.is_whole else str(json.loads(last_data)["error"]["code"])


def _check_told_once(gateway: Gateway, caplog: pytest.LogCaptureFixture, reason: str) -> None:
    ended = [vars(record) for record in caplog.records if record.getMessage() == "stream.ended"]
    assert [line["reason"] for line in ended] == [reason]
    assert [line["trace_id"] for line in ended] != [None]
    samples = [
        line
        for line in gateway.services.metrics.render().decode().splitlines()
        if line.startswith("sluice_streams_total{")
    ]
    assert samples == [f'sluice_streams_total{{reason="{reason}"}} 1.0']
    assert gateway.metric("sluice_streams_active") == 0
    is_backends = reason.startswith("upstream_") or reason == "event_too_large"
    kind = reason if is_backends else "none"
    assert gateway.metric("sluice_upstream_errors_total", kind=kind) == (kind != "none")
