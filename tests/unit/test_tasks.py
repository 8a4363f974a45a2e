"""Waiting for a future that belongs to somebody else."""

from __future__ import annotations

import asyncio

from gateway.tasks import wait_at_most


async def test_wait_ends_with_the_future_or_with_the_time() -> None:
    future: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    assert not await wait_at_most(future, 0.01)
    asyncio.get_running_loop().call_soon(future.set_result, 1)
    assert await wait_at_most(future, 30)
    assert await wait_at_most(future, 0)


async def test_who_waits_can_be_cancelled_without_the_future() -> None:
    future: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    waiting = [asyncio.ensure_future(wait_at_most(future, 30)) for _ in range(2)]
    await asyncio.sleep(0)
    waiting[0].cancel()
    await asyncio.wait({waiting[0]})
    assert waiting[0].cancelled()
    assert not future.done()
    future.set_result(1)
    assert await waiting[1]


async def test_failure_is_left_to_who_asks_for_it() -> None:
    future: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    asyncio.get_running_loop().call_soon(future.set_exception, ValueError("no"))
    assert await wait_at_most(future, 30)
    assert isinstance(future.exception(), ValueError)
