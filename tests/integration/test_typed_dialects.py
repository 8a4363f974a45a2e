"""The typed route in front of each dialect: the text, the sources and the counts of the backend."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass

import aiohttp
import orjson
import pytest

from gateway.sse.dialects import DIALECTS
from scripts.mock.answers import Answer, answer_to
from scripts.mock.behaviour import Behaviour
from scripts.mock.server import serving
from tests.backend import (
    LAST_CHUNK,
    OLLAMA_STREAM,
    RAG_STREAM,
    Exchange,
    ScriptedBackend,
    chunked,
    response_head,
)
from tests.gateway import running_gateway
from tests.recordings import SAID, TOKENS

QUESTION = "How do I brew a good coffee?"
QUICK = Behaviour().having("first=0 pace=0 seed=7")
PACED = "first=0.15 pace=150 jitter=0 tokens=4 seed=7"


@dataclass(frozen=True, slots=True)
class Event:
    name: str
    data: dict[str, object]


def answer(options: str = "") -> Answer:
    """What the demo backend says to `QUESTION`."""
    return answer_to(QUESTION, QUICK.having(options), None, None)


@asynccontextmanager
async def typed(dialect: str, options: str = "", **settings: object) -> AsyncIterator[str]:
    """The typed route's address, in front of a demo backend that speaks `dialect`."""
    async with (
        serving(QUICK.having(options)) as backend,
        running_gateway(backend, upstream_dialect=dialect, **settings) as gateway,
    ):
        yield f"{gateway.url}/api/v2/chat-stream"


async def events_of(url: str, question: str = QUESTION) -> list[Event]:
    asked = {"query": question}
    async with aiohttp.ClientSession() as session, session.post(url, json=asked) as response:
        assert response.status == 200
        return [_event(block) for block in (await response.read()).split(b"\n\n")[:-1]]


def _event(block: bytes) -> Event:
    lines = dict(line.split(b": ", 1) for line in block.split(b"\n"))
    return Event(lines[b"event"].decode(), orjson.loads(lines[b"data"]))


def chunks(events: list[Event]) -> list[object]:
    return [event.data["content"] for event in events if event.name == "content_chunk"]


@pytest.mark.parametrize("dialect", DIALECTS)
async def test_typed_route_says_what_the_backend_said_in_the_same_pieces(dialect: str) -> None:
    async with typed(dialect) as url:
        events = await events_of(url)
    assert tuple(chunks(events)) == answer().pieces
    assert [event.name for event in (events[0], events[-1])] == ["start", "complete"]
    whole = events[-1].data
    assert whole["reason"] == "completed"
    assert whole["total_chunks"] == len(answer().pieces)
    assert whole["total_tokens"] == len(answer().pieces)


@pytest.mark.parametrize("dialect", DIALECTS)
async def test_typed_route_shows_heartbeats_in_silence_and_the_same_text(dialect: str) -> None:
    async with typed(dialect, PACED, heartbeat_interval=0.02, commit_delay_ms=0) as url:
        events = await events_of(url)
    assert tuple(chunks(events)) == answer("tokens=4").pieces
    names = [event.name for event in events]
    first, last = names.index("content_chunk"), len(names) - names[::-1].index("content_chunk")
    assert "heartbeat" in names[:first]
    assert names[first:last].count("heartbeat") >= 1
    assert set(names) == {"start", "heartbeat", "content_chunk", "complete"}


async def test_sources_of_a_retrieval_backend_are_in_the_last_event() -> None:
    async with typed("rag") as url:
        events = await events_of(url)
    assert events[-1].data["sources"] == [asdict(source) for source in answer().sources]
    assert len(answer().sources) >= 2


@pytest.mark.parametrize("dialect", DIALECTS)
async def test_answer_that_was_cut_short_is_incomplete(dialect: str) -> None:
    async with typed(dialect, "finish=length") as url:
        events = await events_of(url)
    assert events[-1].name == "complete"
    assert events[-1].data["reason"] == "incomplete"
    assert tuple(chunks(events)) == answer("finish=length").pieces


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize(
    ("trouble", "code"),
    [
        ("error=5", "upstream_error"),
        ("cut=5", "upstream_truncated"),
        ("drop=5", "upstream_truncated"),
        ("reset=5", "upstream_truncated"),
    ],
)
async def test_break_in_mid_stream_keeps_the_text_before_it(
    dialect: str, trouble: str, code: str
) -> None:
    async with typed(dialect, trouble) as url:
        events = await events_of(url)
    assert tuple(chunks(events)) == answer().pieces[:5]
    assert events[-1].name == "error"
    assert (events[-1].data["code"], events[-1].data["partial"]) == (code, True)


@pytest.mark.parametrize(
    ("dialect", "stream", "media_type"),
    [
        ("ollama", OLLAMA_STREAM, "application/x-ndjson"),
        ("rag", RAG_STREAM, "text/event-stream"),
    ],
)
async def test_recorded_answer_that_comes_byte_by_byte_is_read_the_same(
    dialect: str, stream: bytes, media_type: str
) -> None:
    async def script(exchange: Exchange) -> None:
        await exchange.send(response_head(content_type=media_type))
        await exchange.send(*(chunked(stream[i : i + 1]) for i in range(len(stream))), LAST_CHUNK)

    async with (
        ScriptedBackend(script) as backend,
        running_gateway(backend.url, upstream_dialect=dialect) as gateway,
    ):
        events = await events_of(f"{gateway.url}/api/v2/chat-stream")
    assert tuple(chunks(events)) == TOKENS
    assert "".join(map(str, chunks(events))) == SAID
    usage = {"input_tokens": 13, "output_tokens": 4, "total_tokens": 17}
    assert (events[-1].name, events[-1].data["usage"]) == ("complete", usage)
