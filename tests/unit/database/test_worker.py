"""The thread that does what blocks: order, errors, cancellation, its end."""

from __future__ import annotations

import asyncio
import gc
import os
import threading
import weakref
from collections.abc import AsyncIterator

import pytest

from gateway.database.worker import Worker


@pytest.fixture
async def worker() -> AsyncIterator[Worker]:
    worker = Worker("a worker")
    yield worker
    await worker.close()


async def test_work_is_done_in_one_thread_in_its_order(worker: Worker) -> None:
    done: list[int] = []

    def work(number: int) -> str:
        done.append(number)
        return threading.current_thread().name

    names = await asyncio.gather(*(worker.run(lambda n=n: work(n)) for n in range(50)))  # type: ignore[misc]
    assert done == list(range(50))
    assert set(names) == {"a worker"}


async def test_what_work_raises_reaches_its_caller_and_nobody_else(worker: Worker) -> None:
    with pytest.raises(ZeroDivisionError):
        await worker.run(lambda: 1 // 0)
    assert await worker.run(lambda: 1) == 1


async def test_work_that_has_begun_goes_on_without_its_caller(worker: Worker) -> None:
    begun, may_end = threading.Event(), threading.Event()
    done: list[str] = []

    def work() -> None:
        begun.set()
        may_end.wait(10)
        done.append("begun")

    caller = asyncio.ensure_future(worker.run(work))
    waiting = asyncio.ensure_future(worker.run(lambda: done.append("waiting")))
    await asyncio.to_thread(begun.wait, 10)
    for task in (caller, waiting):
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    may_end.set()
    assert await worker.run(done.copy) == ["begun"]


async def test_close_waits_for_what_has_begun_and_ends_the_thread(worker: Worker) -> None:
    may_end = threading.Event()
    caller = asyncio.ensure_future(worker.run(lambda: may_end.wait(10)))
    await asyncio.sleep(0)
    closing = asyncio.ensure_future(worker.close())
    await asyncio.sleep(0.02)
    assert not closing.done()
    may_end.set()
    await closing
    assert await caller
    assert "a worker" not in {thread.name for thread in threading.enumerate()}
    await worker.close()
    assert await worker.run(lambda: 2) == 2


async def test_nothing_of_the_last_work_is_held(worker: Worker) -> None:
    class Thing:
        pass

    thing = Thing()
    gone = weakref.ref(thing)
    await worker.run(lambda thing=thing: thing)  # type: ignore[misc]
    del thing
    await worker.run(lambda: None)
    gc.collect()
    assert gone() is None


def test_loop_that_is_closed_meanwhile_leaves_the_thread_alive() -> None:
    worker = Worker("a worker")
    begun, may_end = threading.Event(), threading.Event()

    def work() -> None:
        begun.set()
        may_end.wait(10)

    async def leave() -> None:
        task = asyncio.ensure_future(worker.run(work))
        await asyncio.to_thread(begun.wait, 10)
        task.cancel()

    asyncio.run(leave())
    may_end.set()

    async def again() -> int:
        try:
            return await worker.run(lambda: 3)
        finally:
            await worker.close()

    assert asyncio.run(again()) == 3


async def test_thread_gives_way_for_patient_work_alone(worker: Worker) -> None:
    def policy() -> int:
        return os.sched_getscheduler(0)

    assert await worker.run(policy, is_patient=True) == os.SCHED_BATCH
    assert await worker.run(policy) == os.SCHED_OTHER
    assert await worker.run(policy, is_patient=True) == os.SCHED_BATCH
    assert policy() == os.SCHED_OTHER
