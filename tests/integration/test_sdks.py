"""The official SDKs through the gateway: what an application sees is what it sees directly.

The demo backend answers the same request with the same bytes, and is silent often enough for many
heartbeats, of which an application sees nothing.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from operator import attrgetter
from typing import Any

import anthropic
import httpx2
import openai
import pytest

from scripts.mock.behaviour import Behaviour
from scripts.mock.server import serving
from tests.backend import LAST_CHUNK
from tests.gateway import running_gateway
from tests.sdks import KEY, TRANSPORT_ERRORS, Call, Outcome, Tap, ask, ask_node, base_url
from tests.servers import free_port

PACE = "first=0.1 pace=60 jitter=0 tokens=8 seed=7"
QUICK = "first=0 pace=0 jitter=0 tokens=8 seed=7"
SHORT_BEATS = {"heartbeat_interval": 0.02}
SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}}


def chat(question: str = "What is SSE?", *, method: str = "create", **body: object) -> Call:
    messages = [{"role": "user", "content": question}]
    return Call(f"chat.completions.{method}", {"model": "m", "messages": messages, **body})


def completions(prompt: str = "What is SSE?", **body: object) -> Call:
    return Call("completions.create", {"model": "m", "prompt": prompt, **body})


def responses(question: str = "What is SSE?", *, method: str = "create", **body: object) -> Call:
    return Call(f"responses.{method}", {"model": "m", "input": question, **body})


def messages(question: str = "What is SSE?", *, method: str = "create", **body: object) -> Call:
    turns = [{"role": "user", "content": question}]
    return Call(f"messages.{method}", {"model": "m", "max_tokens": 99, "messages": turns, **body})


CHAT_TOOLS = [{"type": "function", "function": {"name": "get_weather", "parameters": SCHEMA}}]
RESPONSES_TOOLS = [
    {"type": "function", "name": "get_weather", "parameters": SCHEMA, "strict": True}
]
MESSAGES_TOOLS = [{"name": "get_weather", "input_schema": SCHEMA}]
USAGE = {"include_usage": True}

KINDS = {
    "chat": chat(),
    "completions": completions(),
    "responses": responses(),
    "messages": messages(),
}
CASES = {
    **KINDS,
    "chat helper": chat(method="stream"),
    "chat with usage": chat(stream_options=USAGE),
    "chat with a tool": chat("weather?", tools=CHAT_TOOLS),
    "chat helper with a tool": chat("weather?", method="stream", tools=CHAT_TOOLS),
    "chat refused": chat("please refuse").having(X_Mock="pace=30"),
    "chat cut short": chat(max_completion_tokens=5),
    "chat without ids": chat().having(Stream_Ids="off"),
    "chat in CRLF with comments": chat().having(X_Mock="crlf=1 comments=0.02"),
    "completions with usage": completions(stream_options=USAGE),
    "responses helper": responses(method="stream"),
    "responses with a tool": responses("weather?", tools=RESPONSES_TOOLS),
    "responses refused": responses("please refuse").having(X_Mock="pace=30"),
    "responses cut short": responses(max_output_tokens=5),
    "messages helper": messages(method="stream"),
    "messages with a tool": messages("weather?", tools=MESSAGES_TOOLS),
    "messages helper with a tool": messages("weather?", method="stream", tools=MESSAGES_TOOLS),
    "messages refused": messages("please refuse").having(X_Mock="pace=30"),
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


@asynccontextmanager
async def both(options: str, **settings: object) -> AsyncIterator[tuple[str, Tap]]:
    """The demo backend's address, and a tapped gateway in front of it."""
    async with (
        serving(Behaviour().having(options)) as backend,
        running_gateway(backend, **settings) as gateway,
        Tap(gateway.port) as tap,
    ):
        yield backend, tap


@pytest.mark.parametrize("name", CASES)
async def test_python_sdk_yields_through_the_gateway_what_it_yields_directly(name: str) -> None:
    call = CASES[name]
    async with both(PACE, **SHORT_BEATS) as (backend, tap):
        directly, relayed, in_a_thread = await asyncio.gather(
            ask(backend, call), ask(tap.url, call), ask(tap.url, call, "sync")
        )
    assert directly.failure is None
    assert len(directly.events) > 3
    assert relayed == directly
    assert in_a_thread == directly
    assert_heartbeats(tap, connections=2, before=1, between=2)


async def test_node_sdks_yield_through_the_gateway_what_they_yield_directly() -> None:
    calls = list(CASES.values())
    async with both(PACE, **SHORT_BEATS) as (backend, tap):
        directly = await ask_node(backend, calls)
        relayed = await ask_node(tap.url, calls)
    assert [outcome.failure for outcome in directly] == [None] * len(calls)
    assert min(len(outcome.events) for outcome in directly) > 3
    assert relayed == directly
    assert_heartbeats(tap, connections=len(calls), before=1, between=2)


async def test_sdks_see_nothing_of_seconds_of_silence_before_and_within_the_answer() -> None:
    calls = [*KINDS.values(), CASES["chat helper"], CASES["messages helper"]]
    options = "head=2 first=0 pace=2000 jitter=0 tokens=2 seed=7"
    async with both(options, heartbeat_interval=0.2, commit_delay_ms=200) as (backend, tap):
        directly, relayed = await asyncio.gather(ask_all(backend, calls), ask_all(tap.url, calls))
    assert [outcome.failure for outcome in directly] == [None] * len(directly)
    assert relayed == directly
    assert_heartbeats(tap, connections=len(directly), before=5, between=5)


async def ask_all(url: str, calls: list[Call]) -> list[Outcome]:
    """By the SDKs for Python and for Node, all at the same time."""
    *by_python, by_node = await asyncio.gather(
        *(ask(url, call) for call in calls), ask_node(url, calls)
    )
    return [*by_python, *by_node]


def assert_heartbeats(tap: Tap, *, connections: int, before: int, between: int) -> None:
    counts = tap.heartbeats()
    assert len(counts) == connections
    assert min(count for count, _ in counts) >= before
    assert min(count for _, count in counts) >= between


async def test_sdks_see_the_same_answer_where_they_do_not_stream() -> None:
    calls = [Call(call.method, call.body, streams=False) for call in WHOLE.values()]
    async with both(QUICK) as (backend, tap):
        directly, relayed = await asyncio.gather(ask_all(backend, calls), ask_all(tap.url, calls))
        in_a_thread = [await ask(tap.url, call, "sync") for call in calls]
    assert [outcome.failure for outcome in directly] == [None] * len(directly)
    assert relayed == directly
    # A page of models is another class in each style.
    assert in_a_thread[0] == directly[0]
    assert [outcome.events for outcome in in_a_thread] == [o.events for o in directly[: len(calls)]]


async def test_sdks_upload_files_through_the_gateway() -> None:
    content = "Łódź " * 50_000
    upload = {"purpose": "assistants"}
    python = Call("files.create", {**upload, "file": ("a.txt", content.encode())}, streams=False)
    node = Call(
        "files.create", {**upload, "file": {"name": "a.txt", "content": content}}, streams=False
    )
    async with both(QUICK) as (backend, tap):
        directly = await ask(backend, python)
        relayed = [await ask(tap.url, python), *await ask_node(tap.url, [node])]
    assert [outcome.failure for outcome in relayed] == [None, None]
    assert relayed[0] == directly
    digest = hashlib.sha256(content.encode()).hexdigest()
    assert [outcome.events[0]["sha256"] for outcome in relayed] == [digest, digest]  # type: ignore[index]


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (400, "BadRequestError"),
        (401, "AuthenticationError"),
        (429, "RateLimitError"),
        (500, "InternalServerError"),
        (503, "InternalServerError"),
    ],
)
async def test_sdks_raise_the_same_error_for_a_refusal_of_the_backend(
    status: int, error: str
) -> None:
    streaming = list(KINDS.values())
    whole = [Call(call.method, call.body, streams=False) for call in streaming]
    async with both(f"{QUICK} status={status} retry_after=17") as (backend, tap):
        directly, relayed = await asyncio.gather(
            ask_all(backend, streaming + whole), ask_all(tap.url, streaming + whole)
        )
    assert relayed == directly
    named = {(outcome.error, outcome.failure and outcome.failure[1]) for outcome in relayed}
    # Anthropic's SDK for Python has a class of its own for 503.
    assert named - {("ServiceUnavailableError", 503)} == {(error, status)}


async def test_sdk_sees_how_long_the_backend_wants_it_to_wait() -> None:
    async with both(f"{QUICK} status=429 retry_after=17") as (_, tap):
        call = KINDS["chat"]
        async with client_for(call, tap.url) as client:
            with pytest.raises(openai.RateLimitError) as caught:
                await resource(client, call).create(**call.arguments)
    assert caught.value.response.headers["Retry-After"] == "17"
    assert caught.value.code == "rate_limit_exceeded"


async def test_sdks_raise_a_server_error_where_there_is_no_backend() -> None:
    async with running_gateway(f"http://127.0.0.1:{free_port()}") as gateway:
        outcomes = await ask_all(gateway.url, list(KINDS.values()))
    assert {outcome.failure and outcome.failure[:2] for outcome in outcomes} == {
        ("InternalServerError", 502)
    }


async def test_sdks_raise_a_rate_limit_error_for_the_gateway_s_own_limit() -> None:
    calls = list(KINDS.values())
    async with both(QUICK, rate_limit="1/hour") as (_, tap):
        await ask(tap.url, calls[0])
        outcomes = await ask_all(tap.url, calls)
    assert {outcome.failure and outcome.failure[:2] for outcome in outcomes} == {
        ("RateLimitError", 429)
    }


TROUBLES: dict[str, tuple[str, dict[str, object]]] = {
    "an error event of the backend": ("error=3", {}),
    "a clean end without the terminal event": ("cut=3", {}),
    "a connection closed by the backend": ("drop=3", {}),
    "a connection reset by the backend": ("reset=3", {}),
    "the duration cap": ("stall=3", {"provider_stream_max_seconds": 0.4}),
    "a backend that falls silent": ("stall=3", {"upstream_idle_seconds": 0.4}),
    "no first token": ("first=60", {"upstream_first_token_seconds": 0.3, "commit_delay_ms": 0}),
    "an event that is too large": ("size=5000", {"event_max_bytes": 4096}),
    "a refusal after the 200": ("status=500", {"commit_delay_ms": 0}),
}


@pytest.mark.parametrize("name", TROUBLES)
async def test_no_sdk_takes_a_broken_stream_for_a_whole_one(name: str) -> None:
    options, settings = TROUBLES[name]
    calls = [*KINDS.values(), CASES["chat helper"], CASES["messages helper"]]
    async with both(f"{QUICK} {options}", **settings) as (_, tap):
        by_python = await asyncio.gather(*(ask(tap.url, call) for call in calls))
        by_thread = await asyncio.gather(*(ask(tap.url, call, "sync") for call in calls))
        by_node = await ask_node(tap.url, calls)
    assert [outcome.error for outcome in by_python] == [python_error(call) for call in calls]
    assert [outcome.error for outcome in by_thread] == [python_error(call) for call in calls]
    assert [outcome.error for outcome in by_node] == ["APIError"] * len(calls)
    assert all(data.startswith(b"HTTP/1.1 200 OK\r\n") for data in tap.received)
    assert not any(data.endswith(LAST_CHUNK) for data in tap.received)


def python_error(call: Call) -> str:
    """What the SDK makes of its dialect's error block."""
    return "APIStatusError" if call.is_anthropic else "APIError"


@pytest.mark.parametrize("trouble", ["error=3", "cut=3", "drop=3", "reset=3"])
async def test_sdk_yields_before_a_break_what_it_yields_directly(trouble: str) -> None:
    calls = list(KINDS.values())
    async with both(f"{QUICK} {trouble}") as (backend, tap):
        directly, relayed = await asyncio.gather(ask_all(backend, calls), ask_all(tap.url, calls))
    assert [outcome.events for outcome in relayed] == [outcome.events for outcome in directly]
    assert min(len(outcome.events) for outcome in relayed) >= 3
    if trouble == "error=3":
        assert relayed == directly


@pytest.mark.parametrize("trouble", ["error=3", "cut=3"])
@pytest.mark.parametrize("name", KINDS)
async def test_reader_of_raw_bytes_sees_that_the_stream_was_broken_off(
    name: str, trouble: str
) -> None:
    call = KINDS[name]
    async with both(f"{QUICK} {trouble}") as (_, tap), client_for(call, tap.url) as client:
        with pytest.raises(httpx2.HTTPError) as caught:
            await read_bytes(client, call)
    assert type(caught.value).__name__ in TRANSPORT_ERRORS


@pytest.mark.parametrize("name", KINDS)
async def test_streaming_response_of_the_sdk_shows_the_headers_and_gives_the_same_events(
    name: str,
) -> None:
    call = KINDS[name]
    async with both(PACE, **SHORT_BEATS) as (backend, tap), client_for(call, tap.url) as client:
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
    async with both(PACE, **SHORT_BEATS) as (backend, tap), client_for(call, tap.url) as client:
        directly = await ask(backend, call)
        response = await resource(client, call).with_raw_response.create(**call.arguments)
        parsed = response.parse()
        if asyncio.iscoroutine(parsed):
            parsed = await parsed
        events = [event.model_dump() async for event in parsed]
    assert events == directly.events
    assert_names_its_stream(response.headers, tap)


async def test_node_sdks_show_the_headers_by_with_response() -> None:
    async with both(QUICK) as (_, tap):
        outcomes = await ask_node(tap.url, list(KINDS.values()))
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


Client = openai.AsyncOpenAI | anthropic.AsyncAnthropic


def client_for(call: Call, url: str) -> Client:
    make = anthropic.AsyncAnthropic if call.is_anthropic else openai.AsyncOpenAI
    return make(api_key=KEY, base_url=base_url(url, call), max_retries=0)


def resource(client: Client, call: Call) -> Any:
    return attrgetter(call.method.rpartition(".")[0])(client)


async def read_bytes(client: Client, call: Call) -> bytes:
    async with raw(client, call) as response:
        return b"".join([data async for data in response.iter_bytes()])


def raw(client: Client, call: Call) -> AbstractAsyncContextManager[Any]:
    made = resource(client, call).with_streaming_response.create(**call.arguments)
    assert isinstance(made, AbstractAsyncContextManager)
    return made
