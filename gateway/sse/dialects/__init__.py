"""The families of backends that the gateway speaks with, by settings name and by path."""

from __future__ import annotations

from gateway.sse.dialects.anthropic import Anthropic
from gateway.sse.dialects.base import Dialect
from gateway.sse.dialects.ollama import Ollama
from gateway.sse.dialects.openai_chat import OpenAIChat
from gateway.sse.dialects.openai_completions import OpenAICompletions
from gateway.sse.dialects.openai_responses import OpenAIResponses
from gateway.sse.dialects.rag import Rag

_ALL: tuple[Dialect, ...] = (OpenAIChat(), OpenAIResponses(), Anthropic(), Ollama(), Rag())

#: What `UPSTREAM_DIALECT` may name.
DIALECTS: dict[str, Dialect] = {dialect.name: dialect for dialect in _ALL}

_PROVIDERS: dict[str, Dialect] = {
    "/v1/chat/completions": DIALECTS["openai"],
    "/v1/completions": OpenAICompletions(),
    "/v1/responses": DIALECTS["openai-responses"],
    "/v1/messages": DIALECTS["anthropic"],
}


def provider_dialect(path: str) -> Dialect | None:
    """The dialect of a generation request (POST) on exactly `path`; None for any other path."""
    return _PROVIDERS.get(path)
