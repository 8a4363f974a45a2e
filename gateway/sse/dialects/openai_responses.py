"""OpenAI's Responses: typed, numbered events; `response.completed` and its relatives are terminal.

An event's type is its `event` line or, where a backend leaves that out, `type` in its data.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping

import orjson

from gateway.errors import GatewayError
from gateway.sse.decoder import block_data, encode_event
from gateway.sse.dialects import fields
from gateway.sse.dialects.base import Translator, Verdict, Watcher
from gateway.sse.dialects.common import (
    EventStreamDialect,
    JsonTranslator,
    body,
    data_type,
    first_event,
    is_error,
    messages,
    plain_object,
)
from gateway.sse.dialects.stop import stopped_response
from gateway.sse.event import End, Failure, Finish, Prompt, Signal, Text, ToolCall, Usage

_VERDICTS = {
    b"response.completed": Verdict.COMPLETE,
    b"response.incomplete": Verdict.INCOMPLETE,
    b"response.cancelled": Verdict.INCOMPLETE,
    b"response.failed": Verdict.FAILED,
    b"error": Verdict.BROKEN,
}
_DELTA_LINE = b"event: response.output_text.delta\n"
_SUSPICIOUS = tuple(b'"%b"' % name for name in _VERDICTS)


class _Translator(JsonTranslator):
    def text_of(self, block: bytes) -> str | None:
        if not block.startswith(_DELTA_LINE) or (payload := plain_object(block)) is None:
            return None
        if payload.get("type") != "response.output_text.delta" or payload.get("error"):
            return None
        text = payload.get("delta")
        return text if type(text) is str and text else None

    def translate(self, event: bytes, data: bytes) -> Iterator[Signal]:
        if data.startswith(b"[DONE]") or not data.strip():
            return
        payload = fields.mapping(fields.load(data))
        kind = fields.text(payload.get("type")) or event.decode("utf-8", "replace")
        if kind == "error" or payload.get("error"):
            yield fields.failure(payload.get("error") or payload)
        elif read := _READERS.get(kind):
            yield from read(payload)


class _Watcher:
    def see(self, block: bytes) -> Verdict | None:
        name = first_event(block)
        if name is not None:
            return _VERDICTS.get(name)
        if not any(word in block for word in _SUSPICIOUS):
            return None
        return Verdict.BROKEN if is_error(block) else _VERDICTS.get(data_type(block).encode())

    def passes(self, blocks: bytes) -> bool:
        return not any(name in blocks for name in _VERDICTS)


class OpenAIResponses(EventStreamDialect):
    name = "openai-responses"
    chat_path = "/v1/responses"
    lead_events = 5  # after created, in_progress and the item's and its part's beginning

    def request_body(self, prompt: Prompt) -> bytes:
        return body(
            {
                "model": prompt.model,
                "input": messages(prompt),
                "max_output_tokens": prompt.max_tokens,
                "stream": True,
            }
        )

    def translator(self) -> Translator:
        return _Translator()

    def stop_blocks(self, blocks: Iterable[bytes], output_tokens: int) -> list[bytes]:
        return stopped_response(blocks, output_tokens)

    def watcher(self) -> Watcher:
        return _Watcher()

    def error_block(self, error: GatewayError, trace_id: str, blocks: Iterable[bytes]) -> bytes:
        """An `error` event as documented, with OpenAI's error object in it as well.

        The official SDKs hand a bare `error` event to the application like any other and raise
        only for an `error` member (openai-python, `_streaming.py`).
        """
        event = {
            "type": "error",
            "code": error.code,
            "message": error.message,
            "param": error.param,
            "sequence_number": _next_number(blocks),
            **self.error_body(error, trace_id),
        }
        return encode_event("error", orjson.dumps(event))


def _next_number(blocks: Iterable[bytes]) -> int:
    for block in reversed(list(blocks)):
        try:
            event = fields.mapping(fields.load(block_data(block)))
        except fields.Malformed:
            continue
        number = fields.count(event.get("sequence_number"))
        if number is not None:
            return number + 1
    return 0


def _text(event: Mapping[str, object]) -> Iterator[Signal]:
    if delta := fields.text(event.get("delta")):
        yield Text(delta)


def _refusal(event: Mapping[str, object]) -> Iterator[Signal]:
    if delta := fields.text(event.get("delta")):
        yield Text(delta, refusal=True)


def _item(event: Mapping[str, object]) -> Iterator[Signal]:
    item = fields.mapping(event.get("item"))
    if item.get("type") == "function_call":
        yield ToolCall(
            index=fields.index(event.get("output_index")),
            id=fields.text(item.get("call_id")) or fields.text(item.get("id")) or None,
            name=fields.text(item.get("name")) or None,
            arguments=fields.text(item.get("arguments")),
        )


def _arguments(event: Mapping[str, object]) -> Iterator[Signal]:
    if delta := fields.text(event.get("delta")):
        yield ToolCall(fields.index(event.get("output_index")), arguments=delta)


def _completed(event: Mapping[str, object]) -> Iterator[Signal]:
    yield from _usage(event)
    yield Finish("completed", complete=True)
    yield End()


def _stopped(event: Mapping[str, object]) -> Iterator[Signal]:
    response = fields.mapping(event.get("response"))
    details = fields.mapping(response.get("incomplete_details"))
    reason = fields.text(details.get("reason")) or fields.text(response.get("status"))
    yield from _usage(event)
    yield Finish(reason or "incomplete", complete=False)
    yield End()


def _failed(event: Mapping[str, object]) -> Iterator[Signal]:
    failure: Failure = fields.failure(fields.mapping(event.get("response")).get("error"))
    yield failure


def _usage(event: Mapping[str, object]) -> Iterator[Signal]:
    usage = fields.mapping(fields.mapping(event.get("response")).get("usage"))
    if usage:
        yield Usage(
            fields.count(usage.get("input_tokens")),
            fields.count(usage.get("output_tokens")),
            usage.get("estimated") is True,
        )


_READERS: dict[str, Callable[[Mapping[str, object]], Iterator[Signal]]] = {
    "response.output_text.delta": _text,
    "response.refusal.delta": _refusal,
    "response.output_item.added": _item,
    "response.function_call_arguments.delta": _arguments,
    "response.completed": _completed,
    "response.incomplete": _stopped,
    "response.cancelled": _stopped,
    "response.failed": _failed,
}
