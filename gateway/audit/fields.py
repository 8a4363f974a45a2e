"""What a field of a record may hold, so that no field can carry what a person wrote.

There is no rule for free text. A value is a number, a truth, a word of a list that is in the code,
an id that a machine made, or a name that the operator has configured; any other name is `other`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from gateway.audit.canonical import MAX_INTEGER, Json
from gateway.errors import AuditError

OTHER = "other"
MAX_RANGES = 90  # of 16 digits twice: with the rest below 4 KiB

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/@+-]{0,63}")
_ORIGIN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/-]{0,127}")


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """The names of this deployment: what clients say is compared with them and never taken over.

    Raises:
        AuditError: `bad_name`: one isn't 1 to 64 letters, digits and `._:/@+-`.
    """

    models: frozenset[str] = frozenset()
    upstreams: frozenset[str] = frozenset()

    def __post_init__(self) -> None:
        if not all(_NAME.fullmatch(name) for name in self.models | self.upstreams):
            raise AuditError("bad_name", "a model's or a backend's name can't be recorded")


class Rule(Protocol):
    """Gives the value as it goes into the record; raises ValueError if it can't."""

    def accept(self, value: Json, vocabulary: Vocabulary) -> Json: ...


@dataclass(frozen=True, slots=True)
class Whole:
    """An integer."""

    low: int = 0
    high: int = MAX_INTEGER

    def accept(self, value: Json, vocabulary: Vocabulary) -> Json:
        if type(value) is not int or not self.low <= value <= self.high:
            raise ValueError
        return value


@dataclass(frozen=True, slots=True)
class Fact:
    """True or false."""

    def accept(self, value: Json, vocabulary: Vocabulary) -> Json:
        if not isinstance(value, bool):
            raise ValueError  # noqa: TRY004 - one kind of refusal
        return value


@dataclass(frozen=True, slots=True)
class OneOf:
    """A word of a list. With `OTHER` in it, that stands for any other."""

    words: frozenset[str]

    def accept(self, value: Json, vocabulary: Vocabulary) -> Json:
        if isinstance(value, str):
            if value in self.words:
                return str(value)
            if OTHER in self.words:
                return OTHER
        raise ValueError


def one_of(*words: str) -> OneOf:
    return OneOf(frozenset(words))


@dataclass(frozen=True, slots=True)
class Known:
    """A configured name; any other is `other`."""

    kind: str

    def accept(self, value: Json, vocabulary: Vocabulary) -> Json:
        if not isinstance(value, str):
            raise ValueError  # noqa: TRY004
        names: frozenset[str] = getattr(vocabulary, self.kind)
        return str(value) if value in names else OTHER


@dataclass(frozen=True, slots=True)
class Made:
    """An id or a hash that a machine made: nobody else's text has its form but by design."""

    pattern: re.Pattern[str]

    def accept(self, value: Json, vocabulary: Vocabulary) -> Json:
        if not isinstance(value, str) or not self.pattern.fullmatch(value):
            raise ValueError
        return value


@dataclass(frozen=True, slots=True)
class Ranges:
    """Sequence numbers `[start, end)`, ascending, not touching each other: what a sweep takes."""

    def accept(self, value: Json, vocabulary: Vocabulary) -> Json:
        if not isinstance(value, list) or not 0 < len(value) <= MAX_RANGES:
            raise ValueError
        before = -1
        for item in value:
            if not isinstance(item, list) or len(item) != 2:
                raise ValueError
            start, end = item
            if type(start) is not int or type(end) is not int or not before < start < end:
                raise ValueError
            before = end
        return value


@dataclass(frozen=True, slots=True)
class Table:
    """Words of a list, each with a value of its own: for the rules of a policy alone."""

    rules: Mapping[str, Rule] = field(hash=False)

    def accept(self, value: Json, vocabulary: Vocabulary) -> Json:
        if not isinstance(value, dict) or not value.keys() <= self.rules.keys():
            raise ValueError
        return {key: self.rules[key].accept(item, vocabulary) for key, item in value.items()}


UUID = Made(re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"))
#: Ours; but a number of 16 digits is a credit card.
STREAM_ID = Made(re.compile(r"(?!\d{16})[A-Za-z0-9_-]{16}"))
DIGEST = Made(re.compile(r"[A-Za-z0-9_-]{43}"))
API_KEY_ID = Made(re.compile(r"[a-z0-9]{12}"))
KEY_ID = Made(re.compile(r"(?:\d{4}(?:-\d{2})?\.)?[0-9a-f]{8}", re.ASCII))
ORIGIN = Made(_ORIGIN)
VERSION = Made(re.compile(r"\d{1,3}(?:\.\d{1,4}){1,2}(?:\.?(?:a|b|rc|dev)\d{1,3})?", re.ASCII))
TIME_MS = Whole()
#: Days since 1970, in UTC.
DAY = Whole(0, 10**6)
