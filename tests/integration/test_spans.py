"""Traces as a collector gets them from the running gateway: one span for each stream."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from tests.backend import (
    CHAT_STREAM,
    LAST_CHUNK,
    Exchange,
    ScriptedBackend,
    blocks,
    chunked,
    sse_head,
    streaming,
)
from tests.gateway import running_gateway

TYPED = "/api/v2/chat-stream"
CHAT = "/v1/chat/completions"
TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
CALLER = "00f067aa0ba902b7"
PARENT = f"00-{TRACE}-{CALLER}-01"


@dataclass(slots=True)
class Collector:
    """Takes what comes by OTLP over HTTP, or refuses it with `status`."""

    url: str = ""
    status: int = 200
    requests: list[ExportTraceServiceRequest] = field(default_factory=list)

    async def take(self, request: web.Request) -> web.Response:
        self.requests.append(ExportTraceServiceRequest.FromString(await request.read()))
        return web.Response(status=self.status, content_type="application/x-protobuf")

    @property
    def spans(self) -> list[Span]:
        return [
            span
            for request in self.requests
            for resource in request.resource_spans
            for scope in resource.scope_spans
            for span in scope.spans
        ]


@asynccontextmanager
async def collecting() -> AsyncIterator[Collector]:
    collector = Collector()
    app = web.Application()
    app.router.add_post("/v1/traces", collector.take)
    runner = web.AppRunner(app)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        collector.url = f"http://127.0.0.1:{runner.addresses[0][1]}/v1/traces"
        yield collector
    finally:
        await runner.cleanup()


def attributes(span: Span) -> dict[str, object]:
    return {one.key: getattr(one.value, one.value.WhichOneof("value")) for one in span.attributes}


async def test_stream_is_a_span_between_its_caller_and_the_backend() -> None:
    async with collecting() as collector:
        async with (
            ScriptedBackend(streaming(CHAT_STREAM)) as backend,
            running_gateway(backend.url, otlp_traces_url=collector.url) as gateway,
            aiohttp.ClientSession(gateway.url) as client,
        ):
            async with client.get(
                TYPED, params={"query": "hello"}, headers={"traceparent": PARENT}
            ) as response:
                answered = response.headers["traceparent"]
                sid = response.headers["X-Stream-Id"]
                await response.read()
            asked = backend.exchanges[0].headers["traceparent"]
        (span,) = collector.spans
    assert (span.trace_id.hex(), span.parent_span_id.hex()) == (TRACE, CALLER)
    assert asked == answered == f"00-{TRACE}-{span.span_id.hex()}-01"
    assert (span.name, span.kind) == ("chat", Span.SPAN_KIND_SERVER)
    assert [event.name for event in span.events] == ["first_token", "end"]
    times = [event.time_unix_nano for event in span.events]
    assert span.start_time_unix_nano < times[0] <= times[1] == span.end_time_unix_nano
    told = attributes(span)
    assert told["gen_ai.operation.name"] == "chat"
    assert told["sluice.reason"] == "completed"
    assert told["sluice.stream_id"] == sid
    assert float(str(told["gen_ai.response.time_to_first_chunk"])) > 0
    assert span.status.code == Status.STATUS_CODE_UNSET
    (resource,) = collector.requests[0].resource_spans
    service = {one.key: one.value.string_value for one in resource.resource.attributes}
    assert service["service.name"] == "sluice"


async def test_operator_names_the_service(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_SERVICE_NAME", "answers")
    async with collecting() as collector:
        async with (
            ScriptedBackend(streaming(CHAT_STREAM)) as backend,
            running_gateway(backend.url, otlp_traces_url=collector.url) as gateway,
            aiohttp.ClientSession(gateway.url) as client,
            client.get(TYPED, params={"query": "hello"}) as response,
        ):
            await response.read()
        (resource,) = collector.requests[0].resource_spans
    service = {one.key: one.value.string_value for one in resource.resource.attributes}
    assert service["service.name"] == "answers"


async def test_trace_begins_here_where_the_caller_has_none() -> None:
    async with collecting() as collector:
        async with (
            ScriptedBackend(streaming(CHAT_STREAM)) as backend,
            running_gateway(backend.url, otlp_traces_url=collector.url) as gateway,
            aiohttp.ClientSession(gateway.url) as client,
        ):
            for _ in range(2):
                async with client.post(CHAT, json={"stream": True, "messages": []}) as response:
                    await response.read()
            asked = [one.headers["traceparent"] for one in backend.exchanges]
        spans = collector.spans
    assert [f"00-{span.trace_id.hex()}-{span.span_id.hex()}-01" for span in spans] == asked
    assert [span.parent_span_id for span in spans] == [b"", b""]
    assert len({span.trace_id for span in spans}) == 2


async def test_caller_that_does_not_sample_gets_no_span() -> None:
    async with collecting() as collector:
        async with (
            ScriptedBackend(streaming(CHAT_STREAM)) as backend,
            running_gateway(backend.url, otlp_traces_url=collector.url) as gateway,
            aiohttp.ClientSession(gateway.url) as client,
        ):
            headers = {"traceparent": PARENT.removesuffix("1") + "0"}
            async with client.get(TYPED, params={"query": "q"}, headers=headers) as response:
                await response.read()
            assert backend.exchanges[0].headers["traceparent"].endswith("-00")
        assert collector.spans == []


async def test_pauses_departures_and_failures_are_events_and_errors() -> None:
    async def script(exchange: Exchange) -> None:
        first, *rest = blocks(CHAT_STREAM)
        await exchange.send(sse_head() + chunked(first))
        await release.wait()
        await exchange.send(chunked(b"".join(rest)[:200]) + LAST_CHUNK)

    release = asyncio.Event()
    async with collecting() as collector:
        async with (
            ScriptedBackend(script) as backend,
            running_gateway(backend.url, otlp_traces_url=collector.url) as gateway,
            aiohttp.ClientSession(gateway.url) as client,
        ):
            async with client.get(TYPED, params={"query": "hello"}) as response:
                sid = response.headers["X-Stream-Id"]
                await response.content.readuntil(b"\n\n")
            (stream,) = gateway.services.hub.running()
            async with asyncio.timeout(5):
                while stream.is_attached:
                    await asyncio.sleep(0.005)
            headers = {"Accept": "text/event-stream"}
            async with client.get(f"/api/v2/streams/{sid}", headers=headers) as response:
                release.set()
                await response.read()
        (span,) = collector.spans
    names = [event.name for event in span.events]
    assert sorted(names) == ["client_left", "client_returned", "end", "first_token"]
    assert names[-1] == "end"
    assert span.status.code == Status.STATUS_CODE_ERROR
    assert attributes(span)["error.type"] == "upstream_truncated"


async def test_back_pressure_is_told_as_pause_and_resume() -> None:
    flood = b"".join(
        b'data: {"choices":[{"index":0,"delta":{"content":"%s"}}]}\n\n' % (b"x" * 900)
        for _ in range(4000)
    )
    settings = {"stream_buffer_bytes": 6000, "event_max_bytes": 2000}
    async with collecting() as collector:
        async with (
            ScriptedBackend(streaming(flood + b"data: [DONE]\n\n")) as backend,
            running_gateway(backend.url, otlp_traces_url=collector.url, **settings) as gateway,
            aiohttp.ClientSession(gateway.url, read_bufsize=2048) as client,
            client.get(TYPED, params={"query": "hello"}) as response,
        ):
            (stream,) = gateway.services.hub.running()
            async with asyncio.timeout(20):
                while not stream.is_paused:
                    await asyncio.sleep(0.005)
            await response.read()
        (span,) = collector.spans
    names = [event.name for event in span.events]
    assert {"paused", "resumed"} <= set(names)
    assert len(names) <= 66


async def test_nothing_personal_is_in_a_span() -> None:
    words = ["canaryquery", "canaryconversation", "canaryuser", "canarytrace", "canaryreason"]
    query, conversation, user, trace, reason = words
    async with collecting() as collector:
        async with (
            ScriptedBackend(lambda exchange: exchange.stall()) as backend,
            running_gateway(
                backend.url, otlp_traces_url=collector.url, commit_delay_ms=0
            ) as gateway,
            aiohttp.ClientSession(gateway.url) as client,
            client.post(
                TYPED,
                json={"query": query, "conversation_id": conversation},
                headers={"X-User-Id": user, "X-Trace-ID": trace},
            ) as response,
        ):
            stop = {"sessionId": response.headers["X-Stream-Id"], "reason": reason}
            async with client.post("/api/terminate-stream", json=stop) as stopped:
                assert (await stopped.json())["success"]
            await response.read()
        sent = str(collector.requests)
        (span,) = collector.spans
    assert attributes(span)["sluice.reason"] == "custom"
    assert [word for word in words if word in sent] == []


async def test_collector_that_refuses_is_told_of_and_holds_up_nobody(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with collecting() as collector:
        collector.status = 400
        async with (
            ScriptedBackend(streaming(CHAT_STREAM)) as backend,
            running_gateway(backend.url, otlp_traces_url=collector.url) as gateway,
            aiohttp.ClientSession(gateway.url) as client,
            client.get(TYPED, params={"query": "hello"}) as response,
        ):
            assert b"event: complete" in await response.read()
        assert len(collector.requests) == 1
    assert caplog.messages.count("traces.failed") == 1


def test_switched_off_nothing_of_it_is_imported(tmp_path: Path) -> None:
    code = (
        "import sys\n"
        "from pathlib import Path\n"
        "from gateway.app import make_app\n"
        "from gateway.settings import Settings\n"
        "folder = Path(sys.argv[1])\n"
        "url = 'http://127.0.0.1:1'\n"
        "make_app(Settings(upstream_url=url, audit_mode='off', data_dir=folder))\n"
        "print([name for name in sys.modules if name.startswith('opentelemetry')])\n"
    )
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": os.pathsep.join(sys.path)}
    printed = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert printed.strip() == "[]"
