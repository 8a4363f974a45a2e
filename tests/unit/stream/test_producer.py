"""The producer: how each answer ends its stream, and what becomes of the connection."""

from __future__ import annotations

import asyncio
import itertools
import re
from collections.abc import Callable, Sequence

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway.errors import UpstreamError
from gateway.stream.answer import Ask
from gateway.stream.limits import Bounds
from gateway.stream.live import LiveStream
from gateway.stream.model import StreamId
from gateway.stream.producer import Producer
from gateway.stream.wires.base import Wire
from gateway.stream.wires.provider import ProviderWire
from gateway.stream.wires.typed import TypedWire
from gateway.tasks import TaskOwner
from tests.unit.stream.parts import DIALECT, DONE, EVENT, ScriptedAnswer, make_stream, turn

_BOUNDS = Bounds(event_max_bytes=1000, pauses=True)


def _answering(answer: ScriptedAnswer) -> Ask:
    async def ask() -> ScriptedAnswer:
        return answer

    return ask


async def _run(answer: ScriptedAnswer, stream: LiveStream | None = None) -> LiveStream:
    stream = stream or make_stream()
    stream.attach()
    await _produce(stream, _answering(answer))
    return stream


async def _produce(stream: LiveStream, ask: Ask, bounds: Bounds = _BOUNDS) -> None:
    """Until the stream has ended."""
    tasks = TaskOwner()
    Producer(stream, ask, DIALECT, bounds, tasks).start()
    async with asyncio.timeout(10):
        while not stream.log.is_closed:
            await asyncio.sleep(0)
    await tasks.join()


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


_USUAL = b'data: {"choices":[{"index":0,"delta":{"content":"%b"}}]}\n\n'
_OTHERS = (
    b": a comment\n\n",
    b'data: {"choices":[{"index":0,"delta":{"content":"\\n"}}]}\n\n',
    b'data: {"choices":[{"index":0,"delta":{},"finish_reason":null}]}\n\n',
    b'data: {"choices":[],"usage":{"completion_tokens":3}}\r\n\r\n',
)


_MAKE_WIRE: tuple[Callable[[], Wire], ...] = (
    lambda: ProviderWire(DIALECT, trace_id="t"),
    lambda: TypedWire(
        DIALECT, stream_id=StreamId("s"), trace_id="t", conversation_id=None, max_duration_s=0
    ),
)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    blocks=st.lists(
        st.one_of(
            st.builds(lambda n, text: _USUAL % text.encode() * n, st.integers(1, 90), st.text()),
            st.sampled_from(_OTHERS),
        ),
        max_size=8,
    ),
    cuts=st.lists(st.integers(0, 60_000), max_size=4),
)
async def test_events_are_the_same_however_many_come_at_once(
    blocks: list[bytes], cuts: list[int]
) -> None:
    answer = b"".join([_USUAL % b"a", *blocks, DONE])
    edges = [0, *sorted(cut for cut in cuts if cut < len(answer)), len(answer)]
    pieces = [answer[start:end] for start, end in itertools.pairwise(edges)]
    small = [answer[start : start + 53] for start in range(0, len(answer), 53)]
    by_event = [re.findall(rb"(?s).+?\n\n|.+", part) for part in (_USUAL % b"a", *blocks, DONE)]
    chunks = list(itertools.chain.from_iterable(by_event))
    ways = (pieces, small, by_event, [small], [pieces], _torn(chunks, edges[1:-1]))
    for make_wire in _MAKE_WIRE:
        told = []
        for parts in ways:
            wire = make_wire()
            stream = make_stream(max_bytes=10**7, wire=wire)
            await _run(ScriptedAnswer(parts), stream)
            events = [_timeless(event) for event in stream.log.events()]
            told.append((events, wire.total_chunks, wire.summary(events).text))
        assert told == [told[0]] * len(ways)


def _torn(chunks: list[bytes], cuts: list[int]) -> list[list[bytes]]:
    """The chunks as reads bring them: one that a read ends in goes on with the next."""
    reads: list[list[bytes]] = [[]]
    position = 0
    for chunk in chunks:
        edges = [
            0,
            *(cut - position for cut in cuts if 0 < cut - position < len(chunk)),
            len(chunk),
        ]
        for number, (start, end) in enumerate(itertools.pairwise(edges)):
            if number:
                reads.append([])
            reads[-1].append(chunk[start:end])
        position += len(chunk)
    return reads


@pytest.mark.parametrize("number", range(2), ids=["provider", "typed"])
async def test_usual_events_that_come_together_are_not_read_one_by_one(
    number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    wire = _MAKE_WIRE[number]()
    plain, read = wire.feed, list[bytes]()

    def feed(blocks: list[bytes]) -> Sequence[bytes]:
        read.extend(blocks)
        return plain(blocks)

    monkeypatch.setattr(wire, "feed", feed)
    first, usual = _USUAL % b"a", _USUAL % b"b"
    stream = make_stream(max_bytes=10**7, wire=wire)
    torn = [[*[usual] * 50, usual[:10]], [usual[10:], *[usual] * 50]]
    await _run(ScriptedAnswer([first, first, [usual] * 100, *torn, DONE]), stream)
    assert wire.total_chunks >= 203
    assert read.count(usual) == 1, "but for the one that a read has cut in two"


def _timeless(event: bytes) -> bytes:
    return re.sub(rb'"duration":[0-9.e-]+', b"", event)


async def test_events_before_one_that_is_too_large_are_kept_also_where_all_come_at_once() -> None:
    piece = _USUAL % b"a" * 80 + b"data: " + b"x" * 2000
    for cut in (0, 10, len(_USUAL)):
        stream = await _run(ScriptedAnswer([piece[:cut], piece[cut:]] if cut else [piece]))
        assert _reason(stream) == "event_too_large"
        assert stream.log.events()[:80] == [_USUAL % b"a"] * 80


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


async def test_stopped_producer_closes_the_backends_connection() -> None:
    answer = ScriptedAnswer([EVENT], endless=True)
    stream = make_stream()
    tasks = TaskOwner()
    producer = Producer(stream, _answering(answer), DIALECT, _BOUNDS, tasks)
    producer.start()
    await turn()
    assert (len(tasks), answer.is_closed) == (0, False)  # it needs none while it relays
    producer.stop("user_requested")
    assert answer.is_closed


async def test_producer_that_is_cancelled_while_it_asks_ends_its_stream() -> None:
    stream, tasks = make_stream(), TaskOwner()

    async def ask() -> ScriptedAnswer:
        await asyncio.Event().wait()
        raise AssertionError

    Producer(stream, ask, DIALECT, _BOUNDS, tasks).start()
    await turn()
    await tasks.cancel()
    assert _reason(stream) == "server_shutdown"


async def test_our_own_mistake_ends_the_stream_as_interrupted(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def ask() -> ScriptedAnswer:
        raise ZeroDivisionError

    stream = make_stream()
    await _produce(stream, ask)
    assert [record.message for record in caplog.records] == ["task.failed"]
    assert _reason(stream) == "interrupted"
    error = stream.opened.result().error
    assert (error and error.status) == 500


async def test_our_own_mistake_while_it_relays_is_told_and_closes_the_connection(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    wire = _MAKE_WIRE[0]()

    def feed(blocks: list[bytes]) -> Sequence[bytes]:
        raise ZeroDivisionError

    monkeypatch.setattr(wire, "feed", feed)
    stream, answer = make_stream(wire=wire), ScriptedAnswer([EVENT], endless=True)
    await _run(answer, stream)
    assert [record.message for record in caplog.records] == ["task.failed"]
    assert (_reason(stream), answer.is_closed) == ("interrupted", True)


async def test_full_log_stops_the_reading_until_there_is_room() -> None:
    answer = ScriptedAnswer([EVENT] * 10 + [DONE])
    stream = make_stream(max_bytes=3 * len(EVENT))
    stream.attach()
    producer = Producer(stream, _answering(answer), DIALECT, _BOUNDS, TaskOwner())
    producer.start()
    await turn()
    assert (stream.is_paused, answer.fed) == (True, 1)
    producer.make_room()  # nobody has taken anything yet
    await turn()
    assert (stream.is_paused, answer.fed) == (True, 1)
    stream.detach()  # nobody is there any more: the oldest events go
    producer.make_room()
    while not stream.log.is_closed:
        await asyncio.sleep(0)
    assert _reason(stream) == "completed"


async def test_detach_policy_drops_the_oldest_instead() -> None:
    answer = ScriptedAnswer([EVENT] * 10 + [DONE])
    stream = make_stream(max_bytes=300)
    stream.attach()
    stream.was_read = True
    bounds = Bounds(event_max_bytes=1000, pauses=False)
    await _produce(stream, _answering(answer), bounds)
    assert _reason(stream) == "completed"
    assert stream.log.last == 11
    assert stream.log.first > 1
