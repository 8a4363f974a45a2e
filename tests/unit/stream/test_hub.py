"""The hub: who gets in, who leaves, and what is given back when a stream has ended."""

from __future__ import annotations

import asyncio

import pytest

from gateway.errors import Unavailable
from gateway.stream.log import LogBudget
from gateway.stream.model import CLIENT_GONE, USER_REQUESTED
from tests.unit.stream.parts import (
    DONE,
    EVENT,
    Lease,
    RecordingSink,
    ScriptedAnswer,
    make_hub,
    plan,
    turn,
)


async def test_stream_is_read_to_its_end_and_everything_given_back() -> None:
    budget = LogBudget(0)
    hub, observer = make_hub(budget=budget)
    lease, sink = Lease(), RecordingSink()
    stream = hub.start(plan(ScriptedAnswer([EVENT, DONE])), lease)
    assert len(hub) == 1
    await hub.read(stream, sink, interval_s=0)
    hub.leave(stream)
    assert b"".join(sink.writes) == EVENT + DONE
    assert (len(hub), lease.releases, budget.used_bytes) == (0, 1, 0)
    assert observer.told == [("started", stream.id), ("completed", stream.id)]


async def test_no_more_streams_than_there_may_be() -> None:
    hub, _ = make_hub(max_streams=1)
    first = hub.start(plan(ScriptedAnswer(endless=True)), Lease())
    lease = Lease()
    with pytest.raises(Unavailable) as refused:
        hub.start(plan(ScriptedAnswer()), lease)
    assert (refused.value.code, refused.value.retry_after_s) == ("too_many_sessions", 5)
    assert lease.releases == 1
    hub.stop(first, USER_REQUESTED)
    await hub.drain(0)


async def test_no_stream_starts_when_the_buffers_are_full() -> None:
    hub, _ = make_hub(budget=LogBudget(10))
    hub.start(plan(ScriptedAnswer([EVENT], endless=True)), Lease())
    await turn()
    with pytest.raises(Unavailable) as refused:
        hub.start(plan(ScriptedAnswer()), Lease())
    assert refused.value.code == "buffers_full"
    await hub.drain(0)


async def test_draining_hub_lets_nobody_in_and_ends_who_is_left() -> None:
    hub, observer = make_hub()
    answer = ScriptedAnswer([EVENT], endless=True)
    stream = hub.start(plan(answer), Lease())
    await turn()
    await hub.drain(0)
    assert answer.is_closed
    assert observer.told[1:] == [("server_shutdown", stream.id)]
    with pytest.raises(Unavailable) as refused:
        hub.start(plan(ScriptedAnswer()), Lease())
    assert refused.value.code == "shutting_down"


async def test_draining_hub_waits_for_streams_that_end_in_time() -> None:
    hub, observer = make_hub()
    stream = hub.start(plan(ScriptedAnswer([EVENT, DONE])), Lease())
    await hub.drain(5)
    assert observer.told[1:] == [("completed", stream.id)]


async def test_first_ending_wins() -> None:
    hub, observer = make_hub()
    stream = hub.start(plan(ScriptedAnswer(endless=True)), Lease())
    assert hub.stop(stream, USER_REQUESTED) is True
    assert hub.stop(stream, CLIENT_GONE) is False
    await hub.drain(0)
    assert observer.told[1:] == [("user_requested", stream.id)]


async def test_forgotten_stream_ends_and_is_kept_until_nobody_reads_it() -> None:
    budget = LogBudget(0)
    hub, observer = make_hub(budget=budget)
    stream = hub.start(plan(ScriptedAnswer([EVENT], endless=True)), Lease())
    await turn()
    assert hub.forget(stream) is False
    assert observer.told[1:] == [("user_requested", stream.id)]
    assert hub.find(stream.id) is stream
    stream.detach()
    assert hub.find(stream.id) is stream
    assert hub.forget(stream) is True
    assert hub.find(stream.id) is None
    assert budget.used_bytes == 0
    await hub.drain(0)


async def test_stream_without_grace_ends_with_its_last_client() -> None:
    hub, observer = make_hub()
    answer = ScriptedAnswer([EVENT], endless=True)
    stream = hub.start(plan(answer), Lease())
    await turn()
    stream.attach()
    hub.leave(stream)
    assert stream.is_active
    hub.leave(stream)
    await turn()
    assert answer.is_closed
    assert observer.told[1:] == [("client_gone", stream.id)]
    assert hub.buffered_bytes == 0


async def test_stream_with_grace_goes_on_for_so_long() -> None:
    hub, observer = make_hub()
    stream = hub.start(plan(ScriptedAnswer([EVENT], endless=True), grace_s=10), Lease())
    await turn()
    hub.leave(stream)
    assert stream.detached_since is not None
    hub.tick(stream.detached_since + 9.9)
    assert stream.is_active
    hub.tick(stream.detached_since + 10.1)
    assert observer.told[1:] == [("client_gone", stream.id)]
    await hub.drain(0)


async def test_client_that_comes_back_in_time_keeps_its_stream() -> None:
    hub, _ = make_hub()
    stream = hub.start(plan(ScriptedAnswer([EVENT], endless=True), grace_s=10), Lease())
    await turn()
    hub.leave(stream)
    left = stream.detached_since or 0.0
    stream.attach()
    hub.tick(left + 11)
    assert stream.is_active
    await hub.drain(0)


async def test_stream_that_shall_finish_does_so_without_anybody() -> None:
    hub, observer = make_hub(log_max_bytes=100)
    pieces = [EVENT] * 50 + [DONE]
    stream = hub.start(plan(ScriptedAnswer(pieces), grace_s=None), Lease())
    hub.leave(stream)
    async with asyncio.timeout(5):
        await hub.drain(5)
    assert observer.told[1:] == [("completed", stream.id)]
    assert (stream.log.last, hub.buffered_bytes) == (51, 0)


async def test_slow_client_pauses_the_backend_and_misses_nothing() -> None:
    hub, _ = make_hub(log_max_bytes=300)
    answer = ScriptedAnswer([EVENT] * 200 + [DONE])
    stream, sink = hub.start(plan(answer), Lease()), RecordingSink()
    sink.takes.clear()
    reading = asyncio.create_task(hub.read(stream, sink, interval_s=0))
    await turn()
    assert stream.is_paused
    assert answer.fed < 20
    sink.takes.set()
    await reading
    hub.leave(stream)
    assert b"".join(sink.writes) == EVENT * 200 + DONE
