"""All logs of a deployment together: each explains gaps of the others, the catalogue names all."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from gateway.audit import note
from gateway.audit.checkpoint import Checkpoint
from gateway.audit.verify.explained import Explained
from gateway.audit.verify.findings import Findings
from gateway.audit.verify.heads import Heads, Held, check_ages
from gateway.audit.verify.source import Source
from gateway.audit.verify.walk import Walk
from gateway.errors import AuditError

#: Is told the log, how many of its records are behind, and how many there are.
Progress = Callable[[str, int, int], None]


@dataclass(frozen=True, slots=True)
class Evidence:
    """What is known from elsewhere.

    Args:
        keys: Public keys that are trusted.
        held: Checkpoints that somebody else has kept.
        leaves: What a log shipper has seen: by log, number to leaf.
        since_ms, until_ms: Records of other times are only hashed.
    """

    keys: Sequence[bytes]
    held: Sequence[Held] = ()
    leaves: Mapping[str, Mapping[int, bytes]] = field(default_factory=dict)
    since_ms: int = 0
    until_ms: int = 1 << 53


def verify(
    sources: Sequence[Source], evidence: Evidence, progress: Progress | None = None
) -> list[Findings]:
    """Reads every log twice: what explains, then all of it. Blocks, for a long time perhaps."""
    audit = _Audit(evidence, progress or _unheard)
    audit.collect(sources)
    # What the catalogue announces counts for logs that were opened since.
    for one in sorted(sources, key=lambda one: not audit.is_catalogue(one)):
        audit.walk(one)
    audit.check_catalogues()
    return [audit.found[one.origin] for one in sources]


class _Audit:
    """What the logs have in common while they are gone through one after another."""

    def __init__(self, evidence: Evidence, progress: Progress) -> None:
        self.found: dict[str, Findings] = {}
        self._evidence = evidence
        self._progress = progress
        self._explained = Explained()
        self._trusted = list(evidence.keys)
        self._held = _by_log(evidence.held)

    def is_catalogue(self, source: Source) -> bool:
        return source.origin in self._explained.catalogue

    def collect(self, sources: Iterable[Source]) -> None:
        for one in sources:
            findings = self.found[one.origin] = Findings(one.origin, one.size)
            self._explained.add(one.origin, one.explanations(findings), findings)

    def walk(self, source: Source) -> None:
        origin, size, explained = source.origin, source.size, self._explained
        findings, held = self.found[origin], self._held.get(origin, ())
        told = (one for all_ in explained.catalogue.values() for one in all_)
        announced = explained.keys.get(origin, ())
        heads = Heads(origin, size, findings, list(self._trusted), announced)
        heads.expect(source.notes(), held, (one for one in told if one.origin == origin))
        walk = Walk(source, explained, heads, findings)
        walk.leaves = self._evidence.leaves.get(origin, {})
        walk.since_ms, walk.until_ms = self._evidence.since_ms, self._evidence.until_ms
        walk.run(lambda done: self._progress(origin, done, size))
        check_ages((one for one in explained.sweeps if one.origin == origin), held, findings)
        if self.is_catalogue(source):
            self._trusted += heads.learnt

    def check_catalogues(self) -> None:
        """Every log that was opened is there, unless it was dropped."""
        for origin, told in self._explained.catalogue.items():
            dropped = {one.origin for one in told if one.type == "log.dropped"}
            for missing in sorted({one.origin for one in told} - dropped - self.found.keys()):
                self.found[origin].found("log_missing", missing)


def _unheard(origin: str, done: int, size: int) -> None:
    """Nobody wants to know."""


def _by_log(held: Iterable[Held]) -> dict[str, list[Held]]:
    found: dict[str, list[Held]] = {}
    for one in held:
        try:
            origin = Checkpoint.parse(note.parse(one.note).text).origin
        except AuditError:
            continue
        found.setdefault(origin, []).append(one)
    return found
