"""A log in memory that does what the store will: appends, sweeps, erases, holds, rotates, crashes.

Made of the gateway's pure parts, so that an export of it is what the gateway would export.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from gateway.audit import export
from gateway.audit.canonical import Json, decode
from gateway.audit.checkpoint import Checkpoint
from gateway.audit.draft import Drafter
from gateway.audit.export import Tombstone, tombstone_digest
from gateway.audit.fields import Vocabulary
from gateway.audit.merkle import TILE_WIDTH, Frontier
from gateway.audit.note import Note, Signer
from gateway.audit.policy import DAY_S, Cls, Policy
from gateway.audit.record import Personal, Record, seal

LOG = "gw.example.org/eu-1/0199c2f0"
DAY_MS = DAY_S * 1000
START_MS = 1_760_000_000_000
Ranges = list[list[int]]


def ranges_of(numbers: Iterable[int]) -> Ranges:
    found: Ranges = []
    for number in sorted(numbers):
        if found and found[-1][1] == number:
            found[-1][1] += 1
        else:
            found.append([number, number + 1])
    return found


@dataclass
class Entry:
    """One row of the store."""

    record: Record
    values: dict[str, Personal]
    is_pruned: bool = False


@dataclass
class History:
    """Everything is public, since the tests tamper with it."""

    log: str = LOG
    seed: int = 0
    policy: Policy = field(default_factory=Policy)
    now: int = START_MS

    def __post_init__(self) -> None:
        self.random = random.Random(self.seed)
        self.signers = [Signer(self.log, self.random.randbytes(32))]
        self.entries: list[Entry] = []
        self.frontier = Frontier()
        self.tiles: dict[int, bytes] = {}
        self.collapsed: set[int] = set()
        self.tombstones: list[Tombstone] = []
        self.checkpoints: list[tuple[int, Note]] = []
        self.held: list[tuple[int, Note]] = []  # outside, where an insider can't reach
        self.holds: dict[str, set[int]] = {}
        self.done: dict[int, int] = {}
        self.append("audit.open", {"version": "0.1.0"})
        self.append("audit.policy", {"rules": self.policy.rules()})

    # -- what a gateway does --------------------------------------------------------------------

    def append(
        self,
        type_: str,
        fields: Mapping[str, Json],
        personal: Mapping[str, str | bytes] | None = None,
    ) -> Record:
        draft = Drafter(self.policy, Vocabulary()).draft(type_, fields, personal)
        return self.add(
            seal(draft, self.log, len(self.entries), self.now, entropy=self.random.randbytes)
        )

    def add(self, record: Record) -> Record:
        """Also what tests forge."""
        self.entries.append(Entry(record, {one.field: one for one in record.personal}))
        for level, index, tile in self.frontier.append(record.leaf):
            if level == 8:
                self.tiles[index] = tile
        return record

    def ask(self, person: int = 0) -> int:
        """A question and its answer."""
        rid = self.uuid()
        start = self.append(
            "query.start",
            {"rid": rid, "auth": "jwt", "route": "chat"},
            {"subject": bytes([person]) * 32, "query": self.random.randbytes(32)},
        )
        self.tick()
        end: dict[str, Json] = {"rid": rid, "start": start.seq, "outcome": "completed"}
        self.append("query.end", end)
        return start.seq

    def login(self, person: int = 0) -> int:
        fields: dict[str, Json] = {"auth": "jwt", "route": "chat"}
        personal = {"subject": bytes([person]) * 32, "email": f"person{person}@example.org"}
        return self.append("auth.login", fields, personal).seq

    def refuse(self) -> int:
        fields: dict[str, Json] = {"reason": "requests", "status": 429}
        return self.append("security.rate_limited", fields, {"ip": "203.0.113.9"}).seq

    def sign(self, *, is_held: bool = False) -> Note:
        head = Checkpoint(self.log, self.frontier.size, self.frontier.root())
        note = head.signed_by(self.signers)
        self.checkpoints.append((self.now, note))
        if is_held:
            self.held.append((self.now, note))
        return note

    def sweep(self) -> None:
        """Bodies by class, then addresses by themselves, as the policy says."""
        self.close_days()
        for cls in Cls:
            cutoff = self.now - self.policy.retention_of(cls) * 1000
            old = [e for e in self._expired(cutoff) if e.record.cls == cls]
            if old:
                self._sweep(cls, cutoff, old, None)
        cutoff = self.now - self.policy.retention_of(Cls.SECURITY, "ip") * 1000
        old = [entry for entry in self._expired(cutoff) if "ip" in entry.values]
        if old:
            self._sweep(Cls.SECURITY, cutoff, old, "ip")
        self._collapse()

    def erase(self, person: int, *, is_whole: bool = False) -> None:
        """All of a person, unless it is held."""
        found = [
            entry
            for entry in self.entries
            if not entry.is_pruned
            and (subject := entry.values.get("subject"))
            and subject.value == bytes([person]) * 32
            and not self._is_held(entry)
        ]
        day, case = self.now // DAY_MS, self.uuid()
        count = len(found) if is_whole else sum(len(entry.values) for entry in found)
        told: dict[str, Json] = {"day": day, "fields": count, "records": len(found)}
        self.append("audit.erase", {"request": case, **told, "whole": is_whole})
        for entry in found:
            names = ["*"] if is_whole else sorted(entry.values)
            self.tombstones += [Tombstone(entry.record.seq, name, day) for name in names]
            entry.values.clear()
            entry.is_pruned = is_whole
        self.append("audit.erase.done", {"request": case, **told})
        self.done[day] = self.done.get(day, 0) + count

    def close_days(self) -> None:
        """What is done once a day is over."""
        for day in sorted(self.done):
            if day < self.now // DAY_MS:
                told = [one for one in self.tombstones if one.day == day]
                self.append(
                    "audit.tombstones",
                    {"day": day, "count": len(told), "list": tombstone_digest(told)},
                )
                del self.done[day]

    def hold(self) -> str:
        name = self.uuid()
        self.holds[name] = {entry.record.seq for entry in self.entries if not entry.is_pruned}
        until = self.now + 365 * DAY_MS
        self.append("audit.hold", {"hold": name, "until_ms": until, "scope": "time"})
        return name

    def release(self) -> None:
        if self.holds:
            name, _ = self.holds.popitem()
            self.append("audit.release", {"hold": name})

    def rotate(self) -> None:
        """The checkpoint at the crossing carries both signatures."""
        new = Signer(self.log, self.random.randbytes(32))
        public = export.to_text(new.verifier.public)
        key = self.random.randbytes(4).hex()
        self.append("audit.key.rotated", {"kind": "sign", "key": key, "public": public})
        self.signers.append(new)
        self.sign(is_held=True)
        self.signers = [new]

    def crash(self) -> None:
        """The tree goes on from what was saved."""
        self.frontier = Frontier.restore(self.frontier.save())
        self.append("audit.open", {"version": "0.1.0", "resumed": True})

    def tick(self, ms: int | None = None) -> None:
        self.now += self.random.randrange(0, 5000) if ms is None else ms

    def uuid(self) -> str:
        raw = self.random.randbytes(16).hex()
        return "-".join((raw[:8], raw[8:12], raw[12:16], raw[16:20], raw[20:]))

    def _expired(self, cutoff: int) -> list[Entry]:
        """Old enough by their own time, and by that of a checkpoint that somebody else holds."""
        size = max(
            (int(note.text.split("\n")[1]) for ts, note in self.held if ts <= cutoff), default=0
        )
        return [
            entry
            for entry in self.entries[:size]
            if not entry.is_pruned and entry.record.ts <= cutoff and not self._is_held(entry)
        ]

    def _sweep(self, cls: Cls, cutoff: int, old: list[Entry], name: str | None) -> None:
        missing = {entry.record.seq for entry in old}
        if cls is Cls.AUDIT:
            # The records that explained older gaps go: this one has to explain those too.
            last = max(missing)
            missing |= {e.record.seq for e in self.entries[:last] if e.is_pruned}
            self._forget_tombstones(old)
        ranges = ranges_of(missing)
        for start in range(0, len(ranges), 50):
            part = ranges[start : start + 50]
            sweep = self.uuid()
            told: dict[str, Json] = {"sweep": sweep, "swept": cls, "cutoff_ms": cutoff}
            told |= {"ranges": part, "count": sum(end - first for first, end in part)}  # type: ignore[dict-item]
            self.append("audit.sweep", told | ({"field": name} if name else {}))
            self.append("audit.sweep.done", {"sweep": sweep, "count": told["count"]})
        for entry in old:
            if name is None:
                entry.values.clear()
                entry.is_pruned = True
            else:
                del entry.values[name]

    def _forget_tombstones(self, old: list[Entry]) -> None:
        """Of days whose closing goes."""
        bodies = [decode(e.record.body) for e in old if e.record.type == "audit.tombstones"]
        days = {body["day"] for body in bodies}
        self.tombstones = [one for one in self.tombstones if one.day not in days]

    def _collapse(self) -> None:
        for index in self.tiles:
            block = self.entries[index * TILE_WIDTH : (index + 1) * TILE_WIDTH]
            if all(entry.is_pruned for entry in block):
                self.collapsed.add(index)

    def _is_held(self, entry: Entry) -> bool:
        return any(entry.record.seq in held for held in self.holds.values())

    # -- what it hands out ----------------------------------------------------------------------

    def lines(self) -> Iterator[bytes]:
        keys = [signer.verifier for signer in self.signers]
        yield export.header(self.log, len(self.entries), self.now, keys)
        for ts, note in self.checkpoints:
            yield export.checkpoint(note, ts)
        for one in self.tombstones:
            yield export.tombstone(one)
        for index, tile in self.tiles.items():
            yield export.tile(index, tile)
        for seq, entry in enumerate(self.entries):
            if seq // TILE_WIDTH in self.collapsed:
                continue
            if entry.is_pruned:
                yield export.pruned(seq, entry.record.leaf)
            else:
                hold = next((name for name, held in self.holds.items() if seq in held), None)
                yield export.record(seq, entry.record.body, entry.values.values(), hold=hold)

    def write(self, folder: Path, name: str = "log.jsonl") -> Path:
        path = folder / name
        path.write_bytes(b"".join(self.lines()))
        return path

    def write_held(self, folder: Path, name: str = "held.jsonl") -> Path:
        path = folder / name
        path.write_bytes(b"".join(export.checkpoint(note, ts) for ts, note in self.held))
        return path


def busy(seed: int = 0, questions: int = 40, log: str = LOG) -> History:
    """A few days of lawful life, with everything in it that can happen."""
    history = History(log, seed)
    for number in range(questions):
        history.ask(number % 5)
        if number % 7 == 0:
            history.login(number % 5)
            history.refuse()
        if number % 10 == 0:
            history.sign(is_held=True)
        history.tick(3_600_000)
    history.sign(is_held=True)
    return history


def lived(seed: int = 0) -> History:
    """One that has swept, erased, held and rotated."""
    history = busy(seed, 300)
    history.erase(3)
    history.tick(DAY_MS)
    history.close_days()
    history.sign(is_held=True)
    history.tick(85 * DAY_MS)
    history.ask(1)
    history.sign(is_held=True)
    history.sweep()
    history.rotate()
    history.crash()
    history.ask(2)
    history.erase(2)
    history.sign(is_held=True)
    return history
