"""What the demo backend needs of a dialect: to read a question and to put an answer into bytes."""

from __future__ import annotations

import random
import secrets
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

import orjson

from scripts.mock.answers import Answer

Json = Mapping[str, object]


@dataclass(frozen=True, slots=True)
class Ask:
    """One question, read from a request's body."""

    question: str
    model: str
    stream: bool
    #: The name of the first tool on offer, unless its result was just handed in.
    tool: str | None = None
    max_tokens: int | None = None
    include_usage: bool = False
    conversation_id: str | None = None

    @property
    def tokens(self) -> int:
        """An estimate, good enough for a usage report."""
        return len(self.question.split()) + 7


@dataclass(slots=True)
class Identity:
    """Ids and times of one answer: random, or made from a seed and then always the same."""

    seed: int | None
    _random: random.Random = field(init=False)

    def __post_init__(self) -> None:
        self._random = random.Random(secrets.randbits(64) if self.seed is None else self.seed)

    def name(self, prefix: str) -> str:
        return f"{prefix}{self._random.getrandbits(96):024x}"

    def created(self) -> int:
        """Seconds since 1970."""
        return int(time.time()) if self.seed is None else 1_760_000_000 + self.seed

    def between(self, low: float, high: float) -> float:
        return self._random.uniform(low, high)


class Speaker(Protocol):
    """Puts one answer into the bytes of a dialect, event by event."""

    media_type: str

    def opening(self) -> bytes:
        """What is sent together with the first token."""
        ...

    def token(self, text: str, extra: bytes = b"") -> bytes:
        """The event of one piece; `extra` goes into its JSON object, like `,"key":1`."""
        ...

    def closing(self) -> bytes:
        """What is sent after the last token, terminal event included."""
        ...

    def error(self) -> bytes:
        """The event of a failure in the middle."""
        ...

    def whole(self) -> Json:
        """The answer to a request that doesn't stream."""
        ...


class Dialect(Protocol):
    """A module's two entries; `Dialect` itself keeps no state."""

    def read(self, body: Json) -> Ask: ...

    def speaker(self, ask: Ask, answer: Answer, identity: Identity) -> Speaker: ...

    def failure(self, status: int, message: str) -> Json:
        """The body of an error answer."""
        ...


def data_event(data: object) -> bytes:
    return b"data: %b\n\n" % orjson.dumps(data)


def named_event(name: str, data: object) -> bytes:
    return b"event: %b\ndata: %b\n\n" % (name.encode(), orjson.dumps(data))


def text_of(content: object) -> str:
    """The text of a message's content: a string, or parts of which some have `text`."""
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        return ""
    texts = (part.get("text") if isinstance(part, dict) else part for part in content)
    return " ".join(text for text in texts if isinstance(text, str))


def items(value: object) -> list[Json]:
    """The objects in a JSON array; none where it is something else."""
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def last_user_text(messages: object) -> str:
    said = [text_of(turn.get("content")) for turn in items(messages) if turn.get("role") == "user"]
    return next((text for text in reversed(said) if text), "")


def count(value: object) -> int | None:
    return value if isinstance(value, int) and value > 0 else None


def text(value: object, default: str = "") -> str:
    return value if isinstance(value, str) and value else default


OPENAI_TYPES = {
    400: "invalid_request_error",
    401: "invalid_request_error",
    403: "permission_error",
    404: "invalid_request_error",
    429: "rate_limit_error",
}


def openai_failure(status: int, message: str) -> Json:
    code = {404: "not_found", 429: "rate_limit_exceeded"}.get(status)
    kind = OPENAI_TYPES.get(status, "server_error")
    return {"error": {"message": message, "type": kind, "param": None, "code": code}}
