"""Queues for what seldom waits.

aiohttp makes three or four deques for each stream that is relayed, and every one of them has room
for 64 from the beginning: 2 KiB together, while the stream runs, for nothing.
"""

from __future__ import annotations

from collections import deque
from typing import TypeVar

T = TypeVar("T")

#: For who has nothing to come any more; it takes nothing.
NOTHING: deque[bytes] = deque(maxlen=0)


class ShortQueue(list[T]):
    """What aiohttp's parts use of a deque; quick as long as it is short."""

    __slots__ = ()

    def popleft(self) -> T:
        return self.pop(0)
