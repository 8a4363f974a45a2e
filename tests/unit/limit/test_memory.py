"""The memory storage under the strategies of `limits`, and what a hit costs."""

from __future__ import annotations

import gc
import sys
import tracemalloc
from types import FrameType

import limits
import pytest
from limits.aio.strategies import (
    FixedWindowRateLimiter,
    RateLimiter,
    SlidingWindowCounterRateLimiter,
)

from gateway.limit import memory
from gateway.limit.memory import EXPIRIES_PER_HIT, BoundedMemoryStorage

FIVE_A_MINUTE = limits.parse("5/minute")
START = 1_800_000_000.0  # the beginning of a minute


class Clock:
    def __init__(self, now: float = START) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def storage(clock: Clock) -> BoundedMemoryStorage:
    return BoundedMemoryStorage(clock)


@pytest.fixture(params=[FixedWindowRateLimiter, SlidingWindowCounterRateLimiter])
def strategy(request: pytest.FixtureRequest, storage: BoundedMemoryStorage) -> RateLimiter:
    return request.param(storage)


async def test_hits_up_to_the_limit_pass_and_one_more_is_refused(strategy: RateLimiter) -> None:
    assert [await strategy.hit(FIVE_A_MINUTE, "a") for _ in range(6)] == [True] * 5 + [False]


async def test_keys_are_counted_apart(strategy: RateLimiter) -> None:
    for _ in range(6):
        await strategy.hit(FIVE_A_MINUTE, "a")
    assert await strategy.hit(FIVE_A_MINUTE, "b")


async def test_test_doesnt_count(strategy: RateLimiter) -> None:
    for _ in range(20):
        assert await strategy.test(FIVE_A_MINUTE, "a")
    assert (await strategy.get_window_stats(FIVE_A_MINUTE, "a")).remaining == 5


async def test_remaining_falls_with_each_hit(strategy: RateLimiter) -> None:
    seen = []
    for _ in range(6):
        await strategy.hit(FIVE_A_MINUTE, "a")
        seen.append((await strategy.get_window_stats(FIVE_A_MINUTE, "a")).remaining)
    assert seen == [4, 3, 2, 1, 0, 0]


async def test_a_hit_may_cost_more_than_one(strategy: RateLimiter) -> None:
    assert await strategy.hit(FIVE_A_MINUTE, "a", cost=4)
    assert not await strategy.hit(FIVE_A_MINUTE, "a", cost=2)


async def test_windows_that_have_passed_leave_nothing(strategy: RateLimiter, clock: Clock) -> None:
    for _ in range(5):
        await strategy.hit(FIVE_A_MINUTE, "a")
    clock.now += 120
    assert [await strategy.hit(FIVE_A_MINUTE, "a") for _ in range(6)] == [True] * 5 + [False]


async def test_cleared_key_begins_anew(strategy: RateLimiter) -> None:
    for _ in range(5):
        await strategy.hit(FIVE_A_MINUTE, "a")
    await strategy.clear(FIVE_A_MINUTE, "a")
    assert await strategy.hit(FIVE_A_MINUTE, "a")


async def test_reset_forgets_everything(
    strategy: RateLimiter, storage: BoundedMemoryStorage
) -> None:
    await strategy.hit(FIVE_A_MINUTE, "a")
    await strategy.hit(FIVE_A_MINUTE, "b")
    assert await storage.reset() == 2
    assert len(storage) == 0
    assert await storage.check()


async def test_counter_begun_anew_isnt_removed_by_its_old_expiry(
    storage: BoundedMemoryStorage, clock: Clock
) -> None:
    await storage.incr("a", 10)
    await storage.clear("a")
    clock.now += 5
    await storage.incr("a", 10)
    clock.now += 6
    storage.sweep()
    assert await storage.get("a") == 1
    assert await storage.get_expiry("a") == START + 15


async def test_expired_counter_is_never_seen_even_before_it_is_removed(
    storage: BoundedMemoryStorage, clock: Clock
) -> None:
    await storage.incr("a", 10, amount=7)
    clock.now += 10
    assert len(storage) == 1
    assert await storage.get("a") == 0
    assert await storage.get_expiry("a") == clock.now
    assert await storage.incr("a", 10) == 1


async def work_of_one_hit(
    strategy: RateLimiter, key: str, monkeypatch: pytest.MonkeyPatch
) -> tuple[int, int]:
    """Lines of Python that a hit runs, in ours and the library's code, and expiries it handles."""
    lines, pops, pop = 0, 0, memory.heappop

    def counting_pop(heap: list[tuple[float, str]]) -> tuple[float, str]:
        nonlocal pops
        pops += 1
        return pop(heap)

    def count(frame: FrameType, event: str, _argument: object) -> object:
        nonlocal lines
        if "limit" not in frame.f_code.co_filename.rpartition("site-packages")[2]:
            return None  # a finaliser that the garbage collector ran in between
        lines += event == "line"
        return count

    monkeypatch.setattr(memory, "heappop", counting_pop)
    before = sys.gettrace()
    sys.settrace(count)
    try:
        await strategy.hit(FIVE_A_MINUTE, key)
    finally:
        sys.settrace(before)
    return lines, pops


async def test_hit_does_the_same_work_with_200000_keys_as_with_ten(
    strategy: RateLimiter,
    storage: BoundedMemoryStorage,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    work = {}
    for total in (10, 200_000):
        for number in range(len(storage), total):
            await storage.incr(f"k{number}", 60)
        work[total] = await work_of_one_hit(strategy, f"new {total}", monkeypatch)
    assert work[10] == work[200_000]


async def test_hit_handles_two_expiries_at_most_when_200000_are_due(
    strategy: RateLimiter,
    storage: BoundedMemoryStorage,
    clock: Clock,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for number in range(200_000):
        await storage.incr(f"k{number}", 60)
    clock.now += 240
    lines, pops = await work_of_one_hit(strategy, "new", monkeypatch)
    assert pops == EXPIRIES_PER_HIT == 2
    assert lines < 100
    assert len(storage) == 200_000 - 2 + 1


async def test_memory_of_expired_keys_is_given_back_by_later_hits(
    storage: BoundedMemoryStorage, clock: Clock
) -> None:
    gc.collect()
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    for number in range(20_000):
        await storage.incr(f"k{number}", 60)
    full = tracemalloc.get_traced_memory()[0] - before
    clock.now += 61
    for _ in range(10_001):
        await storage.incr("one that stays", 3600)
    clock.now += 3601
    storage.sweep()
    left = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    assert len(storage) == 0
    assert left < full / 20


async def test_sweep_is_bounded(storage: BoundedMemoryStorage, clock: Clock) -> None:
    for number in range(10):
        await storage.incr(f"k{number}", 60)
    clock.now += 61
    assert storage.sweep(at_most=4) == 4
    assert len(storage) == 6
    assert storage.sweep() == 6
    assert storage.sweep() == 0


async def test_memory_doesnt_grow_while_keys_come_and_go(
    storage: BoundedMemoryStorage, clock: Clock
) -> None:
    for number in range(20_000):
        await storage.incr(f"k{number}", 10)
        clock.now += 0.01
    assert len(storage) <= 1001
