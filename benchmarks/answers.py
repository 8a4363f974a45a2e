"""Answers of ordinary length, made of the tests' short recordings: their token events repeated."""

from __future__ import annotations

from dataclasses import dataclass

from gateway.sse.dialects import DIALECTS
from gateway.sse.dialects.base import Dialect
from tests.backend import (
    ANTHROPIC_STREAM,
    CHAT_STREAM,
    OLLAMA_STREAM,
    RAG_STREAM,
    RESPONSES_STREAM,
)

_TOKENS = 500
_MAX_BYTES = 1 << 20
_RECORDINGS = {
    "openai": CHAT_STREAM,
    "openai-responses": RESPONSES_STREAM,
    "anthropic": ANTHROPIC_STREAM,
    "ollama": OLLAMA_STREAM,
    "rag": RAG_STREAM,
}
DIALECT_NAMES = tuple(_RECORDINGS)


@dataclass(frozen=True, slots=True)
class Answer:
    """What a backend sends, whole and in blocks."""

    dialect: Dialect
    body: bytes
    blocks: list[bytes]


def long_answer(dialect_name: str) -> Answer:
    """An answer of a few more than 500 events."""
    dialect = DIALECTS[dialect_name]
    stream = _RECORDINGS[dialect_name]
    end = b"\n" if dialect_name == "ollama" else b"\n\n"
    events = [event + end for event in stream.split(end)[:-1]]
    token = next(i for i, event in enumerate(events) if b" aus" in event)
    body = b"".join([*events[:token], *[events[token]] * _TOKENS, *events[token + 1 :]])
    return Answer(dialect, body, dialect.decoder(_MAX_BYTES).feed(body))
