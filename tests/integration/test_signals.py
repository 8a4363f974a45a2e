"""Metrics, health and alerts, as the running gateway shows them."""

from __future__ import annotations

import asyncio
import logging
import re

import aiohttp
import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from tests.backend import (
    CHAT_STREAM,
    LAST_CHUNK,
    Exchange,
    ScriptedBackend,
    chunked,
    json_response,
    sse_head,
    streaming,
)
from tests.gateway import Gateway, running_gateway

TYPED = "/api/v2/chat-stream?query=hello"
CHAT = "/v1/chat/completions"
OPENMETRICS = "application/openmetrics-text; version=1.0.0"
TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"


async def broken(exchange: Exchange) -> None:
    await exchange.send(sse_head() + chunked(CHAT_STREAM[:200]) + LAST_CHUNK)


async def ask(client: aiohttp.ClientSession, **headers: str) -> int:
    async with client.get(TYPED, headers=headers) as response:
        await response.read()
        return response.status


async def health(client: aiohttp.ClientSession) -> dict[str, object]:
    async with client.get("/health") as response:
        assert response.status == 200
        report: dict[str, object] = await response.json()
        return report


def names_of(report: dict[str, object]) -> list[tuple[str, str]]:
    alerts = report["alerts"]
    assert isinstance(alerts, list)
    return [(alert["name"], alert["severity"]) for alert in alerts]


async def test_delivery_of_a_stream_is_measured_once() -> None:
    async def paced(exchange: Exchange) -> None:
        await exchange.send(sse_head())
        for block in re.findall(rb".*?\n\n", CHAT_STREAM, flags=re.DOTALL):
            await asyncio.sleep(0.01)
            await exchange.send(chunked(block))
        await exchange.send(LAST_CHUNK)

    async with (
        ScriptedBackend(paced) as backend,
        running_gateway(backend.url) as gateway,
        aiohttp.ClientSession(gateway.url) as client,
    ):
        assert await ask(client) == 200
        for name in ("time_to_first_token", "inter_token", "stream_duration"):
            assert gateway.metric(f"sluice_{name}_seconds_count") == 1
        assert gateway.metric("sluice_inter_token_seconds_sum") >= 0.009
        assert gateway.metric("sluice_stream_events_per_second_sum") <= 1 / 0.009
        first = gateway.metric("sluice_time_to_first_token_seconds_sum")
        assert 0 < first < gateway.metric("sluice_stream_duration_seconds_sum")
        assert gateway.metric("sluice_events_total") > 1
        assert gateway.metric("sluice_output_tokens_total") > 1
        assert gateway.metric("process_resident_memory_bytes") > 1_000_000


async def test_connections_are_counted_by_what_became_of_them() -> None:
    def counts(gateway: Gateway) -> dict[str, float]:
        results = ("opened", "refused", "failed", "declined")
        found = {one: gateway.metric("sluice_connections_total", result=one) for one in results}
        return {result: count for result, count in found.items() if count}

    async def refusing(exchange: Exchange) -> None:
        await exchange.send(json_response(b"{}", status=418))

    async with (
        ScriptedBackend(streaming(CHAT_STREAM)) as backend,
        running_gateway(backend.url) as gateway,
        aiohttp.ClientSession(gateway.url) as client,
    ):
        assert await ask(client) == 200
        assert counts(gateway) == {"opened": 1}
        async with client.get("/api/v2/chat-stream") as response:
            assert response.status == 400
        assert counts(gateway) == {"opened": 1, "refused": 1}
        assert gateway.metric("sluice_request_errors_total", code="missing_query") == 1
        backend.script = refusing
        async with client.post(CHAT, json={"stream": True, "messages": []}) as response:
            assert response.status == 418
        assert counts(gateway) == {"opened": 1, "refused": 1, "declined": 1}
    async with (
        running_gateway("http://127.0.0.1:1") as gateway,
        aiohttp.ClientSession(gateway.url) as client,
    ):
        assert await ask(client) == 502
        assert counts(gateway) == {"failed": 1}
        async with client.get("/api/v2/streams/AAAAAAAAAAAAAAAA") as response:
            assert response.status == 404
        assert counts(gateway) == {"failed": 1}  # a look wants no events


async def test_reader_is_an_active_connection_while_it_reads() -> None:
    release = asyncio.Event()

    async def waiting(exchange: Exchange) -> None:
        await exchange.send(sse_head())
        await release.wait()
        await exchange.send(chunked(CHAT_STREAM) + LAST_CHUNK)

    async with (
        ScriptedBackend(waiting) as backend,
        running_gateway(backend.url) as gateway,
        aiohttp.ClientSession(gateway.url) as client,
    ):
        async with client.get(TYPED) as response:
            await response.content.readany()
            assert gateway.metric("sluice_connections_active") == 1
            release.set()
            await response.read()
        assert gateway.metric("sluice_connections_active") == 0


@pytest.mark.parametrize(("trace_id", "is_shown"), [(TRACE, True), ("jane.doe-order-17", False)])
async def test_openmetrics_has_traces_as_exemplars_but_no_names(
    trace_id: str, is_shown: bool
) -> None:
    async with (
        ScriptedBackend(streaming(CHAT_STREAM)) as backend,
        running_gateway(backend.url) as gateway,
        aiohttp.ClientSession(gateway.url) as client,
    ):
        assert await ask(client, **{"X-Trace-ID": trace_id}) == 200
        async with client.get("/metrics", headers={"Accept": OPENMETRICS}) as response:
            assert response.content_type == "application/openmetrics-text"
            text = await response.text()
        async with client.get("/metrics") as response:
            assert response.headers["Content-Type"].startswith("text/plain; version=0.0.4")
            assert trace_id not in await response.text()
    families = {one.name: one for one in text_string_to_metric_families(text)}
    buckets = families["sluice_time_to_first_token_seconds"].samples
    exemplars = [one.exemplar.labels for one in buckets if one.exemplar]
    assert exemplars == ([{"trace_id": trace_id}] if is_shown else [])
    assert (trace_id in text) is is_shown


async def test_failing_streams_raise_the_alert_and_lower_the_grade(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, "sluice.health")
    async with (
        ScriptedBackend(broken) as backend,
        running_gateway(backend.url, alert_min_streams=3) as gateway,
        aiohttp.ClientSession(gateway.url) as client,
    ):
        before = await health(client)
        assert (before["grade"], before["alerts"]) == ("A", [])
        for _ in range(3):
            assert await ask(client) == 200
        after = await health(client)
        assert names_of(after) == [("error_rate", "critical")]
        assert after["grade"] == "D"
        expected = {"percent": 100.0, "ended": 3, "failed": 3, "window_seconds": 300.0}
        assert after["error_rate"] == expected
        assert gateway.metric("sluice_alerts_critical") == 1
        gateway.services.vitals.alarm._next = 0
        async with asyncio.timeout(5):
            while "alert.raised" not in caplog.messages:
                await asyncio.sleep(0.01)
        (record,) = (one for one in caplog.records if one.message == "alert.raised")
        assert vars(record)["alert"] == "error_rate"


async def test_memory_over_the_start_is_told_by_its_thresholds() -> None:
    async with (
        running_gateway("http://127.0.0.1:1", alert_memory_warning_mb=0.5) as gateway,
        aiohttp.ClientSession(gateway.url) as client,
    ):
        gateway.services.vitals.memory.start_bytes -= 50_000_000
        report = await health(client)
        assert names_of(report) == [("memory", "warning")]
        gateway.services.vitals.memory.start_bytes -= 200_000_000
        report = await health(client)
        assert names_of(report) == [("memory", "critical")]
        assert report["grade"] == "D"


async def test_full_gateway_is_critical_before_the_first_refusal() -> None:
    async with (
        ScriptedBackend(lambda exchange: exchange.stall()) as backend,
        running_gateway(backend.url, max_stream_sessions=1) as gateway,
        aiohttp.ClientSession(gateway.url) as client,
    ):
        asking = asyncio.create_task(ask(client))
        await gateway.wait_for_streams(1)
        assert names_of(await health(client)) == [("sessions", "critical")]
        asking.cancel()
