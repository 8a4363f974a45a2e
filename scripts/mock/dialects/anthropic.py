"""`POST /v1/messages`, Anthropic's API."""

from __future__ import annotations

import orjson

from scripts.mock.answers import Answer
from scripts.mock.dialects.base import (
    Ask,
    Identity,
    Json,
    count,
    items,
    last_user_text,
    named_event,
    text,
)

_REASONS = {"stop": "end_turn", "length": "max_tokens", "content_filter": "refusal"}
_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
    529: "overloaded_error",
}


def read(body: Json) -> Ask:
    return Ask(
        question=last_user_text(body.get("messages")),
        model=text(body.get("model"), "demo"),
        stream=body.get("stream") is True,
        tool=_tool(body),
        max_tokens=count(body.get("max_tokens")),
    )


def _tool(body: Json) -> str | None:
    turns = items(body.get("messages"))
    last = items(turns[-1].get("content")) if turns else []
    if any(part.get("type") == "tool_result" for part in last):
        return None
    return next((text(tool.get("name")) for tool in items(body.get("tools"))), None)


def failure(status: int, message: str) -> Json:
    kind = _TYPES.get(status, "api_error")
    return {"type": "error", "error": {"type": kind, "message": message}, "request_id": "req_demo"}


class Speaker:
    """One content block: text or a tool's input."""

    media_type = "text/event-stream"

    def __init__(self, ask: Ask, answer: Answer, identity: Identity) -> None:
        self._ask = ask
        self._answer = answer
        self._is_tool = answer.kind == "tool"
        self._tool_id = identity.name("toolu_")
        self._base = {
            "id": identity.name("msg_"),
            "type": "message",
            "role": "assistant",
            "model": ask.model,
        }
        kind = ("input_json_delta", "partial_json") if self._is_tool else ("text_delta", "text")
        self._head = (
            b'event: content_block_delta\ndata: {"type":"content_block_delta","index":0,'
            b'"delta":{"type":"%b","%b":' % (kind[0].encode(), kind[1].encode())
        )

    @property
    def _reason(self) -> str:
        if self._is_tool:
            return "tool_use"
        return "refusal" if self._answer.kind == "refusal" else _REASONS[self._answer.finish]

    def _usage(self, said: int) -> Json:
        return {
            "input_tokens": self._ask.tokens,
            "cache_creation_input_tokens": 0,
            "cache_read_input_tokens": 0,
            "output_tokens": said,
        }

    def _message(self, content: list[object], reason: str | None, said: int) -> Json:
        end = {"stop_reason": reason, "stop_sequence": None, "usage": self._usage(said)}
        return {**self._base, "content": content, **end}

    def _block(self, said: str) -> Json:
        if self._is_tool:
            block = {"type": "tool_use", "id": self._tool_id, "name": self._answer.tool}
            return {**block, "input": orjson.loads(said) if said else {}}
        return {"type": "text", "text": said}

    def opening(self) -> bytes:
        start = {"type": "message_start", "message": self._message([], None, 1)}
        block = {"type": "content_block_start", "index": 0, "content_block": self._block("")}
        return (
            named_event("message_start", start)
            + named_event("content_block_start", block)
            + named_event("ping", {"type": "ping"})
        )

    def token(self, text: str, extra: bytes = b"") -> bytes:
        return b"%b%b}%b}\n\n" % (self._head, orjson.dumps(text), extra)

    def closing(self) -> bytes:
        delta = {"stop_reason": self._reason, "stop_sequence": None}
        usage = {"output_tokens": len(self._answer.pieces)}
        return (
            named_event("content_block_stop", {"type": "content_block_stop", "index": 0})
            + named_event(
                "message_delta", {"type": "message_delta", "delta": delta, "usage": usage}
            )
            + named_event("message_stop", {"type": "message_stop"})
        )

    def error(self) -> bytes:
        return named_event("error", failure(529, "Overloaded"))

    def whole(self) -> Json:
        content: list[object] = [self._block(self._answer.whole)]
        return self._message(content, self._reason, len(self._answer.pieces))


speaker = Speaker
