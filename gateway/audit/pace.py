"""How fast a sweep may go beside those who wait for a commit."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

#: What one transaction should take at most, and how many rows it may have.
_BUSY_S = 0.02
_MOST = 500
_LEAST = 20
_PAUSE_S = 0.05
#: With more than this waiting to be written, a sweep waits.
_LONG_QUEUE = 50


class Pace:
    """Rows for the next transaction, by what the last ones took."""

    def __init__(
        self, depth: Callable[[], int], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._depth = depth
        self._clock = clock
        self.rows = _MOST

    @contextmanager
    def timed(self) -> Iterator[None]:
        """Around a transaction: its time decides about the next one."""
        since = self._clock()
        yield
        took_s = self._clock() - since
        if took_s > _BUSY_S:
            self.rows = max(_LEAST, self.rows // 2)
        elif took_s < _BUSY_S / 2:
            self.rows = min(_MOST, self.rows * 2)

    async def rest(self) -> None:
        """A pause; as long as others queue, another."""
        await asyncio.sleep(_PAUSE_S)
        while self._depth() > _LONG_QUEUE:  # noqa: ASYNC110 - a figure that nobody tells
            await asyncio.sleep(_PAUSE_S)
