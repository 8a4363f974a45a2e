"""What a stream costs inside: its log, and its whole life in the hub."""

from __future__ import annotations

from benchmarks.conftest import Measure, MeasureAsync
from gateway.stream.log import EventLog, LogBudget
from gateway.stream.model import new_stream_id
from tests.unit.stream.parts import (
    DONE,
    EVENT,
    Lease,
    RecordingSink,
    ScriptedAnswer,
    make_hub,
    plan,
)

_EVENTS = 500
_STREAMS = 50
_READ_BYTES = 16 * 1024


def _log(max_bytes: int = 1 << 20, *, filled: bool = False) -> EventLog:
    log = EventLog(new_stream_id(), max_bytes=max_bytes, with_ids=True, budget=LogBudget(0))
    for _ in range(_EVENTS if filled else 0):
        log.append(EVENT)
    return log


def bench_log_append(measure: Measure) -> None:
    def append() -> None:
        log = _log()
        for _ in range(_EVENTS):
            log.append(EVENT)

    measure(append, "event", _EVENTS)


def bench_log_read_live(measure: Measure) -> None:
    log = _log(filled=True)

    def read() -> None:
        for cursor in range(_EVENTS):
            log.read(cursor, 1)

    measure(read, "event", _EVENTS)


def bench_log_read_replay(measure: Measure) -> None:
    log = _log(filled=True)

    def replay() -> None:
        cursor = 0
        while cursor < log.last:
            _, cursor = log.read(cursor, _READ_BYTES)

    measure(replay, "event", _EVENTS)


def bench_log_append_and_trim(measure: Measure) -> None:
    def trim() -> None:
        log = _log(max_bytes=10_000)
        for _ in range(_EVENTS):
            log.append(EVENT)
            log.trim(log.last)

    measure(trim, "event", _EVENTS)


def bench_hub_start_and_end(measure_async: MeasureAsync) -> None:
    async def run() -> None:
        hub, _ = make_hub()
        for _ in range(_STREAMS):
            stream = hub.start(plan(ScriptedAnswer([DONE])), Lease())
            await stream.opened
            await hub.read(stream, RecordingSink(), interval_s=0)
            hub.leave(stream)
        assert not len(hub)

    measure_async(run, "stream", _STREAMS)


def bench_hub_stream_of_500_events(measure_async: MeasureAsync) -> None:
    async def run() -> None:
        hub, _ = make_hub(log_max_bytes=1 << 20)
        pieces = [*[EVENT] * _EVENTS, DONE]
        stream = hub.start(plan(ScriptedAnswer(pieces), with_ids=True), Lease())
        await hub.read(stream, RecordingSink(), interval_s=0)
        hub.leave(stream)
        assert not len(hub)

    measure_async(run, "event", _EVENTS)
