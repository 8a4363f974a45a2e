"""The official SDKs and failures: the backend's own errors, and streams that don't end well."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import httpx2
import openai
import pytest

from tests.backend import LAST_CHUNK
from tests.gateway import running_gateway
from tests.sdks import (
    TRANSPORT_ERRORS,
    Call,
    Client,
    Node,
    ask,
    client_for,
    raw,
    resource,
)
from tests.servers import free_port
from tests.side_by_side import (
    KINDS,
    QUICK,
    ask_all,
    ask_everywhere,
    both,
    chat,
    messages,
)

#: With the helpers, which build the whole answer themselves.
CALLS = [*KINDS.values(), chat(method="stream"), messages(method="stream")]


@pytest.fixture(scope="module")
def node() -> Iterator[Node]:
    with Node() as node:
        yield node


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
    node: Node, status: int, error: str
) -> None:
    streaming = list(KINDS.values())
    whole = [Call(call.method, call.body, streams=False) for call in streaming]
    async with both(f"{QUICK} status={status} retry_after=17") as (backend, tap):
        directly, relayed = await ask_everywhere(node, [backend, tap.url], streaming + whole)
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


async def test_sdks_raise_a_server_error_where_there_is_no_backend(node: Node) -> None:
    async with running_gateway(f"http://127.0.0.1:{free_port()}") as gateway:
        outcomes = await ask_all(node, gateway.url, list(KINDS.values()))
    assert {outcome.failure and outcome.failure[:2] for outcome in outcomes} == {
        ("InternalServerError", 502)
    }


async def test_sdks_raise_a_rate_limit_error_for_the_gateway_s_own_limit(node: Node) -> None:
    calls = list(KINDS.values())
    async with both(QUICK, rate_limit="1/year") as (_, tap):
        await ask(tap.url, calls[0])
        outcomes = await ask_all(node, tap.url, calls)
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
async def test_no_sdk_takes_a_broken_stream_for_a_whole_one(node: Node, name: str) -> None:
    options, settings = TROUBLES[name]
    async with both(f"{QUICK} {options}", **settings) as (_, tap):
        by_python = await asyncio.gather(*(ask(tap.url, call) for call in CALLS))
        by_thread = await asyncio.gather(*(ask(tap.url, call, "sync") for call in CALLS))
        by_node = await node.ask(tap.url, CALLS)
    assert [outcome.error for outcome in by_python] == [python_error(call) for call in CALLS]
    assert [outcome.error for outcome in by_thread] == [python_error(call) for call in CALLS]
    assert [outcome.error for outcome in by_node] == ["APIError"] * len(CALLS)
    assert all(data.startswith(b"HTTP/1.1 200 OK\r\n") for data in tap.received)
    assert not any(data.endswith(LAST_CHUNK) for data in tap.received)


def python_error(call: Call) -> str:
    """What the SDK makes of its dialect's error block."""
    return "APIStatusError" if call.is_anthropic else "APIError"


@pytest.mark.parametrize("trouble", ["error=3", "cut=3", "drop=3", "reset=3"])
async def test_sdk_yields_before_a_break_what_it_yields_directly(node: Node, trouble: str) -> None:
    calls = list(KINDS.values())
    async with both(f"{QUICK} {trouble}") as (backend, tap):
        directly, relayed = await ask_everywhere(node, [backend, tap.url], calls)
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


async def read_bytes(client: Client, call: Call) -> bytes:
    async with raw(client, call) as response:
        return b"".join([data async for data in response.iter_bytes()])
