"""What a backend's stream says, in one vocabulary for all dialects.

A translator (`gateway.sse.dialects`) turns a backend's blocks into these signals; the typed route
turns the signals into its own events. Pure values; bytes and blocks are `gateway.sse.decoder`'s.
"""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Message:
    """One earlier turn of the conversation."""

    role: str
    content: str


@dataclass(frozen=True, slots=True)
class Prompt:
    """What the typed route was asked, before a dialect makes the backend's request of it."""

    query: str
    history: tuple[Message, ...] = ()
    conversation_id: str | None = None
    user_email: str | None = None
    user_role: str | None = None
    model: str | None = None
    max_tokens: int | None = None
    chat_id: str | None = None
    parent_id: str | None = None


@dataclass(frozen=True, slots=True)
class Text:
    """A piece of the answer; `refusal` marks the model's words for declining."""

    content: str
    refusal: bool = False


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A piece of one tool call; pieces with the same index belong together."""

    index: int
    id: str | None = None
    name: str | None = None
    arguments: str = ""


@dataclass(frozen=True, slots=True)
class Usage:
    """The backend's own count; later ones replace earlier ones field by field."""

    input_tokens: int | None = None
    output_tokens: int | None = None
    estimated: bool = False  #: the answer's tokens were counted by a gateway, perhaps this one

    def merged(self, later: Usage) -> Usage:
        """This one, as far as a later one doesn't replace it."""
        is_counted = later.output_tokens is not None
        return Usage(
            self.input_tokens if later.input_tokens is None else later.input_tokens,
            later.output_tokens if is_counted else self.output_tokens,
            later.estimated if is_counted else self.estimated,
        )


@dataclass(frozen=True, slots=True)
class Sources:
    """What the answer rests on, as the backend gave it (any JSON)."""

    items: list[object]


@dataclass(frozen=True, slots=True)
class Thread:
    """Where the backend keeps this conversation: its chat, and the message that was just said."""

    chat_id: str | None = None
    message_id: str | None = None


@dataclass(frozen=True, slots=True)
class Finish:
    """The model stopped. `reason` is the dialect's word; `complete` is false for a length limit,
    a content filter and the like. More signals (usage, sources) may follow before `End`."""

    reason: str
    complete: bool


@dataclass(frozen=True, slots=True)
class Failure:
    """The backend reported an error inside its stream; nothing follows."""

    message: str
    code: str | None = None


@dataclass(frozen=True, slots=True)
class End:
    """The dialect's terminal event: the stream is whole; nothing follows."""


Signal = Text | ToolCall | Usage | Sources | Thread | Finish | Failure | End


@dataclass(frozen=True, slots=True)
class Summary:
    """What a whole provider stream said, decoded once at its end and never on the way."""

    text: str = ""
    usage: Usage | None = None
    finish: Finish | None = None
    chunks: int = 0
    tool_calls: list[dict[str, object]] = field(default_factory=list)
