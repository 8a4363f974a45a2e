"""Trace ids: kept, taken over, or made."""

from __future__ import annotations

import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gateway.telemetry.trace import accept

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
SPAN = "00f067aa0ba902b7"
PARENT = f"00-{TRACE}-{SPAN}-01"
WELL_FORMED = re.compile(r"00-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-0[01]")


def test_x_trace_id_wins_while_the_callers_trace_goes_on() -> None:
    context = accept("order-17.A_b", PARENT)
    assert context.trace_id == "order-17.A_b"
    assert context.w3c_trace_id == TRACE
    assert context.parent_span == SPAN


def test_trace_id_of_a_traceparent_is_taken_over() -> None:
    context = accept(None, PARENT)
    assert context.trace_id == context.w3c_trace_id == TRACE


def test_without_either_a_new_trace_begins() -> None:
    first, second = accept(None, None), accept("", "")
    assert re.fullmatch(r"[0-9a-f]{32}", first.trace_id)
    assert first.trace_id == first.w3c_trace_id != second.trace_id
    assert first.parent_span is None


def test_x_trace_id_that_could_be_a_w3c_one_is_used_as_such() -> None:
    assert accept(TRACE, None).w3c_trace_id == TRACE
    assert accept("0" * 32, None).w3c_trace_id != "0" * 32


def test_traceparent_is_continued_with_a_new_span() -> None:
    context = accept(None, PARENT)
    assert context.traceparent() == f"00-{TRACE}-{context.span_id}-01"
    assert context.span_id not in (SPAN, accept(None, PARENT).span_id)
    assert context.traceparent() == context.traceparent()


@pytest.mark.parametrize(
    ("flags", "ours"), [("00", "00"), ("01", "01"), ("ff", "01"), ("02", "00")]
)
def test_only_the_flag_that_is_known_goes_on(flags: str, ours: str) -> None:
    assert accept(None, f"00-{TRACE}-{SPAN}-{flags}").traceparent().endswith(f"-{ours}")


@pytest.mark.parametrize(
    "bad",
    [
        f"ff-{TRACE}-{SPAN}-01",
        f"00-{'0' * 32}-{SPAN}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"00-{TRACE.upper()}-{SPAN}-01",
        f"00-{TRACE}-{SPAN.upper()}-01",
        f"00-{TRACE}-{SPAN}-0A",
        f"0A-{TRACE}-{SPAN}-01",
        f"00-{TRACE}-{SPAN}-01-more",
        f"00-{TRACE}-{SPAN}-01-",
        f"01-{TRACE}-{SPAN}-01more",
        f"00-{TRACE}-{SPAN}",
        f"00-{TRACE[1:]}-{SPAN}-01",
        f"{PARENT}\n",
        f" {PARENT}",
        PARENT.replace("4", "\u0664"),
        "",
    ],
)
def test_invalid_traceparent_is_ignored(bad: str) -> None:
    context = accept(None, bad)
    assert context.w3c_trace_id != TRACE
    assert context.parent_span is None


@pytest.mark.parametrize("rest", ["", "-", "-what-comes-later"])
def test_later_versions_are_read_as_far_as_they_are_known(rest: str) -> None:
    assert accept(None, f"cc-{TRACE}-{SPAN}-01{rest}").w3c_trace_id == TRACE


@pytest.mark.parametrize("bad", ["", "a b", "a\n", "ä", "a" * 129, "a/b", "<script>", "\u0661"])
def test_invalid_x_trace_id_is_replaced(bad: str) -> None:
    assert accept(bad, None).trace_id != bad
    assert accept(bad, PARENT).trace_id == TRACE


def test_longest_x_trace_id_is_kept() -> None:
    assert accept("a" * 128, None).trace_id == "a" * 128


@given(st.none() | st.text(), st.none() | st.text())
@example("\x00", f"00-{TRACE}-{SPAN}-01\x00")
def test_whatever_comes_what_goes_on_is_well_formed(
    x_trace_id: str | None, traceparent: str | None
) -> None:
    context = accept(x_trace_id, traceparent)
    assert WELL_FORMED.fullmatch(context.traceparent())
    assert re.fullmatch(r"[A-Za-z0-9._-]{1,128}", context.trace_id)


@given(st.from_regex(r"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}", fullmatch=True))
def test_traceparent_is_taken_exactly_when_the_standard_allows_it(traceparent: str) -> None:
    version, trace, span, _ = traceparent.split("-")
    is_valid = version != "ff" and trace.strip("0") != "" and span.strip("0") != ""
    assert (accept(None, traceparent).w3c_trace_id == trace) is is_valid
