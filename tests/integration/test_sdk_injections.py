"""What the official SDKs make of lines that are added to a stream, and of what is missing from it.

The rules of the provider routes rest on these facts: which additions an SDK tolerates, which it
takes for an event or fails on, and that none misses the end of a stream. They are asserted against
a scripted backend without the gateway, so that a new release that changes one is noticed; and
through the gateway, where all that can be harmless must be.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

import httpx2
import pytest

from tests.backend import (
    ANTHROPIC_STREAM,
    CHAT_STREAM,
    LAST_CHUNK,
    RESPONSES_STREAM,
    Exchange,
    ScriptedBackend,
    blocks,
    chunked,
    sse_head,
)
from tests.gateway import running_gateway
from tests.sdks import Call, Node, Outcome, ask

STREAMS = {
    "/v1/chat/completions": CHAT_STREAM,
    "/v1/responses": RESPONSES_STREAM,
    "/v1/messages": ANTHROPIC_STREAM,
}
TURNS = [{"role": "user", "content": "?"}]
CALLS = (
    Call("chat.completions.create", {"model": "m", "messages": TURNS}),
    Call("responses.create", {"model": "m", "input": "?"}),
    Call("messages.create", {"model": "m", "max_tokens": 9, "messages": TURNS}),
)

#: What an application sees, compared with the stream as it was: the same events, all but the first,
#: one more, or the first of them and then an end like any other. Else an error: that of a stream
#: that says so itself, or one that is the SDK's own mistake.
SAME, FIRST_LOST, ONE_MORE, CUT_SHORT = "same", "first lost", "one more", "cut short"
ERROR, NO_JSON = "error", "JSONDecodeError"
ERROR_CLASSES = ("APIError", "APIStatusError")

Change = Callable[[bytes], bytes]
Three = tuple[str, str, str]


def first_token(stream: bytes) -> int:
    """Which block it is; there are events before it in every dialect."""
    return next(i for i, block in enumerate(blocks(stream)) if "Grüße".encode() in block)


def with_ids(stream: bytes) -> bytes:
    return b"".join(b"id: theirs.%d\n%b" % item for item in enumerate(blocks(stream), 1))


def inserted(data: bytes) -> Change:
    def change(stream: bytes) -> bytes:
        parts, at = blocks(stream), first_token(stream)
        return b"".join([*parts[:at], data, *parts[at:]])

    return change


def ending_with(data: bytes) -> Change:
    return lambda stream: b"".join([*blocks(stream)[: first_token(stream) + 2], data])


def doubled(stream: bytes) -> bytes:
    return inserted(blocks(stream)[first_token(stream)])(stream)


@dataclass(frozen=True, slots=True)
class Row:
    """A change of the stream and what becomes of it, in chat, Responses and Messages."""

    change: Change
    python: Three
    node: Three
    through_gateway: str


ALL_SAME: Three = (SAME, SAME, SAME)
ALL_ERRORS: Three = (ERROR, ERROR, ERROR)
ALL_ONE_MORE: Three = (ONE_MORE, ONE_MORE, ONE_MORE)
#: A blank line dispatches an event without data as soon as there has been any id.
OPENAI_PYTHON_FAILS: Three = (NO_JSON, NO_JSON, SAME)

TABLE = {
    "nothing": Row(bytes, ALL_SAME, ALL_SAME, SAME),
    "id lines": Row(with_ids, ALL_SAME, ALL_SAME, SAME),
    "retry in the first block": Row(lambda s: b"retry: 3000\n" + s, ALL_SAME, ALL_SAME, SAME),
    "comment line": Row(inserted(b": x\n"), ALL_SAME, ALL_SAME, SAME),
    "comment line, with ids": Row(
        lambda s: inserted(b": x\n")(with_ids(s)), ALL_SAME, ALL_SAME, SAME
    ),
    "our heartbeats, with ids": Row(
        lambda s: inserted(b":\n" * 20)(with_ids(s)), ALL_SAME, ALL_SAME, SAME
    ),
    "comment block": Row(inserted(b": x\n\n"), ALL_SAME, ALL_SAME, SAME),
    "comment block, with ids": Row(
        lambda s: inserted(b": x\n\n")(with_ids(s)), OPENAI_PYTHON_FAILS, ALL_SAME, SAME
    ),
    "ping of aiohttp-sse, with ids": Row(
        lambda s: inserted(b": ping\r\n\r\n")(with_ids(s)), OPENAI_PYTHON_FAILS, ALL_SAME, SAME
    ),
    "retry alone": Row(inserted(b"retry: 3000\n\n"), OPENAI_PYTHON_FAILS, ALL_SAME, SAME),
    "id alone": Row(inserted(b"id: x\n\n"), OPENAI_PYTHON_FAILS, ALL_SAME, SAME),
    "CRLF": Row(lambda s: s.replace(b"\n", b"\r\n"), ALL_SAME, ALL_SAME, SAME),
    "CR": Row(lambda s: s.replace(b"\n", b"\r"), ALL_SAME, ALL_SAME, SAME),
    # It hides the first line: chat's data, elsewhere the event's name, which Responses repeats.
    "BOM": Row(lambda s: b"\xef\xbb\xbf" + s, (FIRST_LOST, SAME, FIRST_LOST), ALL_SAME, SAME),
    # What the gateway can't mend, since it can't know: it passes as it is.
    "foreign event": Row(
        inserted(b'event: status\ndata: {"n":1}\n\n'), ALL_ONE_MORE, ALL_ONE_MORE, ONE_MORE
    ),
    "event twice": Row(doubled, ALL_ONE_MORE, ALL_ONE_MORE, ONE_MORE),
    # What the SDKs take for a whole answer, and the gateway doesn't.
    "no terminal event": Row(
        lambda s: b"".join(blocks(s)[:-1]),
        (SAME, CUT_SHORT, CUT_SHORT),
        (SAME, CUT_SHORT, CUT_SHORT),
        ERROR,
    ),
    "end in the middle": Row(ending_with(b""), (CUT_SHORT,) * 3, (CUT_SHORT,) * 3, ERROR),
    "error object": Row(
        ending_with(b'data: {"error":{"message":"Broken."}}\n\n'),
        (ERROR, ERROR, CUT_SHORT),
        (ERROR, ERROR, CUT_SHORT),
        ERROR,
    ),
    "error event": Row(
        ending_with(b'event: error\ndata: {"type":"error","error":{"message":"Broken."}}\n\n'),
        ALL_ERRORS,
        ALL_ERRORS,
        ERROR,
    ),
}

#: Rows whose events reach the client as if nothing had been added to them, byte by byte.
CLEANED = [
    name
    for name, row in TABLE.items()
    if row.through_gateway == SAME and name not in ("CRLF", "CR")
]


async def play(exchange: Exchange) -> None:
    """The stream of the path that was asked, changed as the request says."""
    change = TABLE[exchange.headers["x-injection"]].change
    stream = change(STREAMS[exchange.path])
    await exchange.send(sse_head() + chunked(stream) + LAST_CHUNK)


@asynccontextmanager
async def both() -> AsyncIterator[tuple[str, str]]:
    """The scripted backend's address and that of a gateway in front of it."""
    async with ScriptedBackend(play) as backend, running_gateway(backend.url) as gateway:
        yield backend.url, gateway.url


@pytest.mark.parametrize("name", TABLE)
async def test_python_sdks_and_what_is_added_to_a_stream(name: str) -> None:
    async with both() as (backend, gateway):
        plain = await ask_each(backend, "nothing")
        directly = await ask_each(backend, name)
        relayed = await ask_each(gateway, name)
    assert seen(directly, plain) == TABLE[name].python
    assert seen(relayed, plain) == (TABLE[name].through_gateway,) * 3


async def ask_each(url: str, name: str) -> list[Outcome]:
    return await asyncio.gather(*(ask(url, call.having(X_Injection=name)) for call in CALLS))


@pytest.fixture
def node() -> Iterator[Node]:
    with Node() as node:
        yield node


async def test_node_sdks_and_what_is_added_to_a_stream(node: Node) -> None:
    calls = [call.having(X_Injection=name) for name in TABLE for call in CALLS]
    async with both() as (backend, gateway):
        directly = by_row(await node.ask(backend, calls))
        relayed = by_row(await node.ask(gateway, calls))
    plain = directly["nothing"]
    assert {name: seen(outcomes, plain) for name, outcomes in directly.items()} == {
        name: row.node for name, row in TABLE.items()
    }
    assert {name: seen(outcomes, plain) for name, outcomes in relayed.items()} == {
        name: (row.through_gateway,) * 3 for name, row in TABLE.items()
    }


def by_row(outcomes: Sequence[Outcome]) -> dict[str, Sequence[Outcome]]:
    size = len(CALLS)
    return {name: outcomes[i * size : (i + 1) * size] for i, name in enumerate(TABLE)}


def seen(outcomes: Sequence[Outcome], plain: Sequence[Outcome]) -> tuple[str, ...]:
    return tuple(map(effect, outcomes, plain))


def effect(outcome: Outcome, plain: Outcome) -> str:
    """The word of the table for what an application saw."""
    events, whole = outcome.events, plain.events
    assert whole
    if outcome.error is not None:
        return ERROR if outcome.error in ERROR_CLASSES else outcome.error
    if events == whole:
        return SAME
    if events == whole[1:]:
        return FIRST_LOST
    if events and events == whole[: len(events)]:
        return CUT_SHORT
    if any(events[:i] + events[i + 1 :] == whole for i in range(len(events))):
        return ONE_MORE
    return f"{len(events)} other events"


@pytest.mark.parametrize("path", STREAMS)
@pytest.mark.parametrize("name", CLEANED)
async def test_gateway_gives_the_blocks_as_if_nothing_had_been_added(name: str, path: str) -> None:
    async with both() as (_, gateway):
        head, body = await post(gateway + path, name)
    frames = blocks(body)
    stream_id = head["X-Stream-Id"].encode()
    assert [frame.partition(b"\n")[0] for frame in frames] == [
        b"id: %b.%d" % (stream_id, seq) for seq in range(1, len(frames) + 1)
    ]
    assert b"".join(frame.partition(b"\n")[2] for frame in frames) == STREAMS[path]


@pytest.mark.parametrize("path", STREAMS)
@pytest.mark.parametrize("name", ["CRLF", "CR"])
async def test_gateway_keeps_the_line_ends_of_the_backend(name: str, path: str) -> None:
    async with both() as (_, gateway):
        _, body = await post(gateway + path, name)
    without_ids = re.sub(rb"id: [\w-]{16}\.\d+\n", b"", body)
    assert without_ids == TABLE[name].change(STREAMS[path])


async def post(url: str, name: str) -> tuple[httpx2.Headers, bytes]:
    async with httpx2.AsyncClient() as client:
        answer = await client.post(url, json={"stream": True}, headers={"X-Injection": name})
    return answer.headers, answer.content
