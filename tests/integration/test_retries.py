"""A backend that isn't there, or can't answer just now, is asked again; the client needn't know."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from email.utils import formatdate
from itertools import pairwise

import aiohttp
import pytest

from tests.backend import (
    CHAT_STREAM,
    Exchange,
    Script,
    ScriptedBackend,
    chunked,
    json_response,
    response_head,
    sse_head,
    streaming,
)
from tests.client import connected
from tests.gateway import Gateway, running_gateway
from tests.servers import free_port
from tests.wire.answers import Answer, ask, without_ids

CHAT, TYPED = "/v1/chat/completions", "/api/v2/chat-stream"
ROUTES = pytest.mark.parametrize("path", [CHAT, TYPED], ids=["provider", "typed"])
QUICK = {
    "stream_error_max_retries": 3,
    "stream_error_base_delay_ms": 10,
    "stream_error_max_delay_ms": 40,
}
#: Longer than any test waits: what ends such a wait is what the test is about.
PATIENT = {
    "stream_error_max_retries": 3,
    "stream_error_base_delay_ms": 20_000,
    "stream_error_max_delay_ms": 20_000,
}
BUSY = b'{"error":{"message":"Try later.","code":"busy"}}'
answering = streaming(CHAT_STREAM)


def body_for(path: str) -> dict[str, object]:
    return {"query": "?"} if path == TYPED else {"model": "m", "stream": True, "messages": []}


def refusing(status: str, *headers: str) -> Script:
    async def script(exchange: Exchange) -> None:
        await exchange.send(json_response(BUSY, status, *headers))

    return script


async def hanging_up(exchange: Exchange) -> None:
    await exchange.close()


async def resetting(exchange: Exchange) -> None:
    exchange.reset()


def in_turn(*scripts: Script) -> Script:
    """One script a request, the last one for all that follow."""
    left = list(scripts)

    async def script(exchange: Exchange) -> None:
        await (left.pop(0) if len(left) > 1 else left[0])(exchange)

    return script


@asynccontextmanager
async def in_front_of(
    *scripts: Script, **settings: object
) -> AsyncIterator[tuple[ScriptedBackend, Gateway]]:
    async with (
        ScriptedBackend(in_turn(*scripts)) as backend,
        running_gateway(backend.url, **{**QUICK, **settings}) as gateway,
    ):
        yield backend, gateway


def is_whole_answer(path: str, answer: Answer) -> bool:
    if path == TYPED:
        return b"event: complete" in answer.body
    return without_ids(answer.body) == CHAT_STREAM


# what is asked again


@ROUTES
@pytest.mark.parametrize("status", ["502 Bad Gateway", "503 Busy", "504 Gateway Timeout"])
async def test_answer_that_says_not_now_is_asked_for_again(path: str, status: str) -> None:
    async with in_front_of(refusing(status), refusing(status), answering) as (backend, gateway):
        answer = await ask(gateway.port, path, body_for(path))
        assert (answer.status, answer.is_whole) == (200, True)
        assert is_whole_answer(path, answer)
        assert len(backend.exchanges) == 3
        assert len({exchange.body for exchange in backend.exchanges}) == 1
        assert gateway.metric("sluice_streams_total", reason="completed") == 1
        assert gateway.metric("sluice_sessions_created_total") == 1


@ROUTES
@pytest.mark.parametrize("failing", [hanging_up, resetting])
async def test_connection_that_ends_before_an_answer_is_made_again(
    path: str, failing: Script
) -> None:
    async with in_front_of(failing, failing, failing, answering) as (backend, gateway):
        answer = await ask(gateway.port, path, body_for(path))
        assert (answer.status, answer.is_whole) == (200, True)
        assert len(backend.exchanges) == 4


async def test_backend_that_comes_up_meanwhile_is_found() -> None:
    port = free_port()
    waits = {**QUICK, "stream_error_max_retries": 20}
    async with running_gateway(f"http://127.0.0.1:{port}", **waits) as gateway:
        asking = asyncio.create_task(ask(gateway.port, CHAT, body_for(CHAT)))
        while not gateway.metric("sluice_retries_total", operation="backend", outcome="failed"):
            await asyncio.sleep(0.005)
        async with ScriptedBackend(answering, port=port):
            answer = await asking
    assert (answer.status, answer.is_whole) == (200, True)


# what isn't


@ROUTES
@pytest.mark.parametrize("status", ["400 No", "401 No", "408 No", "429 No", "500 No", "501 No"])
async def test_any_other_refusal_passes_at_once(path: str, status: str) -> None:
    async with in_front_of(refusing(status, "Retry-After: 1"), answering) as (backend, gateway):
        answer = await ask(gateway.port, path, body_for(path))
        assert answer.status == int(status[:3])
        assert len(backend.exchanges) == 1


async def test_answer_that_has_begun_is_never_asked_for_again() -> None:
    async def beginning(exchange: Exchange) -> None:
        await exchange.send(sse_head())
        await exchange.close()

    async with in_front_of(beginning, answering) as (backend, gateway):
        answer = await ask(gateway.port, CHAT, body_for(CHAT))
        assert not answer.is_whole
        assert len(backend.exchanges) == 1


@pytest.mark.parametrize(
    ("path", "body"),
    [(CHAT, {"model": "m", "messages": []}), ("/files/one", {"a": 1})],
    ids=["whole answer", "plain proxy"],
)
async def test_what_is_no_stream_of_ours_is_asked_once(path: str, body: object) -> None:
    async with in_front_of(refusing("503 Busy"), answering) as (backend, gateway):
        answer = await ask(gateway.port, path, body)
        assert (answer.status, answer.body) == (503, BUSY)
        assert len(backend.exchanges) == 1


async def test_answer_that_is_not_http_is_not_asked_for_again() -> None:
    async def babbling(exchange: Exchange) -> None:
        await exchange.send(b"220 mail.example ESMTP\r\n\r\n")

    async with in_front_of(babbling, answering) as (backend, gateway):
        answer = await ask(gateway.port, CHAT, body_for(CHAT))
        assert (answer.status, answer.json["error"]["code"]) == (502, "upstream_error")
        assert len(backend.exchanges) == 1


# the end of patience


async def test_last_answer_passes_as_it_is() -> None:
    last = refusing("503 Busy", "Retry-After: 17", "X-Left: 3")
    first = refusing("502 Bad Gateway")
    async with in_front_of(first, first, first, last) as (backend, gateway):
        answer = await ask(gateway.port, CHAT, body_for(CHAT))
        assert (answer.status, answer.body) == (503, BUSY)
        assert (answer.header("Retry-After"), answer.header("X-Left")) == ("17", "3")
        assert len(backend.exchanges) == 4
        assert gateway.metric("sluice_streams_total", reason="upstream_error") == 1
        assert gateway.metric("sluice_upstream_errors_total", kind="upstream_error") == 1


@ROUTES
async def test_backend_that_never_comes_is_unavailable(path: str) -> None:
    async with running_gateway(f"http://127.0.0.1:{free_port()}", **QUICK) as gateway:
        answer = await ask(gateway.port, path, body_for(path))
        assert (answer.status, answer.json["error"]["code"]) == (502, "upstream_unavailable")
        failed = gateway.metric("sluice_retries_total", operation="backend", outcome="failed")
        assert failed == 3


@ROUTES
async def test_no_retry_begins_that_the_first_token_clock_would_end(path: str) -> None:
    settings = {**PATIENT, "upstream_first_token_seconds": 1}
    async with in_front_of(refusing("503 Busy"), answering, **settings) as (backend, gateway):
        started = time.monotonic()
        answer = await ask(gateway.port, path, body_for(path))
        assert answer.status == 503
        assert time.monotonic() - started < 0.9
        assert len(backend.exchanges) == 1


async def test_first_token_clock_runs_through_all_tries() -> None:
    async def silent(exchange: Exchange) -> None:
        await exchange.stall()

    settings = {"upstream_first_token_seconds": 0.3}
    async with in_front_of(refusing("503 Busy"), silent, **settings) as (backend, gateway):
        answer = await ask(gateway.port, CHAT, body_for(CHAT))
        assert (answer.status, answer.json["error"]["code"]) == (504, "upstream_timeout")
        assert len(backend.exchanges) == 2
        await backend.wait_until_idle()


async def test_after_the_200_the_last_refusal_is_an_error_of_the_stream() -> None:
    settings = {"commit_delay_ms": 0}
    async with in_front_of(refusing("503 Busy"), **settings) as (backend, gateway):
        answer = await ask(gateway.port, TYPED, body_for(TYPED))
        assert answer.status == 200
        assert b'"code":"upstream_error"' in answer.body
        assert len(backend.exchanges) == 4


# Retry-After


@pytest.mark.parametrize("form", ["seconds", "date"])
async def test_retry_after_lengthens_the_wait(form: str, caplog: pytest.LogCaptureFixture) -> None:
    settings = {"stream_error_base_delay_ms": 1, "stream_error_max_delay_ms": 5000}
    # A date has whole seconds only, so it may be up to one nearer.
    value = "1" if form == "seconds" else formatdate(time.time() + 2, usegmt=True)
    refused = refusing("503 Busy", f"Retry-After: {value}")
    async with in_front_of(refused, answering, **settings) as (_, gateway):
        assert (await ask(gateway.port, CHAT, body_for(CHAT))).status == 200
    (line,) = [record for record in caplog.records if record.message == "upstream.retried"]
    assert 500 < vars(line)["delay_ms"] <= 2000


@pytest.mark.parametrize("value", ["2", "86400", "9" * 400])
async def test_retry_after_beyond_the_longest_wait_passes_at_once(value: str) -> None:
    refused = refusing("503 Busy", f"Retry-After: {value}")
    async with in_front_of(refused, answering) as (backend, gateway):
        answer = await ask(gateway.port, CHAT, body_for(CHAT))
        assert (answer.status, answer.header("Retry-After")) == (503, value)
        assert len(backend.exchanges) == 1


@pytest.mark.parametrize("value", ["soon", "-1", "1.5", "", "Mon, 99 Foo 2026 00:00:00 GMT", "²"])
async def test_retry_after_that_is_not_understood_is_ignored(value: str) -> None:
    refused = refusing("503 Busy", f"Retry-After: {value}")
    async with in_front_of(refused, answering) as (_, gateway):
        assert (await ask(gateway.port, CHAT, body_for(CHAT))).status == 200


# what ends the wait


@ROUTES
async def test_client_that_leaves_ends_the_wait(path: str) -> None:
    settings = {**PATIENT, "detach_grace_seconds": 0}
    async with in_front_of(refusing("503 Busy"), **settings) as (backend, gateway):
        async with connected(gateway.port) as client:
            await client.ask(path, body_for(path))
            await backend.wait_for_exchanges()
            client.leave()
        await gateway.wait_for_streams(0)
        assert gateway.metric("sluice_streams_total", reason="client_gone") == 1
        await backend.wait_until_idle()
        assert len(backend.exchanges) == 1


@ROUTES
async def test_stop_ends_the_wait(path: str) -> None:
    settings = {**PATIENT, "commit_delay_ms": 0}
    async with (
        in_front_of(refusing("503 Busy"), **settings) as (backend, gateway),
        aiohttp.ClientSession(gateway.url) as session,
        session.post(path, json=body_for(path)) as response,
    ):
        await backend.wait_for_exchanges()
        stopped = {"sessionId": response.headers["X-Stream-Id"]}
        async with session.post("/api/terminate-stream", json=stopped) as answer:
            assert (await answer.json())["success"]
        await response.read()
        await gateway.wait_for_streams(0)
        assert gateway.metric("sluice_streams_total", reason="user_requested") == 1
        await backend.wait_until_idle()
        assert len(backend.exchanges) == 1


async def test_shutdown_ends_the_wait() -> None:
    async with in_front_of(refusing("503 Busy"), **PATIENT) as (backend, gateway):
        asking = asyncio.create_task(ask(gateway.port, TYPED, body_for(TYPED)))
        await backend.wait_for_exchanges()
        await gateway.services.hub.drain(0)
        assert (await asking).status in (502, 503)
        await backend.wait_until_idle()


async def test_refused_answer_is_closed_before_the_next_try() -> None:
    """Also one whose body never ends."""

    async def endless(exchange: Exchange) -> None:
        await exchange.send(response_head("503 Busy") + chunked(b"{"))
        await exchange.stall()

    async with in_front_of(endless, answering) as (backend, gateway):
        assert (await ask(gateway.port, CHAT, body_for(CHAT))).status == 200
        first, second = backend.exchanges
        assert first.client_left.is_set()
        assert not second.client_left.is_set()


# waits


async def test_waits_grow_by_the_multiplier_up_to_the_longest() -> None:
    settings = {
        "stream_error_max_retries": 4,
        "stream_error_base_delay_ms": 100,
        "stream_error_max_delay_ms": 400,
    }
    arrivals: list[float] = []

    async def refuse(exchange: Exchange) -> None:
        arrivals.append(time.monotonic())
        await exchange.send(json_response(BUSY, "503 Busy"))

    async with in_front_of(refuse, **settings) as (_, gateway):
        assert (await ask(gateway.port, CHAT, body_for(CHAT))).status == 503
    waits = [after - before for before, after in pairwise(arrivals)]
    least = [0.05, 0.1, 0.2, 0.2]
    assert len(waits) == 4
    assert all(low <= wait < 2 * low + 0.1 for low, wait in zip(least, waits, strict=True))


async def test_no_retries_are_made_when_there_shall_be_none() -> None:
    settings = {"stream_error_max_retries": 0}
    async with in_front_of(refusing("503 Busy"), answering, **settings) as (backend, gateway):
        assert (await ask(gateway.port, CHAT, body_for(CHAT))).status == 503
        assert len(backend.exchanges) == 1


# what is told


async def test_each_retry_is_counted_and_logged(caplog: pytest.LogCaptureFixture) -> None:
    trace = "0af7651916cd43dd8448eb211c80319c"
    async with in_front_of(hanging_up, refusing("503 Busy"), answering) as (_, gateway):
        headers = {"X-Trace-ID": trace}
        assert (await ask(gateway.port, CHAT, body_for(CHAT), headers=headers)).status == 200
        for outcome, count in (("failed", 1), ("succeeded", 1)):
            told = gateway.metric("sluice_retries_total", operation="backend", outcome=outcome)
            assert told == count
    lines = [record for record in caplog.records if record.message == "upstream.retried"]
    assert [(line.trace_id, line.problem, line.attempt) for line in lines] == [  # type: ignore[attr-defined]
        (trace, "upstream_unavailable", 1),
        (trace, "http_503", 2),
    ]


async def test_retries_are_neither_counted_nor_logged_where_that_is_off(
    caplog: pytest.LogCaptureFixture,
) -> None:
    settings = {"stream_error_enable_metrics": False, "stream_error_enable_logging": False}
    async with in_front_of(refusing("503 Busy"), answering, **settings) as (_, gateway):
        assert (await ask(gateway.port, CHAT, body_for(CHAT))).status == 200
        assert b"sluice_retries_total{" not in gateway.services.metrics.render()
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


async def health(gateway: Gateway) -> dict[str, object]:
    async with aiohttp.ClientSession(gateway.url) as session, session.get("/health") as answer:
        errors = (await answer.json())["errors"]
    assert isinstance(errors, dict)
    return errors


async def test_health_names_the_newest_errors_by_code_time_and_trace() -> None:
    trace = "0af7651916cd43dd8448eb211c80319c"
    async with in_front_of(refusing("503 Busy")) as (_, gateway):
        await ask(gateway.port, CHAT, body_for(CHAT), headers={"X-Trace-ID": trace})
        errors = await health(gateway)
    latest = errors["latest"]
    assert isinstance(latest, list)
    assert errors["remembered"] == 4
    assert [(fault["operation"], fault["code"]) for fault in latest] == [
        ("stream", "upstream_error"),
        *[("backend", "http_503")] * 3,
    ]
    assert {fault["trace_id"] for fault in latest} == {trace}
    assert all(fault["at"].startswith("20") and fault["at"].endswith("+00:00") for fault in latest)


async def test_health_keeps_a_trace_id_of_a_clients_own_to_itself() -> None:
    async with in_front_of(refusing("503 Busy")) as (_, gateway):
        await ask(gateway.port, CHAT, body_for(CHAT), headers={"X-Trace-ID": "ada.lovelace"})
        errors = await health(gateway)
    assert "ada" not in json.dumps(errors)


@pytest.mark.parametrize(("size", "remembered"), [(0, 0), (2, 2), (1000, 4)])
async def test_errors_are_remembered_up_to_a_bound(size: int, remembered: int) -> None:
    settings = {"stream_error_log_buffer_size": size}
    async with in_front_of(refusing("503 Busy"), **settings) as (_, gateway):
        await ask(gateway.port, CHAT, body_for(CHAT))
        assert (await health(gateway))["remembered"] == remembered


async def test_health_names_at_most_twenty_errors() -> None:
    settings = {"stream_error_max_retries": 0, "breaker_failure_threshold": 0}
    async with in_front_of(refusing("503 Busy"), **settings) as (_, gateway):
        for _ in range(25):
            await ask(gateway.port, CHAT, body_for(CHAT))
        errors = await health(gateway)
    assert isinstance(errors["latest"], list)
    assert (errors["remembered"], len(errors["latest"])) == (25, 20)
