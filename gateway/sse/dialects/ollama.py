"""Ollama's own chat API: one JSON object a line, the last with `"done": true`."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping

import orjson

from gateway.errors import GatewayError
from gateway.sse.decoder import LineDecoder
from gateway.sse.dialects import fields
from gateway.sse.dialects.base import Decoder, Translator, Verdict, Watcher
from gateway.sse.dialects.common import MALFORMED, EventStreamDialect, body, messages
from gateway.sse.event import End, Failure, Finish, Prompt, Signal, Text, ToolCall, Usage

_DONE = re.compile(rb'"done"\s*:\s*true')
_ID_LINE = re.compile(rb"id:[^\r\n]*[\r\n]+")


class _Translator:
    def text_of(self, block: bytes) -> str | None:
        return None

    def __init__(self) -> None:
        self._calls = 0

    def feed(self, block: bytes) -> list[Signal]:
        try:
            return list(self._signals(_load(block)))
        except fields.Malformed as error:
            return [Failure(str(error), MALFORMED)]

    def _signals(self, line: Mapping[str, object]) -> Iterator[Signal]:
        if line.get("error"):
            yield fields.failure(line["error"])
            return
        message = fields.mapping(line.get("message"))
        if content := fields.text(message.get("content")):
            yield Text(content)
        for call in fields.items(message.get("tool_calls")):
            yield self._tool_call(fields.mapping(fields.mapping(call).get("function")))
        if line.get("done") is True:
            yield from _end(line)

    def _tool_call(self, function: Mapping[str, object]) -> ToolCall:
        """A call comes whole, its arguments as an object, and has neither index nor id."""
        arguments = fields.dump(function.get("arguments") or {})
        call = ToolCall(self._calls, name=fields.text(function.get("name")), arguments=arguments)
        self._calls += 1
        return call


class _Watcher:
    def see(self, block: bytes) -> Verdict | None:
        if self.passes(block):
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
        return b'"error"' not in blocks and not _DONE.search(blocks)


class Ollama(EventStreamDialect):
    name = "ollama"
    chat_path = "/api/chat"
    stream_types = frozenset({"application/x-ndjson", "application/json"})

    def decoder(self, max_bytes: int) -> Decoder:
        return LineDecoder(max_bytes)

    def request_body(self, prompt: Prompt) -> bytes:
        limit = {"num_predict": prompt.max_tokens} if prompt.max_tokens else None
        return body(
            {
                "model": prompt.model,
                "messages": messages(prompt),
                "options": limit,
                "stream": True,
            }
        )

    def request_headers(self, api_key: str | None) -> dict[str, str]:
        return super().request_headers(api_key) | {"Accept": "application/x-ndjson"}

    def translator(self) -> Translator:
        return _Translator()

    def watcher(self) -> Watcher:
        return _Watcher()

    def error_block(self, error: GatewayError, trace_id: str, blocks: Iterable[bytes]) -> bytes:
        line = {"error": error.message, "code": error.code, "trace_id": trace_id}
        return orjson.dumps(line) + b"\n"


def _load(block: bytes) -> Mapping[str, object]:
    id_line = _ID_LINE.match(block)
    line = block[id_line.end() :] if id_line else block
    return fields.mapping(fields.load(line)) if line.strip() else {}


def _end(line: Mapping[str, object]) -> Iterator[Signal]:
    yield Usage(fields.count(line.get("prompt_eval_count")), fields.count(line.get("eval_count")))
    reason = fields.text(line.get("done_reason")) or "stop"
    yield Finish(reason, reason != "length")
    yield End()
