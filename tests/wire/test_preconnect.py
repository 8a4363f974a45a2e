"""Connections to the backend that are opened ahead, and what becomes of them."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable

import pytest

from tests.backend import CHAT_STREAM, Exchange, OnDemand, ScriptedBackend, streaming
from tests.client import connected
from tests.framing import json_response, response_head
from tests.gateway import running_gateway
from tests.wire.answers import ask, without_ids

_PATH = "/v1/chat/completions"
_ASK = {"model": "m", "stream": True}
_SLOW = {"model": "slow", "stream": True}


async def _until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not condition():
            await asyncio.sleep(0.005)


@pytest.mark.parametrize("spares", [1, 3])
async def test_next_question_finds_a_connection_which_is_then_replaced(spares: int) -> None:
    answering = OnDemand()
    accepted: list[int] = []

    async def script(exchange: Exchange) -> None:
        accepted.append(backend.accepted)
        await answering(exchange)

    async with (
        ScriptedBackend(script) as backend,
        running_gateway(backend.url, upstream_preconnect=spares) as gateway,
        connected(gateway.port) as first,
    ):
        await first.ask(_PATH, _SLOW)
        await first.head()
        await _until(lambda: backend.accepted == 1 + spares)
        async with connected(gateway.port) as second:
            await second.ask(_PATH, _SLOW)
            await second.head()
            await _until(lambda: backend.accepted == 2 + spares)
            assert accepted == [1, 1 + spares]  # none was opened for the second question
            assert (backend.connections, len(backend.spares)) == (2, spares)
            for _ in range(2):
                answering.let_end()
            assert without_ids(await second.body()) == CHAT_STREAM


async def test_connection_that_was_used_before_is_not_replaced() -> None:
    async with (
        ScriptedBackend(streaming(CHAT_STREAM)) as backend,
        running_gateway(backend.url) as gateway,
    ):
        for _ in range(6):
            assert (await ask(gateway.port, _PATH, _ASK)).is_whole
            await _until(lambda: len(backend.spares) <= 1)
        assert backend.accepted <= 3


async def test_look_whether_the_backend_is_there_opens_nothing_ahead() -> None:
    async with (
        ScriptedBackend(_answer_nothing) as backend,
        running_gateway(backend.url) as gateway,
    ):
        await gateway.services.upstream.probe()
        await asyncio.sleep(0.1)
        assert (backend.spares, backend.accepted) == ([], backend.connections)


async def _answer_nothing(exchange: Exchange) -> None:
    await exchange.send(json_response(b""))


async def test_none_is_opened_ahead_where_none_is_wanted() -> None:
    answering = OnDemand()
    async with (
        ScriptedBackend(answering) as backend,
        running_gateway(backend.url, upstream_preconnect=0) as gateway,
        connected(gateway.port) as client,
    ):
        await client.ask(_PATH, _SLOW)
        await client.head()
        await answering.has_begun.wait()
        await asyncio.sleep(0.1)
        assert backend.accepted == 1
        answering.let_end()
        await client.body()


async def _with_a_spare(
    spoil: Callable[[ScriptedBackend], None], script: Callable[[Exchange], object] | None = None
) -> tuple[int, bytes, ScriptedBackend]:
    """Asks something while the one spare connection is spoilt: status, body, and the backend."""
    answering = OnDemand()
    async with (
        ScriptedBackend(answering) as backend,
        running_gateway(backend.url) as gateway,
        connected(gateway.port) as first,
    ):
        await first.ask(_PATH, _SLOW)
        await first.head()
        await _until(lambda: len(backend.spares) == 1)
        await answering.has_begun.wait()
        spoil(backend)
        answer = await ask(gateway.port, _PATH, _ASK)
        answering.let_end()
        await first.body()
    return answer.status, answer.body, backend


async def test_spare_that_the_backend_closes_is_not_missed() -> None:
    status, body, _ = await _with_a_spare(
        lambda backend: backend.spares[0].shutdown(socket.SHUT_RDWR)
    )
    assert (status, without_ids(body)) == (200, CHAT_STREAM)


@pytest.mark.parametrize("closes", [False, True])
async def test_what_comes_unasked_on_a_spare_is_not_taken_for_an_answer(closes: bool) -> None:
    def spoil(backend: ScriptedBackend) -> None:
        spare = backend.spares[0]
        spare.send(response_head("408 Request Timeout", "Content-Length: 0") + b"\r\n")
        if closes:
            spare.shutdown(socket.SHUT_RDWR)

    status, body, _ = await _with_a_spare(spoil)
    assert (status, without_ids(body)) == (200, CHAT_STREAM)


async def test_question_on_a_spare_that_turns_out_to_be_closed_is_asked_anew() -> None:
    def spoil(backend: ScriptedBackend) -> None:
        answering = backend.script

        async def script(exchange: Exchange) -> None:
            backend.script = answering
            await exchange.close()

        backend.script = script

    status, body, backend = await _with_a_spare(spoil)
    assert (status, without_ids(body)) == (200, CHAT_STREAM)
    assert len(backend.exchanges) == 3
