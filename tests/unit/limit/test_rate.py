"""What clients are told about their rate, and that it is true."""

from __future__ import annotations

import re
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.limit.memory import BoundedMemoryStorage
from gateway.limit.rate import RateLimiter

START = 1_800_000_000.0


class Clock:
    def __init__(self, now: float = START) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


async def test_verdict_counts_down_and_then_refuses() -> None:
    limiter = RateLimiter("3/minute", clock=Clock())
    verdicts = [await limiter.hit("a") for _ in range(4)]
    assert [v.allowed for v in verdicts] == [True, True, True, False]
    assert [v.remaining for v in verdicts] == [2, 1, 0, 0]
    assert all((v.limit, v.window_s) == (3, 60) for v in verdicts)


async def test_headers_of_an_allowed_request_are_exact() -> None:
    limiter = RateLimiter("20/minute", clock=Clock(START + 18.5))
    assert (await limiter.hit("a")).headers() == {
        "RateLimit": '"default";r=19;t=42',
        "RateLimit-Policy": '"default";q=20;w=60',
        "x-ratelimit-limit-requests": "20",
        "x-ratelimit-remaining-requests": "19",
        "x-ratelimit-reset-requests": "42s",
    }


async def test_headers_of_a_refusal_say_when_to_come_back() -> None:
    clock = Clock(START + 30)
    limiter = RateLimiter("1/minute", clock=clock)
    await limiter.hit("a")
    headers = (await limiter.hit("a")).headers()
    assert headers["Retry-After"] == "31"
    assert headers["RateLimit"] == '"default";r=0;t=31'
    assert headers["x-ratelimit-reset-requests"] == "31s"


async def test_peek_tells_the_same_and_counts_nothing() -> None:
    limiter = RateLimiter("2/minute", clock=Clock())
    assert (await limiter.peek("a")).remaining == 2
    first = await limiter.hit("a")
    assert await limiter.peek("a") == await limiter.peek("a") == first
    await limiter.hit("a")
    assert not (await limiter.peek("a")).allowed


@pytest.mark.parametrize("rate", ["", "0"])
async def test_no_rate_limits_nothing_and_says_nothing(rate: str) -> None:
    limiter = RateLimiter(rate)
    verdicts = [await limiter.hit("a") for _ in range(100)] + [await limiter.peek("a")]
    assert all(v.allowed and v.headers() == {} for v in verdicts)


def test_unreadable_rate_is_refused() -> None:
    with pytest.raises(ValueError, match="couldn't parse"):
        RateLimiter("many")


async def test_limiters_on_one_storage_share_their_count() -> None:
    clock = Clock()
    storage = BoundedMemoryStorage(clock)
    one, other = (RateLimiter("1/minute", storage, clock) for _ in range(2))
    assert (await one.hit("a")).allowed
    assert not (await other.hit("a")).allowed


async def test_client_that_keeps_hammering_is_let_in_once_the_window_has_passed() -> None:
    clock = Clock(START + 10)
    limiter = RateLimiter("5/minute", clock=clock)
    admitted = []
    for _ in range(1800):
        if (await limiter.hit("a")).allowed:
            admitted.append(clock.now - START)
        clock.now += 0.1
    assert len(admitted) >= 15
    assert max(b - a for a, b in pairwise(admitted)) <= 62


RATES = st.sampled_from(["1/second", "1/minute", "3/10 second", "20/minute", "7/hour", "50/day"])


@given(
    rate=RATES,
    start=st.floats(START, START + 200_000),
    pauses=st.lists(st.floats(0, 40_000) | st.just(0.0) | st.floats(0, 10), max_size=60),
)
async def test_retry_after_that_is_obeyed_succeeds(
    rate: str, start: float, pauses: list[float]
) -> None:
    clock = Clock(start)
    limiter = RateLimiter(rate, clock=clock)
    for pause in pauses:
        clock.now += pause
        await limiter.hit("a")
    while (verdict := await limiter.hit("a")).allowed:
        pass
    clock.now += int(verdict.headers()["Retry-After"])
    assert (await limiter.hit("a")).allowed


@given(rate=RATES, pauses=st.lists(st.floats(0, 4000), max_size=40))
async def test_remaining_is_a_promise(rate: str, pauses: list[float]) -> None:
    clock = Clock()
    limiter = RateLimiter(rate, clock=clock)
    for pause in pauses:
        clock.now += pause
        await limiter.hit("a")
    verdict = await limiter.peek("a")
    clock.now += pauses[0] if pauses else 0
    for _ in range(verdict.remaining):
        assert (await limiter.hit("a")).allowed


@given(rate=RATES, pauses=st.lists(st.floats(0, 4000), max_size=40))
async def test_headers_are_well_formed_whatever_happened(rate: str, pauses: list[float]) -> None:
    clock = Clock()
    limiter = RateLimiter(rate, clock=clock)
    for pause in pauses:
        clock.now += pause
        verdict = await limiter.hit("a")
        headers = verdict.headers()
        match = re.fullmatch(r'"default";r=(\d+);t=(\d+)', headers["RateLimit"])
        assert match
        assert 1 <= int(match[2]) <= 2 * verdict.window_s + 1
        assert ("Retry-After" in headers) is not verdict.allowed
