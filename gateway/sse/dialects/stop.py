"""How a stream that a user has stopped ends in good order, in each provider's own events.

The answer is whole as far as it goes, so an SDK shall take it for finished. The count of tokens is
the gateway's own, and says so.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

import orjson

from gateway.sse.decoder import block_data, encode_event
from gateway.sse.dialects import fields

_CHUNK_FIELDS = ("id", "object", "created", "model")


def stopped_choices(blocks: Iterable[bytes], output_tokens: int, *, is_chat: bool) -> list[bytes]:
    """A last chunk with `finish_reason: stop`, one with the usage, and `[DONE]`."""
    kind = "chat.completion.chunk" if is_chat else "text_completion"
    head: dict[str, object] = {"id": "stopped", "object": kind, "created": 0, "model": ""}
    for event in _events(blocks):
        if event.get("choices"):
            head |= {name: event[name] for name in _CHUNK_FIELDS if name in event}
            break
    said: dict[str, object] = {"delta": {}} if is_chat else {"text": ""}
    choice = {"index": 0, **said, "logprobs": None, "finish_reason": "stop"}
    usage = {
        "prompt_tokens": 0,
        "completion_tokens": output_tokens,
        "total_tokens": output_tokens,
        "estimated": True,
    }
    return [
        encode_event(None, orjson.dumps({**head, "choices": [choice]})),
        encode_event(None, orjson.dumps({**head, "choices": [], "usage": usage})),
        encode_event(None, b"[DONE]"),
    ]


def stopped_message(blocks: Iterable[bytes], output_tokens: int) -> list[bytes]:
    """Closes the open content block, then `message_delta` and `message_stop`."""
    open_block: int | None = None
    has_begun = False
    for event in _events(blocks):
        kind = event.get("type")
        has_begun = has_begun or kind == "message_start"
        if kind in ("content_block_start", "content_block_delta"):
            open_block = fields.index(event.get("index"))
        elif kind == "content_block_stop":
            open_block = None
    usage = {"output_tokens": output_tokens, "estimated": True}
    delta = {"stop_reason": "end_turn", "stop_sequence": None}
    events: list[dict[str, object]] = [] if has_begun else [_empty_message()]
    if open_block is not None:
        events.append({"type": "content_block_stop", "index": open_block})
    events.append({"type": "message_delta", "delta": delta, "usage": usage})
    events.append({"type": "message_stop"})
    return [encode_event(str(event["type"]), orjson.dumps(event)) for event in events]


def stopped_response(blocks: Iterable[bytes], output_tokens: int) -> list[bytes]:
    """`response.incomplete`, with the response as far as it is known."""
    response: Mapping[str, object] = {"id": "resp_stopped", "object": "response", "output": []}
    number = 0
    for event in _events(blocks):
        response = fields.mapping(event.get("response")) or response
        seen = fields.count(event.get("sequence_number"))
        number = number if seen is None else seen + 1
    usage = {
        "input_tokens": 0,
        "output_tokens": output_tokens,
        "total_tokens": output_tokens,
        "estimated": True,
    }
    event = {
        "type": "response.incomplete",
        "sequence_number": number,
        "response": {
            **response,
            "status": "incomplete",
            "incomplete_details": {"reason": "user_requested"},
            "usage": usage,
        },
    }
    return [encode_event("response.incomplete", orjson.dumps(event))]


def _empty_message() -> dict[str, object]:
    return {
        "type": "message_start",
        "message": {
            "id": "msg_stopped",
            "type": "message",
            "role": "assistant",
            "model": "",
            "content": [],
            "stop_reason": None,
            "stop_sequence": None,
            "usage": {"input_tokens": 0, "output_tokens": 0},
        },
    }


def _events(blocks: Iterable[bytes]) -> Iterator[Mapping[str, object]]:
    for block in blocks:
        try:
            yield fields.mapping(fields.load(block_data(block)))
        except fields.Malformed:
            continue
