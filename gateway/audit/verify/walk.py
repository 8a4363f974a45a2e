"""One log, from its first record to its last, with the tree beside it."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from gateway.audit.canonical import Object
from gateway.audit.export import WHOLE_RECORD, Tombstone
from gateway.audit.merkle import TILE_WIDTH, Frontier, leaf_hash
from gateway.audit.policy import OVERDUE_S
from gateway.audit.verify.body import is_committed, read
from gateway.audit.verify.days import Days
from gateway.audit.verify.explained import Cover, Explained
from gateway.audit.verify.findings import Bad, Findings
from gateway.audit.verify.heads import Heads
from gateway.audit.verify.source import Entry, Source

Progress = Callable[[int], None]
_TELL_EACH = 4096


class Walk:
    """Goes through a log once; what it finds goes to `findings` and `heads`.

    `leaves` is what a log shipper has seen, by number. Of records from before `since_ms`, or from
    `until_ms` on, neither values nor age are looked at.
    """

    def __init__(
        self, source: Source, explained: Explained, heads: Heads, findings: Findings
    ) -> None:
        self._source = source
        self._heads = heads
        self._findings = findings
        self._tree = Frontier()
        self._tiles = source.tiles()
        self._days = Days(source.origin, explained, findings)
        self._stones = source.tombstones()
        self._stone: Tombstone | None = next(self._stones, None)
        self._holds = explained.holds - explained.released
        own = [one for one in explained.sweeps if one.origin == source.origin]
        self._covers = {
            name: Cover(one for one in own if one.field == name)
            for name in {one.field for one in own}
        }
        rules = explained.rules.get(source.origin)
        self._kept_s: Mapping[str, int] | None = _retention(rules) if rules else None
        self._ip_s = int(str(rules["ip_retention_s"])) if rules else 0
        self._now = source.made_ms - OVERDUE_S * 1000
        self._rules: Object | None = None
        self._open: dict[int, str] = {}
        self._last_ts = 0
        self._erased: frozenset[str] = frozenset()
        self.leaves: Mapping[int, bytes] = {}
        self.since_ms, self.until_ms = 0, 1 << 53

    def run(self, progress: Progress) -> None:
        """`progress` is told the number of records that are behind."""
        heads, findings = self._heads, self._findings
        heads.reach(0, self._tree.root())
        for entry in self._source.entries(findings):
            self._entry(entry)
            if not self._tree.size % _TELL_EACH:
                progress(self._tree.size)
        self._skip_to(self._source.size)
        if self._tree.size != self._source.size:
            said = f"{self._tree.size} entries, said to be {self._source.size}"
            findings.found("size", said)
        while self._stone is not None:
            self._take_stone()
        heads.end()
        self._days.end()
        findings.counts["open"] = len(self._open)
        for seq in self.leaves:
            if seq >= self._source.size:
                findings.found("line_beyond", seq)
        progress(self._tree.size)

    def _entry(self, entry: Entry) -> None:
        seq, findings = entry.seq, self._findings
        if seq < self._tree.size:
            findings.found("out_of_order", seq)
            return
        if seq > self._tree.size:
            self._skip_to(seq)
            if self._tree.size != seq:
                findings.found("gap", f"{self._tree.size} to {seq - 1}")
                self._tree = self._tree.jumped(seq)
        self._erased = self._erased_at(seq)
        leaf = entry.leaf
        if entry.is_spoilt:
            findings.found("malformed", seq)
        elif entry.body is None:
            findings.counts["pruned"] += 1
            self._explain(seq)
        else:
            leaf = leaf_hash(entry.body)
            try:
                self._full(entry, entry.body)
            except Bad as bad:
                findings.found(bad.args[0], seq)
            except (KeyError, ValueError, TypeError, AttributeError):
                findings.found("malformed", seq)
        if self.leaves and self.leaves.get(seq, leaf) != leaf:
            findings.found("line_mismatch", seq)
        self._push(leaf)

    def _push(self, leaf: bytes) -> None:
        for level, index, tile in self._tree.append(leaf):
            if level == 8 and self._tiles.get(index, tile) != tile:
                first = index * TILE_WIDTH
                self._findings.found("tile_mismatch", f"{first} to {first + TILE_WIDTH - 1}")
        if self._tree.size >= self._heads.wanted:
            self._heads.reach(self._tree.size, self._tree.root())

    def _skip_to(self, seq: int) -> None:
        """Over blocks of which only the tile's hash is left."""
        while self._tree.size % TILE_WIDTH == 0 and self._tree.size + TILE_WIDTH <= seq:
            start = self._tree.size
            tile = self._tiles.get(start // TILE_WIDTH)
            if tile is None:
                return
            for one in range(start, start + TILE_WIDTH):
                self._erased = self._erased_at(one)
                self._explain(one)
            self._findings.counts["pruned"] += TILE_WIDTH
            self._tree.append_tile(tile)
            # What was signed inside the block can't be checked any more.
            self._heads.reach(self._tree.size, self._tree.root())

    def _full(self, entry: Entry, raw: bytes) -> None:
        body, seq, findings = read(raw), entry.seq, self._findings
        ts = int(body["ts"])  # type: ignore[arg-type]
        if (body.get("log"), body.get("seq")) != (self._source.origin, seq):
            findings.found("wrong_place", seq)
        if entry.columns is not None and entry.columns != (ts, body["cls"], body["type"]):
            findings.found("malformed", f"{seq} beside its body")
        if ts < self._last_ts:
            findings.found("time_order", seq)
        else:
            self._last_ts = ts
        self._events(seq, body, ts)
        if self.since_ms <= ts < self.until_ms:
            self._personal(entry, body["commit"])  # type: ignore[arg-type]
            self._age(entry, str(body["cls"]), ts)

    def _events(self, seq: int, body: Object, ts: int) -> None:
        match body["type"]:
            case "query.start":
                self._open[seq] = str(body["rid"])
            case "query.end" if "start" in body:
                start = int(body["start"])  # type: ignore[arg-type]
                rid = self._open.pop(start, body["rid"])
                if start >= seq or rid != body["rid"]:
                    self._findings.found("bad_pair", seq)
            case "audit.policy":
                self._rules = body["rules"]  # type: ignore[assignment]
            case "audit.sweep" if self._rules is not None:
                self._cutoff(seq, body, ts)

    def _cutoff(self, seq: int, body: Object, ts: int) -> None:
        """A sweep takes no more than the policy in force lets it."""
        rules = self._rules or {}
        kept_s = _retention(rules)[str(body["swept"])]
        if body.get("field") == "ip":
            kept_s = min(kept_s, int(str(rules["ip_retention_s"])))
        if int(str(body["cutoff_ms"])) > ts - kept_s * 1000:
            self._findings.found("early_sweep", seq)

    def _personal(self, entry: Entry, commit: Mapping[str, object]) -> None:
        seq, personal, findings = entry.seq, entry.personal, self._findings
        for name in personal.keys() - commit.keys() if personal else ():
            findings.found("bad_commitment", f"{seq} {name}")
        is_full = True
        for name in commit:
            if name not in personal:
                is_full = False
                self._explain(seq, name)
                continue
            if not is_committed(commit, name, *personal[name]):
                findings.found("bad_commitment", f"{seq} {name}")
            if name in self._erased:
                findings.found("erased_present", f"{seq} {name}")
        if WHOLE_RECORD in self._erased:
            findings.found("erased_present", seq)
        findings.counts["full" if is_full else "redacted"] += 1

    def _age(self, entry: Entry, cls: str, ts: int) -> None:
        if entry.hold is not None and entry.hold in self._holds:
            self._findings.counts["held"] += 1
        elif self._kept_s is not None:
            age_ms = self._now - ts
            if age_ms > self._kept_s[cls] * 1000:
                self._findings.found("overdue", entry.seq)
            elif "ip" in entry.personal and age_ms > self._ip_s * 1000:
                self._findings.found("overdue", f"{entry.seq} ip")

    def _explain(self, seq: int, name: str | None = None) -> None:
        """What is missing was erased, or it was swept and had its age."""
        if self._erased and (name in self._erased or WHOLE_RECORD in self._erased):
            return
        cover = self._covers.get(name)
        cutoff = cover.cutoff(seq) if cover is not None else None
        where = f"{seq} {name}" if name else seq
        if cutoff is None:
            self._findings.found("missing_field" if name else "missing_body", where)
        elif self._last_ts > cutoff:
            self._findings.found("early_sweep", where)

    def _erased_at(self, seq: int) -> frozenset[str]:
        if self._stone is None or self._stone.seq > seq:
            return frozenset()
        names = set()
        while self._stone is not None and self._stone.seq <= seq:
            if self._stone.seq == seq:
                names.add(self._stone.field)
            self._take_stone()
        return frozenset(names)

    def _take_stone(self) -> None:
        if self._stone is not None:
            self._days.add(self._stone)
        self._stone = next(self._stones, None)


def _retention(rules: Object) -> Mapping[str, int]:
    kept = rules["retention_s"]
    return {name: int(str(one)) for name, one in (kept if isinstance(kept, dict) else {}).items()}
