"""`POST /v1/chat/completions`."""

from __future__ import annotations

import orjson

from scripts.mock.answers import Answer
from scripts.mock.dialects.base import (
    Ask,
    Identity,
    Json,
    count,
    data_event,
    items,
    last_user_text,
    openai_failure,
    text,
)

_END = b"data: [DONE]\n\n"


def read(body: Json) -> Ask:
    options = body.get("stream_options")
    return Ask(
        question=last_user_text(body.get("messages")),
        model=text(body.get("model"), "demo"),
        stream=body.get("stream") is True,
        tool=_tool(body),
        max_tokens=count(body.get("max_completion_tokens")) or count(body.get("max_tokens")),
        include_usage=isinstance(options, dict) and options.get("include_usage") is True,
    )


def _tool(body: Json) -> str | None:
    turns = items(body.get("messages"))
    if turns and turns[-1].get("role") == "tool":
        return None
    functions = [tool.get("function") for tool in items(body.get("tools"))]
    return next((text(f.get("name")) for f in functions if isinstance(f, dict)), None)


class Speaker:
    """`chat.completion.chunk` objects; the text stands between a head and a tail made once."""

    media_type = "text/event-stream"

    def __init__(self, ask: Ask, answer: Answer, identity: Identity) -> None:
        self._ask = ask
        self._answer = answer
        self._finish = "tool_calls" if answer.kind == "tool" else answer.finish
        self._call_id = identity.name("call_")
        self._base = {
            "id": identity.name("chatcmpl-"),
            "object": "chat.completion.chunk",
            "created": identity.created(),
            "model": ask.model,
            "system_fingerprint": "fp_demo",
        }
        self._head, self._tail = self._frame()

    def _frame(self) -> tuple[bytes, bytes]:
        slots: dict[str, object] = {
            "text": {"content": "\0"},
            "refusal": {"refusal": "\0"},
            "tool": {"tool_calls": [{"index": 0, "function": {"arguments": "\0"}}]},
        }
        head, tail = self._chunk(slots[self._answer.kind]).split(b'"\\u0000"')
        return head, tail.removesuffix(b"}\n\n")

    def _chunk(self, delta: object, finish: str | None = None) -> bytes:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}
        return data_event({**self._base, "choices": [choice], **self._usage_slot()})

    def _usage_slot(self) -> Json:
        return {"usage": None} if self._ask.include_usage else {}

    def opening(self) -> bytes:
        delta: dict[str, object] = {"role": "assistant", "content": "", "refusal": None}
        if self._answer.kind == "tool":
            delta = {
                "role": "assistant",
                "content": None,
                "tool_calls": [{"index": 0} | self._call("")],
            }
        return self._chunk(delta)

    def _call(self, arguments: str) -> dict[str, object]:
        function = {"name": self._answer.tool, "arguments": arguments}
        return {"id": self._call_id, "type": "function", "function": function}

    def token(self, text: str, extra: bytes = b"") -> bytes:
        return b"%b%b%b%b}\n\n" % (self._head, orjson.dumps(text), self._tail, extra)

    def closing(self) -> bytes:
        end = self._chunk({}, self._finish)
        if self._ask.include_usage:
            end += data_event(
                {**self._base, "choices": [], "usage": usage(self._ask, self._answer)}
            )
        return end + _END

    def error(self) -> bytes:
        return data_event(openai_failure(500, "The model stopped in mid-sentence."))

    def whole(self) -> Json:
        said = self._answer.whole
        message: dict[str, object] = {"role": "assistant", "content": None, "refusal": None}
        match self._answer.kind:
            case "text":
                message["content"] = said
            case "refusal":
                message["refusal"] = said
            case "tool":
                message["tool_calls"] = [self._call(said)]
        choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": self._finish}
        return {
            **self._base,
            "object": "chat.completion",
            "choices": [choice],
            "usage": usage(self._ask, self._answer),
        }


def usage(ask: Ask, answer: Answer) -> Json:
    said = len(answer.pieces)
    return {
        "prompt_tokens": ask.tokens,
        "completion_tokens": said,
        "total_tokens": ask.tokens + said,
        "prompt_tokens_details": {"cached_tokens": 0},
        "completion_tokens_details": {"reasoning_tokens": 0},
    }


speaker = Speaker
failure = openai_failure
