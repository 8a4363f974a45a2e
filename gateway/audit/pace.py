"""How fast a sweep may go beside those who wait for a commit."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import TypeVar

#: What a transaction should take: others wait behind it. Then how many rows it may have.
_BUSY_S = 0.008
_MOST = 500
_LEAST = 100
_PAUSE_S = 0.05
#: With more than this waiting to be written, a sweep waits.
_LONG_QUEUE = 50
_A = TypeVar("_A")
_T = TypeVar("_T")


class Pace:
    """Rows for the next transaction, by what the last ones took."""

    def __init__(
        self, depth: Callable[[], int], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._depth = depth
        self._clock = clock
        self.rows = _MOST

    def timed(self, work: Callable[[_A], _T]) -> Callable[[_A], _T]:
        """The same work; what it takes, without the wait for its turn, decides about the next."""

        def working(argument: _A) -> _T:
            since = self._clock()
            done = work(argument)
            self._adapt(self._clock() - since)
            return done

        return working

    def _adapt(self, took_s: float) -> None:
        if took_s > _BUSY_S:
            self.rows = max(_LEAST, self.rows // 2)
        elif took_s < _BUSY_S / 2:
            self.rows = min(_MOST, self.rows * 2)

    async def rest(self) -> None:
        """A pause; as long as others queue, another."""
        await asyncio.sleep(_PAUSE_S)
        while self._depth() > _LONG_QUEUE:  # noqa: ASYNC110 - a figure that nobody tells
            await asyncio.sleep(_PAUSE_S)
