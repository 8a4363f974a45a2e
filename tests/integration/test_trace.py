"""One trace id, from the request to the backend, every event, every line and every answer."""

from __future__ import annotations

import json
import logging
import re

import aiohttp
import pytest

from tests.backend import (
    ANTHROPIC_STREAM,
    CHAT_STREAM,
    Exchange,
    ScriptedBackend,
    json_response,
    sse_head,
    streaming,
)
from tests.gateway import running_gateway

CHAT = "/api/v2/chat-stream"
W3C = "4bf92f3577b34da6a3ce929d0e0e4736"
SPAN = "00f067aa0ba902b7"
PARENT = f"00-{W3C}-{SPAN}-01"
LOGGERS = ("sluice", "gateway")

ACCEPTED = (
    ({"X-Trace-ID": "my-trace.1_x"}, "my-trace.1_x"),
    ({"X-Trace-ID": "a" * 128}, "a" * 128),
    ({"traceparent": PARENT}, W3C),
    ({"X-Trace-ID": "mine", "traceparent": PARENT}, "mine"),
    ({"X-Trace-ID": "bad id", "traceparent": PARENT}, W3C),
)
REFUSED = (
    {},
    {"X-Trace-ID": ""},
    {"X-Trace-ID": "a" * 129},
    {"X-Trace-ID": "a b"},
    {"X-Trace-ID": "a/b"},
    {"X-Trace-ID": "<script>"},
    {"X-Trace-ID": 'a","b":"c'},
    {"traceparent": f"00-{'0' * 32}-{SPAN}-01"},
    {"traceparent": f"ff-{W3C}-{SPAN}-01"},
    {"traceparent": f"00-{W3C.upper()}-{SPAN}-01"},
    {"traceparent": W3C},
)


def typed_events(body: bytes) -> list[dict[str, object]]:
    data = re.findall(rb"^data: (.*)$", body, re.MULTILINE)
    return [json.loads(line) for line in data]


@pytest.mark.parametrize(("headers", "trace_id"), ACCEPTED)
async def test_valid_trace_id_is_kept_in_headers_events_and_at_the_backend(
    headers: dict[str, str], trace_id: str
) -> None:
    async with (
        ScriptedBackend(streaming(CHAT_STREAM)) as backend,
        running_gateway(backend.url) as gateway,
        aiohttp.ClientSession() as session,
        session.post(gateway.url + CHAT, json={"query": "hi"}, headers=headers) as response,
    ):
        assert response.headers["X-Trace-ID"] == trace_id
        found = typed_events(await response.read())
    assert {event["trace_id"] for event in found} == {trace_id}
    assert len(found) > 3
    [exchange] = backend.exchanges
    assert exchange.headers["x-trace-id"] == trace_id
    version, shared, span, flags = exchange.headers["traceparent"].split("-")
    assert (version, flags) == ("00", "01")
    assert span != SPAN
    assert (shared == W3C) is ("traceparent" in headers)
    assert response.headers["traceparent"].split("-")[1] == shared


@pytest.mark.parametrize("headers", REFUSED)
async def test_without_a_valid_trace_id_a_new_one_is_made(headers: dict[str, str]) -> None:
    async with (
        ScriptedBackend(streaming(CHAT_STREAM)) as backend,
        running_gateway(backend.url) as gateway,
        aiohttp.ClientSession() as session,
    ):
        seen = set()
        for _ in range(2):
            async with session.post(
                gateway.url + CHAT, json={"query": "hi"}, headers=headers
            ) as response:
                trace_id = response.headers["X-Trace-ID"]
                assert re.fullmatch(r"[0-9a-f]{32}", trace_id)
                assert {e["trace_id"] for e in typed_events(await response.read())} == {trace_id}
                seen.add(trace_id)
    assert len(seen) == 2
    assert {exchange.headers["x-trace-id"] for exchange in backend.exchanges} == seen


async def test_trace_state_is_passed_on_only_with_the_trace_that_it_belongs_to() -> None:
    async def script(exchange: Exchange) -> None:
        await exchange.send(json_response(b"{}"))

    state = {"tracestate": "vendor=1"}
    async with (
        ScriptedBackend(script) as backend,
        running_gateway(backend.url) as gateway,
        aiohttp.ClientSession() as session,
    ):
        for headers in (state, {**state, "traceparent": PARENT}):
            async with session.get(f"{gateway.url}/x", headers=headers) as response:
                await response.read()
    assert ["tracestate" in exchange.headers for exchange in backend.exchanges] == [False, True]


@pytest.mark.parametrize("path", ["/x", "/v1/models", "/v1/chat/completions"])
async def test_proxied_requests_carry_the_trace_too(path: str) -> None:
    async def script(exchange: Exchange) -> None:
        await exchange.send(json_response(b"{}"))

    async with (
        ScriptedBackend(script) as backend,
        running_gateway(backend.url) as gateway,
        aiohttp.ClientSession() as session,
        session.post(gateway.url + path, json={}, headers={"X-Trace-ID": "mine"}) as response,
    ):
        assert response.headers["X-Trace-ID"] == "mine"
    assert backend.exchanges[0].headers["x-trace-id"] == "mine"


async def test_provider_stream_has_the_trace_in_its_headers_and_its_bytes_unchanged() -> None:
    body = {"model": "m", "stream": True, "messages": []}
    headers = {"X-Trace-ID": "mine", "Stream-Ids": "off"}
    async with (
        ScriptedBackend(streaming(CHAT_STREAM)) as backend,
        running_gateway(backend.url, heartbeat_interval=0) as gateway,
        aiohttp.ClientSession() as session,
        session.post(f"{gateway.url}/v1/chat/completions", json=body, headers=headers) as response,
    ):
        assert response.headers["X-Trace-ID"] == "mine"
        assert await response.read() == CHAT_STREAM


ERRORS = (
    (CHAT, {"query": ""}, 400),
    (CHAT, {}, 400),
    ("/v1/chat/completions", [], 400),
    ("/v1/messages", [], 400),
)


@pytest.mark.parametrize(("path", "body", "status"), ERRORS)
async def test_error_body_holds_the_trace_id_of_its_header(
    path: str, body: object, status: int
) -> None:
    async with (
        ScriptedBackend(streaming(ANTHROPIC_STREAM)) as backend,
        running_gateway(backend.url) as gateway,
        aiohttp.ClientSession() as session,
        session.post(gateway.url + path, json=body, headers={"X-Trace-ID": "mine"}) as response,
    ):
        assert response.status == status
        assert response.headers["X-Trace-ID"] == "mine"
        assert "mine" in await response.text()


async def test_error_event_after_the_start_holds_the_trace_id() -> None:
    async def script(exchange: Exchange) -> None:
        await exchange.send(sse_head())
        exchange.reset()

    async with (
        ScriptedBackend(script) as backend,
        running_gateway(backend.url, commit_delay_ms=0) as gateway,
        aiohttp.ClientSession() as session,
        session.post(
            gateway.url + CHAT, json={"query": "hi"}, headers={"X-Trace-ID": "mine"}
        ) as response,
    ):
        found = typed_events(await response.read())
    assert [event["trace_id"] for event in found] == ["mine"] * len(found)
    assert "code" in found[-1]


async def test_every_log_line_of_a_request_holds_its_trace_id_and_nothing_personal(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG)
    asked = {"query": "canary-question", "user_email": "canary@example.com"}
    headers = {"X-Trace-ID": "mine", "Authorization": "Bearer canary-key"}
    async with (
        ScriptedBackend(streaming(CHAT_STREAM)) as backend,
        running_gateway(backend.url) as gateway,
        aiohttp.ClientSession() as session,
    ):
        async with session.post(gateway.url + CHAT, json=asked, headers=headers) as response:
            await response.read()
        async with session.post(gateway.url + CHAT, json={}, headers=headers) as response:
            assert response.status == 400
        async with session.get(f"{gateway.url}/v1/models?canary", headers=headers) as response:
            await response.read()
    ours = [record for record in caplog.records if record.name.startswith(LOGGERS)]
    ours = [record for record in ours if record.message != "store.opened"]  # of no request
    assert {record.message for record in ours} == {
        "stream.started",
        "stream.ended",
        "request.refused",
        "request.finished",
    }
    assert {vars(record)["trace_id"] for record in ours} == {"mine"}
    assert "canary" not in repr([vars(record) for record in ours])


async def test_answers_tell_a_client_how_to_behave() -> None:
    settings = {"heartbeat_interval": 7, "silence_threshold": 21.5, "stream_max_seconds": 90}
    async with (
        ScriptedBackend(streaming(CHAT_STREAM)) as backend,
        running_gateway(backend.url, **settings) as gateway,
        aiohttp.ClientSession() as session,
        session.post(gateway.url + CHAT, json={"query": "hi"}) as response,
    ):
        headers = response.headers
        found = typed_events(await response.read())
    assert headers["X-Stream-Id"] == found[0]["stream_id"]
    assert re.fullmatch(r"[A-Za-z0-9_-]{16}", headers["X-Stream-Id"])
    assert headers["X-Stream-Max-Seconds"] == "90"
    assert headers["X-Heartbeat-Interval"] == "7"
    assert headers["X-Silence-Threshold"] == "21.5"
    assert headers["Cache-Control"] == "no-cache, no-transform"
    assert headers["X-Accel-Buffering"] == "no"
    assert headers["Content-Type"] == "text/event-stream; charset=utf-8"


async def test_those_headers_have_their_documented_defaults() -> None:
    async with (
        ScriptedBackend(streaming(CHAT_STREAM)) as backend,
        running_gateway(backend.url) as gateway,
        aiohttp.ClientSession() as session,
        session.post(gateway.url + CHAT, json={"query": "hi"}) as response,
    ):
        headers = response.headers
    assert headers["X-Stream-Max-Seconds"] == "60"
    assert headers["X-Heartbeat-Interval"] == "5"
    assert headers["X-Silence-Threshold"] == "15"
