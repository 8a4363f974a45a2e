"""Sessions by requests to a gateway in a process of its own, as a client would have them."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar

import aiohttp

from benchmarks.timing import Amount, Timings
from tests.backend import ScriptedBackend, chunked, sse_head
from tests.connection import Exchange
from tests.gateway import gateway_process, wait_until_ready
from tests.servers import free_port
from tests.unit.stream.parts import EVENT

_AT_ONCE = 32
_T = TypeVar("_T")


async def measure_http(
    where: str, data_dir: Path, database_url: str | None, amount: Amount
) -> list[Timings]:
    """Creates, looks up and stops, each until its response is there; one by one, then in bursts."""
    create, look_up, stop = (
        Timings(f"{name}, {where}", cpu_ms=None) for name in ("create", "look up", "stop")
    )
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    connector = aiohttp.TCPConnector(limit=0)
    async with (
        ScriptedBackend(_one_event) as backend,
        gateway_process(backend.url, port, data_dir, database_url),
        aiohttp.ClientSession(connector=connector) as client,
    ):
        await wait_until_ready(client, url)
        caller = _Caller(client, url)
        for number in range(-amount.warm_up, amount.one_by_one):
            if number == 0:
                for timings in (create, look_up, stop):
                    timings.restart()
            async with create.timing():
                response = await caller.create()
            async with look_up.timing():
                await caller.look_up(response)
            async with stop.timing():
                await caller.stop(response)
            response.close()
        for _ in range(amount.bursts):
            await _burst((create, look_up, stop), caller, amount.http_burst)
    return [create, look_up, stop]


async def _burst(
    all_timings: tuple[Timings, Timings, Timings], caller: _Caller, count: int
) -> None:
    create, look_up, stop = all_timings
    gate = asyncio.Semaphore(_AT_ONCE)
    create_one = partial(_through, gate, caller.create)
    responses = await create.burst([create_one] * count)
    for timings, operation in ((look_up, caller.look_up), (stop, caller.stop)):
        await timings.burst(
            [partial(_through, gate, partial(operation, response)) for response in responses]
        )
    for response in responses:
        response.close()


async def _through(gate: asyncio.Semaphore, operation: Callable[[], Awaitable[_T]]) -> _T:
    async with gate:
        return await operation()


@dataclass(frozen=True, slots=True)
class _Caller:
    client: aiohttp.ClientSession
    url: str

    async def create(self) -> aiohttp.ClientResponse:
        """Until the response's head is there."""
        body = {"model": "m", "stream": True, "messages": [{"role": "user", "content": "Hello"}]}
        response = await self.client.post(f"{self.url}/v1/chat/completions", json=body)
        assert response.status == 200
        return response

    async def look_up(self, response: aiohttp.ClientResponse) -> None:
        headers = {"Accept": "application/json"}
        async with self.client.get(self._stream(response), headers=headers) as answer:
            assert answer.status == 200
            await answer.read()

    async def stop(self, response: aiohttp.ClientResponse) -> None:
        async with self.client.delete(self._stream(response)) as answer:
            assert answer.status == 200, await answer.text()
            await answer.read()

    def _stream(self, response: aiohttp.ClientResponse) -> str:
        return f"{self.url}{response.headers['Location']}"


async def _one_event(exchange: Exchange) -> None:
    await exchange.send(sse_head() + chunked(EVENT))
    await exchange.stall()
