"""The producer: how each answer ends its stream, and what becomes of the connection."""

from __future__ import annotations

import asyncio

import pytest

from gateway.errors import UpstreamError
from gateway.stream.answer import Ask
from gateway.stream.limits import Bounds
from gateway.stream.live import LiveStream
from gateway.stream.producer import Producer
from tests.unit.stream.parts import DIALECT, DONE, EVENT, ScriptedAnswer, make_stream, turn

_BOUNDS = Bounds(event_max_bytes=1000, pauses=True)


def _answering(answer: ScriptedAnswer) -> Ask:
    async def ask() -> ScriptedAnswer:
        return answer

    return ask


async def _run(answer: ScriptedAnswer, stream: LiveStream | None = None) -> LiveStream:
    stream = stream or make_stream()
    stream.attach()
    await Producer(stream, _answering(answer), DIALECT, _BOUNDS).run()
    assert stream.log.is_closed
    return stream


def _reason(stream: LiveStream) -> str:
    assert stream.ending is not None
    return stream.ending.reason


async def test_whole_answer_completes_and_its_connection_is_kept() -> None:
    answer = ScriptedAnswer([EVENT, EVENT + DONE])
    stream = await _run(answer)
    assert _reason(stream) == "completed"
    assert stream.log.read(0, 1000) == (EVENT * 2 + DONE, 3)
    assert (answer.is_finished, answer.is_closed) == (True, False)


@pytest.mark.parametrize(
    ("pieces", "reason"),
    [
        ([EVENT, DONE[:-1]], "upstream_truncated"),
        ([EVENT], "upstream_truncated"),
        ([], "upstream_truncated"),
        ([EVENT, UpstreamError("gone", code="upstream_truncated")], "upstream_truncated"),
        ([b"data: " + b"x" * 2000], "event_too_large"),
    ],
)
async def test_answer_without_its_end_is_an_error_and_its_connection_closed(
    pieces: list[bytes | UpstreamError], reason: str
) -> None:
    answer = ScriptedAnswer(pieces)
    stream = await _run(answer)
    assert _reason(stream) == reason
    assert answer.is_closed != answer.is_finished
    assert stream.ending is not None
    assert not stream.wire.ends_cleanly(stream.ending)


async def test_event_that_is_too_large_is_an_error_also_where_its_shape_is_known() -> None:
    usual = b'data: {"choices":[{"index":0,"delta":{"content":"%b"}}]}\n\n'
    stream = await _run(ScriptedAnswer([usual % (b"x" * size) for size in (1, 900, 1000)]))
    assert _reason(stream) == "event_too_large"
    assert stream.log.read(0, 10_000)[0].startswith(usual % b"x" + usual % (b"x" * 900))


async def test_answer_that_is_no_stream_is_handed_to_the_request() -> None:
    answer = ScriptedAnswer([b"{}"], status=429, headers={"Content-Type": "application/json"})
    stream = await _run(answer)
    assert stream.opened.result().declined is answer
    assert not answer.is_closed
    stream.detach()
    assert answer.is_closed
    assert _reason(stream) == "upstream_error"


async def test_answer_that_is_no_stream_is_an_error_once_the_response_has_begun() -> None:
    answer = ScriptedAnswer(status=503)
    stream = make_stream()
    stream.commit()
    await _run(answer, stream)
    assert answer.is_closed
    assert stream.opened.result().declined is None
    assert _reason(stream) == "upstream_error"
    assert b"status 503" in stream.log.read(0, 1000)[0]


async def test_cancelled_producer_closes_the_backends_connection() -> None:
    answer = ScriptedAnswer([EVENT], endless=True)
    stream = make_stream()
    task = asyncio.create_task(Producer(stream, _answering(answer), DIALECT, _BOUNDS).run())
    await turn()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert answer.is_closed
    assert _reason(stream) == "server_shutdown"


async def test_our_own_mistake_ends_the_stream_as_interrupted() -> None:
    async def ask() -> ScriptedAnswer:
        raise ZeroDivisionError

    stream = make_stream()
    with pytest.raises(ZeroDivisionError):
        await Producer(stream, ask, DIALECT, _BOUNDS).run()
    assert _reason(stream) == "interrupted"
    error = stream.opened.result().error
    assert (error and error.status) == 500


async def test_full_log_stops_the_reading_until_there_is_room() -> None:
    answer = ScriptedAnswer([EVENT] * 10 + [DONE])
    stream = make_stream(max_bytes=3 * len(EVENT))
    stream.attach()
    producer = Producer(stream, _answering(answer), DIALECT, _BOUNDS)
    task = asyncio.create_task(producer.run())
    await turn()
    assert (stream.is_paused, answer.fed) == (True, 1)
    producer.make_room()  # nobody has taken anything yet
    await turn()
    assert (stream.is_paused, answer.fed) == (True, 1)
    stream.detach()  # nobody is there any more: the oldest events go
    producer.make_room()
    await task
    assert _reason(stream) == "completed"


async def test_detach_policy_drops_the_oldest_instead() -> None:
    answer = ScriptedAnswer([EVENT] * 10 + [DONE])
    stream = make_stream(max_bytes=300)
    stream.attach()
    stream.was_read = True
    bounds = Bounds(event_max_bytes=1000, pauses=False)
    await Producer(stream, _answering(answer), DIALECT, bounds).run()
    assert _reason(stream) == "completed"
    assert stream.log.last == 11
    assert stream.log.first > 1
