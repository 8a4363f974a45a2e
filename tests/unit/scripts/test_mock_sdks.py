"""The official SDKs take the demo backend for the real thing."""

from __future__ import annotations

import hashlib
import json
from collections.abc import AsyncIterator

import anthropic
import openai
import pytest

from scripts.mock.answers import answer_to
from scripts.mock.behaviour import Behaviour
from scripts.mock.server import serving

QUICK = Behaviour(first=0, pace=0)
QUESTION = "What is SSE?"
WEATHER = {"type": "object", "properties": {"city": {"type": "string"}}}


def expected(question: str) -> str:
    return answer_to(question, QUICK, None, None).whole


@pytest.fixture
async def url() -> AsyncIterator[str]:
    async with serving(QUICK) as url:
        yield url


@pytest.fixture
async def oai(url: str) -> AsyncIterator[openai.AsyncOpenAI]:
    async with openai.AsyncOpenAI(api_key="k", base_url=f"{url}/v1", max_retries=0) as client:
        yield client


@pytest.fixture
async def claude(url: str) -> AsyncIterator[anthropic.AsyncAnthropic]:
    async with anthropic.AsyncAnthropic(api_key="k", base_url=url, max_retries=0) as client:
        yield client


async def test_openai_sdk_streams_chat_with_usage(oai: openai.AsyncOpenAI) -> None:
    async with oai.chat.completions.stream(
        model="m",
        messages=[{"role": "user", "content": QUESTION}],
        stream_options={"include_usage": True},
    ) as stream:
        whole = await stream.get_final_completion()
    assert whole.choices[0].message.content == expected(QUESTION)
    assert whole.usage is not None
    assert whole.usage.completion_tokens > 60


async def test_openai_sdk_streams_a_tool_call_in_chat(oai: openai.AsyncOpenAI) -> None:
    tool = {"type": "function", "function": {"name": "get_weather", "parameters": WEATHER}}
    async with oai.chat.completions.stream(
        model="m",
        messages=[{"role": "user", "content": "How is the weather?"}],
        tools=[tool],  # type: ignore[list-item]
    ) as stream:
        choice = (await stream.get_final_completion()).choices[0]
    assert choice.finish_reason == "tool_calls"
    assert choice.message.tool_calls is not None
    function = choice.message.tool_calls[0].function
    assert (function.name, json.loads(function.arguments)["city"]) == ("get_weather", "Zürich")


async def test_openai_sdk_sees_a_refusal_and_a_length_limit(oai: openai.AsyncOpenAI) -> None:
    async with oai.chat.completions.stream(
        model="m", messages=[{"role": "user", "content": "please refuse"}]
    ) as stream:
        assert (await stream.get_final_completion()).choices[0].message.refusal
    short = await oai.chat.completions.create(
        model="m", messages=[{"role": "user", "content": "hi"}], max_completion_tokens=5
    )
    assert (short.choices[0].finish_reason, short.usage.completion_tokens) == ("length", 5)  # type: ignore[union-attr]


async def test_openai_sdk_streams_responses_in_the_official_order(oai: openai.AsyncOpenAI) -> None:
    async with oai.responses.stream(model="m", input=QUESTION) as stream:
        events = [event async for event in stream]
        whole = await stream.get_final_response()
    assert whole.output_text == expected(QUESTION)
    assert [event.sequence_number for event in events] == list(range(len(events)))
    order = list(dict.fromkeys(event.type for event in events))
    assert order == [
        "response.created",
        "response.in_progress",
        "response.output_item.added",
        "response.content_part.added",
        "response.output_text.delta",
        "response.output_text.done",
        "response.content_part.done",
        "response.output_item.done",
        "response.completed",
    ]


async def test_openai_sdk_sees_tools_refusals_and_limits_in_responses(
    oai: openai.AsyncOpenAI,
) -> None:
    tool = {"type": "function", "name": "get_weather", "parameters": WEATHER, "strict": True}
    async with oai.responses.stream(
        model="m",
        input="weather?",
        tools=[tool],  # type: ignore[list-item]
    ) as stream:
        call = (await stream.get_final_response()).output[0]
    assert call.type == "function_call"
    assert json.loads(call.arguments)["city"] == "Zürich"
    async with oai.responses.stream(model="m", input="refuse") as stream:
        item = (await stream.get_final_response()).output[0]
    assert item.type == "message"
    assert item.content[0].type == "refusal"
    short = await oai.responses.create(model="m", input="hi", max_output_tokens=3)
    assert (short.status, short.output_text) == ("incomplete", "Here is a")


@pytest.mark.parametrize("path", ["chat", "responses"])
async def test_openai_sdk_raises_for_an_error_event(oai: openai.AsyncOpenAI, path: str) -> None:
    with pytest.raises(openai.APIError, match="mid-sentence"):
        await read_failing(oai, path)


async def read_failing(oai: openai.AsyncOpenAI, path: str) -> None:
    stream = (
        await oai.responses.create(model="m", input="[fail]", stream=True)
        if path == "responses"
        else await oai.chat.completions.create(
            model="m", messages=[{"role": "user", "content": "[fail]"}], stream=True
        )
    )
    async for _ in stream:
        pass


async def test_openai_sdk_sees_models_embeddings_and_files(oai: openai.AsyncOpenAI) -> None:
    assert "demo" in [model.id async for model in oai.models.list()]
    packed = await oai.embeddings.create(model="m", input=["a", "b"])
    plain = await oai.embeddings.create(model="m", input="b", encoding_format="float")
    assert packed.data[1].embedding == pytest.approx(plain.data[0].embedding)
    content = b"text " * 50_000
    file = await oai.files.create(file=("a.txt", content), purpose="assistants")
    assert (file.bytes, file.filename) == (250_000, "a.txt")
    assert file.sha256 == hashlib.sha256(content).hexdigest()  # type: ignore[attr-defined]


async def test_openai_sdk_reads_completions(oai: openai.AsyncOpenAI) -> None:
    whole = await oai.completions.create(model="m", prompt="coffee")
    assert whole.choices[0].text == expected("coffee")


async def test_anthropic_sdk_streams_a_message(claude: anthropic.AsyncAnthropic) -> None:
    async with claude.messages.stream(
        model="m", max_tokens=999, messages=[{"role": "user", "content": QUESTION}]
    ) as stream:
        whole = await stream.get_final_message()
    assert whole.content[0].type == "text"
    assert whole.content[0].text == expected(QUESTION)
    assert (whole.stop_reason, whole.usage.output_tokens > 60) == ("end_turn", True)


async def test_anthropic_sdk_sees_tools_and_refusals(claude: anthropic.AsyncAnthropic) -> None:
    async with claude.messages.stream(
        model="m",
        max_tokens=999,
        messages=[{"role": "user", "content": "weather"}],
        tools=[{"name": "get_weather", "input_schema": WEATHER}],
    ) as stream:
        whole = await stream.get_final_message()
    assert whole.stop_reason == "tool_use"
    assert whole.content[0].type == "tool_use"
    assert whole.content[0].input == {"city": "Zürich", "unit": "celsius"}
    refused = await claude.messages.create(
        model="m", max_tokens=999, messages=[{"role": "user", "content": "refuse"}]
    )
    assert refused.stop_reason == "refusal"


async def test_anthropic_sdk_raises_for_errors(claude: anthropic.AsyncAnthropic) -> None:
    with pytest.raises(anthropic.APIStatusError, match="Overloaded"):
        await join_all(claude, "[fail]")
    with pytest.raises(anthropic.RateLimitError):
        await join_all(claude, "[limit]")


async def join_all(claude: anthropic.AsyncAnthropic, question: str) -> str:
    async with claude.messages.stream(
        model="m", max_tokens=999, messages=[{"role": "user", "content": question}]
    ) as stream:
        return await stream.get_final_text()
