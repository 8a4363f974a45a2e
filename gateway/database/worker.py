"""A thread that does what blocks, one thing after another, for who waits in an event loop.

An executor's thread would do as well; this one costs a queue's put and one wake-up of the loop each
time, and it can be waited for.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from queue import SimpleQueue
from typing import Any, TypeVar

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class _Job:
    work: Callable[[], Any]
    future: asyncio.Future[Any]
    gives_way: bool

    def do(self) -> None:
        if self.future.cancelled():
            return
        try:
            result = self.work()
        except BaseException as error:
            self._settle(self.future.set_exception, error)
        else:
            self._settle(self.future.set_result, result)

    def _settle(self, settle: Callable[[Any], None], outcome: object) -> None:
        def tell() -> None:
            if not self.future.done():
                settle(outcome)

        with suppress(RuntimeError):  # the loop has been closed meanwhile
            self.future.get_loop().call_soon_threadsafe(tell)


class Worker:
    """One thread, called `name`, from the first work on until `close`."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._jobs: SimpleQueue[_Job | None] | None = None
        self._thread: threading.Thread | None = None
        self._may_give_way = False

    async def run(self, work: Callable[[], _T], *, is_patient: bool = False) -> _T:
        """What `work` returns or raises.

        Work whose caller is cancelled isn't begun; what has begun is carried to its end. Where the
        thread shares a processor with the event loop, that goes before work that `is_patient`.
        """
        future: asyncio.Future[_T] = asyncio.get_running_loop().create_future()
        if self._jobs is None:
            self._jobs = self._start()
        gives_way = is_patient and self._may_give_way
        if gives_way and self._thread is not None and self._thread.native_id is not None:
            _set_policy(self._thread.native_id, "SCHED_BATCH")
        self._jobs.put(_Job(work, future, gives_way))
        return await future

    async def close(self) -> None:
        """Waits for the work that has begun."""
        jobs, thread = self._jobs, self._thread
        self._jobs = self._thread = None
        if jobs is not None and thread is not None:
            jobs.put(None)
            await asyncio.to_thread(thread.join)

    def _start(self) -> SimpleQueue[_Job | None]:
        jobs = SimpleQueue[_Job | None]()
        # A daemon, so that a process that ends without `close` needn't wait for it.
        self._thread = threading.Thread(target=_work, args=(jobs,), name=self._name, daemon=True)
        self._thread.start()
        self._may_give_way = _has_usual_policy()
        return jobs


def _work(jobs: SimpleQueue[_Job | None]) -> None:
    while (job := jobs.get()) is not None:
        job.do()
        if job.gives_way:
            _set_policy(0, "SCHED_OTHER")
        del job  # and what it holds, while this waits for the next


def _has_usual_policy() -> bool:
    """Whether nobody has chosen another one for this process."""
    return hasattr(os, "SCHED_BATCH") and os.sched_getscheduler(0) == os.SCHED_OTHER


def _set_policy(thread: int, policy: str) -> None:
    """With SCHED_BATCH the kernel doesn't interrupt another thread when this one wakes (Linux,
    `sched(7)`), which else doubles the latency that one event in a hundred has (docs/load.md). It
    gets as much of the processor as before."""
    with suppress(OSError):  # a container may forbid it
        os.sched_setscheduler(thread, getattr(os, policy), os.sched_param(0))
