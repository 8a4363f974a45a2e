"""Reading decoded JSON that somebody else wrote: nothing is taken for granted, nothing raises.

Each reader gives the wanted type or its empty value; only JSON that doesn't parse is an error.
"""

from __future__ import annotations

import json
from collections.abc import Mapping

import orjson

from gateway.sse.event import Failure

_MESSAGE_CHARACTERS = 1000
_NO_MESSAGE = "The backend reported an error."


class Malformed(Exception):
    """An event whose data can't be read, or couldn't be written again."""


def load(data: bytes) -> object:
    """The decoded `data`.

    Raises:
        Malformed: it isn't JSON in UTF-8, or is nested more than 1024 levels deep.
    """
    try:
        return orjson.loads(data)
    except orjson.JSONDecodeError:
        return _load_leniently(data)


def _load_leniently(data: bytes) -> object:
    """What orjson refuses but backends send: NaN (Python), half a surrogate pair (JavaScript)."""
    if b"\\u" not in data and b"NaN" not in data and b"Infinity" not in data:
        raise Malformed("The backend sent an event that isn't JSON.")
    try:
        value = json.loads(data.decode("utf-8"), parse_constant=lambda _: None)
        text = json.dumps(value, ensure_ascii=False).encode("utf-16-le", "surrogatepass")
        return orjson.loads(text.decode("utf-16-le", "replace"))
    except (ValueError, RecursionError):
        raise Malformed("The backend sent an event that isn't JSON.") from None


def dump(value: object) -> str:
    """`value` as compact JSON.

    Raises:
        Malformed: it is nested too deep to be written (254 levels with orjson).
    """
    try:
        return orjson.dumps(value).decode()
    except orjson.JSONEncodeError:
        raise Malformed("The backend sent an event that is nested too deep.") from None


def mapping(value: object) -> Mapping[str, object]:
    return value if isinstance(value, dict) else {}


def items(value: object) -> list[object]:
    return value if isinstance(value, list) else []


def text(value: object) -> str:
    return value if isinstance(value, str) else ""


def count(value: object) -> int | None:
    is_count = isinstance(value, int) and not isinstance(value, bool) and value >= 0
    return value if is_count else None  # type: ignore[return-value]


def index(value: object) -> int:
    return count(value) or 0


def failure(error: object) -> Failure:
    """The failure that a backend's `error` tells of: an object or just a text."""
    fields = mapping(error)
    message = text(fields.get("message")) or text(fields.get("error")) or text(error)
    code = fields.get("code") or fields.get("type")
    if isinstance(code, int) and not isinstance(code, bool):
        code = str(code)
    return Failure(message[:_MESSAGE_CHARACTERS] or _NO_MESSAGE, text(code)[:100] or None)
