"""Every changed stream has its turn once in an interval, and they don't all have the same."""

from __future__ import annotations

from collections import Counter

from gateway.stream.model import StreamId, new_stream_id
from gateway.stream.turns import Turns


def _streams(count: int) -> list[StreamId]:
    return [new_stream_id() for _ in range(count)]


def test_each_stream_is_taken_once_in_an_interval() -> None:
    turns, streams = Turns(1.0), _streams(500)
    assert turns.step_s == 0.05
    turns.changed.update(streams)
    steps = [turns.step() for _ in range(20)]
    assert Counter(taken for step in steps for taken in step) == Counter(streams)
    assert max(map(len, steps)) <= 50
    assert not turns


def test_streams_that_keep_changing_keep_their_turn() -> None:
    turns, streams = Turns(1.0), _streams(100)
    when: dict[StreamId, set[int]] = {stream: set() for stream in streams}
    for number in range(60):
        turns.changed.update(streams)
        for taken in turns.step():
            when[taken].add(number)
    assert all(len(numbers) == 3 and max(numbers) - min(numbers) == 40 for numbers in when.values())


def test_more_than_can_be_written_wait_their_turn_and_nobody_is_passed_by() -> None:
    turns, streams = Turns(1.0), _streams(4000)
    taken = Counter[StreamId]()
    for _ in range(240):
        turns.changed.update(streams)
        step = turns.step()
        assert len(step) <= 50  # 1,000 a second
        taken.update(step)
    assert taken.keys() == set(streams)
    assert set(taken.values()) <= {2, 3, 4}


def test_who_is_taken_out_of_turn_has_none() -> None:
    turns, (one, two, three) = Turns(1.0), _streams(3)
    turns.changed.update((one, two))
    turns.step()
    turns.changed.update((two, three))
    assert turns.everybody() <= {one, two, three}
    turns.take(turns.everybody())
    assert not turns
    assert not any(turns.step() for _ in range(20))


def test_short_interval_has_few_steps() -> None:
    assert Turns(0.02).step_s == 0.01
    assert Turns(0.005).step_s == 0.005
