"""How a single answer behaves: its pace, its length and what goes wrong with it.

A request says so by the header `X-Mock: first=3; stall=10`, by the query parameter `mock`, or in
the question itself: `[mock: first=3 stall=10]`. The header wins over the query, the query over the
question, all of them over the command line.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

Trouble = Literal["stall", "cut", "drop", "reset", "error"]

TROUBLES: tuple[Trouble, ...] = ("stall", "cut", "drop", "reset", "error")
FINISHES = ("stop", "length", "content_filter")

#: What a single word in square brackets stands for. Ordinary words never trigger anything.
WORDS = {
    "slow": "first=3 pace=250",
    "stall": "stall=12",
    "cut": "cut=12",
    "reset": "reset=12",
    "fail": "error=12",
    "limit": "status=429",
    "busy": "status=503",
    "long": "tokens=2000",
}

_IN_BRACKETS = re.compile(rf"\[(?:mock:\s*([^\]]*)|({'|'.join(WORDS)}))\]", re.IGNORECASE)
_OPTION = re.compile(r"[^\s;,]+")


class BadOption(ValueError):
    """An option that doesn't exist or has a value that it can't have; the text says which."""


@dataclass(frozen=True, slots=True)
class Behaviour:
    """Seconds, milliseconds and counts of one answer; the defaults are those of a lively model."""

    #: Seconds before the response head, and after it before the first token.
    head: float = 0.0
    first: float = 0.3
    #: Milliseconds from token to token, each up to a third more or less unless `jitter` is 0.
    pace: float = 30.0
    jitter: float = 1 / 3
    #: Exactly so many tokens, each of exactly so many bytes.
    tokens: int | None = None
    size: int | None = None
    #: After so many tokens: send nothing more, end the response without its terminal event, close
    #: the connection in mid-body, reset it, or send the dialect's error event.
    stall: int | None = None
    cut: int | None = None
    drop: int | None = None
    reset: int | None = None
    error: int | None = None
    #: Answer with this status instead; 429 and 503 carry `Retry-After: <retry_after>`.
    status: int | None = None
    retry_after: int = 1
    finish: str = "stop"
    #: Seconds between two comments in a silence; 0 sends none.
    comments: float = 0.0
    crlf: bool = False
    #: `1`: each token's event has `x_emitted_ns` of `time.monotonic_ns()`; `text`: so has its text.
    stamp: str = ""
    #: Makes everything reproducible, ids and times included: the same request, the same bytes.
    seed: int | None = None

    @property
    def trouble(self) -> tuple[Trouble, int] | None:
        """What goes wrong first, and after how many tokens."""
        planned = [(name, after) for name in TROUBLES if (after := getattr(self, name)) is not None]
        return min(planned, key=lambda item: item[1], default=None)

    def having(self, options: str) -> Behaviour:
        """This behaviour, changed by `key=value` options between spaces, commas or semicolons.

        Raises:
            BadOption: with a line that names the option.
        """
        changes: dict[str, object] = {}
        for option in _OPTION.findall(options):
            name, _, value = option.partition("=")
            changes[name] = _parsed(name, value)
        return replace(self, **changes)  # type: ignore[arg-type]


def requested(defaults: Behaviour, question: str, query: str, header: str) -> Behaviour:
    """What one request asks for on top of the defaults.

    Raises:
        BadOption: an option is unknown or malformed.
    """
    behaviour = defaults
    for options, word in _IN_BRACKETS.findall(question):
        behaviour = behaviour.having(WORDS[word.lower()] if word else options)
    return behaviour.having(query).having(header)


def without_options(question: str) -> str:
    """The question itself."""
    return _IN_BRACKETS.sub("", question).strip()


def _parsed(name: str, value: str) -> object:
    parse = _PARSERS.get(name)
    if parse is None:
        raise BadOption(f"there is no mock option {name!r}; there are {', '.join(_PARSERS)}")
    try:
        return parse(value)
    except ValueError:
        raise BadOption(f"mock option {name}={value!r} makes no sense") from None


def _count(value: str) -> int:
    number = int(value)
    if number < 0:
        raise ValueError
    return number


def _duration(value: str) -> float:
    number = float(value)
    if not 0 <= number < 1e6:
        raise ValueError
    return number


def _status(value: str) -> int:
    number = int(value)
    if not 400 <= number <= 599:
        raise ValueError
    return number


def _one_of(*words: str) -> Callable[[str], str]:
    def parse(value: str) -> str:
        if value not in words:
            raise ValueError
        return value

    return parse


def _switch(value: str) -> bool:
    return _one_of("", "0", "1")(value) != "0"


def _stamp(value: str) -> str:
    return _one_of("0", "1", "text")(value).replace("0", "")


_PARSERS: dict[str, Callable[[str], object]] = {
    **dict.fromkeys(("head", "first", "pace", "jitter", "comments"), _duration),
    **dict.fromkeys(("tokens", "size", *TROUBLES, "retry_after", "seed"), _count),
    "status": _status,
    "finish": _one_of(*FINISHES),
    "crlf": _switch,
    "stamp": _stamp,
}
