"""RFC 8785, restricted: one spelling or a refusal."""

from __future__ import annotations

import json
import unicodedata
from enum import StrEnum

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from gateway.audit.canonical import decode, encode, from_text, to_text
from gateway.errors import AuditError


class Colour(StrEnum):
    RED = "red"


#: The RFC's own vectors and those of its author's collection, as far as the restriction takes them.
VECTORS = [
    ({}, b"{}"),
    ({"b": 1, "a": 2}, b'{"a":2,"b":1}'),
    ({"literals": [True, False]}, b'{"literals":[true,false]}'),
    # RFC 8785 §3.2.2 and §3.2.3
    (
        {"string": "\u20ac$\u000f\u000aA'\u0042\u0022\u005c\\\"/"},
        '{"string":"€$\\u000f\\nA\'B\\"\\\\\\\\\\"/"}'.encode(),
    ),
    # structures.json
    (
        {
            "1": {"f": {"f": "hi", "F": 5}, "\n": 56},
            "10": {},
            "": "empty",
            "a": {},
            "111": [{"e": "yes", "E": "no"}],
            "A": {},
        },
        b'{"":"empty","1":{"\\n":56,"f":{"F":5,"f":"hi"}},"10":{},'
        b'"111":[{"E":"no","e":"yes"}],"A":{},"a":{}}',
    ),
    # arrays.json, without its null
    ({"a": [56, {"d": True, "10": 1, "1": []}]}, b'{"a":[56,{"1":[],"10":1,"d":true}]}'),
    # french.json's values
    ({"1": "péché", "2": "pêche"}, '{"1":"péché","2":"pêche"}'.encode()),
    # weird.json: control characters and the highest plane
    ({"a": "\u0080"}, '{"a":"\u0080"}'.encode()),
    ({"a": "\x7f"}, b'{"a":"\x7f"}'),
    ({"a": "</script>"}, b'{"a":"</script>"}'),
    ({"a": "\U0001f602"}, '{"a":"😂"}'.encode()),
    ({"a": "\u05d3\u05bc"}, '{"a":"\u05d3\u05bc"}'.encode()),
    ({"a": "\b\t\n\f\r"}, b'{"a":"\\b\\t\\n\\f\\r"}'),
    ({"a": "\x00\x1f"}, b'{"a":"\\u0000\\u001f"}'),
    ({"a": "\u2028\u2029"}, '{"a":"\u2028\u2029"}'.encode()),
    # RFC 8785 appendix B, its integers
    ({"n": 0}, b'{"n":0}'),
    ({"n": -0}, b'{"n":0}'),
    ({"n": 9007199254740991}, b'{"n":9007199254740991}'),
    ({"n": -9007199254740991}, b'{"n":-9007199254740991}'),
    ({"n": 295147905179}, b'{"n":295147905179}'),
    ({"colour": Colour.RED}, b'{"colour":"red"}'),
]


@pytest.mark.parametrize(("value", "expected"), VECTORS)
def test_value_is_spelt_as_the_rfc_says(value: dict[str, object], expected: bytes) -> None:
    assert encode(value) == expected  # type: ignore[arg-type]
    assert decode(expected) == value


@pytest.mark.parametrize(
    ("value", "why"),
    [
        ({"a": 1.5}, "float"),
        ({"a": 1.0}, "float"),
        ({"a": float("nan")}, "float"),
        ({"a": None}, "NoneType"),
        ({"a": b"x"}, "bytes"),
        ({"a": (1, 2)}, "tuple"),
        ({"a": 2**53}, "out of range"),
        ({"a": -(2**53)}, "out of range"),
        ({"a": 10**40}, "out of range"),
        ({"a": "\ud800"}, "surrogate"),
        ({"a": "x\udfffy"}, "surrogate"),
        ({"a": "A\u030a"}, "NFC"),
        ({"péché": 1}, "ASCII"),
        ({1: 2}, "ASCII"),
        ({"a": {"é": 1}}, "ASCII"),
        ({"a": [[[[[[[[[1]]]]]]]]]}, "deep"),
        ({"a": [[], [{"b": None}]]}, "NoneType"),
    ],
)
def test_value_that_readers_could_take_differently_is_refused(value: object, why: str) -> None:
    with pytest.raises(AuditError, match=why) as caught:
        encode(value)  # type: ignore[arg-type]
    assert caught.value.code == "not_canonical"


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"[]",
        b'"a"',
        b"{}\n",
        b'{"b":1,"a":2}',
        b'{"a":1,"a":1}',
        b'{"a":1,"a":2}',
        b'{"a": 1}',
        b'{"a":1.0}',
        b'{"a":1e3}',
        b'{"a":-0}',
        b'{"a":null}',
        b'{"a":"\\u0041"}',
        b'{"a":"\\/"}',
        b'{"a":"\\u001F"}',
        b'{"a":"\\ud83d\\ude02"}',
        b'{"a":9007199254740992}',
        b'{"a":"\xff"}',
        b'{"a":NaN}',
    ],
)
def test_bytes_in_another_spelling_are_refused(raw: bytes) -> None:
    with pytest.raises(AuditError) as caught:
        decode(raw)
    assert caught.value.code == "not_canonical"


TEXTS = st.text(st.characters(exclude_categories=["Cs"])).map(
    lambda text: unicodedata.normalize("NFC", text)
)
KEYS = st.text(st.characters(max_codepoint=127))
VALUES = st.recursive(
    st.booleans() | st.integers(-(2**53) + 1, 2**53 - 1) | TEXTS,
    lambda parts: st.lists(parts) | st.dictionaries(KEYS, parts),
    max_leaves=20,
)
OBJECTS = st.dictionaries(KEYS, VALUES)


@given(OBJECTS)
def test_what_is_encoded_is_decoded_to_the_same(value: dict[str, object]) -> None:
    assume_shallow(value)
    raw = encode(value)  # type: ignore[arg-type]
    assert decode(raw) == value
    assert encode(decode(raw)) == raw
    assert json.loads(raw) == value


@given(OBJECTS)
def test_order_of_insertion_makes_no_difference(value: dict[str, object]) -> None:
    assume_shallow(value)
    backwards = dict(reversed(value.items()))
    assert encode(value) == encode(backwards)  # type: ignore[arg-type]


@given(OBJECTS)
def test_standard_library_spells_the_same(value: dict[str, object]) -> None:
    assume_shallow(value)
    expected = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    assert encode(value) == expected.encode()  # type: ignore[arg-type]


ODD = st.sampled_from(
    [None, 0.5, 1.0, 2**53, -(2**53), 2**70, "\udc00", "e\u0301", (), b"", {1: 2}]
)


@given(OBJECTS, st.recursive(ODD, lambda odd: st.tuples(odd, VALUES).map(list), max_leaves=4))
def test_one_value_that_has_no_place_spoils_all(value: dict[str, object], odd: object) -> None:
    with pytest.raises(AuditError) as caught:
        encode(value | {"odd": {"one": odd}})  # type: ignore[arg-type]
    assert caught.value.code == "not_canonical"


@given(st.binary())
def test_bytes_survive_as_text(raw: bytes) -> None:
    assert from_text(to_text(raw)) == raw


@pytest.mark.parametrize("text", ["A", "AA==", "AB", "A A", "+/", "AAA\n", "é"])
def test_text_that_is_not_plain_base64url_is_refused(text: str) -> None:
    with pytest.raises(AuditError):
        from_text(text)


def assume_shallow(value: object) -> None:
    assume(_depth(value) <= 8)


def _depth(value: object) -> int:
    if isinstance(value, dict):
        return 1 + max(map(_depth, value.values()), default=0)
    if isinstance(value, list):
        return 1 + max(map(_depth, value), default=0)
    return 0
