"""`POST /v1/completions`: the older, plain-text API."""

from __future__ import annotations

import orjson

from scripts.mock.answers import Answer
from scripts.mock.dialects.base import (
    Ask,
    Identity,
    Json,
    count,
    data_event,
    openai_failure,
    text,
    text_of,
)
from scripts.mock.dialects.openai_chat import usage


def read(body: Json) -> Ask:
    options = body.get("stream_options")
    return Ask(
        question=text_of(body.get("prompt")),
        model=text(body.get("model"), "demo"),
        stream=body.get("stream") is True,
        max_tokens=count(body.get("max_tokens")),
        include_usage=isinstance(options, dict) and options.get("include_usage") is True,
    )


class Speaker:
    """`text_completion` objects."""

    media_type = "text/event-stream"

    def __init__(self, ask: Ask, answer: Answer, identity: Identity) -> None:
        self._ask = ask
        self._answer = answer
        self._base = {
            "id": identity.name("cmpl-"),
            "object": "text_completion",
            "created": identity.created(),
            "model": ask.model,
        }
        self._head, tail = data_event(self._object("\0")).split(b'"\\u0000"')
        self._tail = tail.removesuffix(b"}\n\n")

    def _object(self, said: str, finish: str | None = None) -> Json:
        choice = {"text": said, "index": 0, "logprobs": None, "finish_reason": finish}
        return {**self._base, "choices": [choice]}

    def opening(self) -> bytes:
        return b""

    def token(self, text: str, extra: bytes = b"") -> bytes:
        return b"%b%b%b%b}\n\n" % (self._head, orjson.dumps(text), self._tail, extra)

    def closing(self) -> bytes:
        end = data_event(self._object("", self._answer.finish))
        if self._ask.include_usage:
            end += data_event(
                {**self._base, "choices": [], "usage": usage(self._ask, self._answer)}
            )
        return end + b"data: [DONE]\n\n"

    def error(self) -> bytes:
        return data_event(openai_failure(500, "The model stopped in mid-sentence."))

    def whole(self) -> Json:
        answer = self._object(self._answer.whole, self._answer.finish)
        return {**answer, "usage": usage(self._ask, self._answer)}


speaker = Speaker
failure = openai_failure
