"""OpenAI's chat completions, spoken by most servers of open models too.

Each event is a `chat.completion.chunk`; `data: [DONE]` is the terminal event; an object with
`error` instead of choices is a failure. Only the first choice is translated.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping

from gateway.sse.decoder import block_data
from gateway.sse.dialects import fields
from gateway.sse.dialects.base import Translator, Verdict, Watcher
from gateway.sse.dialects.common import (
    EventStreamDialect,
    JsonTranslator,
    body,
    is_error,
    is_incomplete,
    messages,
    plain_object,
)
from gateway.sse.dialects.stop import stopped_choices
from gateway.sse.event import End, Finish, Prompt, Signal, Text, ToolCall, Usage

DONE = b"[DONE]"
#: Reasons for stopping early: OpenAI's, and those of Mistral, vLLM, DeepSeek and OpenRouter.
INCOMPLETE_REASONS = frozenset(
    {
        "length",
        "content_filter",
        "model_length",
        "max_tokens",
        "abort",
        "error",
        "insufficient_system_resource",
    }
)
_PLAIN_DELTA = frozenset({"role", "content"})
_FINISH = re.compile(rb'"finish_reason"\s*:\s*"')
_STOPPED = re.compile(rb'"finish_reason"\s*:\s*"stop"')
_KEPT_BLOCKS = 16


class ChoicesTranslator(JsonTranslator):
    """What chat and legacy completions have in common."""

    def translate(self, event: bytes, data: bytes) -> Iterator[Signal]:
        if data.startswith(DONE):
            yield End()
        elif data.strip():
            yield from self._chunk(event, fields.mapping(fields.load(data)))

    def _chunk(self, event: bytes, chunk: Mapping[str, object]) -> Iterator[Signal]:
        if event == b"error" or chunk.get("error"):
            yield fields.failure(chunk.get("error") or chunk)
            return
        for choice in map(fields.mapping, fields.items(chunk.get("choices"))):
            if fields.index(choice.get("index")) == 0:
                yield from self.choice(choice)
        yield from _usage(fields.mapping(chunk.get("usage")))
        for choice in map(fields.mapping, fields.items(chunk.get("choices"))):
            if reason := fields.text(choice.get("finish_reason")):
                yield Finish(reason, reason not in INCOMPLETE_REASONS)

    def choice(self, choice: Mapping[str, object]) -> Iterator[Signal]:
        raise NotImplementedError


class _ChatTranslator(ChoicesTranslator):
    def text_of(self, block: bytes) -> str | None:
        if not block.startswith(b"data: {") or (chunk := plain_object(block)) is None:
            return None
        choices = chunk.get("choices")
        if type(choices) is not list or len(choices) != 1 or chunk.get("usage"):
            return None
        choice = choices[0]
        if type(choice) is not dict or choice.get("finish_reason") or choice.get("index") != 0:
            return None
        delta = choice.get("delta")
        if type(delta) is not dict or chunk.get("error") or not delta.keys() <= _PLAIN_DELTA:
            return None
        content = delta.get("content")
        return content if type(content) is str and content else None

    def choice(self, choice: Mapping[str, object]) -> Iterator[Signal]:
        delta = fields.mapping(choice.get("delta"))
        if content := fields.text(delta.get("content")):
            yield Text(content)
        if refusal := fields.text(delta.get("refusal")):
            yield Text(refusal, refusal=True)
        for call in map(fields.mapping, fields.items(delta.get("tool_calls"))):
            yield _tool_call(call, call.get("function"))
        if delta.get("function_call"):
            yield _tool_call({}, delta.get("function_call"))


class ChoicesWatcher:
    """Waits for `[DONE]`; keeps the blocks with a finish reason that may be an early one until
    then, undecoded."""

    def __init__(self, translator: Translator) -> None:
        self._translator = translator
        self._finishes: list[bytes] = []

    def see(self, block: bytes) -> Verdict | None:
        if _is_done(block):
            is_early = is_incomplete(self._translator, self._finishes)
            return Verdict.INCOMPLETE if is_early else Verdict.COMPLETE
        if b"error" in block and is_error(block):
            return Verdict.BROKEN
        if _FINISH.search(block) and not _is_just_stopped(block):
            self._finishes = [*self._finishes[1 - _KEPT_BLOCKS :], block]
        return None

    def passes(self, blocks: bytes) -> bool:
        reasons = blocks.count(b'"finish_reason"')
        has_finish = reasons != blocks.count(b'"finish_reason":null') and _FINISH.search(blocks)
        return not has_finish and DONE not in blocks and b"error" not in blocks


class OpenAIChat(EventStreamDialect):
    name = "openai"
    chat_path = "/v1/chat/completions"
    lead_events = 2  # after the role

    def request_body(self, prompt: Prompt) -> bytes:
        return body(
            {
                "model": prompt.model,
                "messages": messages(prompt),
                "max_tokens": prompt.max_tokens,
                "stream": True,
                "stream_options": {"include_usage": True},
            }
        )

    def translator(self) -> Translator:
        return _ChatTranslator()

    def stop_blocks(self, blocks: Iterable[bytes], output_tokens: int) -> list[bytes]:
        return stopped_choices(blocks, output_tokens, is_chat=True)

    def watcher(self) -> Watcher:
        return ChoicesWatcher(self.translator())


def _is_done(block: bytes) -> bool:
    # The usual block is settled by its first bytes: its data begin with an object.
    if block.startswith(b"data: {") or DONE not in block:
        return False
    return block_data(block).startswith(DONE)


def _is_just_stopped(block: bytes) -> bool:
    """Whether the block has but one finish reason, and that is none for an early end. Decoding the
    last block of an answer is one in forty of what a short one costs."""
    is_one = block.count(b"finish_reason") == 1 and b"\\" not in block
    return is_one and _STOPPED.search(block) is not None


def _tool_call(call: Mapping[str, object], function: object) -> ToolCall:
    called = fields.mapping(function)
    return ToolCall(
        index=fields.index(call.get("index")),
        id=fields.text(call.get("id")) or None,
        name=fields.text(called.get("name")) or None,
        arguments=fields.text(called.get("arguments")),
    )


def _usage(usage: Mapping[str, object]) -> Iterator[Usage]:
    if usage:
        yield Usage(
            fields.count(usage.get("prompt_tokens")),
            fields.count(usage.get("completion_tokens")),
            usage.get("estimated") is True,
        )
