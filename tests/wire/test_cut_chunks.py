"""A property: however the bytes of an answer are cut into packets and chunks, the client sees one
and the same stream, to the byte on the provider routes and to the event on the typed one.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from tests.backend import Exchange, ScriptedBackend
from tests.framing import LAST_CHUNK, Framing, chunked, response_head
from tests.gateway import Gateway, running_gateway
from tests.wire.answers import Answer, ask, events, without_ids
from tests.wire.routes import ROUTES, SAID, Recording, Route

_FRAMINGS: tuple[Framing, ...] = ("chunked", "length", "close")
_LINE_ENDS = (b"\n", b"\r\n", b"\r")


@dataclass(slots=True)
class Stage:
    """A gateway and its backend, which sends the pieces that the test has laid out."""

    route: Route
    runner: asyncio.Runner
    gateway: Gateway
    pieces: list[bytes] = field(default_factory=list)
    framing: Framing = "chunked"

    def ask(self) -> Answer:
        return self.runner.run(ask(self.gateway.port, self.route.path, self.route.question("go")))

    async def play(self, exchange: Exchange) -> None:
        for piece in self.pieces:
            await exchange.send(piece)
            await asyncio.sleep(0)  # the gateway's turn, so that no two pieces become one
            await asyncio.sleep(0)
        if self.framing == "close":
            await exchange.close()


@pytest.fixture(params=ROUTES, ids=str)
def stage(request: pytest.FixtureRequest) -> Iterator[Stage]:
    with asyncio.Runner() as runner:
        context = _staged(request.param, runner)
        yield runner.run(context.__aenter__())
        runner.run(context.__aexit__(None, None, None))


@asynccontextmanager
async def _staged(route: Route, runner: asyncio.Runner) -> AsyncIterator[Stage]:
    async def script(exchange: Exchange) -> None:
        await stage.play(exchange)

    async with (
        ScriptedBackend(script) as backend,
        running_gateway(backend.url, upstream_dialect=route.recording.dialect) as gateway,
    ):
        stage = Stage(route, runner, gateway)
        yield stage


_CUTS = st.lists(st.integers(min_value=0, max_value=2000), max_size=40)
_EVERY_BYTE = list(range(2000))


@settings(
    max_examples=150,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(
    chunk_cuts=_CUTS,
    packet_cuts=_CUTS,
    framing=st.sampled_from(_FRAMINGS),
    line_end=st.sampled_from(_LINE_ENDS),
)
@example(chunk_cuts=_EVERY_BYTE, packet_cuts=[], framing="chunked", line_end=b"\n")
@example(chunk_cuts=[], packet_cuts=_EVERY_BYTE, framing="chunked", line_end=b"\r\n")
@example(chunk_cuts=_EVERY_BYTE, packet_cuts=_EVERY_BYTE, framing="chunked", line_end=b"\r\n")
@example(chunk_cuts=[], packet_cuts=_EVERY_BYTE, framing="length", line_end=b"\r")
@example(chunk_cuts=[], packet_cuts=_EVERY_BYTE, framing="close", line_end=b"\n")
def test_stream_is_the_same_however_its_bytes_are_cut(
    stage: Stage, chunk_cuts: list[int], packet_cuts: list[int], framing: Framing, line_end: bytes
) -> None:
    recording = stage.route.recording
    stream = _with_line_ends(recording, line_end)
    stage.framing = framing
    stage.pieces = _cut(_answer(recording, stream, framing, chunk_cuts), packet_cuts)

    answer = stage.ask()

    assert answer.status == 200
    assert answer.is_whole
    if stage.route.is_typed:
        _check_typed(answer)
    else:
        assert without_ids(answer.body) == stream


def _check_typed(answer: Answer) -> None:
    names = [event.name for event in events(answer.body)]
    assert names == ["start", "content_chunk", "content_chunk", "complete"]
    _, first, second, last = events(answer.body)
    assert first.data["content"] + second.data["content"] == SAID
    assert last.data["reason"] == "completed"


def _with_line_ends(recording: Recording, line_end: bytes) -> bytes:
    stream = b"".join(recording.blocks)
    if recording.dialect == "ollama" and line_end == b"\r":
        return stream  # lines of JSON end with LF, or CR LF
    return stream.replace(b"\n", line_end)


def _answer(recording: Recording, stream: bytes, framing: Framing, cuts: list[int]) -> bytes:
    head = response_head(content_type=recording.content_type, framing=framing, length=len(stream))
    if framing != "chunked":
        return head + stream
    return head + b"".join(map(chunked, _cut(stream, cuts))) + LAST_CHUNK


def _cut(data: bytes, cuts: list[int]) -> list[bytes]:
    marks = sorted({0, len(data), *(cut for cut in cuts if cut < len(data))})
    return [data[start:end] for start, end in itertools.pairwise(marks)]
