#!/usr/bin/env python3
"""Checks an exported audit log, with nothing but Python's standard library.

    verify_audit.py EXPORT... [--key KEY]... [--checkpoints PATH]... [--against LINES]...
                    [--proof BUNDLE]... [--require-anchor] [--now MS] [--json]

It shares no code with the gateway: it was written from docs/audit-format.md, which says what every
finding means. Give it the checkpoints that you have kept yourself (`--checkpoints`): nothing inside
an export shows that its end was cut off or that its owner wrote it anew.

Exit code: 0 good, 1 can't be run so, 2 integrity failure, 3 good but no checkpoint of yours covers
it (with --require-anchor), 4 good but something is kept for too long.
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import hmac
import json
import re
import sys
from bisect import bisect_right
from collections import Counter, defaultdict
from functools import cache
from itertools import pairwise
from pathlib import Path

GOOD, USAGE, BROKEN, UNANCHORED, OVERDUE = range(5)
#: Findings that are no sign of tampering, and the exit code of each.
MILD = {"overdue": OVERDUE, "age_unproven": UNANCHORED, "not_anchored": UNANCHORED}
DAY_MS = 86_400_000
GRACE_MS = 25 * 3_600_000
BLOCK = 256
MAX_TOLD = 20
#: The members of a line, by its kind; a record may also have a proof and a hold.
MEMBERS = {
    "checkpoint": [{"kind", "ts", "note"}],
    "tile": [{"kind", "index", "hash"}],
    "tombstone": [{"kind", "seq", "field", "day"}],
    "record": [{"kind", "seq", "body", "personal"}, {"kind", "seq", "leaf"}],
}


class Bad(Exception):
    """A finding: its code, and where."""


# ---- Ed25519, RFC 8032 §5.1 -------------------------------------------------------------------

P = 2**255 - 19
L = 2**252 + 27742317777372353535851937790883648493
D = -121665 * pow(121666, P - 2, P) % P
ROOT_OF_MINUS_1 = pow(2, (P - 1) // 4, P)


def add(a, b):
    """Two points in extended coordinates."""
    e, f = (a[1] - a[0]) * (b[1] - b[0]) % P, (a[1] + a[0]) * (b[1] + b[0]) % P
    g, h = 2 * a[3] * b[3] * D % P, 2 * a[2] * b[2] % P
    e, f, g, h = f - e, h - g, h + g, f + e
    return e * f % P, g * h % P, f * g % P, e * h % P


def times(scalar, point):
    total = (0, 1, 1, 0)
    while scalar:
        if scalar & 1:
            total = add(total, point)
        point = add(point, point)
        scalar >>= 1
    return total


def decompress(raw):
    """The point of 32 bytes, None if there is none."""
    y = int.from_bytes(raw, "little")
    sign, y = y >> 255, y & (2**255 - 1)
    if y >= P:
        return None
    x2 = (y * y - 1) * pow(D * y * y + 1, P - 2, P) % P
    x = pow(x2, (P + 3) // 8, P)
    if (x * x - x2) % P:
        x = x * ROOT_OF_MINUS_1 % P
    if (x * x - x2) % P or (x == 0 and sign):
        return None
    if x & 1 != sign:
        x = P - x
    return x, y, 1, x * y % P


BASE = decompress(bytes.fromhex("58" + "66" * 31))


@cache
def ed25519(public, message, signature):
    """Whether the signature is this key's."""
    if len(public) != 32 or len(signature) != 64:
        return False
    key, point = decompress(public), decompress(signature[:32])
    scalar = int.from_bytes(signature[32:], "little")
    if key is None or point is None or scalar >= L:
        return False
    digest = hashlib.sha512(signature[:32] + public + message).digest()
    challenge = int.from_bytes(digest, "little") % L
    left, right = times(scalar, BASE), add(point, times(challenge, key))
    return all((left[i] * right[2] - right[i] * left[2]) % P == 0 for i in (0, 1))


# ---- Encodings --------------------------------------------------------------------------------


def unique(pairs):
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key twice")
    return found


def refuse(_):
    raise ValueError("not a number that is allowed here")


def parse(text):
    value = json.loads(text, object_pairs_hook=unique, parse_float=refuse, parse_constant=refuse)
    if not isinstance(value, dict):
        raise ValueError("not an object")  # noqa: TRY004
    return value


def canonical(text):
    """A record's body, if it is spelt as RFC 8785 says."""
    try:
        value = parse(text)
        spelt = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    except (ValueError, RecursionError):
        raise Bad("not_canonical") from None
    if spelt != text or "null" in re.sub(r'"(?:[^"\\]|\\.)*"', "", text):
        raise Bad("not_canonical")
    return value


def from_url(text, length=None):
    raw = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
    if base64.urlsafe_b64encode(raw).decode().rstrip("=") != text:
        raise ValueError("not base64url")
    if length is not None and len(raw) != length:
        raise ValueError("wrong length")
    return raw


def sha(*parts):
    return hashlib.sha256(b"".join(parts)).digest()


# ---- The tree ---------------------------------------------------------------------------------


class Tree:
    """RFC 6962 roots from leaves, or whole blocks, in order."""

    def __init__(self):
        self.size = 0
        self.stack = []

    def push(self, value, count=1):
        self.size += count
        while self.stack and self.stack[-1][0] == count:
            value = sha(b"\1", self.stack.pop()[1], value)
            count *= 2
        self.stack.append((count, value))

    def root(self):
        if not self.stack:
            return sha()
        value = self.stack[-1][1]
        for _, left in reversed(self.stack[:-1]):
            value = sha(b"\1", left, value)
        return value


def root_by_proof(leaf, index, size, proof):
    """RFC 9162 §2.1.3.2; None if the proof has a wrong length."""
    last = size - 1
    for step in proof:
        if last == 0:
            return None
        if index & 1 or index == last:
            leaf = sha(b"\1", step, leaf)
            while not index & 1 and index:
                index, last = index >> 1, last >> 1
        else:
            leaf = sha(b"\1", leaf, step)
        index, last = index >> 1, last >> 1
    return None if last else leaf


# ---- Signed notes -----------------------------------------------------------------------------


class Note:
    """A signed checkpoint. `time` is when its holder got it, in milliseconds, or None."""

    def __init__(self, raw, held_since=None, is_external=False):
        raw.encode()  # ValueError for half a surrogate pair
        self.time, self.is_external = held_since, is_external
        text, _, below = raw.rpartition("\n\n")
        self.text = text + "\n"
        origin, size, root = text.split("\n")
        self.origin, self.size = origin, int(size)
        self.root = base64.b64decode(root, validate=True)
        self.signatures = []
        for line in below.splitlines():
            dash, name, value = line.split(" ")
            if dash != "\u2014":
                raise ValueError("not a signature line")
            raw_value = base64.b64decode(value, validate=True)
            self.signatures.append((name, raw_value[:4], raw_value[4:]))

    def is_signed_by(self, trusted):
        """By one key at least; a wrong signature of a trusted key is a finding."""
        found = False
        for public in trusted:
            key_id = sha(self.origin.encode(), b"\n\1", public)[:4]
            for name, known, value in self.signatures:
                if (name, known) == (self.origin, key_id):
                    if not ed25519(public, self.text.encode(), value):
                        raise Bad("bad_signature")
                    found = True
        return found


def public_key(text):
    """32 bytes, from a verifier key (`name+id+base64`) or from base64url of them alone."""
    if "+" in text:
        raw = base64.b64decode(text.split("+", 2)[2], validate=True)
        if raw[:1] != b"\1" or len(raw) != 33:
            raise ValueError("not an Ed25519 verifier key")
        return raw[1:]
    return from_url(text, 32)


# ---- One exported log -------------------------------------------------------------------------


class Cover:
    """Ranges of numbers that sweeps took, each with the latest of their cutoffs."""

    def __init__(self, sweeps):
        edges = sorted({edge for sweep in sweeps for edge in (sweep["start"], sweep["end"])})
        place = {edge: at for at, edge in enumerate(edges)}
        latest = dict.fromkeys(edges, -1)
        for sweep in sweeps:
            for edge in edges[place[sweep["start"]] : place[sweep["end"]]]:
                latest[edge] = max(latest[edge], sweep["cutoff"])
        self.edges, self.latest = edges, [latest[edge] for edge in edges]

    def cutoff(self, seq):
        """None where nothing was swept."""
        at = bisect_right(self.edges, seq) - 1
        return self.latest[at] if at >= 0 and self.latest[at] >= 0 else None


class Log:
    """One export: `collect` reads what explains its gaps, `check` goes through its entries."""

    def __init__(self, path):
        self.path = path
        with path.open(encoding="utf-8", errors="surrogateescape") as lines:
            self.header = parse(lines.readline())
        if self.header.get("format") != "sluice-audit-export/1":
            raise ValueError(f"{path} isn't an export")
        self.origin, self.size, self.now = (self.header[key] for key in ("log", "size", "made_ms"))
        self.is_whole = self.header["whole"]
        self.head = None if self.is_whole else Note(self.header["checkpoint"])
        self.findings, self.counts = [], Counter()
        self.notes, self.tiles, self.tombstones = [], {}, {}
        self.sweeps, self.announced = [], []
        self.held, self.released = set(), set()
        self.planned, self.done, self.closings = Counter(), Counter(), {}
        self.catalogue, self.leaves = [], {}
        self.wanted, self.roots, self.anchored, self.rules = set(), {}, None, None

    def found(self, code, where=""):
        self.findings.append((code, str(where)))

    def lines(self, *, is_told=False):
        """The first pass tells of lines that are none."""
        with self.path.open(encoding="utf-8", errors="surrogateescape", newline="\n") as lines:
            lines.readline()
            for number, line in enumerate(lines, start=2):
                try:
                    value = parse(line)
                    if value.keys() - {"proof", "hold"} not in MEMBERS[value["kind"]]:
                        raise ValueError("unknown members")
                except (ValueError, KeyError, TypeError, RecursionError):
                    if is_told:
                        self.found("malformed", f"line {number}")
                    continue
                yield value

    # -- first pass -----------------------------------------------------------------------------

    def collect(self):
        for line in self.lines(is_told=True):
            try:
                getattr(self, f"collect_{line['kind']}")(line)
            except (KeyError, ValueError, TypeError, AttributeError, RecursionError):
                self.found("malformed", line.get("seq", line.get("kind")))
        self.notes += [self.head] if self.head else []

    def collect_checkpoint(self, line):
        self.notes.append(Note(line["note"]))

    def collect_tile(self, line):
        self.tiles[line["index"]] = from_url(line["hash"], 32)

    def collect_tombstone(self, line):
        self.tombstones[line["seq"], line["field"]] = line["day"]

    def collect_record(self, line):
        body = parse(line["body"]) if "body" in line else {}
        match body.get("type"):
            case "audit.sweep":
                self.collect_sweep(line["seq"], body)
            case "audit.erase":
                self.planned[body.get("origin", self.origin), body["day"]] += body["fields"]
            case "audit.erase.done":
                self.done[body.get("origin", self.origin), body["day"]] += body["fields"]
            case "audit.tombstones":
                told = body["count"], from_url(body["list"], 32)
                self.closings[body.get("origin", self.origin), body["day"]] = told
            case "audit.policy":
                self.rules = body["rules"]
            case "audit.hold":
                self.held.add(body["hold"])
            case "audit.release":
                self.released.add(body["hold"])
            case "audit.key.rotated" | "audit.key.created" if body.get("public"):
                self.announced.append((line["seq"], from_url(body["public"], 32)))
            case str(type_) if type_.startswith("log."):
                is_head = type_ not in ("log.opened", "log.dropped")
                size, root = (body["size"], from_url(body["root"], 32)) if is_head else (0, None)
                self.catalogue.append((type_, body["origin"], size, root))

    def collect_sweep(self, seq, body):
        origin = body.get("origin", self.origin)
        for start, end in body["ranges"]:
            if origin == self.origin and end > seq:
                self.found("sweep_ahead", seq)
            sweep = {"origin": origin, "start": start, "end": end, "cutoff": body["cutoff_ms"]}
            self.sweeps.append(sweep | {"field": body.get("field"), "swept": body["swept"]})

    # -- second pass ----------------------------------------------------------------------------

    def prepare(self, logs):
        """What the other logs say about this one."""
        everywhere = [sweep for log in logs for sweep in log.sweeps]
        released = set().union(*(log.released for log in logs))
        self.holds = set().union(*(log.held for log in logs)) - released
        # The records of a day may be swept, in whatever log, before the one that closes it.
        swept = (sweep["cutoff"] for sweep in everywhere if sweep["swept"] == "audit")
        self.swept_until = max(swept, default=0)
        self.own = [sweep for sweep in everywhere if sweep["origin"] == self.origin]
        names = {sweep["field"] for sweep in self.own} | {None}
        self.cover = {
            name: Cover([sweep for sweep in self.own if sweep["field"] == name]) for name in names
        }
        self.planned_by_day, self.done_by_day, self.closed = Counter(), Counter(), {}
        for log in logs:
            for told, mine in (
                (log.planned, self.planned_by_day),
                (log.done, self.done_by_day),
                (log.closings, self.closed),
            ):
                mine.update(
                    {day: told[origin, day] for origin, day in told if origin == self.origin}
                )
        self.tree, self.block = Tree(), Tree()
        self.last_ts, self.policy, self.open = 0, None, {}

    def check(self):
        self.remember()
        for line in self.lines():
            if line.get("kind") == "record":
                self.check_entry(line)
        if not self.is_whole:
            return
        self.skip_to(self.size)
        if self.tree.size != self.size:
            self.found("size", f"{self.tree.size} entries, said to be {self.size}")
        self.check_tombstones()
        self.counts["open"] = len(self.open)
        for seq in self.leaves:
            if seq >= self.size:
                self.found("line_beyond", seq)

    def check_entry(self, line):
        seq = line.get("seq")
        if type(seq) is not int or seq < self.tree.size:
            self.found("out_of_order", seq)
            return
        if self.is_whole:
            self.skip_to(seq)
        try:
            leaf = self.full(seq, line) if "body" in line else self.pruned(seq, line)
        except Bad as bad:
            self.found(bad.args[0], seq)
            leaf = sha(b"\0", line["body"].encode(errors="replace"))
        except (KeyError, ValueError, TypeError, AttributeError):
            self.found("malformed", seq)
            leaf = bytes(32)
        if self.leaves.get(seq, leaf) != leaf:
            self.found("line_mismatch", seq)
        if not self.is_whole:
            self.check_proof(seq, leaf, line)
            return
        if self.tree.size != seq:
            self.found("gap", f"{self.tree.size} to {seq - 1}")
            self.tree.size = seq
        self.push(leaf)

    def push(self, leaf):
        self.tree.push(leaf)
        self.block.push(leaf)
        self.remember()
        if self.tree.size % BLOCK == 0:
            index = self.tree.size // BLOCK - 1
            if self.tiles.get(index, self.block.root()) != self.block.root():
                self.found("tile_mismatch", f"{index * BLOCK} to {self.tree.size - 1}")
            self.block = Tree()

    def skip_to(self, seq):
        """Over blocks of which only the tile's hash is left."""
        while self.tree.size % BLOCK == 0 and self.tree.size + BLOCK <= seq:
            start = self.tree.size
            tile = self.tiles.get(start // BLOCK)
            if tile is None:
                return
            for one in range(start, start + BLOCK):
                self.explain(one)
            self.counts["pruned"] += BLOCK
            self.tree.push(tile, BLOCK)
            self.remember()

    def remember(self):
        if self.tree.size in self.wanted:
            self.roots[self.tree.size] = self.tree.root()

    def check_proof(self, seq, leaf, line):
        """Of an export that holds only some records: each has its own way to the root."""
        note = self.head
        steps = [from_url(step, 32) for step in line.get("proof", [])]
        if not seq < note.size or root_by_proof(leaf, seq, note.size, steps) != note.root:
            self.found("bad_proof", seq)

    def full(self, seq, line):
        body = canonical(line["body"])
        raw = line["body"].encode()
        if body["v"] != 1 or len(raw) > 4096 or len(from_url(body["nonce"])) != 16:
            raise Bad("malformed")
        if (body["log"], body["seq"]) != (self.origin, seq):
            self.found("wrong_place", seq)
        if body["ts"] < self.last_ts:
            self.found("time_order", seq)
        self.last_ts = max(body["ts"], self.last_ts)
        if body["type"] == "audit.policy":
            self.policy = body["rules"]
        self.check_pair(seq, body)
        self.check_cutoff(seq, body)
        self.check_personal(seq, body["commit"], line["personal"])
        self.check_age(seq, body, line)
        return sha(b"\0", raw)

    def check_pair(self, seq, body):
        if body["type"] == "query.start":
            self.open[seq] = body["rid"]
        elif body["type"] == "query.end" and "start" in body:
            rid = self.open.pop(body["start"], body["rid"])
            if body["start"] >= seq or rid != body["rid"]:
                self.found("bad_pair", seq)

    def check_cutoff(self, seq, body):
        """A sweep takes no more than the policy in force lets it."""
        if body["type"] != "audit.sweep" or self.policy is None:
            return
        kept_s = self.policy["retention_s"][body["swept"]]
        if body.get("field") == "ip":
            kept_s = min(kept_s, self.policy["ip_retention_s"])
        if body["cutoff_ms"] > body["ts"] - kept_s * 1000:
            self.found("early_sweep", seq)

    def check_personal(self, seq, commit, personal):
        for name in personal.keys() - commit.keys():
            self.found("bad_commitment", f"{seq} {name}")
        for name, committed in commit.items():
            if name not in personal:
                self.explain(seq, name)
                continue
            if personal[name].keys() != {"salt", "value"}:
                raise Bad("malformed")
            salt, value = (from_url(personal[name][part]) for part in ("salt", "value"))
            message = b"gw-audit/1 field\0" + name.encode() + b"\0" + value
            made = hmac.new(salt, message, hashlib.sha256).digest()
            if len(salt) != 32 or not hmac.compare_digest(made, from_url(committed, 32)):
                self.found("bad_commitment", f"{seq} {name}")
            if (seq, name) in self.tombstones:
                self.found("erased_present", f"{seq} {name}")
        if (seq, "*") in self.tombstones:
            self.found("erased_present", seq)
        self.counts["full" if commit.keys() <= personal.keys() else "redacted"] += 1

    def check_age(self, seq, body, line):
        if line.get("hold") in self.holds:
            self.counts["held"] += 1
        elif self.rules is not None:  # the latest: a retention that was lengthened counts
            age_ms = self.now - body["ts"] - GRACE_MS
            if age_ms > self.rules["retention_s"][body["cls"]] * 1000:
                self.found("overdue", seq)
            elif "ip" in line["personal"] and age_ms > self.rules["ip_retention_s"] * 1000:
                self.found("overdue", f"{seq} ip")

    def pruned(self, seq, line):
        self.counts["pruned"] += 1
        self.explain(seq)
        return from_url(line["leaf"], 32)

    def explain(self, seq, field=None):
        """What is missing was erased, or it was swept and had its age."""
        if not self.is_whole or (seq, field) in self.tombstones or (seq, "*") in self.tombstones:
            return
        cutoff = self.cover[field].cutoff(seq) if field in self.cover else None
        where = f"{seq} {field}" if field else seq
        if cutoff is None:
            self.found("missing_field" if field else "missing_body", where)
        elif self.last_ts > cutoff:
            self.found("early_sweep", where)

    def check_tombstones(self):
        """Erasures are told by number and day; the closing of a day commits to the whole list."""
        by_day = defaultdict(list)
        for (seq, field), day in self.tombstones.items():
            by_day[day].append((seq, field))
        for day in by_day.keys() | self.closed.keys():
            listed = sorted(by_day[day])
            text = "".join(f"{seq} {field}\n" for seq, field in listed)
            digest = sha(b"gw-audit/1 tombstones\0", text.encode())
            if day in self.closed:
                told = self.closed[day]
                is_right = told == (len(listed), digest)
                is_right &= day * DAY_MS < self.swept_until or len(listed) == self.done_by_day[day]
            else:
                is_right = len(listed) <= self.planned_by_day[day]
            if not is_right:
                self.found("bad_tombstones", f"day {day}")


# ---- All of it --------------------------------------------------------------------------------


class Audit:
    """Several logs of one deployment, and what an auditor holds beside them."""

    def __init__(self, logs, keys, notes, lines):
        self.logs, self.keys, self.notes = logs, keys, notes
        self.announced = []  # by the catalogue: for logs that were opened since
        self.by_origin = {log.origin: log for log in logs}
        for origin, seq, leaf in lines:
            if origin in self.by_origin:
                self.by_origin[origin].leaves[seq] = leaf

    def run(self):
        for log in self.logs:
            log.collect()
            log.notes += [note for note in self.notes if note.origin == log.origin]
            log.wanted |= {note.size for note in log.notes}
        for log in self.logs:
            for _, origin, size, _ in log.catalogue:
                if origin in self.by_origin:
                    self.by_origin[origin].wanted.add(size)
        for log in self.logs:
            log.prepare(self.logs)
        for log in sorted(self.logs, key=lambda log: not log.catalogue):
            log.check()
            self.check_notes(log)
            self.check_ages(log)
        for log in self.logs:
            self.check_catalogue(log)

    def check_notes(self, log):
        """Signatures and roots, by size: a key that the log announced is trusted once a tree that
        holds the announcement was signed by a key that was trusted before."""
        trusted = [*(self.keys or map(public_key, log.header["keys"])), *self.announced]
        log.notes.sort(key=lambda note: note.size)
        for note in log.notes:
            where = f"checkpoint {note.size}" + (" of yours" if note.is_external else "")
            try:
                if not note.is_signed_by(trusted):
                    raise Bad("unsigned")
                is_checked = self.check_root(log, note.size, note.root)
            except Bad as bad:
                log.found(bad.args[0], where)
                continue
            if not is_checked:
                log.counts["uncheckable"] += 1
                continue
            new = [key for seq, key in log.announced if seq < note.size and key not in trusted]
            trusted += new
            self.announced += new if log.catalogue else []
            log.counts["checkpoints"] += 1
            if note.is_external:
                log.anchored = note.size
        for one, other in pairwise(log.notes):
            if one.size == other.size and one.root != other.root:
                log.found("split_view", f"size {one.size}")
        if log.anchored is None:
            log.found("not_anchored", "no checkpoint of yours covers it")

    def check_root(self, log, size, root):
        """False inside a block of which only one hash is left, and beside the head of a part."""
        if not log.is_whole:
            return (size, root) == (log.head.size, log.head.root)
        if size > log.size:
            raise Bad("cut_off")
        if log.roots.get(size, root) != root:
            raise Bad("root_mismatch")
        return size in log.roots

    def check_ages(self, log):
        """Only somebody else's clock shows that what is gone was old."""
        mine = [note for note in log.notes if note.is_external and note.time is not None]
        for sweep in log.own:
            is_old = any(n.size >= sweep["end"] and n.time <= sweep["cutoff"] for n in mine)
            if not is_old:
                log.found("age_unproven", f"{sweep['start']} to {sweep['end'] - 1}")

    def check_catalogue(self, catalogue):
        dropped = {origin for what, origin, *_ in catalogue.catalogue if what == "log.dropped"}
        for _, origin, size, root in catalogue.catalogue:
            log = self.by_origin.get(origin)
            if log is None:
                if origin not in dropped:
                    catalogue.found("log_missing", origin)
            elif root is not None:
                try:
                    self.check_root(log, size, root)
                except Bad as bad:
                    log.found(bad.args[0], f"head {size} in the catalogue")


def check_proofs(path, keys):
    """A proof about one record, alone, or all those of a person's export; how many."""
    value = parse(path.read_text(encoding="utf-8"))
    if value["format"] == "sluice-audit-person/1":
        for record in value["records"]:
            check_bundle(record["proof"], keys)
        return len(value["records"])
    if value["format"] != "sluice-audit-proof/1":
        raise ValueError(f"{path} isn't a proof")
    check_bundle(value, keys)
    return 1


def check_bundle(value, keys):
    note = Note(value["checkpoint"])
    seq, body = value["seq"], canonical(value["body"])
    steps = [from_url(step, 32) for step in value["proof"]]
    if not keys or not note.is_signed_by(keys):
        raise Bad("unsigned")
    if not (value["log"] == note.origin == body["log"] and body["seq"] == seq < note.size):
        raise Bad("wrong_place")
    if root_by_proof(sha(b"\0", value["body"].encode()), seq, note.size, steps) != note.root:
        raise Bad("bad_proof")
    for name, one in value["personal"].items():
        salt, plain = from_url(one["salt"], 32), from_url(one["value"])
        message = b"gw-audit/1 field\0" + name.encode() + b"\0" + plain
        if hmac.digest(salt, message, "sha256") != from_url(body["commit"].get(name, "")):
            raise Bad("bad_commitment")


def held_notes(path):
    """Checkpoints of the auditor's: notes as they are, or lines of JSON with a time of their own.
    A note's time is that of its file."""
    for file in sorted(path.iterdir()) if path.is_dir() else [path]:
        text = file.read_text(encoding="utf-8")
        if text.startswith("{"):
            for line in map(parse, text.splitlines()):
                if line.get("kind") == "checkpoint":
                    yield Note(line["note"], line["ts"], is_external=True)
        else:
            yield Note(text, int(file.stat().st_mtime * 1000), is_external=True)


def held_lines(path):
    with path.open(encoding="utf-8") as lines:
        for line in map(parse, lines):
            if "leaf" in line:
                yield line["log"], line["seq"], from_url(line["leaf"], 32)


def exit_code(logs, *, needs_anchor):
    codes = {MILD.get(code, BROKEN) for log in logs for code, _ in log.findings}
    if not needs_anchor:
        codes.discard(UNANCHORED)
    return next((code for code in (BROKEN, UNANCHORED, OVERDUE) if code in codes), GOOD)


def report(logs, *, is_json):
    for log in logs:
        told = {"log": log.origin, "size": log.size, **log.counts, "findings": log.findings}
        if is_json:
            print(json.dumps(told))
            continue
        counts = ", ".join(f"{count} {name}" for name, count in log.counts.items())
        print(f"{log.origin}: {log.size} records ({counts})")
        told = Counter()
        for code, where in log.findings:
            told[code] += 1
            if told[code] <= MAX_TOLD:
                print(f"  {code}: {where}")
        for code, count in told.items():
            if count > MAX_TOLD:
                print(f"  {code}: {count - MAX_TOLD} more, see --json")


def arguments(args):
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("exports", nargs="*", type=Path, help="exports, one file a log")
    parser.add_argument("--key", action="append", default=[], help="a public key that you trust")
    parser.add_argument("--checkpoints", action="append", default=[], type=Path)
    parser.add_argument("--against", action="append", default=[], type=Path)
    parser.add_argument("--proof", action="append", default=[], type=Path)
    parser.add_argument("--require-anchor", action="store_true")
    parser.add_argument("--now", type=int, help="milliseconds since 1970")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args(args)
    if not options.exports and not options.proof:
        parser.error("name an export or a proof")
    return options


def main(args=None):
    try:
        options = arguments(args)
    except SystemExit as ended:
        return USAGE if ended.code else GOOD
    try:
        keys = [public_key(text) for text in options.key]
        for path in options.proof:
            count = check_proofs(path, keys)
            print(f"{path}: {count} proven" if count != 1 else f"{path}: proven")
        logs = [Log(path) for path in options.exports]
        notes = [
            note for path in (*options.checkpoints, *options.against) for note in held_notes(path)
        ]
        lines = [line for path in options.against for line in held_lines(path)]
    except Bad as bad:
        print(f"not proven: {bad}")
        return BROKEN
    except (OSError, KeyError, ValueError, TypeError) as error:
        print(f"verify_audit.py: {error}", file=sys.stderr)
        return USAGE
    for log in logs:
        log.now = options.now or log.now
    if logs and not keys:
        print("The keys are those that the export itself names: give --key to trust your own.")
    Audit(logs, keys, notes, lines).run()
    report(logs, is_json=options.json)
    return exit_code(logs, needs_anchor=options.require_anchor)


if __name__ == "__main__":
    sys.exit(main())
