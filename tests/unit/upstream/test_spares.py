"""Spare connections whose making fails or is interrupted."""

from __future__ import annotations

import asyncio

import aiohttp
import pytest
from aiohttp.connector import Connection

from gateway.upstream.spares import Spares


async def test_backend_that_is_away_is_nobodys_error_and_tried_the_next_time(
    caplog: pytest.LogCaptureFixture,
) -> None:
    tried = asyncio.Queue[None]()

    async def connect() -> Connection:
        tried.put_nowait(None)
        raise aiohttp.ClientConnectionError

    spares = Spares(connect, 3)
    for _ in range(2):
        spares.refill()
        spares.refill()  # one at a time
        await asyncio.wait_for(tried.get(), 5)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
    await spares.close()
    assert tried.empty()
    assert not caplog.records


async def test_closing_does_not_wait_for_a_connection_that_does_not_come() -> None:
    began = asyncio.Event()

    async def connect() -> Connection:
        began.set()
        await asyncio.Event().wait()
        raise AssertionError

    spares = Spares(connect, 1)
    spares.refill()
    await began.wait()
    await asyncio.wait_for(spares.close(), 5)
