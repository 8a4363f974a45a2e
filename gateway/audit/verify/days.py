"""The tombstones of one log, day by day, against what was said about erasures.

They come by number and field, the order in which a closing record has hashed them, so a day is
nothing but a count and a running hash.
"""

from __future__ import annotations

import hashlib
from collections import Counter

from gateway.audit.canonical import to_text
from gateway.audit.export import Tombstone
from gateway.audit.policy import DAY_S
from gateway.audit.verify.explained import Explained
from gateway.audit.verify.findings import Findings


class Days:
    """Of one log."""

    def __init__(self, origin: str, explained: Explained, findings: Findings) -> None:
        self._findings = findings
        self._planned, self._done = (
            {day: count for (about, day), count in told.items() if about == origin}
            for told in (explained.planned, explained.done)
        )
        self._closed = {
            day: told for (about, day), told in explained.closed.items() if about == origin
        }
        self._swept_until_ms = explained.swept_until_ms
        self._counts: Counter[int] = Counter()
        self._digests = {day: _digest() for day in self._closed}

    def add(self, stone: Tombstone) -> None:
        self._counts[stone.day] += 1
        if stone.day in self._digests:
            self._digests[stone.day].update(f"{stone.seq} {stone.field}\n".encode())

    def end(self) -> None:
        for day in sorted(self._counts.keys() | self._closed.keys()):
            if not self._is_right(day):
                self._findings.found("bad_tombstones", f"day {day}")

    def _is_right(self, day: int) -> bool:
        count = self._counts[day]
        if day not in self._closed:
            return count <= self._planned.get(day, 0)
        if self._closed[day] != (count, to_text(self._digests[day].digest())):
            return False
        # The records of a day may be swept, in whatever log, before the one that closes it.
        return day * DAY_S * 1000 < self._swept_until_ms or count == self._done.get(day, 0)


def _digest() -> hashlib._Hash:
    return hashlib.sha256(b"gw-audit/1 tombstones\0")
