"""Runs of numbers: the same sets, whatever is done with them."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from gateway.audit import ranges
from gateway.audit.ranges import Run

NUMBERS = st.sets(st.integers(0, 60))


def numbers(runs: list[Run]) -> set[int]:
    return {number for start, end in runs for number in range(start, end)}


@given(NUMBERS)
def test_runs_are_ascending_and_apart(some: set[int]) -> None:
    runs = ranges.runs_of(sorted(some))
    assert numbers(runs) == some
    assert all(first[1] < second[0] for first, second in pairwise(runs))
    assert ranges.count(runs) == len(some)


@given(NUMBERS, NUMBERS)
def test_joined_runs_are_those_of_both(one: set[int], other: set[int]) -> None:
    runs = [*ranges.runs_of(sorted(one)), *ranges.runs_of(sorted(other))]
    assert ranges.joined(runs) == ranges.runs_of(sorted(one | other))


@given(NUMBERS, st.integers(1, 70))
def test_cut_runs_are_the_first_numbers_and_the_rest(some: set[int], size: int) -> None:
    head, tail = ranges.cut(ranges.runs_of(sorted(some)), size)
    assert sorted(some) == sorted(numbers(head)) + sorted(numbers(tail))
    assert len(numbers(head)) == min(size, len(some))


@given(NUMBERS, st.integers(0, 60))
def test_one_number_can_be_left_out(some: set[int], number: int) -> None:
    runs = ranges.runs_of(sorted(some))
    assert ranges.holds(runs, number) == (number in some)
    assert numbers(ranges.without(runs, number)) == some - {number}


@given(NUMBERS)
def test_what_is_missing_and_what_is_there_are_all(some: set[int]) -> None:
    missing = ranges.between(0, 61, sorted(some))
    assert numbers(missing) == set(range(61)) - some
    assert ranges.joined(missing) == missing
