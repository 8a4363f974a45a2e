"""How often a client may ask: the sliding window counter of `limits`, and what clients are told.

The storage decides whether the count is this process's (`gateway.limit.memory`) or shared. How a
refusal looks on the wire is the middleware's business, but for its headers, which are here.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from math import ceil, floor

import limits
from limits.aio.storage import SlidingWindowCounterSupport

from gateway.limit.memory import BoundedMemoryStorage

#: Added before rounding up: at the exact end of a window the old count still has its full weight.
_MARGIN_S = 0.001


@dataclass(frozen=True, slots=True)
class RateVerdict:
    """What one client may do now.

    `reset_after_s` is the time until this window ends or, with nothing remaining, until the next
    request will be let in. `limit` is 0 where nothing is limited.
    """

    allowed: bool
    limit: int
    remaining: int
    reset_after_s: float
    window_s: int

    @property
    def retry_after_s(self) -> int:
        """Whole seconds after which a refused client succeeds, at least 1."""
        return max(1, ceil(self.reset_after_s + _MARGIN_S))

    def headers(self) -> dict[str, str]:
        """The quota as the IETF draft (draft-ietf-httpapi-ratelimit-headers-10) and as OpenAI
        tell it, and `Retry-After` (RFC 9110, section 10.2.3) on a refusal."""
        if not self.limit:
            return {}
        headers = {
            "RateLimit": f'"default";r={self.remaining};t={self.retry_after_s}',
            "RateLimit-Policy": f'"default";q={self.limit};w={self.window_s}',
            "x-ratelimit-limit-requests": str(self.limit),
            "x-ratelimit-remaining-requests": str(self.remaining),
            "x-ratelimit-reset-requests": f"{self.retry_after_s}s",
        }
        if not self.allowed:
            headers["Retry-After"] = str(self.retry_after_s)
        return headers


_UNLIMITED = RateVerdict(allowed=True, limit=0, remaining=0, reset_after_s=0, window_s=0)


class RateLimiter:
    """Counts each key's requests against one rate, such as `20/minute`.

    An empty rate or `0` limits nothing. Without a storage the count is this process's own.
    A storage that fails raises its own exception.
    """

    def __init__(
        self,
        rate: str,
        storage: SlidingWindowCounterSupport | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """
        Raises:
            ValueError: the rate can't be read.
        """
        self._item = limits.parse(rate) if rate not in ("", "0") else None
        self._window_s = self._item.get_expiry() if self._item is not None else 0
        self._storage = storage if storage is not None else BoundedMemoryStorage(clock)

    async def hit(self, key: str) -> RateVerdict:
        """Counts a request, unless it has to be refused."""
        if self._item is None:
            return _UNLIMITED
        limit, counter = self._item.amount, self._item.key_for(key)
        allowed = await self._storage.acquire_sliding_window_entry(counter, limit, self._window_s)
        return await self._verdict(counter, limit, allowed)

    async def peek(self, key: str) -> RateVerdict:
        """What `hit` would say, without counting."""
        if self._item is None:
            return _UNLIMITED
        return await self._verdict(self._item.key_for(key), self._item.amount, None)

    async def _verdict(self, counter: str, limit: int, allowed: bool | None) -> RateVerdict:
        window_s = self._window_s
        window = await self._storage.get_sliding_window(counter, window_s)
        previous, previous_ttl_s, current, current_ttl_s = window
        used = floor(previous * previous_ttl_s / window_s + current)
        remaining = max(0, limit - used)
        left_s = _time_left(previous_ttl_s, current_ttl_s, window_s)
        if remaining == 0:
            left_s = _time_to_admission(limit, window_s, left_s, (previous, current))
        elif not allowed and allowed is not None:
            left_s = 0  # the place came free between the refusal and the look
        return RateVerdict(
            allowed=remaining > 0 if allowed is None else allowed,
            limit=limit,
            remaining=remaining,
            reset_after_s=left_s,
            window_s=window_s,
        )


def _time_left(previous_ttl_s: float, current_ttl_s: float, window_s: int) -> float:
    """Until this window ends. A window that nothing was counted in may have no time of its own."""
    if current_ttl_s > window_s:
        return current_ttl_s - window_s
    return previous_ttl_s or current_ttl_s


def _time_to_admission(limit: int, window_s: int, left_s: float, counts: tuple[int, int]) -> float:
    """Until the weighted count is under `limit`: in this window, or in the next one, where this
    window's count is what loses its weight."""
    previous, current = counts
    if current < limit:
        return max(0.0, left_s - (limit - current) * window_s / previous)
    return left_s + max(0.0, window_s - limit * window_s / current)
