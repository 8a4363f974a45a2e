"""The official SDKs through the gateway: what an application sees is what it sees directly.

The demo backend is silent often enough for many heartbeats, of which an application sees nothing.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
from collections.abc import Iterator, Mapping

import httpx2
import pytest

from tests.sdks import Call, Node, Outcome, Style, ask, client_for, raw, resource
from tests.side_by_side import (
    KINDS,
    QUICK,
    ask_everywhere,
    both,
    chat,
    completions,
    messages,
    responses,
)
from tests.tap import Tap

PACE = "first=0.15 pace=150 jitter=0 tokens=4 seed=7"
SHORT_BEATS = {"heartbeat_interval": 0.02}
SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}}
CHAT_TOOLS = [{"type": "function", "function": {"name": "get_weather", "parameters": SCHEMA}}]
RESPONSES_TOOLS = [
    {"type": "function", "name": "get_weather", "parameters": SCHEMA, "strict": True}
]
MESSAGES_TOOLS = [{"name": "get_weather", "input_schema": SCHEMA}]
USAGE = {"include_usage": True}

CASES = {
    **KINDS,
    "chat helper": chat(method="stream"),
    "chat with usage": chat(stream_options=USAGE),
    "chat with a tool": chat("weather?", tools=CHAT_TOOLS),
    "chat helper with a tool": chat("weather?", method="stream", tools=CHAT_TOOLS),
    "chat refused": chat("please refuse").having(X_Mock="pace=40"),
    "chat cut short": chat(max_completion_tokens=3),
    "chat without ids": chat().having(Stream_Ids="off"),
    "chat in CRLF with comments": chat().having(X_Mock="crlf=1 comments=0.02"),
    "completions with usage": completions(stream_options=USAGE),
    "responses helper": responses(method="stream"),
    "responses with a tool": responses("weather?", tools=RESPONSES_TOOLS),
    "responses refused": responses("please refuse").having(X_Mock="pace=40"),
    "responses cut short": responses(max_output_tokens=3),
    "messages helper": messages(method="stream"),
    "messages with a tool": messages("weather?", tools=MESSAGES_TOOLS),
    "messages helper with a tool": messages("weather?", method="stream", tools=MESSAGES_TOOLS),
    "messages refused": messages("please refuse").having(X_Mock="pace=40"),
    "messages in CRLF with comments": messages().having(X_Mock="crlf=1 comments=0.02"),
}
WHOLE = {
    "chat": chat("weather?", tools=CHAT_TOOLS),
    "completions": completions(),
    "responses": responses("weather?", tools=RESPONSES_TOOLS),
    "messages": messages("weather?", tools=MESSAGES_TOOLS),
    "models": Call("models.list"),
    "embeddings": Call("embeddings.create", {"model": "m", "input": ["a", "Łódź"]}),
}


@pytest.fixture(scope="module")
def node() -> Iterator[Node]:
    with Node() as node:
        yield node


@pytest.mark.parametrize("kind", KINDS)
async def test_python_sdk_yields_through_the_gateway_what_it_yields_directly(kind: str) -> None:
    calls = {name: call for name, call in CASES.items() if name.startswith(kind)}
    async with both(PACE, **SHORT_BEATS) as (backend, tap):
        # By itself, since an SDK's first use keeps the loop busy for longer than the silences last.
        directly = await ask_named(backend, calls)
        relayed, in_threads = await asyncio.gather(
            ask_named(tap.url, calls), ask_named(tap.url, calls, "sync")
        )
    assert [outcome.failure for outcome in directly.values()] == [None] * len(calls)
    assert min(len(outcome.events) for outcome in directly.values()) > 3
    assert relayed == directly
    assert in_threads == directly
    assert_heartbeats(tap, connections=2 * len(calls), before=1, between=1)


async def ask_named(
    url: str, calls: Mapping[str, Call], style: Style = "async"
) -> dict[str, Outcome]:
    outcomes = await asyncio.gather(*(ask(url, call, style) for call in calls.values()))
    return dict(zip(calls, outcomes, strict=True))


async def test_node_sdks_yield_through_the_gateway_what_they_yield_directly(node: Node) -> None:
    calls = list(CASES.values())
    async with both(PACE, **SHORT_BEATS) as (backend, tap):
        outcomes = await node.ask_at([(url, call) for url in (backend, tap.url) for call in calls])
    directly, relayed = outcomes[: len(calls)], outcomes[len(calls) :]
    assert [outcome.failure for outcome in directly] == [None] * len(calls)
    assert min(len(outcome.events) for outcome in directly) > 3
    assert relayed == directly
    assert_heartbeats(tap, connections=len(calls), before=1, between=1)


async def test_sdks_see_nothing_of_seconds_of_silence_before_and_within_the_answer(
    node: Node,
) -> None:
    calls = [*KINDS.values(), CASES["chat helper"], CASES["messages helper"]]
    options = "head=2 first=0 pace=2000 jitter=0 tokens=2 seed=7"
    async with both(options, heartbeat_interval=0.2, commit_delay_ms=200) as (backend, tap):
        directly, relayed = await ask_everywhere(node, [backend, tap.url], calls)
    assert [outcome.failure for outcome in directly] == [None] * len(directly)
    assert relayed == directly
    assert_heartbeats(tap, connections=len(directly), before=2, between=2)


def assert_heartbeats(tap: Tap, *, connections: int, before: int, between: int) -> None:
    counts = tap.heartbeats()
    assert len(counts) == connections
    assert min(count for count, _ in counts) >= before
    assert min(count for _, count in counts) >= between


async def test_sdks_see_the_same_answer_where_they_do_not_stream(node: Node) -> None:
    calls = [Call(call.method, call.body, streams=False) for call in WHOLE.values()]
    async with both(QUICK) as (backend, tap):
        directly, relayed = await ask_everywhere(node, [backend, tap.url], calls)
        in_a_thread = [await ask(tap.url, call, "sync") for call in calls]
    assert [outcome.failure for outcome in directly] == [None] * len(directly)
    assert relayed == directly
    # A page of models is another class in each style.
    assert in_a_thread[0] == directly[0]
    assert [outcome.events for outcome in in_a_thread] == [o.events for o in directly[: len(calls)]]


async def test_sdks_upload_files_through_the_gateway(node: Node) -> None:
    content = "Łódź " * 50_000
    upload = {"purpose": "assistants"}
    by_python = Call("files.create", {**upload, "file": ("a.txt", content.encode())}, streams=False)
    by_node = Call(
        "files.create", {**upload, "file": {"name": "a.txt", "content": content}}, streams=False
    )
    async with both(QUICK) as (backend, tap):
        directly = await ask(backend, by_python)
        relayed = [await ask(tap.url, by_python), *await node.ask(tap.url, [by_node])]
    assert [outcome.failure for outcome in relayed] == [None, None]
    assert relayed[0] == directly
    digest = hashlib.sha256(content.encode()).hexdigest()
    assert [outcome.events[0]["sha256"] for outcome in relayed] == [digest, digest]  # type: ignore[index]


@pytest.mark.parametrize("name", KINDS)
async def test_streaming_response_of_the_sdk_shows_the_headers_and_gives_the_same_events(
    name: str,
) -> None:
    call = KINDS[name]
    async with both(QUICK) as (backend, tap), client_for(call, tap.url) as client:
        directly = await ask(backend, call)
        async with raw(client, call) as response:
            headers = response.headers
            events = [event.model_dump() async for event in await response.parse()]
    assert events == directly.events
    assert_names_its_stream(headers, tap)


@pytest.mark.parametrize("name", KINDS)
async def test_raw_response_of_the_sdk_shows_the_headers_and_gives_the_same_events(
    name: str,
) -> None:
    call = KINDS[name]
    async with both(QUICK) as (backend, tap), client_for(call, tap.url) as client:
        directly = await ask(backend, call)
        response = await resource(client, call).with_raw_response.create(**call.arguments)
        parsed = response.parse()
        if asyncio.iscoroutine(parsed):
            parsed = await parsed
        events = [event.model_dump() async for event in parsed]
    assert events == directly.events
    assert_names_its_stream(response.headers, tap)


async def test_node_sdks_show_the_headers_by_with_response(node: Node) -> None:
    async with both(QUICK) as (_, tap):
        outcomes = await node.ask(tap.url, list(KINDS.values()))
    for outcome in outcomes:
        assert_names_its_stream(httpx2.Headers(outcome.headers), tap)
    assert len({outcome.headers["x-stream-id"] for outcome in outcomes}) == len(KINDS)


def assert_names_its_stream(headers: httpx2.Headers, tap: Tap) -> None:
    """The response says which stream and which trace it is; the ids of the events agree."""
    stream_id = headers["X-Stream-Id"]
    received = b"".join(tap.received)
    assert b"id: %b.1\n" % stream_id.encode() in received
    assert re.fullmatch(r"[\w-]{16}", stream_id)
    assert re.fullmatch(r"[0-9a-f]{32}", headers["X-Trace-ID"])
    assert headers["Content-Type"] == "text/event-stream; charset=utf-8"
