"""A backend that fails again and again is left alone, and asked once whether it is back."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import aiohttp

from tests.backend import CHAT_STREAM, Exchange, ScriptedBackend, json_response, streaming
from tests.client import connected
from tests.gateway import Gateway, running_gateway
from tests.servers import free_port
from tests.wire.answers import Answer, ask

CHAT, TYPED, EMBEDDINGS = "/v1/chat/completions", "/api/v2/chat-stream", "/v1/embeddings"
QUESTION = {"model": "m", "stream": True, "messages": []}
QUICK = {
    "stream_error_max_retries": 0,
    "breaker_failure_threshold": 3,
    "breaker_reset_seconds": 0.3,
}
PATIENT = {**QUICK, "breaker_reset_seconds": 3600}


async def _asked(gateway: Gateway, path: str = CHAT) -> Answer:
    return await ask(gateway.port, path, {"query": "?"} if path == TYPED else QUESTION)


async def until(is_so: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not is_so():
            await asyncio.sleep(0.01)


async def _breaker(gateway: Gateway) -> dict[str, Any]:
    async with aiohttp.ClientSession(gateway.url) as client, client.get("/health") as answer:
        report = await answer.json()
    alerts = [alert["name"] for alert in report["alerts"]]
    assert ("backend" in alerts) == (report["breaker"]["state"] != "closed")
    assert gateway.metric("sluice_upstream_breaker_open") == ("backend" in alerts)
    return dict(report["breaker"])


async def test_backend_that_is_not_there_is_left_alone() -> None:
    async with running_gateway(f"http://127.0.0.1:{free_port()}", **PATIENT) as gateway:
        for path in (CHAT, TYPED, CHAT):
            assert (await _asked(gateway, path)).status == 502
        for path in (CHAT, TYPED):
            answer = await _asked(gateway, path)
            assert (answer.status, answer.header("Retry-After")) == (503, "3600")
            assert answer.json["error"]["code"] == "upstream_unavailable"
        assert (await _breaker(gateway))["state"] == "open"
        assert (await ask(gateway.port, EMBEDDINGS, {})).status == 502  # it is no question


async def test_backend_that_is_back_is_found_by_one_question() -> None:
    release = asyncio.Event()

    async def failing(exchange: Exchange) -> None:
        await exchange.send(json_response(b"{}", "500 Internal Server Error"))

    async def recovering(exchange: Exchange) -> None:
        await release.wait()
        await streaming(CHAT_STREAM)(exchange)

    async with (
        ScriptedBackend(failing) as backend,
        running_gateway(backend.url, **QUICK) as gateway,
    ):
        for _ in range(3):
            assert (await _asked(gateway)).status == 500  # its own answer passes
        assert (await _asked(gateway)).status == 503
        assert len(backend.exchanges) == 3
        backend.script = recovering
        await until(lambda: gateway.services.breaker.state == "half_open")
        probe = asyncio.create_task(_asked(gateway))
        await until(lambda: len(backend.exchanges) == 4)
        refused = await asyncio.gather(*(_asked(gateway) for _ in range(5)))
        assert [answer.status for answer in refused] == [503] * 5
        release.set()
        assert (await probe).status == 200
        assert (await _asked(gateway)).status == 200
        assert await _breaker(gateway) == {
            "state": "closed",
            "failures": 0,
            "threshold": 3,
            "retry_after_seconds": 0,
        }


async def test_silence_counts_and_a_client_that_leaves_does_not() -> None:
    async def silent(exchange: Exchange) -> None:
        await exchange.stall()

    clocks = {"upstream_first_token_seconds": 0.2, "commit_delay_ms": 0}
    async with (
        ScriptedBackend(silent) as backend,
        running_gateway(backend.url, **PATIENT, **clocks) as gateway,
    ):
        for number in range(1, 5):
            async with connected(gateway.port) as client:
                await client.ask(CHAT, QUESTION)
                await backend.wait_for_exchanges(number)
        await backend.wait_until_idle()
        assert (await _breaker(gateway))["failures"] == 0
        for _ in range(3):
            await _asked(gateway)
        assert await _breaker(gateway) | {"retry_after_seconds": 0} == {
            "state": "open",
            "failures": 3,
            "threshold": 3,
            "retry_after_seconds": 0,
        }
