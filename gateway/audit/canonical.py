"""JSON with one spelling: RFC 8785, restricted until every JSON library agrees on it.

Keys are ASCII, numbers are integers that a double holds exactly, strings are NFC without lone
surrogates; there is no null and no float. Bytes go in as base64url without padding. What is hashed
is what was stored: nobody encodes a second time to verify, `decode` only checks that one could.
"""

from __future__ import annotations

import base64
import binascii
import re
import unicodedata
from collections.abc import Mapping
from typing import TypeAlias

from orjson import OPT_SORT_KEYS, JSONDecodeError, JSONEncodeError, dumps, loads

from gateway.errors import AuditError

Json: TypeAlias = "bool | int | str | list[Json] | dict[str, Json]"
Object: TypeAlias = "dict[str, Json]"

MAX_INTEGER = 2**53 - 1
MAX_DEPTH = 8

_BASE64URL = re.compile(r"[A-Za-z0-9_-]*")


def encode(value: Mapping[str, Json]) -> bytes:
    """The one spelling of `value`.

    Raises:
        AuditError: `not_canonical`: it holds something that can't be spelt; says what.
    """
    try:
        raw = dumps(value, option=OPT_SORT_KEYS)
    except JSONEncodeError:
        _check(value, MAX_DEPTH)
        raise AuditError("not_canonical", "not JSON") from None
    # Checked afterwards, since of what became ASCII the kinds of its values are enough to see.
    check = _check_ascii if raw.isascii() else _check
    check(value, MAX_DEPTH)
    return raw


def decode(raw: bytes) -> Object:
    """What `encode` made.

    Raises:
        AuditError: `not_canonical`: not JSON, not an object, or spelt in another way: a key twice,
            white space, another order.
    """
    try:
        value = loads(raw)
    except JSONDecodeError:
        raise AuditError("not_canonical", "not JSON") from None
    if not isinstance(value, dict):
        raise AuditError("not_canonical", "not an object")
    check = _check_ascii if raw.isascii() else _check
    check(value, MAX_DEPTH)
    if dumps(value, option=OPT_SORT_KEYS) != raw:
        raise AuditError("not_canonical", "not spelt as RFC 8785 says")
    return value


def to_text(raw: bytes) -> str:
    """Bytes as they stand in a record: base64url without padding."""
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def from_text(text: str) -> bytes:
    """
    Raises:
        AuditError: `not_canonical`: not base64url, padded, or with bits that mean nothing.
    """
    if not _BASE64URL.fullmatch(text):
        raise AuditError("not_canonical", "not base64url")
    try:
        raw = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
    except binascii.Error:
        raise AuditError("not_canonical", "not base64url") from None
    if to_text(raw) != text:
        raise AuditError("not_canonical", "base64url with spare bits")
    return raw


def _check(value: object, depth: int) -> None:
    if isinstance(value, str):
        _check_text(value)
    elif isinstance(value, int):  # and bool, its subclass
        if not -MAX_INTEGER <= value <= MAX_INTEGER:
            raise AuditError("not_canonical", "an integer is out of range")
    elif isinstance(value, dict | list):
        if depth == 0:
            raise AuditError("not_canonical", "nested too deeply")
        _check_parts(value, depth - 1)
    else:
        raise AuditError("not_canonical", f"a {type(value).__name__} has no place here")


def _check_parts(value: dict[object, object] | list[object], depth: int) -> None:
    if isinstance(value, list):
        for item in value:
            _check(item, depth)
        return
    for key, item in value.items():
        if not isinstance(key, str) or not key.isascii():
            raise AuditError("not_canonical", "a key isn't ASCII text")
        _check(item, depth)


def _check_ascii(value: object, depth: int) -> None:
    """As `_check`, for an object or array that is ASCII when it is spelt, where any string is as
    it must be: each record is written by this and whole logs are read by it."""
    for item in value.values() if isinstance(value, dict) else value:  # type: ignore[attr-defined]
        kind = type(item)
        if kind is str or kind is bool:
            continue
        if kind is int and -MAX_INTEGER <= item <= MAX_INTEGER:
            continue
        if (kind is dict or kind is list) and depth > 1:
            _check_ascii(item, depth - 1)
        else:
            _check(item, depth - 1)


def _check_text(text: str) -> None:
    if text.isascii():
        return
    if any("\ud800" <= char <= "\udfff" for char in text):
        raise AuditError("not_canonical", "a string has half a surrogate pair")
    if not unicodedata.is_normalized("NFC", text):
        raise AuditError("not_canonical", "a string isn't NFC")
