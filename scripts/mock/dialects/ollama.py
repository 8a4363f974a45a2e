"""`POST /api/chat`, Ollama's API: one JSON object a line. It streams unless told not to."""

from __future__ import annotations

from datetime import UTC, datetime

import orjson

from scripts.mock.answers import Answer
from scripts.mock.dialects.base import Ask, Identity, Json, count, items, text
from scripts.mock.dialects.openai_chat import read as read_chat

_NS = 1_000_000


def read(body: Json) -> Ask:
    ask = read_chat(body)
    options = body.get("options")
    return Ask(
        question=ask.question,
        model=text(body.get("model"), "demo"),
        stream=body.get("stream") is not False,
        tool=ask.tool if items(body.get("tools")) else None,
        max_tokens=count(options.get("num_predict")) if isinstance(options, dict) else None,
    )


def failure(status: int, message: str) -> Json:
    return {"error": message}


class Speaker:
    """A tool call comes whole, in the last line but one, its arguments as an object."""

    media_type = "application/x-ndjson"

    def __init__(self, ask: Ask, answer: Answer, identity: Identity) -> None:
        self._ask = ask
        self._answer = answer
        created = datetime.fromtimestamp(identity.created(), UTC).isoformat()
        self._base = {"model": ask.model, "created_at": created.replace("+00:00", "Z")}
        head, tail = _line(self._part({"content": "\0"})).split(b'"\\u0000"')
        self._head, self._tail = head, tail.removesuffix(b"}\n")

    def _part(self, message: Json) -> Json:
        return {**self._base, "message": {"role": "assistant", **message}, "done": False}

    def opening(self) -> bytes:
        return b""

    def token(self, text: str, extra: bytes = b"") -> bytes:
        if self._answer.kind == "tool":
            return b""
        return b"%b%b%b%b}\n" % (self._head, orjson.dumps(text), self._tail, extra)

    def closing(self) -> bytes:
        if self._answer.kind != "tool":
            return _line(self._end({"content": ""}))
        return _line(self._part(self._call())) + _line(self._end({"content": ""}))

    def _call(self) -> Json:
        arguments = orjson.loads(self._answer.whole)
        function = {"name": self._answer.tool, "arguments": arguments}
        return {"content": "", "tool_calls": [{"function": function}]}

    def _end(self, message: Json) -> Json:
        said = len(self._answer.pieces)
        return {
            **self._part(message),
            "done": True,
            "done_reason": "length" if self._answer.finish == "length" else "stop",
            "total_duration": (300 + 30 * said) * _NS,
            "load_duration": 12 * _NS,
            "prompt_eval_count": self._ask.tokens,
            "prompt_eval_duration": 288 * _NS,
            "eval_count": said,
            "eval_duration": 30 * said * _NS,
        }

    def error(self) -> bytes:
        return _line(failure(500, "an error was encountered while running the model"))

    def whole(self) -> Json:
        is_tool = self._answer.kind == "tool"
        return self._end(self._call() if is_tool else {"content": self._answer.whole})


def _line(data: Json) -> bytes:
    return orjson.dumps(data) + b"\n"


speaker = Speaker
