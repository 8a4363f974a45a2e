"""The client's parser against the specification's rules, whichever way the input is cut."""

from __future__ import annotations

import re
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.sse.parser import Event, EventParser, EventTooLargeError

PIECES = [
    *(b"data", b"data:", b"data: ", b"data:  two", b"event: tick", b"event:", b"id: 7", b"id:"),
    *(b"id: a\0b", b"id", b"retry: 10", b"retry: 1x", b"retry: -1", b"retry:", b": comment", b":"),
    *(b"\xef\xbb\xbf", b"Data: no", b" data: no", b"x", "data: Łódź\u2028\u0085".encode()),
    *(b"data: \xff\xe2\x82", b"\n", b"\r", b"\r\n", b"\n\n", b"\r\r", b"\r\n\r\n", b"data: \0"),
]


def parse(*chunks: bytes, max_bytes: int = 1 << 20) -> list[Event]:
    parser = EventParser(max_bytes=max_bytes)
    return [event for chunk in chunks for event in parser.feed(chunk)]


def by_the_letter(stream: bytes) -> tuple[list[Event], str, int | None]:
    """The specification's steps, one after the other, on a whole stream."""
    text = stream.removeprefix(b"\xef\xbb\xbf").decode("utf-8", "replace")
    lines = re.split("\r\n|\r|\n", text)[:-1]
    events: list[Event] = []
    data, kind, event_id, last_id, retry = "", "", "", "", None
    has_id = False
    for line in lines:
        if not line:
            last_id = event_id
            if data:
                events.append(Event(kind or "message", data[:-1], last_id, has_id))
            data, kind, has_id = "", "", False
            continue
        name, _, value = line.partition(":")
        value = value[1:] if value.startswith(" ") else value
        if name == "data":
            data += value + "\n"
        elif name == "event":
            kind = value
        elif name == "id" and "\0" not in value:
            event_id, has_id = value, True
        elif name == "retry" and re.fullmatch("[0-9]+", value):
            retry = int(value)
    return events, last_id, retry


@given(st.lists(st.sampled_from(PIECES), max_size=40), st.data())
def test_any_stream_cut_anywhere_is_read_as_the_specification_says(
    pieces: list[bytes], draw: st.DataObject
) -> None:
    stream = b"".join(pieces)
    cuts = draw.draw(st.lists(st.integers(0, len(stream)), max_size=8).map(sorted))
    ends = [*cuts, len(stream)]
    parser = EventParser(max_bytes=1 << 20)
    events = [
        event
        for start, end in zip([0, *cuts], ends, strict=True)
        for event in parser.feed(stream[start:end])
    ]
    assert (events, parser.last_event_id, parser.retry_ms) == by_the_letter(stream)


@given(st.lists(st.sampled_from(PIECES), max_size=30))
def test_byte_by_byte_is_the_same_as_at_once(pieces: list[bytes]) -> None:
    stream = b"".join(pieces)
    assert parse(*(bytes([byte]) for byte in stream)) == parse(stream)


@pytest.mark.parametrize(
    ("stream", "events"),
    [
        # The examples of section 9.2.6.
        (
            b": test stream\n\ndata: first event\nid: 1\n\ndata:second event\nid\n\ndata:  third",
            [("message", "first event", "1"), ("message", "second event", "")],
        ),
        (b"data\n\ndata\ndata\n\ndata:", [("message", "", ""), ("message", "\n", "")]),
        (b"data:test\n\ndata: test\n\n", [("message", "test", ""), ("message", "test", "")]),
        (b"data: YHOO\ndata: +2\ndata: 10\n\n", [("message", "YHOO\n+2\n10", "")]),
        # The rest of its rules.
        (b"\xef\xbb\xbfdata: a\n\n", [("message", "a", "")]),
        (b"\xef\xbb\xbf\xef\xbb\xbfdata: a\n\ndata: b\n\n", [("message", "b", "")]),
        (b"data: a\n\n\xef\xbb\xbfdata: b\n\n", [("message", "a", "")]),
        (b"id: 5\n\ndata: x\n\n", [("message", "x", "5")]),
        (b"id: 5\nid: 6\0\ndata: x\n\n", [("message", "x", "5")]),
        (b"event: a\n\ndata: x\n\n", [("message", "x", "")]),
        (b"event: a\nevent:\ndata: x\n\n", [("message", "x", "")]),
        (b"data: a\r\rdata: b\r\n\r\ndata: c\n\r\n", [("message", c, "") for c in "abc"]),
        (
            "data: a\u2028b\u0085c\x0bd\x0ce\n\n".encode(),
            [("message", "a\u2028b\u0085c\x0bd\x0ce", "")],
        ),
        (b"data: a\xffb\n\n", [("message", "a\ufffdb", "")]),
        (b"data: \0\n\n", [("message", "\0", "")]),
        (b"data: half", []),
        (b"data: half\n", []),
    ],
)
def test_stream_dispatches(stream: bytes, events: list[tuple[str, str, str]]) -> None:
    assert [(e.type, e.data, e.id) for e in parse(stream)] == events


def test_event_that_the_cut_left_unfinished_leaves_the_cursor_where_it_was() -> None:
    parser = EventParser(max_bytes=100)
    parser.feed(b"id: 1\ndata: a\n\nid: 2\ndata: b\n")
    assert parser.last_event_id == "1"


def test_cursor_of_an_earlier_connection_stays_until_an_id_comes() -> None:
    parser = EventParser(max_bytes=100, last_event_id="9")
    (event,) = parser.feed(b"data: a\n\n")
    assert (event.id, event.has_id) == ("9", False)
    (event,) = parser.feed(b"id: 10\ndata: b\n\n")
    assert (event.id, event.has_id) == ("10", True)


def test_retry_of_absurdly_many_digits_is_a_large_number() -> None:
    parser = EventParser(max_bytes=100_000)
    parser.feed(b"retry: " + b"9" * 50_000 + b"\n")
    assert parser.retry_ms == 10**9


def test_comments_are_counted() -> None:
    parser = EventParser(max_bytes=100)
    parser.feed(b":\n: keep-alive\n\n:")
    assert parser.comments == 2


@pytest.mark.parametrize(
    "chunks",
    [
        [b"data: " + b"x" * 101],
        [b"data: x\n"] * 60,
        [b"x"] * 102,
        [b": " + b"x" * 101 + b"\n"],
    ],
)
def test_event_beyond_the_limit_is_refused(chunks: list[bytes]) -> None:
    with pytest.raises(EventTooLargeError):
        parse(*chunks, max_bytes=100)


def test_heartbeat_lines_without_end_do_not_add_up() -> None:
    assert parse(*[b":\n"] * 1000, b"data: a\n\n", max_bytes=100) == [Event("message", "a")]


@pytest.mark.parametrize("unit", [b"x", b"data: x\n", b"\n", b":\n"])
def test_cost_grows_with_the_length_alone(unit: bytes) -> None:
    def seconds(count: int) -> float:
        started = time.perf_counter()
        parse(*[unit] * count)
        return time.perf_counter() - started

    # Quadratic would be 64 times; noise on a busy machine stays well below that.
    assert seconds(160_000) < 30 * seconds(20_000)


def test_json_of_an_event_is_read() -> None:
    assert Event("message", '{"a": 1}').json() == {"a": 1}
    with pytest.raises(ValueError, match="unexpected"):
        Event("message", "[DONE]").json()
