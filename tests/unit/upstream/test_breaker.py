"""The circuit breaker: when it opens, whom it lets through, what it takes for a verdict."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import cast

import pytest

from gateway.errors import UpstreamError
from gateway.upstream.breaker import TIMED_OUT, Breaker, State
from gateway.upstream.exchange import Exchange

Asking = Callable[[], Awaitable[Exchange]]


@dataclass
class Answered:
    status: int


@dataclass
class Watched:
    told: list[str] = field(default_factory=list)

    def breaker_opened(self, *, failures: int, reset_s: float) -> None:
        self.told.append(f"opened after {failures} for {reset_s:g} s")

    def breaker_closed(self) -> None:
        self.told.append("closed")


class Scene:
    def __init__(self, threshold: int = 3) -> None:
        self.now = 1000.0
        self.watch = Watched()
        self.breaker = Breaker(threshold, 30, self.watch, clock=lambda: self.now)

    async def ask(self, status: int, *, once: asyncio.Event | None = None) -> None:
        async def answer() -> Exchange:
            if once is not None:
                await once.wait()
            return cast(Exchange, Answered(status))

        await self.breaker.judge(answer)

    async def fail(self) -> None:
        with pytest.raises(UpstreamError, match="gone"):
            await self.breaker.judge(_refuse)

    async def expect_refusal(self, retry_after_s: int) -> None:
        with pytest.raises(UpstreamError) as refused:
            await self.breaker.judge(_never)
        error = refused.value
        assert (error.code, error.status) == ("upstream_unavailable", 503)
        assert error.retry_after_s == retry_after_s


async def _refuse() -> Exchange:
    raise UpstreamError("It is gone.", code="upstream_unavailable")


async def _never() -> Exchange:
    raise AssertionError("the backend was asked")


async def test_failures_in_a_row_open_it_and_errors_of_all_kinds_count() -> None:
    scene = Scene()
    await scene.fail()
    await scene.ask(500)
    assert scene.breaker.state is State.CLOSED
    await scene.ask(503)
    assert scene.breaker.state is State.OPEN
    await scene.expect_refusal(30)
    scene.now += 20.5
    await scene.expect_refusal(10)
    assert scene.watch.told == ["opened after 3 for 30 s"]


async def test_any_other_answer_begins_the_count_anew() -> None:
    scene = Scene()
    for status in (200, 404, 429):
        await scene.fail()
        await scene.fail()
        await scene.ask(status)
    assert (scene.breaker.state, scene.breaker.failures) == (State.CLOSED, 0)


async def test_one_probe_is_let_through_and_closes_it() -> None:
    scene = Scene()
    for _ in range(3):
        await scene.fail()
    scene.now += 30
    assert scene.breaker.state is State.HALF_OPEN
    answered = asyncio.Event()
    probe = asyncio.create_task(scene.ask(200, once=answered))
    await asyncio.sleep(0)
    for _ in range(5):
        await scene.expect_refusal(1)
    answered.set()
    await probe
    assert scene.breaker.state is State.CLOSED
    await scene.ask(200)
    assert scene.watch.told == ["opened after 3 for 30 s", "closed"]


async def test_probe_that_fails_opens_it_for_as_long_again() -> None:
    scene = Scene()
    for _ in range(3):
        await scene.fail()
    scene.now += 31
    await scene.fail()
    await scene.expect_refusal(30)
    assert scene.watch.told == ["opened after 3 for 30 s"]


async def _cancelled(scene: Scene, *message: str) -> None:
    async def hang() -> Exchange:
        await asyncio.Event().wait()
        raise AssertionError

    asking = asyncio.create_task(scene.breaker.judge(hang))
    await asyncio.sleep(0)
    asking.cancel(*message)
    with pytest.raises(asyncio.CancelledError):
        await asking


async def test_client_that_leaves_decides_nothing_and_a_clock_does() -> None:
    scene = Scene(threshold=1)
    await _cancelled(scene)
    await _cancelled(scene, "client_gone")
    assert scene.breaker.failures == 0
    await _cancelled(scene, TIMED_OUT)
    assert scene.breaker.state is State.OPEN


async def test_probe_whose_client_leaves_makes_way_for_the_next() -> None:
    scene = Scene(threshold=1)
    await scene.fail()
    scene.now += 30
    await _cancelled(scene, "client_gone")
    await scene.ask(200)
    assert scene.breaker.state is State.CLOSED


async def test_question_from_before_it_opened_doesn_t_prolong_it() -> None:
    scene = Scene(threshold=1)
    go_on = asyncio.Event()
    asking = asyncio.create_task(scene.ask(502, once=go_on))
    await asyncio.sleep(0)
    await scene.fail()
    scene.now += 10
    go_on.set()
    await asking
    await scene.expect_refusal(20)


async def test_threshold_of_0_never_opens_it() -> None:
    scene = Scene(threshold=0)
    for _ in range(100):
        await scene.fail()
    assert scene.breaker.state is State.CLOSED
