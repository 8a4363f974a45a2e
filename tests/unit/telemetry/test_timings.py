"""What the dashboard's figures are made of: looks at streams, and the points of an hour."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest

from gateway.telemetry.history import MAX_LOOKS, STEP_S, Watch
from gateway.telemetry.metrics import Metrics
from gateway.telemetry.timings import Percentiles, Recent, Timings


@dataclass
class Wire:
    total_chunks: int = 0


@dataclass
class Stream:
    id: str = "a"
    started: float = 0.0
    first_event: float | None = None
    last_event: float = 0.0
    wire: Wire = field(default_factory=Wire)

    def say(self, chunks: int, at: float) -> None:
        if self.first_event is None:
            self.first_event = at
        self.last_event = at
        self.wire.total_chunks += chunks


def test_percentiles_are_the_nearest_ranks_in_milliseconds() -> None:
    recent = Recent()
    for number in range(101):
        recent.add(0, number / 1000)
    assert recent.percentiles(0) == Percentiles(50, 95, 99)


def test_value_older_than_a_minute_counts_no_more() -> None:
    recent = Recent()
    recent.add(0, 9)
    recent.add(30, 1)
    assert recent.percentiles(61) == Percentiles(1000, 1000, 1000)
    assert recent.percentiles(91) is None


def test_gaps_are_means_between_two_looks() -> None:
    timings, stream = Timings(), Stream()
    stream.say(1, at=1.0)
    timings.look([stream], 1.5)
    stream.say(10, at=2.0)
    timings.look([stream], 2.5)
    assert timings.first_tokens.percentiles(2.5) == Percentiles(1000, 1000, 1000)
    assert timings.gaps.percentiles(2.5) == Percentiles(100, 100, 100)
    assert timings.rate("a") == 10
    assert timings.events == 11


def test_silence_makes_no_gap_until_it_is_over() -> None:
    timings, stream = Timings(), Stream()
    stream.say(1, at=0.0)
    for now in range(1, 8):
        timings.look([stream], now)
    assert timings.gaps.percentiles(8) is None
    assert timings.rate("a") == 0
    stream.say(1, at=8.0)
    timings.look([stream], 8)
    assert timings.gaps.percentiles(8) == Percentiles(8000, 8000, 8000)


def test_stream_that_came_and_went_between_two_looks_counts() -> None:
    watch, stream = Watch(Metrics(), frozenset()), Stream(first_event=0.2, last_event=0.5)
    stream.wire.total_chunks = 4
    watch.stream_started(stream)
    watch.stream_ended(stream)
    assert watch.timings.events == 4
    assert watch.timings.rate("a") == 0


def test_point_counts_what_has_happened_since_the_one_before() -> None:
    metrics = Metrics()
    metrics.streams.labels("completed").inc(7)
    watch = Watch(metrics, frozenset({"upstream_error"}))
    metrics.streams.labels("completed").inc(2)
    metrics.streams.labels("upstream_error").inc()
    metrics.sessions_created.inc(5)
    metrics.rate_limited.inc(4)
    watch.tick([Stream()], now=0, at=10)
    watch.tick([], now=STEP_S, at=15)
    first, second = watch.history.points()
    assert (first.active, first.started, first.ended, first.failed) == (1, 5, 3, 1)
    assert first.limited == 4
    assert (second.active, second.started, second.ended, second.limited) == (0, 0, 0, 0)
    assert watch.history.latest == second


def test_very_many_streams_are_looked_at_in_turns() -> None:
    watch = Watch(Metrics(), frozenset())
    streams = [Stream(id=str(number)) for number in range(MAX_LOOKS + 10)]
    for stream in streams:
        stream.say(1, at=1.0)
    watch.tick(streams, now=1, at=1)
    assert watch.timings.events == MAX_LOOKS
    watch.tick(streams, now=2, at=2)
    assert watch.timings.events == MAX_LOOKS + 10


def test_history_keeps_an_hour_and_no_more() -> None:
    watch = Watch(Metrics(), frozenset())
    for number in range(800):
        watch.tick([], now=number * STEP_S, at=number * STEP_S)
    points = watch.history.points()
    assert points[-1].at - points[0].at == (3600 - STEP_S) * 1000


@pytest.mark.parametrize("look_s", [1.0, 0.5])
def test_points_stand_five_seconds_apart_however_often_one_looks(look_s: float) -> None:
    watch = Watch(Metrics(), frozenset())
    for number in range(round(21 / look_s)):
        watch.tick([], now=number * look_s, at=number * look_s)
    assert [point.at for point in watch.history.points()] == [0, 5000, 10_000, 15_000, 20_000]
