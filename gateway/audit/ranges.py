"""Runs of record numbers, `[first, behind the last]`, as sweeps name what they take. Pure.

Everything here keeps runs ascending and apart: two that touch are one.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise

Run = tuple[int, int]


def runs_of(numbers: Iterable[int]) -> list[Run]:
    """Of numbers in ascending order."""
    return joined((number, number + 1) for number in numbers)


def joined(runs: Iterable[Run]) -> list[Run]:
    """Runs in any order, with those as one that touch or overlap."""
    found: list[Run] = []
    for start, end in sorted(runs):
        if found and start <= found[-1][1]:
            found[-1] = (found[-1][0], max(end, found[-1][1]))
        else:
            found.append((start, end))
    return found


def between(start: int, end: int, present: Iterable[int]) -> list[Run]:
    """What of `[start, end)` isn't among these ascending numbers."""
    edges = [start - 1, *present, end]
    return [(before + 1, after) for before, after in pairwise(edges) if before + 1 < after]


def count(runs: Iterable[Run]) -> int:
    return sum(end - start for start, end in runs)


def holds(runs: Iterable[Run], number: int) -> bool:
    return any(start <= number < end for start, end in runs)


def cut(runs: Iterable[Run], size: int) -> tuple[list[Run], list[Run]]:
    """The first `size` numbers, and the rest."""
    head: list[Run] = []
    tail: list[Run] = []
    for start, end in runs:
        middle = min(end, start + size)
        size -= middle - start
        if start < middle:
            head.append((start, middle))
        if middle < end:
            tail.append((middle, end))
    return head, tail


def without(runs: Sequence[Run], number: int) -> list[Run]:
    """All but one number."""
    parts = ((start, min(end, number)) for start, end in runs)
    rest = ((max(start, number + 1), end) for start, end in runs)
    return joined(run for run in (*parts, *rest) if run[0] < run[1])


def chunks(runs: Sequence[Run], most: int) -> Iterator[Sequence[Run]]:
    """At most so many runs at a time: what one record may name."""
    return (runs[at : at + most] for at in range(0, len(runs), most))
