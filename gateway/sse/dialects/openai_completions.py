"""OpenAI's legacy completions (`/v1/completions`): choices with `text` instead of a delta."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from gateway.sse.dialects import fields
from gateway.sse.dialects.base import Translator, Watcher
from gateway.sse.dialects.common import EventStreamDialect, body
from gateway.sse.dialects.openai_chat import ChoicesTranslator, ChoicesWatcher
from gateway.sse.dialects.stop import stopped_choices
from gateway.sse.event import Prompt, Signal, Text


class _CompletionsTranslator(ChoicesTranslator):
    def choice(self, choice: Mapping[str, object]) -> Iterator[Signal]:
        if text := fields.text(choice.get("text")):
            yield Text(text)


class OpenAICompletions(EventStreamDialect):
    name = "openai-completions"
    chat_path = "/v1/completions"

    def request_body(self, prompt: Prompt) -> bytes:
        """Asks the query alone: this API knows no conversation."""
        return body(
            {
                "model": prompt.model,
                "prompt": prompt.query,
                "max_tokens": prompt.max_tokens,
                "stream": True,
                "stream_options": {"include_usage": True},
            }
        )

    def translator(self) -> Translator:
        return _CompletionsTranslator()

    def stop_blocks(self, blocks: Iterable[bytes], output_tokens: int) -> list[bytes]:
        return stopped_choices(blocks, output_tokens, is_chat=False)

    def watcher(self) -> Watcher:
        return ChoicesWatcher(self.translator())
