"""The wall clock as this process reads it, which a test may put forward instead of waiting.

The monotonic clock, the event loop's and those of other processes stay as they are.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from contextlib import contextmanager
from unittest.mock import patch

_machine_ns = time.time_ns
#: How far ahead, for each `movable` that is open.
_ahead_ns: list[int] = []


def put_forward(seconds: float) -> None:
    """From now on it is so much later, until the test ends; for tests with `wall_clock`."""
    _ahead_ns[-1] += round(seconds * 1e9)


@contextmanager
def movable() -> Iterator[None]:
    """What asks `time.time_ns` hears of `put_forward`."""
    _ahead_ns.append(0)
    try:
        with patch("time.time_ns", lambda: _machine_ns() + sum(_ahead_ns)):
            yield
    finally:
        _ahead_ns.pop()


async def young_window(window_s: int, needs_s: float = 10) -> None:
    """Waits until the wall clock's window, counted from 1970, goes on for long enough."""
    left_s = window_s - time.time() % window_s
    if left_s < needs_s:
        await asyncio.sleep(left_s)
