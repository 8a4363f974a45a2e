"""Checkpoints against the tree as it grows, and the keys that may have signed them.

A key that the log announces is trusted once a checkpoint larger than the announcement was signed by
a key that was trusted before: docs/audit-format.md, "Keys that sign".
"""

from __future__ import annotations

import heapq
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from gateway.audit import note
from gateway.audit.checkpoint import Checkpoint
from gateway.audit.note import Verifier
from gateway.audit.verify.explained import Sweep, Told
from gateway.audit.verify.findings import Bad, Findings
from gateway.errors import AuditError

_UNTRUSTED = {"unsigned", "bad_signature"}
_NEVER = 1 << 62


@dataclass(frozen=True, slots=True)
class Held:
    """A checkpoint that somebody else has kept, and since when."""

    note: str
    ts: int


@dataclass(frozen=True, slots=True)
class _Head:
    """Something that a tree of this size has to agree with."""

    size: int
    root: bytes
    where: str
    is_held: bool = False
    text: str = ""


@dataclass(slots=True)
class Heads:
    """Of one log. `reach` is told each size that the tree has had, in order.

    Args:
        trusted: Public keys; those that are learnt are added.
        announced: Number of the record, and key.
    """

    origin: str
    size: int
    findings: Findings
    trusted: list[bytes]
    announced: Sequence[tuple[int, bytes]] = ()
    _waiting: Iterator[_Head] = field(default_factory=lambda: iter(()))
    _next: _Head | None = None
    _last: _Head | None = None
    _anchored: bool = False
    learnt: list[bytes] = field(default_factory=list)

    def expect(self, stored: Iterable[str], held: Iterable[Held], told: Iterable[Told]) -> None:
        """`stored` come by size; the others in any order."""
        mine = sorted(self._held(held), key=lambda one: one.size)
        catalogue = sorted(
            (
                _Head(one.size, one.root, f"head {one.size} in the catalogue")
                for one in told
                if one.root is not None
            ),
            key=lambda one: one.size,
        )
        self._waiting = heapq.merge(self._stored(stored), mine, catalogue, key=lambda one: one.size)
        self._next = next(self._waiting, None)

    @property
    def wanted(self) -> int:
        """The next size that something is known about, or a size that is never reached."""
        return self._next.size if self._next is not None else _NEVER

    def reach(self, size: int, root: bytes) -> None:
        """The tree has this size and this root."""
        while self._next is not None and self._next.size <= size:
            is_known = self._next.size == size
            self._check_all(self._take(self._next.size), root if is_known else None)

    def end(self) -> None:
        """The tree is complete; what was signed beyond was cut off."""
        while self._next is not None:
            self._check_all(self._take(self._next.size), None)
        if not self._anchored:
            self.findings.found("not_anchored", "no checkpoint of yours covers it")

    def _take(self, size: int) -> Iterator[_Head]:
        while self._next is not None and self._next.size == size:
            yield self._next
            self._next = next(self._waiting, None)

    def _check_all(self, heads: Iterable[_Head], root: bytes | None) -> None:
        """Of one size: what only a new key has signed waits for what the old one has, too."""
        late = [head for head in heads if not self._check(head, root, is_last=False)]
        for head in late:
            self._check(head, root, is_last=True)

    def _check(self, head: _Head, root: bytes | None, *, is_last: bool) -> bool:
        """Whether it is done with."""
        try:
            self._compare(head, root, is_last=is_last)
        except Bad as bad:
            if bad.args[0] == "unsigned" and not is_last:
                return False
            self.findings.found(bad.args[0], head.where)
        return True

    def _compare(self, head: _Head, root: bytes | None, *, is_last: bool) -> None:
        if head.text:
            if not is_last:
                self._check_view(head)
            self._check_signature(head.text)
        if head.size > self.size:
            raise Bad("cut_off")
        if root is None:
            self.findings.counts["uncheckable"] += bool(head.text)
        elif root != head.root:
            raise Bad("root_mismatch")
        elif head.text:
            self._trust(head)

    def _check_view(self, head: _Head) -> None:
        last, self._last = self._last, head
        if last is not None and last.size == head.size and last.root != head.root:
            self.findings.found("split_view", f"size {head.size}")

    def _check_signature(self, text: str) -> None:
        try:
            note.parse(text).verified_by([Verifier(self.origin, key) for key in self.trusted])
        except AuditError as error:
            code = error.code if error.code in _UNTRUSTED else "malformed"
            raise Bad(code) from None

    def _trust(self, head: _Head) -> None:
        self.findings.counts["checkpoints"] += 1
        self._anchored |= head.is_held
        for seq, key in self.announced:
            if seq < head.size and key not in self.trusted:
                self.trusted.append(key)
                self.learnt.append(key)

    def _stored(self, notes: Iterable[str]) -> Iterator[_Head]:
        for text in notes:
            head = self._read(text)
            if head is not None:
                yield head

    def _held(self, held: Iterable[Held]) -> Iterator[_Head]:
        for one in held:
            head = self._read(one.note, is_held=True)
            if head is not None:
                yield head

    def _read(self, text: str, *, is_held: bool = False) -> _Head | None:
        try:
            told = Checkpoint.parse(note.parse(text).text)
        except AuditError:
            self.findings.found("malformed", "checkpoint")
            return None
        if told.origin != self.origin:
            if not is_held:
                self.findings.found("unsigned", f"checkpoint {told.size} of {told.origin}")
            return None
        where = f"checkpoint {told.size}" + (" of yours" if is_held else "")
        return _Head(told.size, told.root, where, is_held=is_held, text=text)


def check_ages(sweeps: Iterable[Sweep], held: Iterable[Held], findings: Findings) -> None:
    """Only somebody else's clock shows that what is gone was old."""
    times: list[int] = []
    largest: list[int] = []
    for ts, size in sorted(_sized(held)):
        times.append(ts)
        largest.append(max(size, largest[-1] if largest else 0))
    for sweep in sweeps:
        at = bisect_right(times, sweep.cutoff_ms) - 1
        if at < 0 or largest[at] < sweep.end:
            findings.found("age_unproven", f"{sweep.start} to {sweep.end - 1}")


def _sized(held: Iterable[Held]) -> Iterator[tuple[int, int]]:
    for one in held:
        try:
            yield one.ts, Checkpoint.parse(note.parse(one.note).text).size
        except AuditError:
            continue
