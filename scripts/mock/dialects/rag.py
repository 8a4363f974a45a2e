"""`POST /chat/stream`, a retrieval backend: text, then the sources, then `event: complete`."""

from __future__ import annotations

from dataclasses import asdict

import orjson

from scripts.mock.answers import Answer
from scripts.mock.dialects.base import Ask, Identity, Json, named_event, text


def read(body: Json) -> Ask:
    return Ask(
        question=text(body.get("query")),
        model="demo",
        stream=body.get("stream") is not False,
        conversation_id=text(body.get("conversation_id")) or None,
    )


def failure(status: int, message: str) -> Json:
    return {"error": {"message": message, "code": f"http_{status}"}}


class Speaker:
    """`content` events, one `sources` event, one `complete` event with the counts."""

    media_type = "text/event-stream"

    def __init__(self, ask: Ask, answer: Answer, identity: Identity) -> None:
        self._ask = ask
        self._answer = answer
        self._conversation_id = ask.conversation_id or identity.name("conv_")

    def opening(self) -> bytes:
        return b""

    def token(self, text: str, extra: bytes = b"") -> bytes:
        return b'event: content\ndata: {"content":%b%b}\n\n' % (orjson.dumps(text), extra)

    def closing(self) -> bytes:
        sources = self._sources()
        found = named_event("sources", {"sources": sources}) if sources else b""
        return found + named_event("complete", {"done": True, **self._counts()})

    def error(self) -> bytes:
        return named_event("error", failure(500, "The model stopped in mid-sentence."))

    def whole(self) -> Json:
        return {"answer": self._answer.whole, "sources": self._sources(), **self._counts()}

    def _sources(self) -> list[Json]:
        return [asdict(source) for source in self._answer.sources]

    def _counts(self) -> Json:
        usage = {"input_tokens": self._ask.tokens, "output_tokens": len(self._answer.pieces)}
        return {
            "finish_reason": self._answer.finish,
            "conversation_id": self._conversation_id,
            "usage": usage,
        }


speaker = Speaker
