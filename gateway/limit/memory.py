"""Rate-limit counters in this process's memory, for the strategies of `limits`.

The counterpart for several replicas is `limits`' own Redis storage. The library's memory storage
isn't used, since it looks at every key on every hit: with 20,000 clients one hit takes 1.6 ms of
the event loop. Here a hit costs the same however many keys there are.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from heapq import heappop, heappush
from math import floor

from limits.aio.storage import SlidingWindowCounterSupport, Storage
from limits.storage.base import TimestampedSlidingWindow

#: Expiries a hit pays for. Over one, so that the heap shrinks although each hit may add an entry.
EXPIRIES_PER_HIT = 2


class BoundedMemoryStorage(Storage, SlidingWindowCounterSupport, TimestampedSlidingWindow):
    """Counters that expire, in a dict, and their expiries in a heap.

    Supports the fixed window and the sliding window counter. A counter whose time has passed is
    never seen again, whether or not it has been removed yet. `clock` gives seconds since the epoch.
    """

    STORAGE_SCHEME = None

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        super().__init__()
        self._clock = clock
        self._counters: dict[str, tuple[int, float]] = {}
        self._expiries: list[tuple[float, str]] = []

    def __len__(self) -> int:
        """Counters held, with those that have expired and await removal."""
        return len(self._counters)

    @property
    def base_exceptions(self) -> type[Exception]:
        return ValueError

    async def incr(self, key: str, expiry: float, amount: int = 1) -> int:
        """Adds to a counter, which expires `expiry` seconds after its first hit."""
        return self._add(key, expiry, amount, self._clock())

    async def get(self, key: str) -> int:
        return self._count(key, self._clock())

    async def get_expiry(self, key: str) -> float:
        """When the counter expires, in seconds since the epoch; now, if there is none."""
        now = self._clock()
        _, expires_at = self._counters.get(key, (0, now))
        return max(expires_at, now)

    async def acquire_sliding_window_entry(
        self, key: str, limit: int, expiry: int, amount: int = 1
    ) -> bool:
        """Counts a hit, unless the weighted count of this window and the last would pass `limit`.

        A refused hit isn't counted, so a client that keeps trying is let in as soon as one that
        waited. Nothing is awaited in between, hence no two hits can both take the last place.
        """
        now = self._clock()
        previous, current, current_key = self._windows(key, expiry, now)
        if floor(previous * _left_s(expiry, now) / expiry + current) + amount > limit:
            return False
        self._add(current_key, 2 * expiry, amount, now)
        return True

    async def get_sliding_window(self, key: str, expiry: int) -> tuple[int, float, int, float]:
        """Count and seconds to live of the last window, then of this one.

        A window counts until the next has ended: this one lives for up to twice `expiry`.
        """
        now = self._clock()
        previous, current, _ = self._windows(key, expiry, now)
        left_s = _left_s(expiry, now)
        return previous, left_s if previous else 0.0, current, left_s + expiry

    async def clear_sliding_window(self, key: str, expiry: int) -> None:
        for window_key in self.sliding_window_keys(key, expiry, self._clock()):
            await self.clear(window_key)

    async def clear(self, key: str) -> None:
        self._counters.pop(key, None)

    async def check(self) -> bool:
        return True

    async def reset(self) -> int:
        """Forgets every counter; how many there were."""
        count = len(self._counters)
        self._counters.clear()
        self._expiries.clear()
        return count

    def sweep(self, at_most: int = 1000) -> int:
        """Removes expired counters, for when no more hits come; how many expiries were handled."""
        return self._remove_expired(self._clock(), at_most)

    def _windows(self, key: str, expiry: int, now: float) -> tuple[int, int, str]:
        """The counts of the last window and of this one, and this one's key."""
        previous_key, current_key = self.sliding_window_keys(key, expiry, now)
        return self._count(previous_key, now), self._count(current_key, now), current_key

    def _add(self, key: str, expiry: float, amount: int, now: float) -> int:
        self._remove_expired(now, EXPIRIES_PER_HIT)
        count, expires_at = self._counters.get(key, (0, 0.0))
        if expires_at <= now:
            count, expires_at = 0, now + expiry
            heappush(self._expiries, (expires_at, key))
        self._counters[key] = (count + amount, expires_at)
        return count + amount

    def _count(self, key: str, now: float) -> int:
        count, expires_at = self._counters.get(key, (0, 0.0))
        return count if expires_at > now else 0

    def _remove_expired(self, now: float, at_most: int) -> int:
        expiries, counters = self._expiries, self._counters
        handled = 0
        while handled < at_most and expiries and expiries[0][0] <= now:
            expires_at, key = heappop(expiries)
            # A counter that was cleared and begun anew has a later entry of its own.
            if counters.get(key, (0, expires_at))[1] <= expires_at:
                counters.pop(key, None)
            handled += 1
        if handled and not counters:
            counters.clear()  # an emptied dict keeps its table; a cleared one gives it back
        return handled


def _left_s(expiry: int, now: float) -> float:
    """Until this window ends."""
    return expiry - now % expiry
