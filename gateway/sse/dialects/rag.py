"""The chat stream of retrieval backends, whose events vary in their words but not in their shape.

Text stands under the first of `content`, `text`, `token`, `delta` and `answer`, or is the data
itself where that is no JSON object. The end is `event: complete`, `done` or `end`, `"done": true`
or `[DONE]`; an error is `event: error` or an `error` in the data. A backend that keeps the history
names its `chat_id` and `message_id`, and gets them back as `chat_id` and `parent_id`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping

import orjson

from gateway.errors import GatewayError
from gateway.sse.decoder import encode_event
from gateway.sse.dialects import fields
from gateway.sse.dialects.base import Translator, Verdict, Watcher
from gateway.sse.dialects.common import (
    MALFORMED,
    EventStreamDialect,
    JsonTranslator,
    body,
)
from gateway.sse.event import End, Failure, Finish, Prompt, Signal, Sources, Text, Thread, Usage

_TEXT_FIELDS = ("content", "text", "token", "delta", "answer")
_END_EVENTS = frozenset({b"complete", b"done", b"end"})
_INCOMPLETE_REASONS = frozenset({"length", "max_tokens", "content_filter"})
_SUSPICIOUS = re.compile(rb'event: ?(?:complete|done|end|error)|\[DONE\]|"error"|"done"\s*:\s*true')


class _Translator(JsonTranslator):
    def __init__(self) -> None:
        self._has_spoken = False

    def translate(self, event: bytes, data: bytes) -> Iterator[Signal]:
        is_end = event in _END_EVENTS
        if data.strip() == b"[DONE]":
            yield End()
        elif event == b"error":
            yield fields.failure(_failure_data(data))
        elif isinstance(said := _read(data), str):
            yield from self._say("" if is_end else said)
            yield from [End()] if is_end else []
        else:
            yield from self._fields(said, is_end=is_end)

    def _fields(self, data: Mapping[str, object], *, is_end: bool) -> Iterator[Signal]:
        if data.get("error"):
            yield fields.failure(data["error"])
            return
        # A closing event repeats the answer as a whole, unless it is the only one to hold it.
        if not (is_end and self._has_spoken):
            yield from self._say(_first_text(data))
        yield from _extras(data)
        if is_end or data.get("done") is True:
            yield from _finish(data)
            yield End()

    def _say(self, text: str) -> Iterator[Signal]:
        if text:
            self._has_spoken = True
            yield Text(text)


class _Watcher:
    def see(self, block: bytes) -> Verdict | None:
        if not _SUSPICIOUS.search(block):
            return None
        for signal in _Translator().feed(block):
            match signal:
                case Finish(complete=False):
                    return Verdict.INCOMPLETE
                case End():
                    return Verdict.COMPLETE
                case Failure(code=code) if code != MALFORMED:
                    return Verdict.BROKEN
        return None

    def passes(self, blocks: bytes) -> bool:
        return not _SUSPICIOUS.search(blocks)


class Rag(EventStreamDialect):
    name = "rag"
    chat_path = "/chat/stream"

    def request_body(self, prompt: Prompt) -> bytes:
        history = [{"role": turn.role, "content": turn.content} for turn in prompt.history]
        return body(
            {
                "query": prompt.query,
                "user_email": prompt.user_email,
                "user_role": prompt.user_role,
                "conversation_history": history,
                "conversation_id": prompt.conversation_id,
                "chat_id": prompt.chat_id,
                "parent_id": prompt.parent_id,
                "stream": True,
            }
        )

    def translator(self) -> Translator:
        return _Translator()

    def watcher(self) -> Watcher:
        return _Watcher()

    def error_block(self, error: GatewayError, trace_id: str, blocks: Iterable[bytes]) -> bytes:
        return encode_event("error", orjson.dumps(self.error_body(error, trace_id)))


def _read(data: bytes) -> Mapping[str, object] | str:
    """The object in `data`, or the text that it is."""
    try:
        value = fields.load(data) if data.strip() else ""
    except fields.Malformed:
        if data.lstrip().startswith(b'{"'):
            raise
        return _plain(data)
    if isinstance(value, dict):
        return value
    return value if isinstance(value, str) else _plain(data)


def _plain(data: bytes) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError:
        raise fields.Malformed("The backend sent text that isn't UTF-8.") from None


def _failure_data(data: bytes) -> object:
    try:
        said = _read(data)
    except fields.Malformed:
        return None
    if isinstance(said, str):
        return said
    return said.get("error") or said


def _first_text(data: Mapping[str, object]) -> str:
    return next((said for name in _TEXT_FIELDS if (said := fields.text(data.get(name)))), "")


def _extras(data: Mapping[str, object]) -> Iterator[Signal]:
    yield from _thread(data)
    sources = fields.items(data.get("sources"))
    if sources:
        fields.dump(sources)  # what can't be written again ends the stream here, not at its end
        yield Sources(sources)
    usage = fields.mapping(data.get("usage"))
    if usage:
        yield Usage(
            _either(usage, "input_tokens", "prompt_tokens"),
            _either(usage, "output_tokens", "completion_tokens"),
        )


def _thread(data: Mapping[str, object]) -> Iterator[Signal]:
    chat_id = fields.text(data.get("chat_id")) or fields.text(data.get("chatId"))
    message_id = fields.text(data.get("message_id")) or fields.text(data.get("messageId"))
    if chat_id or message_id:
        yield Thread(chat_id or None, message_id or None)


def _either(usage: Mapping[str, object], name: str, other: str) -> int | None:
    counted = fields.count(usage.get(name))
    return fields.count(usage.get(other)) if counted is None else counted


def _finish(data: Mapping[str, object]) -> Iterator[Signal]:
    if reason := fields.text(data.get("finish_reason")):
        yield Finish(reason, reason not in _INCOMPLETE_REASONS)
