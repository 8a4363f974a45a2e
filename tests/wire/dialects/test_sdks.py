"""The official SDKs on the same streams, and on the error blocks that the gateway adds to them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import anthropic
import httpx2
import openai
import pytest

from gateway.errors import UpstreamError
from gateway.sse.dialects import DIALECTS

Reader = Callable[[bytes], Iterator[str]]
STREAMS = Path(__file__).parent / "streams"
ERROR = UpstreamError("The backend stopped sending.", code="upstream_idle")


def transport(data: bytes) -> httpx2.Client:
    def answer(_: httpx2.Request) -> httpx2.Response:
        return httpx2.Response(200, headers={"content-type": "text/event-stream"}, content=data)

    return httpx2.Client(transport=httpx2.MockTransport(answer))


def with_ids(name: str, data: bytes) -> list[bytes]:
    blocks = DIALECTS[name].decoder(1 << 20).feed(data)
    return [b"id: AAAAAAAAAAAAAAAA.%d\n%b" % (seq, block) for seq, block in enumerate(blocks, 1)]


def chat(data: bytes) -> Iterator[str]:
    with openai.OpenAI(api_key="k", max_retries=0, http_client=transport(data)) as client:
        for chunk in client.chat.completions.create(model="m", messages=[], stream=True):
            yield from [choice.delta.content or "" for choice in chunk.choices]


def responses(data: bytes) -> Iterator[str]:
    with openai.OpenAI(api_key="k", max_retries=0, http_client=transport(data)) as client:
        for event in client.responses.create(model="m", input="x", stream=True):
            if event.type == "response.output_text.delta":
                yield event.delta


def messages(data: bytes) -> Iterator[str]:
    with (
        anthropic.Anthropic(api_key="k", max_retries=0, http_client=transport(data)) as client,
        client.messages.stream(model="m", max_tokens=1, messages=[]) as stream,
    ):
        yield from stream.text_stream


SDKS = [
    ("openai", "openai_chat.sse", chat, openai.APIError),
    ("openai", "openai_chat_crlf.sse", chat, openai.APIError),
    ("openai-responses", "openai_responses.sse", responses, openai.APIError),
    ("openai-responses", "openai_responses_crlf.sse", responses, openai.APIError),
    ("anthropic", "anthropic.sse", messages, anthropic.APIStatusError),
    ("anthropic", "anthropic_crlf.sse", messages, anthropic.APIStatusError),
]
each_sdk = pytest.mark.parametrize(("name", "file", "read", "error"), SDKS)


@each_sdk
def test_sdk_reads_the_same_text_as_the_gateway(
    name: str, file: str, read: Reader, error: type[Exception]
) -> None:
    blocks = with_ids(name, (STREAMS / file).read_bytes())
    assert "".join(read(b":\n".join(blocks))) == DIALECTS[name].summarise(blocks).text


@each_sdk
def test_sdk_raises_for_an_error_block_in_mid_stream(
    name: str, file: str, read: Reader, error: type[openai.APIError | anthropic.APIError]
) -> None:
    half = with_ids(name, (STREAMS / file).read_bytes())[:7]
    block = b"id: AAAAAAAAAAAAAAAA.8\n" + DIALECTS[name].error_block(ERROR, "trace-1", half)
    with pytest.raises(error, match="The backend stopped sending") as caught:
        "".join(read(b"".join([*half, block])))
    assert "trace-1" in str(caught.value.body)
