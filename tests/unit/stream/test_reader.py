"""A reader: one cursor, joined writes, and every way in which a client goes."""

from __future__ import annotations

import asyncio

import pytest

from gateway.stream.live import LiveStream
from gateway.stream.model import COMPLETED, DURATION_CAP
from gateway.stream.reader import Reader
from tests.unit.stream.parts import DONE, EVENT, RecordingSink, make_stream, turn


def _reader(stream: LiveStream, sink: RecordingSink, interval_s: float = 0) -> Reader:
    return Reader(stream, sink, interval_s=interval_s, advanced=lambda: None)


def _finish(stream: LiveStream) -> None:
    stream.log.extend(stream.wire.feed([DONE]))
    stream.end(COMPLETED)


async def test_what_is_ready_is_one_write() -> None:
    stream, sink = make_stream(), RecordingSink()
    for _ in range(50):
        stream.log.append(EVENT)
    _finish(stream)
    await _reader(stream, sink).run()
    assert sink.writes == [EVENT * 50 + DONE]
    assert not sink.is_broken_off


async def test_end_goes_with_what_is_written_last() -> None:
    stream, sink = make_stream(), RecordingSink()
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(_reader(stream, sink).run())
        stream.log.append(EVENT)
        await turn()
        assert not sink.has_end
        stream.end(COMPLETED, stream.wire.feed([EVENT, DONE]))
    assert (sink.writes, sink.has_end) == ([EVENT, EVENT + DONE], True)


async def test_stream_that_breaks_off_has_no_end() -> None:
    stream, sink = make_stream(), RecordingSink()
    stream.log.append(EVENT)
    stream.end(DURATION_CAP)
    await _reader(stream, sink).run()
    assert not sink.has_end


async def test_response_begins_with_what_is_ready_or_else_without() -> None:
    silent, ready = RecordingSink(), RecordingSink()
    stream = make_stream()
    stream.log.append(EVENT)
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(_reader(stream, ready).run())
        await turn()
        _finish(stream)
    assert ready.begun_after == 1
    silent_stream = make_stream()
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(_reader(silent_stream, silent).run())
        await turn()
        assert silent.begun_after == 0
        _finish(silent_stream)


async def test_write_is_bounded_and_holds_whole_events() -> None:
    stream, sink = make_stream(max_bytes=10**6), RecordingSink()
    event = b"data: " + b"x" * 9_992 + b"\n\n"
    for _ in range(10):
        stream.log.append(event)
    _finish(stream)
    await _reader(stream, sink).run()
    assert [len(write) // 10_000 for write in sink.writes] == [6, 4]
    assert b"".join(sink.writes) == event * 10 + DONE


async def test_events_that_come_while_the_client_is_busy_gather() -> None:
    stream, sink = make_stream(), RecordingSink()
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(_reader(stream, sink).run())
        stream.log.append(EVENT)
        sink.takes.clear()
        await turn()
        for _ in range(3):
            stream.log.append(EVENT)
            await turn()
        assert sink.writes == [EVENT]
        sink.takes.set()
        _finish(stream)
    assert sink.writes == [EVENT, EVENT * 3 + DONE]


async def test_stream_without_its_end_is_broken_off() -> None:
    stream, sink = make_stream(), RecordingSink()
    stream.log.append(EVENT)
    stream.end(DURATION_CAP)
    await _reader(stream, sink).run()
    assert sink.writes[0].startswith(EVENT + b'data: {"error":')
    assert sink.is_broken_off


async def test_reader_behind_the_log_is_broken_off_and_given_no_tail() -> None:
    stream, sink = make_stream(max_bytes=1), RecordingSink()
    stream.log.append(EVENT)
    stream.log.trim(keep_after=1)
    stream.log.append(EVENT)
    await _reader(stream, sink).run()
    assert (sink.writes, sink.is_broken_off) == ([], True)


async def test_client_that_has_gone_is_normal_life() -> None:
    stream, sink = make_stream(), RecordingSink()
    sink.has_left = True
    stream.log.append(EVENT)
    await _reader(stream, sink).run()
    assert stream.is_active
    assert stream.readers == []
    assert stream.log._listeners == []


async def test_cancelled_reader_leaves_nothing_behind() -> None:
    stream = make_stream()
    task = asyncio.create_task(_reader(stream, RecordingSink()).run())
    await turn()
    assert len(stream.readers) == 1
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert stream.is_active
    assert (stream.readers, stream.log._listeners) == ([], [])


async def test_update_mode_holds_neither_the_first_event_nor_the_end() -> None:
    stream, sink = make_stream(), RecordingSink()
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(_reader(stream, sink, interval_s=1000).run())
        stream.log.append(EVENT)
        await turn()
        assert sink.writes == [EVENT]
        for _ in range(9):
            stream.log.append(EVENT)
            await turn()
        at_once = len(sink.writes)
        assert at_once < 5
        _finish(stream)
    assert sink.writes == [EVENT] * at_once + [EVENT * (10 - at_once) + DONE]


async def test_update_mode_lets_events_gather_for_its_interval() -> None:
    stream, sink = make_stream(), RecordingSink()
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(_reader(stream, sink, interval_s=0.03).run())
        for _ in range(10):
            stream.log.append(EVENT)
            await turn()
        async with asyncio.timeout(5):
            while sum(map(len, sink.writes)) < 10 * len(EVENT):
                await asyncio.sleep(0.005)
        _finish(stream)
    assert 2 <= len(sink.writes) < 10
    assert b"".join(sink.writes) == EVENT * 10 + DONE


async def test_heartbeat_is_written_once_and_only_into_silence() -> None:
    stream, sink = make_stream(), RecordingSink()
    async with asyncio.TaskGroup() as tasks:
        reader = _reader(stream, sink)
        tasks.create_task(reader.run())
        await turn()
        reader.tick(reader.last_write + 4.9, 5)
        assert sink.writes == []
        reader.tick(reader.last_write + 5.1, 5)
        reader.tick(reader.last_write + 4.9, 5)
        assert sink.writes == [b":\n"]
        stream.log.append(EVENT)
        reader.tick(reader.last_write + 4.9, 5)
        assert sink.writes == [b":\n", EVENT]
        _finish(stream)


async def test_client_that_is_being_written_to_gets_no_heartbeat() -> None:
    stream, sink = make_stream(), RecordingSink()
    async with asyncio.TaskGroup() as tasks:
        reader = _reader(stream, sink)
        tasks.create_task(reader.run())
        sink.takes.clear()
        stream.log.append(EVENT)
        await turn()
        reader.tick(reader.last_write + 100, 5)
        sink.takes.set()
        await turn()
        assert sink.writes == [EVENT]
        _finish(stream)
