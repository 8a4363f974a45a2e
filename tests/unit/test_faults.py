"""The fault proxy breaks exactly what it is told to, on real sockets."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from time import perf_counter

import pytest

from tests.backend import Exchange, ScriptedBackend
from tests.faults import FaultProxy

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]
REQUEST = b"GET / HTTP/1.1\r\n\r\n"


async def hundred(exchange: Exchange) -> None:
    await exchange.send(b"x" * 100)
    await exchange.stall()


@asynccontextmanager
async def proxied() -> AsyncIterator[tuple[ScriptedBackend, FaultProxy]]:
    async with ScriptedBackend(hundred) as backend, FaultProxy(backend.port) as proxy:
        yield backend, proxy


async def ask(proxy: FaultProxy) -> Streams:
    reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
    writer.write(REQUEST)
    return reader, writer


async def test_without_faults_bytes_pass_both_ways() -> None:
    async with proxied() as (backend, proxy):
        reader, writer = await ask(proxy)
        assert await reader.readexactly(100) == b"x" * 100
        assert (proxy.up.bytes_passed, proxy.down.bytes_passed) == (len(REQUEST), 100)
        writer.close()
        await backend.wait_until_idle()


async def test_answer_is_cut_after_so_many_bytes_by_fin() -> None:
    async with proxied() as (backend, proxy):
        proxy.down.cut_after = 40
        reader, writer = await ask(proxy)
        assert await reader.read() == b"x" * 40
        writer.close()
        await backend.wait_until_idle()
        assert proxy.cuts == 1


async def test_answer_is_cut_by_a_reset() -> None:
    async with proxied() as (backend, proxy):
        proxy.down.cut_after, proxy.down.reset = 0, True
        reader, writer = await ask(proxy)
        with pytest.raises(ConnectionResetError):
            await reader.read()
        writer.close()
        await backend.wait_until_idle()


async def test_request_is_cut_before_the_backend_has_it() -> None:
    async with proxied() as (backend, proxy):
        proxy.up.cut_after = 5
        reader, writer = await ask(proxy)
        assert await reader.read() == b""
        writer.close()
        await backend.wait_until_idle()
        assert (backend.exchanges, backend.connections) == ([], 1)


async def test_all_connections_are_cut_while_they_run_and_new_ones_are_welcome() -> None:
    async with proxied() as (_, proxy):
        opened = [await ask(proxy) for _ in range(3)]
        for reader, _ in opened:
            await reader.readexactly(100)
        proxy.cut_all()
        assert [await reader.read() for reader, _ in opened] == [b"", b"", b""]
        assert proxy.cuts == 3
        reader, again = await ask(proxy)
        assert await reader.readexactly(100)
        for writer in (*(writer for _, writer in opened), again):
            writer.close()


async def test_stalled_direction_passes_nothing_until_it_is_resumed() -> None:
    async with proxied() as (backend, proxy):
        proxy.down.stall()
        reader, writer = await ask(proxy)
        exchange = await backend.wait_for_exchanges()
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(reader.read(1), 0.03)
        assert exchange.bytes_accepted == 100
        proxy.down.resume()
        assert await reader.readexactly(100)
        writer.close()


async def test_split_answer_arrives_whole() -> None:
    async with proxied() as (_, proxy):
        proxy.down.split = True
        reader, writer = await ask(proxy)
        assert await reader.readexactly(100) == b"x" * 100
        writer.close()


async def test_latency_and_bandwidth_take_their_time() -> None:
    async with proxied() as (_, proxy):
        proxy.up.latency, proxy.down.bandwidth = 0.02, 5000
        begun = perf_counter()
        reader, writer = await ask(proxy)
        await reader.readexactly(100)
        assert perf_counter() - begun >= 0.04
        writer.close()


async def test_refused_connection_never_reaches_the_backend() -> None:
    async with proxied() as (backend, proxy):
        proxy.refuse = True
        reader, writer = await ask(proxy)
        with pytest.raises(ConnectionResetError):
            await reader.read()
        assert (proxy.refused, backend.connections) == (1, 0)
        writer.close()


async def test_target_that_is_away_ends_the_connection() -> None:
    async with ScriptedBackend(hundred) as backend:
        port = backend.port
    async with FaultProxy(port) as proxy:
        reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
        assert await reader.read() == b""
        writer.close()
