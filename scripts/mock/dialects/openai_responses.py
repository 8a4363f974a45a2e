"""`POST /v1/responses`: typed, numbered events around one output item."""

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
    openai_failure,
    text,
)

_NOTHING: dict[str, object] = {
    **dict.fromkeys(("error", "incomplete_details", "instructions", "max_output_tokens")),
    **dict.fromkeys(("previous_response_id", "user")),
    "metadata": {},
    "parallel_tool_calls": True,
    "reasoning": {"effort": None, "summary": None},
    "store": False,
    "temperature": 1.0,
    "text": {"format": {"type": "text"}},
    "tool_choice": "auto",
    "tools": [],
    "top_p": 1.0,
    "truncation": "disabled",
}
_INCOMPLETE = {"length": "max_output_tokens", "content_filter": "content_filter"}
_DELTAS = {
    "text": "response.output_text.delta",
    "refusal": "response.refusal.delta",
    "tool": "response.function_call_arguments.delta",
}


def read(body: Json) -> Ask:
    asked = body.get("input")
    return Ask(
        question=asked if isinstance(asked, str) else last_user_text(asked),
        model=text(body.get("model"), "demo"),
        stream=body.get("stream") is True,
        tool=_tool(body),
        max_tokens=count(body.get("max_output_tokens")),
    )


def _tool(body: Json) -> str | None:
    turns = items(body.get("input"))
    if turns and turns[-1].get("type") == "function_call_output":
        return None
    tools = items(body.get("tools"))
    return next((text(t.get("name")) for t in tools if t.get("type") == "function"), None)


class Speaker:
    """Counts the events that it puts out; `token` costs one encoding of its text."""

    media_type = "text/event-stream"

    def __init__(self, ask: Ask, answer: Answer, identity: Identity) -> None:
        self._ask = ask
        self._answer = answer
        self._sequence = 0
        self._is_tool = answer.kind == "tool"
        self._item_id = identity.name("fc_" if self._is_tool else "msg_")
        self._call_id = identity.name("call_")
        self._base = {
            "id": identity.name("resp_"),
            "object": "response",
            "created_at": identity.created(),
            "model": ask.model,
            **_NOTHING,
        }
        name = _DELTAS[answer.kind]
        place = {"item_id": self._item_id, "output_index": 0, **self._content_index()}
        self._head = b"event: %b\ndata: %b" % (
            name.encode(),
            orjson.dumps({"type": name, **place}).removesuffix(b"}"),
        )
        self._tail = b',"logprobs":[]' if answer.kind == "text" else b""

    def _content_index(self) -> Json:
        return {} if self._is_tool else {"content_index": 0}

    def _event(self, name: str, /, **fields: object) -> bytes:
        data = {"type": name, "sequence_number": self._sequence, **fields}
        self._sequence += 1
        return named_event(name, data)

    def _placed(self, name: str, /, **fields: object) -> bytes:
        place = {"item_id": self._item_id, "output_index": 0, **self._content_index()}
        return self._event(name, **place, **fields)

    def opening(self) -> bytes:
        started = {**self._base, "status": "in_progress", "output": [], "usage": None}
        item = {**self._item(""), "status": "in_progress"}
        if not self._is_tool:
            item["content"] = []
        events = [
            self._event("response.created", response=started),
            self._event("response.in_progress", response=started),
            self._event("response.output_item.added", output_index=0, item=item),
        ]
        if not self._is_tool:
            events.append(self._placed("response.content_part.added", part=self._part("")))
        return b"".join(events)

    def token(self, text: str, extra: bytes = b"") -> bytes:
        number = self._sequence
        self._sequence = number + 1
        return b'%b,"sequence_number":%d,"delta":%b%b%b}\n\n' % (
            self._head,
            number,
            orjson.dumps(text),
            self._tail,
            extra,
        )

    def closing(self) -> bytes:
        said = self._answer.whole
        events = self._last_words(said)
        item = self._item(said)
        events.append(self._event("response.output_item.done", output_index=0, item=item))
        response = self.whole()
        events.append(self._event(f"response.{response['status']}", response=response))
        return b"".join(events)

    def _last_words(self, said: str) -> list[bytes]:
        if self._is_tool:
            name = "response.function_call_arguments.done"
            return [self._placed(name, name=self._answer.tool, arguments=said)]
        if self._answer.kind == "refusal":
            done = self._placed("response.refusal.done", refusal=said)
        else:
            done = self._placed("response.output_text.done", text=said, logprobs=[])
        return [done, self._placed("response.content_part.done", part=self._part(said))]

    def error(self) -> bytes:
        """Both as documented and with the `error` object that the API sends in fact: the SDKs
        raise for the latter only."""
        failed = openai_failure(500, "The model stopped in mid-sentence.")
        message = "The model stopped in mid-sentence."
        return self._event("error", code="server_error", message=message, param=None, **failed)

    def whole(self) -> Json:
        said = len(self._answer.pieces)
        reason = _INCOMPLETE.get(self._answer.finish)
        return {
            **self._base,
            "status": "incomplete" if reason else "completed",
            "incomplete_details": {"reason": reason} if reason else None,
            "output": [self._item(self._answer.whole)],
            "usage": {
                "input_tokens": self._ask.tokens,
                "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
                "output_tokens": said,
                "output_tokens_details": {"reasoning_tokens": 0},
                "total_tokens": self._ask.tokens + said,
            },
        }

    def _item(self, said: str) -> dict[str, object]:
        status = "incomplete" if self._answer.finish in _INCOMPLETE else "completed"
        item: dict[str, object] = {"id": self._item_id, "status": status}
        if self._is_tool:
            call = {"call_id": self._call_id, "name": self._answer.tool, "arguments": said}
            return {**item, "type": "function_call", **call}
        return {**item, "type": "message", "role": "assistant", "content": [self._part(said)]}

    def _part(self, said: str) -> Json:
        if self._answer.kind == "refusal":
            return {"type": "refusal", "refusal": said}
        return {"type": "output_text", "text": said, "annotations": [], "logprobs": []}


speaker = Speaker
failure = openai_failure
