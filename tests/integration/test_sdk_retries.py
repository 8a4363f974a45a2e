"""An SDK that asks again after it got nothing finds the answer that is under way: paid for once."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import anthropic
import openai
import pytest

from gateway.stream import abandoned, live
from tests.backend import (
    ANTHROPIC_STREAM,
    CHAT_STREAM,
    LAST_CHUNK,
    RESPONSES_STREAM,
    Exchange,
    ScriptedBackend,
    chunked,
    json_response,
    sse_head,
)
from tests.client import connected
from tests.gateway import Gateway, running_gateway
from tests.wire.answers import Answer, ask, without_ids

CHAT = "/v1/chat/completions"
BODY = {"model": "m", "stream": True, "messages": [{"role": "user", "content": "?"}]}
FIRST = {"X-Stainless-Retry-Count": "0"}
AGAIN = {"X-Stainless-Retry-Count": "1"}
RECORDINGS = {
    "/v1/chat/completions": CHAT_STREAM,
    "/v1/responses": RESPONSES_STREAM,
    "/v1/messages": ANTHROPIC_STREAM,
}


@dataclass
class Scene:
    """A backend that answers when it is told to, and a gateway in front of it."""

    backend: ScriptedBackend
    gateway: Gateway
    answers: asyncio.Event = field(default_factory=asyncio.Event)

    async def depart(
        self,
        headers: Mapping[str, str] = FIRST,
        body: object = BODY,
        path: str = CHAT,
        calls: int = 1,
    ) -> None:
        """Asks, and vanishes once the backend has the question."""
        async with connected(self.gateway.port) as client:
            await client.ask(path, body, headers)
            await self.backend.wait_for_exchanges(calls)
            client.leave()
        await self.until_deserted()

    async def until_deserted(self) -> None:
        """Until the gateway has noticed that nobody waits."""
        async with asyncio.timeout(5):
            while any(one.is_attached for one in self.gateway.services.hub.streams()):
                await asyncio.sleep(0.002)

    async def until_attended(self) -> None:
        async with asyncio.timeout(10):
            while not any(one.is_attached for one in self.gateway.services.hub.streams()):
                await asyncio.sleep(0.002)

    async def ask(
        self, headers: Mapping[str, str] = AGAIN, body: object = BODY, path: str = CHAT
    ) -> Answer:
        return await ask(self.gateway.port, path, body, headers=headers)

    def ended(self, reason: str) -> float:
        return self.gateway.metric("sluice_streams_total", reason=reason)


@asynccontextmanager
async def scene(**settings: object) -> AsyncIterator[Scene]:
    async def script(exchange: Exchange) -> None:
        answering = asyncio.create_task(on.answers.wait())
        leaving = asyncio.create_task(exchange.client_left.wait())
        try:
            await asyncio.wait({answering, leaving}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            answering.cancel()
            leaving.cancel()
        stream = RECORDINGS[exchange.path]
        await exchange.send(sse_head(), chunked(stream), LAST_CHUNK)

    async with (
        ScriptedBackend(script) as backend,
        running_gateway(backend.url, **settings) as gateway,
    ):
        on = Scene(backend, gateway)
        yield on


# the SDKs


async def read_chat(client: openai.AsyncOpenAI) -> str:
    stream = await client.chat.completions.create(
        model="m", messages=[{"role": "user", "content": "?"}], stream=True
    )
    chunks = [chunk async for chunk in stream if chunk.choices]
    return "".join(chunk.choices[0].delta.content or "" for chunk in chunks)


async def read_response(client: openai.AsyncOpenAI) -> str:
    stream = await client.responses.create(model="m", input="?", stream=True)
    events = [event async for event in stream]
    return "".join(one.delta for one in events if one.type == "response.output_text.delta")


async def read_message(client: anthropic.AsyncAnthropic) -> str:
    async with client.messages.stream(
        model="m", max_tokens=9, messages=[{"role": "user", "content": "?"}]
    ) as stream:
        return await stream.get_final_text()


def openai_at(url: str) -> openai.AsyncOpenAI:
    return openai.AsyncOpenAI(api_key="k", base_url=f"{url}/v1", timeout=0.25, max_retries=5)


def anthropic_at(url: str) -> anthropic.AsyncAnthropic:
    return anthropic.AsyncAnthropic(api_key="k", base_url=url, timeout=0.25, max_retries=5)


@pytest.mark.parametrize(
    ("connect", "read"),
    [(openai_at, read_chat), (openai_at, read_response), (anthropic_at, read_message)],
    ids=["chat", "responses", "messages"],
)
@pytest.mark.parametrize("departures", [1, 2])
async def test_sdk_whose_patience_is_short_costs_one_call_of_the_backend(
    connect: object, read: object, departures: int
) -> None:
    async with scene() as on, connect(on.gateway.url) as client:  # type: ignore[operator]
        reading = asyncio.create_task(read(client))  # type: ignore[operator]
        await on.backend.wait_for_exchanges()
        for _ in range(departures):
            await on.until_attended()
            await on.until_deserted()
        await on.until_attended()
        on.answers.set()
        async with asyncio.timeout(10):
            assert await reading
        assert len(on.backend.exchanges) == 1
        assert on.gateway.metric("sluice_sessions_created_total") == 1
        assert on.ended("completed") == 1


async def test_sdk_that_is_left_before_the_first_token_leaves_nothing_behind(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    shorten_grace(monkeypatch, 0.1)
    async with scene() as on, openai_at(on.gateway.url) as client:
        reading = asyncio.create_task(read_chat(client))
        exchange = await on.backend.wait_for_exchanges()
        reading.cancel()
        await asyncio.gather(reading, return_exceptions=True)
        async with asyncio.timeout(5):
            await exchange.client_left.wait()
        await on.gateway.wait_for_streams(0)
        assert on.ended("client_gone") == 1


async def test_sdk_that_is_left_after_the_first_token_stops_the_backend_at_once() -> None:
    async def script(exchange: Exchange) -> None:
        await exchange.send(sse_head(), chunked(CHAT_STREAM[: CHAT_STREAM.index(b"\n\n") + 2]))
        await exchange.stall()

    async with ScriptedBackend(script) as backend, running_gateway(backend.url) as gateway:
        async with openai.AsyncOpenAI(api_key="k", base_url=f"{gateway.url}/v1") as client:
            stream = await client.chat.completions.create(
                model="m", messages=[{"role": "user", "content": "?"}], stream=True
            )
            await anext(stream)
            await stream.close()
        async with asyncio.timeout(live.RETRY_GRACE_S / 2):
            await backend.exchanges[0].client_left.wait()
        await gateway.wait_for_streams(0)


def shorten_grace(monkeypatch: pytest.MonkeyPatch, seconds: float) -> None:
    monkeypatch.setattr(live, "RETRY_GRACE_S", seconds)
    monkeypatch.setattr(abandoned, "RETRY_GRACE_S", seconds)


# what is found


async def test_retry_reads_the_answer_from_its_first_byte() -> None:
    async with scene() as on:
        await on.depart()
        asking = asyncio.create_task(on.ask())
        await on.until_attended()
        on.answers.set()
        answer = await asking
        assert (answer.status, answer.is_whole) == (200, True)
        assert without_ids(answer.body) == CHAT_STREAM
        assert answer.header("Idempotent-Replayed") == "true"
        assert on.gateway.metric("sluice_resumes_total", result="replayed") == 1
        assert len(on.backend.exchanges) == 1


async def test_retry_reads_what_was_completed_meanwhile() -> None:
    async with scene() as on:
        await on.depart()
        on.answers.set()
        await on.gateway.wait_for_streams(0)
        answer = await on.ask()
        assert without_ids(answer.body) == CHAT_STREAM
        assert len(on.backend.exchanges) == 1


async def test_retry_gets_the_refusal_that_the_backend_then_gives() -> None:
    refusal = b'{"error":{"message":"No."}}'
    goes = asyncio.Event()

    async def script(exchange: Exchange) -> None:
        await goes.wait()
        await exchange.send(json_response(refusal, "429 Too Many", "Retry-After: 9"))

    async with ScriptedBackend(script) as backend, running_gateway(backend.url) as gateway:
        on = Scene(backend, gateway)
        await on.depart()
        asking = asyncio.create_task(on.ask())
        await on.until_attended()
        goes.set()
        answer = await asking
        assert (answer.status, answer.body, answer.header("Retry-After")) == (429, refusal, "9")
        assert len(backend.exchanges) == 1


async def test_retry_of_a_retry_finds_it_too() -> None:
    async with scene() as on:
        await on.depart()
        await on.depart(AGAIN)
        asking = asyncio.create_task(on.ask({"X-Stainless-Retry-Count": "2"}))
        await on.until_attended()
        on.answers.set()
        assert without_ids((await asking).body) == CHAT_STREAM
        assert len(on.backend.exchanges) == 1


async def test_each_departure_is_taken_up_once() -> None:
    async with scene() as on:
        await on.depart()
        both = [asyncio.create_task(on.ask()) for _ in range(2)]
        await on.backend.wait_for_exchanges(2)
        on.answers.set()
        answers = await asyncio.gather(*both)
        assert [without_ids(answer.body) for answer in answers] == [CHAT_STREAM] * 2
        assert len({answer.header("X-Stream-Id") for answer in answers}) == 2
        assert len(on.backend.exchanges) == 2


async def test_retry_needs_no_place_of_its_owners_where_that_is_the_only_one() -> None:
    async with scene(stream_max_per_owner=1, max_stream_sessions=1) as on:
        await on.depart()
        asking = asyncio.create_task(on.ask())
        await on.until_attended()
        on.answers.set()
        assert (await asking).status == 200


async def test_retry_with_a_key_of_its_own_finds_it_by_that() -> None:
    async with scene() as on:
        await on.depart({**FIRST, "Idempotency-Key": "k"})
        asking = asyncio.create_task(on.ask({**AGAIN, "Idempotency-Key": "k"}))
        await on.until_attended()
        on.answers.set()
        assert without_ids((await asking).body) == CHAT_STREAM
        assert len(on.backend.exchanges) == 1


# what isn't


async def start_anew(on: Scene, **asked: object) -> None:
    """Asks, and gets an answer of its own."""
    asking = asyncio.create_task(on.ask(**asked))  # type: ignore[arg-type]
    await on.backend.wait_for_exchanges(2)
    on.answers.set()
    answer = await asking
    assert answer.is_whole
    assert answer.header("Idempotent-Replayed") is None


@pytest.mark.parametrize("count", ["0", "-1", "one", "1.0", "", "²", "9" * 10])
async def test_request_that_is_no_retry_never_finds_anothers_answer(count: str) -> None:
    async with scene() as on:
        await on.depart()
        headers = {"X-Stainless-Retry-Count": count}
        await start_anew(on, headers=headers)


@pytest.mark.parametrize(
    "different",
    [
        {"body": {**BODY, "model": "n"}},
        {"path": "/v1/responses"},
        {"headers": {**AGAIN, "Authorization": "Bearer another"}},
        {"headers": {**AGAIN, "x-api-key": "another"}},
    ],
    ids=["body", "path", "bearer", "key"],
)
async def test_retry_of_something_else_begins_anew(different: dict[str, object]) -> None:
    async with scene() as on:
        await on.depart()
        await start_anew(on, **different)


async def test_owners_are_kept_apart() -> None:
    settings = {"trusted_proxies": "127.0.0.1/32"}
    async with scene(**settings) as on:
        await on.depart({**FIRST, "X-User-Id": "ada"})
        await start_anew(on, headers={**AGAIN, "X-User-Id": "bob"})


async def test_stream_with_a_client_is_nobody_elses() -> None:
    async with scene() as on:
        first = asyncio.create_task(on.ask(FIRST))
        await on.backend.wait_for_exchanges()
        await start_anew(on)
        assert (await first).is_whole


async def test_client_that_had_its_first_byte_is_not_waited_for() -> None:
    async with scene(commit_delay_ms=0) as on:
        async with connected(on.gateway.port) as client:
            await client.ask(CHAT, BODY, FIRST)
            await client.head()
            client.leave()
        await on.gateway.wait_for_streams(0)
        assert on.ended("client_gone") == 1
        await start_anew(on)


@pytest.mark.parametrize(
    "headers",
    [{}, {**FIRST, "X-Stream-On-Disconnect": "cancel"}, {"X-Stainless-Lang": "python"}],
    ids=["no SDK", "cancel", "no count"],
)
async def test_request_that_will_not_be_repeated_is_cancelled_at_once(
    headers: dict[str, str],
) -> None:
    async with scene() as on:
        await on.depart(headers)
        assert on.ended("client_gone") == 1
        await on.gateway.wait_for_streams(0)
        await on.backend.wait_until_idle()


async def test_stream_that_is_not_asked_for_again_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    shorten_grace(monkeypatch, 0.1)
    async with scene() as on:
        await on.depart()
        assert len(on.gateway.services.hub) == 1
        await on.gateway.wait_for_streams(0)
        await on.backend.wait_until_idle()
        assert on.ended("client_gone") == 1
        async with asyncio.timeout(5):
            while len(on.gateway.services.hub._abandoned):
                await asyncio.sleep(0.005)
        await start_anew(on)


async def test_attempt_that_failed_is_asked_anew() -> None:
    async def script(exchange: Exchange) -> None:
        if len(backend.exchanges) == 1:
            await left.wait()
            await exchange.close()
        else:
            await exchange.send(sse_head(), chunked(CHAT_STREAM), LAST_CHUNK)

    left = asyncio.Event()
    async with ScriptedBackend(script) as backend, running_gateway(backend.url) as gateway:
        on = Scene(backend, gateway)
        await on.depart()
        left.set()
        await gateway.wait_for_streams(0)
        assert without_ids((await on.ask()).body) == CHAT_STREAM
        assert len(backend.exchanges) == 2


async def test_answer_that_is_no_longer_whole_is_asked_for_anew() -> None:
    """With nobody to read, a log that is full drops its oldest events."""
    block = b"data: %b\n\n" % json.dumps({"choices": [], "x": "y" * 900}).encode()

    async def script(exchange: Exchange) -> None:
        if len(backend.exchanges) == 1:
            await left.wait()
            await exchange.send(sse_head(), chunked(block * 20))
            sent.set()
            await exchange.stall()
        else:
            await exchange.send(sse_head(), chunked(CHAT_STREAM), LAST_CHUNK)

    left, sent = asyncio.Event(), asyncio.Event()
    settings = {"stream_buffer_bytes": 4096, "event_max_bytes": 2048}
    async with (
        ScriptedBackend(script) as backend,
        running_gateway(backend.url, **settings) as gateway,
    ):
        on = Scene(backend, gateway)
        await on.depart()
        left.set()
        await sent.wait()
        (stream,) = gateway.services.hub.streams()
        async with asyncio.timeout(5):
            while stream.log.first == 1:
                await asyncio.sleep(0.005)
        answer = await on.ask()
        assert without_ids(answer.body) == CHAT_STREAM
        assert answer.header("X-Stream-Id") != stream.id
