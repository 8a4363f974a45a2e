"""What the demo backend says to a question, cut into tokens."""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import chain, cycle, islice
from typing import Literal

from scripts.mock import topics
from scripts.mock.behaviour import Behaviour

_TOKEN = re.compile(r"\s*\S+")


@dataclass(frozen=True, slots=True)
class Answer:
    """What one request will be told. `pieces` are the tokens of a text, a refusal or a tool call's
    arguments; joined they are the whole."""

    kind: Literal["text", "refusal", "tool"]
    pieces: tuple[str, ...]
    finish: str
    sources: tuple[topics.Source, ...] = ()
    tool: str = ""

    @property
    def whole(self) -> str:
        return "".join(self.pieces)


def answer_to(question: str, behaviour: Behaviour, tool: str | None, limit: int | None) -> Answer:
    """The answer, as long as `behaviour` wants it and at most `limit` tokens.

    A `tool` is called where the question is about the weather.
    """
    if re.search(r"\brefuse\b", question, re.IGNORECASE):
        return Answer("refusal", _tokens(topics.REFUSAL), behaviour.finish)
    if tool and topics.WEATHER.words.search(question):
        return Answer("tool", topics.ARGUMENTS, "stop", tool=tool)
    topic = next((topic for topic in topics.TOPICS if topic.words.search(question)), topics.DEFAULT)
    pieces = _shaped(_tokens(topic.text), behaviour)
    if limit is not None and limit < len(pieces):
        return Answer("text", pieces[:limit], "length", topic.sources)
    return Answer("text", pieces, behaviour.finish, topic.sources)


def _tokens(text: str) -> tuple[str, ...]:
    return tuple(_TOKEN.findall(text))


def _shaped(pieces: tuple[str, ...], behaviour: Behaviour) -> tuple[str, ...]:
    if behaviour.tokens is not None:
        again = ("\n\n" + pieces[0], *pieces[1:])
        pieces = tuple(islice(chain(pieces, cycle(again)), behaviour.tokens))
    elif behaviour.finish == "length":
        pieces = pieces[: max(1, 2 * len(pieces) // 3)]
    if behaviour.size is not None:
        pieces = tuple(_sized(piece, behaviour.size) for piece in pieces)
    return pieces


def _sized(piece: str, size: int) -> str:
    """`piece`, repeated and cut to exactly `size` bytes of UTF-8."""
    data = piece.encode() * (size // len(piece.encode()) + 1)
    text = data[:size].decode(errors="ignore")
    return text + "." * (size - len(text.encode()))
