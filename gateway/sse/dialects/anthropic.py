"""Anthropic's Messages: typed events from `message_start` to `message_stop`.

Thinking, signatures, citations and `ping` say nothing here. The finish comes in `message_delta`,
one event before the terminal one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping

import orjson

from gateway.errors import GatewayError
from gateway.sse.decoder import encode_event
from gateway.sse.dialects import fields
from gateway.sse.dialects.base import Translator, Verdict, Watcher
from gateway.sse.dialects.common import (
    EventStreamDialect,
    JsonTranslator,
    body,
    data_type,
    first_event,
    is_incomplete,
    messages,
    plain_object,
)
from gateway.sse.dialects.stop import stopped_message
from gateway.sse.event import End, Finish, Prompt, Signal, Text, ToolCall, Usage

#: The API demands a limit; this is what its own examples used for long.
DEFAULT_MAX_TOKENS = 4096
_INCOMPLETE_REASONS = frozenset(
    {"max_tokens", "model_context_window_exceeded", "pause_turn", "refusal"}
)
_NOTED = (b"message_delta", b"message_stop", b"error")
_DELTA_LINE = b"event: content_block_delta\n"
_SUSPICIOUS = tuple(b'"%b"' % name for name in _NOTED)
_TYPE_BY_STATUS = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
    504: "timeout_error",
    529: "overloaded_error",
}


class _Translator(JsonTranslator):
    def text_of(self, block: bytes) -> str | None:
        if not block.startswith(_DELTA_LINE) or (payload := plain_object(block)) is None:
            return None
        delta = payload.get("delta")
        if type(delta) is not dict or delta.get("type") != "text_delta":
            return None
        text = delta.get("text")
        return text if type(text) is str and text else None

    def translate(self, event: bytes, data: bytes) -> Iterator[Signal]:
        if not data.strip():
            return
        payload = fields.mapping(fields.load(data))
        kind = event.decode("utf-8", "replace") or fields.text(payload.get("type"))
        if kind == "error":
            yield fields.failure(payload.get("error") or payload)
        elif read := _READERS.get(kind):
            yield from read(payload)


class _Watcher:
    def __init__(self) -> None:
        self._delta = b""

    def see(self, block: bytes) -> Verdict | None:
        name = first_event(block)
        if name is None:
            if not any(word in block for word in _SUSPICIOUS):
                return None
            name = data_type(block).encode()
        if name == b"message_delta":
            self._delta = block
        elif name == b"message_stop":
            is_early = is_incomplete(_Translator(), [self._delta])
            return Verdict.INCOMPLETE if is_early else Verdict.COMPLETE
        return Verdict.BROKEN if name == b"error" else None

    def passes(self, blocks: bytes) -> bool:
        return not any(name in blocks for name in _NOTED)


class Anthropic(EventStreamDialect):
    name = "anthropic"
    chat_path = "/v1/messages"
    lead_events = 4  # after message_start, content_block_start and ping

    def request_body(self, prompt: Prompt) -> bytes:
        turns = messages(prompt)
        system = [turn["content"] for turn in turns if _is_system(turn)]
        return body(
            {
                "model": prompt.model,
                "max_tokens": prompt.max_tokens or DEFAULT_MAX_TOKENS,
                "system": "\n\n".join(system) or None,
                "messages": [turn for turn in turns if not _is_system(turn)],
                "stream": True,
            }
        )

    def request_headers(self, api_key: str | None) -> dict[str, str]:
        headers = super().request_headers(None) | {"anthropic-version": "2023-06-01"}
        return headers | {"x-api-key": api_key} if api_key else headers

    def translator(self) -> Translator:
        return _Translator()

    def stop_blocks(self, blocks: Iterable[bytes], output_tokens: int) -> list[bytes]:
        return stopped_message(blocks, output_tokens)

    def watcher(self) -> Watcher:
        return _Watcher()

    def error_block(self, error: GatewayError, trace_id: str, blocks: Iterable[bytes]) -> bytes:
        return encode_event("error", orjson.dumps(self.error_body(error, trace_id)))

    def error_body(self, error: GatewayError, trace_id: str) -> dict[str, object]:
        return {
            "type": "error",
            "error": {
                "type": _error_type(error),
                "message": error.message,
                "code": error.code,
                "param": error.param,
            },
            "trace_id": trace_id,
        }


def _error_type(error: GatewayError) -> str:
    """The API's own word for `error`, by which its SDKs and their users decide on a retry."""
    fallback = "invalid_request_error" if 400 <= error.status < 500 else "api_error"
    return _TYPE_BY_STATUS.get(error.status, fallback)


def _is_system(turn: Mapping[str, str]) -> bool:
    return turn["role"] in ("system", "developer")


def _message_start(event: Mapping[str, object]) -> Iterator[Signal]:
    yield from _usage(fields.mapping(event.get("message")))


def _block_start(event: Mapping[str, object]) -> Iterator[Signal]:
    content = fields.mapping(event.get("content_block"))
    if content.get("type") == "tool_use":
        yield ToolCall(
            index=fields.index(event.get("index")),
            id=fields.text(content.get("id")) or None,
            name=fields.text(content.get("name")) or None,
        )
    elif content.get("type") == "text" and (text := fields.text(content.get("text"))):
        yield Text(text)


def _block_delta(event: Mapping[str, object]) -> Iterator[Signal]:
    delta = fields.mapping(event.get("delta"))
    if text := fields.text(delta.get("text")):
        yield Text(text)
    elif arguments := fields.text(delta.get("partial_json")):
        yield ToolCall(fields.index(event.get("index")), arguments=arguments)


def _message_delta(event: Mapping[str, object]) -> Iterator[Signal]:
    yield from _usage(event)
    if reason := fields.text(fields.mapping(event.get("delta")).get("stop_reason")):
        yield Finish(reason, reason not in _INCOMPLETE_REASONS)


def _message_stop(event: Mapping[str, object]) -> Iterator[Signal]:
    yield End()


def _usage(holder: Mapping[str, object]) -> Iterator[Signal]:
    usage = fields.mapping(holder.get("usage"))
    if usage:
        yield Usage(
            fields.count(usage.get("input_tokens")),
            fields.count(usage.get("output_tokens")),
            usage.get("estimated") is True,
        )


_READERS: dict[str, Callable[[Mapping[str, object]], Iterator[Signal]]] = {
    "message_start": _message_start,
    "content_block_start": _block_start,
    "content_block_delta": _block_delta,
    "message_delta": _message_delta,
    "message_stop": _message_stop,
}
