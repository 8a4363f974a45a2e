"""Stopping an answer: in every state, by every way, twice, and never by a stranger."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass

import aiohttp
import anthropic
import openai
import orjson
import pytest

from tests.backend import ScriptedBackend, chunked, sse_head
from tests.connection import Exchange
from tests.gateway import Gateway, running_gateway

Stop = Callable[[aiohttp.ClientSession, Gateway, str], Awaitable[dict[str, object]]]


async def by_rest(client: aiohttp.ClientSession, gateway: Gateway, sid: str) -> dict[str, object]:
    body = {"sessionId": sid}
    async with client.post(gateway.url + "/api/terminate-stream", json=body) as response:
        answer: dict[str, object] = await response.json()
        return {"status": response.status, "text": answer["partialResponse"]}


async def by_delete(client: aiohttp.ClientSession, gateway: Gateway, sid: str) -> dict[str, object]:
    async with client.delete(f"{gateway.url}/api/v2/streams/{sid}") as response:
        answer = await response.json()
        return {"status": response.status, "text": answer.get("text")}


WAYS = pytest.mark.parametrize("stop", [by_rest, by_delete], ids=["rest", "delete"])


@dataclass
class Scene:
    """A backend that says as many words as it is told to, and then waits for the gateway."""

    words: int = 0
    answers: bool = True

    def __post_init__(self) -> None:
        self.said = asyncio.Event()

    async def script(self, exchange: Exchange) -> None:
        if self.answers:
            await exchange.send(sse_head())
        for number in range(self.words):
            block = b'data: {"choices":[{"index":0,"delta":{"content":"%d "}}]}\n\n' % number
            await exchange.send(chunked(block))
        self.said.set()
        await exchange.stall()


@pytest.fixture
async def client() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as session:
        yield session


async def wait_for_text(gateway: Gateway, words: int) -> str:
    async with asyncio.timeout(5):
        while True:
            streams = gateway.services.hub.streams()
            if streams and streams[0].wire.total_chunks >= words:
                return streams[0].id
            await asyncio.sleep(0.005)


@WAYS
@pytest.mark.parametrize(
    ("words", "answers"), [(0, False), (0, True), (3, True)], ids=["queued", "silent", "speaking"]
)
@pytest.mark.parametrize("path", ["/api/v2/chat-stream", "/v1/chat/completions"])
async def test_stop_keeps_what_was_said_and_closes_the_backend(
    client: aiohttp.ClientSession, stop: Stop, words: int, answers: bool, path: str
) -> None:
    scene = Scene(words, answers)
    async with (
        ScriptedBackend(scene.script) as backend,
        running_gateway(backend.url, commit_delay_ms="0") as gateway,
    ):
        question = {"query": "hi", "stream": True, "messages": []}
        async with client.post(gateway.url + path, json=question) as response:
            await scene.said.wait()
            sid = await wait_for_text(gateway, words)
            said = "".join(f"{n} " for n in range(words))
            first = await stop(client, gateway, sid)
            again = await stop(client, gateway, sid)
            assert first == again == {"status": 200, "text": said}
            data = await response.read()
        if path.startswith("/v1"):
            assert data.endswith(b"data: [DONE]\n\n")
            assert b'"finish_reason":"stop"' in data
            assert b'"estimated":true' in data
        else:
            assert b'"reason":"user_requested"' in data
        await backend.exchanges[0].client_left.wait()
        await backend.wait_until_idle()
        assert gateway.metric("sluice_streams_total", reason="user_requested") == 1


@WAYS
async def test_stop_after_the_end_changes_nothing(
    client: aiohttp.ClientSession, stop: Stop
) -> None:
    async def script(exchange: Exchange) -> None:
        block = b'data: {"choices":[{"index":0,"delta":{"content":"all"}}]}\n\n'
        await exchange.send(sse_head(), chunked(block + b"data: [DONE]\n\n"), b"0\r\n\r\n")

    async with ScriptedBackend(script) as backend, running_gateway(backend.url) as gateway:
        async with client.get(gateway.url + "/api/v2/chat-stream?query=hi") as response:
            sid = response.headers["X-Stream-Id"]
            await response.read()
        assert await stop(client, gateway, sid) == {"status": 200, "text": "all"}
        async with client.get(f"{gateway.url}/api/v2/streams/{sid}") as response:
            assert (await response.json())["status"] == "COMPLETED"
        assert gateway.metric("sluice_streams_total", reason="user_requested") == 0


@WAYS
async def test_unknown_stream_is_not_found(client: aiohttp.ClientSession, stop: Stop) -> None:
    async with running_gateway("http://127.0.0.1:1") as gateway:
        answer = await stop(client, gateway, "AAAAAAAAAAAAAAAA")
        assert answer["status"] == 404


async def test_late_stop_of_a_conversation_spares_its_next_answer(
    client: aiohttp.ClientSession,
) -> None:
    scene = Scene(1)
    async with (
        ScriptedBackend(scene.script) as backend,
        running_gateway(backend.url, commit_delay_ms="0") as gateway,
    ):
        url = gateway.url + "/api/v2/chat-stream?query=hi&conversation_id=c1"
        terminate = gateway.url + "/api/terminate-stream"
        async with client.get(url) as first:
            body = {"conversationId": "c1", "reason": "changed_my_mind"}
            async with client.post(terminate, json=body) as response:
                assert (await response.json())["sessionId"] == first.headers["X-Stream-Id"]
            assert b'"reason":"changed_my_mind"' in await first.read()
        async with client.get(url) as second:
            sid = first.headers["X-Stream-Id"]
            for body in ({"sessionId": sid, "conversationId": "c2"}, {"conversationId": "c9"}):
                async with client.post(terminate, json=body) as response:
                    assert response.status == 404
                    assert (await response.json())["success"] is False
            async with client.post(terminate, json={"sessionId": sid}) as response:
                assert response.status == 200
            async with client.get(f"{gateway.url}/api/v2/streams?conversation_id=c1") as response:
                streams = (await response.json())["streams"]
            assert [one["status"] for one in streams] == ["ACTIVE", "TERMINATED"]
            assert streams[0]["stream_id"] == second.headers["X-Stream-Id"]


@pytest.mark.parametrize("reason", ["", "two words", "x" * 65, 7])
async def test_reason_that_is_no_word_is_refused(
    client: aiohttp.ClientSession, reason: object
) -> None:
    async with running_gateway("http://127.0.0.1:1") as gateway:
        body = {"sessionId": "AAAAAAAAAAAAAAAA", "reason": reason}
        async with client.post(gateway.url + "/api/terminate-stream", json=body) as response:
            assert response.status == 400
            assert (await response.json())["error"]["code"] == "invalid_reason"


async def stop_soon(gateway: Gateway, events: int) -> None:
    async with asyncio.timeout(5):
        while not (streams := gateway.services.hub.streams()) or streams[0].log.last < events:
            await asyncio.sleep(0.005)
    async with (
        aiohttp.ClientSession() as client,
        client.delete(f"{gateway.url}/api/v2/streams/{streams[0].id}") as response,
    ):
        assert response.status == 200


async def test_openai_sdk_sees_a_stopped_answer_as_finished() -> None:
    scene = Scene(3)
    async with (
        ScriptedBackend(scene.script) as backend,
        running_gateway(backend.url) as gateway,
        openai.AsyncOpenAI(api_key="k", base_url=gateway.url + "/v1", max_retries=0) as sdk,
    ):
        stopping = asyncio.create_task(stop_soon(gateway, 3))
        chunks = [
            chunk
            async for chunk in await sdk.chat.completions.create(
                model="m", messages=[{"role": "user", "content": "hi"}], stream=True
            )
        ]
        await stopping
    text = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
    assert text == "0 1 2 "
    assert chunks[-2].choices[0].finish_reason == "stop"
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.completion_tokens == 2


async def test_anthropic_sdk_sees_a_stopped_answer_as_finished() -> None:
    start = {
        "type": "message_start",
        "message": {
            "id": "m1",
            "type": "message",
            "role": "assistant",
            "model": "x",
            "content": [],
            "stop_reason": None,
            "stop_sequence": None,
            "usage": {"input_tokens": 3, "output_tokens": 0},
        },
    }
    begin = {
        "type": "content_block_start",
        "index": 0,
        "content_block": {"type": "text", "text": ""},
    }
    delta = {
        "type": "content_block_delta",
        "index": 0,
        "delta": {"type": "text_delta", "text": "a"},
    }

    async def script(exchange: Exchange) -> None:
        await exchange.send(sse_head())
        for event in (start, begin, delta):
            name = str(event["type"]).encode()
            await exchange.send(chunked(b"event: %b\ndata: %b\n\n" % (name, orjson.dumps(event))))
        await exchange.stall()

    async with (
        ScriptedBackend(script) as backend,
        running_gateway(backend.url) as gateway,
        anthropic.AsyncAnthropic(api_key="k", base_url=gateway.url, max_retries=0) as sdk,
    ):
        stopping = asyncio.create_task(stop_soon(gateway, 3))
        question = [{"role": "user", "content": "hi"}]
        async with sdk.messages.stream(model="x", max_tokens=9, messages=question) as stream:  # type: ignore[arg-type]
            message = await stream.get_final_message()
        await stopping
    assert message.stop_reason == "end_turn"
    assert message.content[0].text == "a"  # type: ignore[union-attr]


async def test_openai_sdk_resumes_and_cancels_a_response_of_any_backend() -> None:
    def event(number: int, kind: str, **more: object) -> bytes:
        data = {"type": kind, "sequence_number": number, **more}
        return chunked(b"event: %b\ndata: %b\n\n" % (kind.encode(), orjson.dumps(data)))

    response = {
        "id": "resp_1",
        "object": "response",
        "created_at": 0,
        "status": "in_progress",
        "model": "m",
        "output": [],
        "parallel_tool_calls": True,
        "tool_choice": "auto",
        "tools": [],
    }

    async def script(exchange: Exchange) -> None:
        await exchange.send(sse_head(), event(0, "response.created", response=response))
        for number in range(1, 4):
            delta = {"item_id": "i", "output_index": 0, "content_index": 0, "logprobs": []}
            await exchange.send(
                event(number, "response.output_text.delta", delta=f"w{number} ", **delta)
            )
        await exchange.stall()

    async with (
        ScriptedBackend(script) as backend,
        running_gateway(backend.url) as gateway,
        openai.AsyncOpenAI(
            api_key="k",
            base_url=gateway.url + "/v1",
            max_retries=0,
            default_headers={"X-Stream-On-Disconnect": "finish"},
        ) as sdk,
    ):
        stream = await sdk.responses.create(model="m", input="hi", stream=True)
        seen = [await anext(stream), await anext(stream)]
        await stream.close()
        cancelled = asyncio.create_task(cancel_when_read(gateway, sdk))
        rest = [
            one
            async for one in await sdk.responses.retrieve(
                "resp_1", stream=True, starting_after=seen[-1].sequence_number
            )
        ]
        await cancelled
    numbers = [one.sequence_number for one in [*seen, *rest]]
    assert numbers == [0, 1, 2, 3, 4]
    assert rest[-1].type == "response.incomplete"
    assert len(backend.exchanges) == 1


async def cancel_when_read(gateway: Gateway, sdk: openai.AsyncOpenAI) -> None:
    async with asyncio.timeout(5):
        while gateway.services.hub.streams()[0].log.last < 4:
            await asyncio.sleep(0.005)
    cancelled = await sdk.responses.cancel("resp_1")
    assert cancelled.status == "cancelled"
