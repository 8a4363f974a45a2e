"""Both verifiers of exports: lawful histories pass, each attack is told, and they agree.

The numbers A1 to A22 are those of the threat model's table in docs/audit-format.md.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway import cli
from gateway.audit import export
from gateway.audit.bundle import Bundle
from gateway.audit.canonical import Json, decode, encode, to_text
from gateway.audit.checkpoint import Checkpoint
from gateway.audit.draft import Drafter
from gateway.audit.export import Tombstone
from gateway.audit.fields import Vocabulary
from gateway.audit.merkle import Frontier, frontier_of, leaf_hash, tiled
from gateway.audit.note import Signer
from gateway.audit.policy import Policy
from gateway.audit.proofs import inclusion_proof
from gateway.audit.record import Personal, seal
from gateway.audit.verify.audit import Evidence, verify
from gateway.audit.verify.evidence import held_in
from gateway.audit.verify.exported import ExportedLog
from gateway.audit.verify.findings import exit_code
from scripts import verify_audit
from scripts.verify_audit import BROKEN, GOOD, OVERDUE, UNANCHORED, USAGE, main
from tests.unit.audit.history import DAY_MS, LOG, START_MS, Entry, History, busy, lived

SCRIPT = Path(verify_audit.__file__)


class Verdict:
    """What the script says about a history, and with whose evidence."""

    def __init__(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self._folder, self._capsys = folder, capsys

    def __call__(
        self, history: History, *more: str, key: Signer | None = None, is_held: bool = True
    ) -> tuple[int, set[str]]:
        trusted = (key or first_key(history)).verifier
        args = [str(history.write(self._folder)), "--key", str(trusted)]
        if is_held:
            args += ["--checkpoints", str(history.write_held(self._folder))]
        return self.run(*args, *more)

    def run(self, *args: str) -> tuple[int, set[str]]:
        """Of both verifiers, which must say the same."""
        second = self.second(*args)
        assert self.own(*args) == second
        return second

    def second(self, *args: str) -> tuple[int, set[str]]:
        self._capsys.readouterr()
        code = main([*args, "--json"])
        out = [line for line in self._capsys.readouterr().out.splitlines() if line[:1] == "{"]
        return code, {finding[0] for line in out for finding in json.loads(line)["findings"]}

    def own(self, *args: str) -> tuple[int, set[str]]:
        self._capsys.readouterr()
        code = cli.main(["audit", "verify", *args, "--json"])
        logs = json.loads(self._capsys.readouterr().out)["logs"]
        return code, {finding["code"] for log in logs for finding in log["findings"]}


@pytest.fixture
def verdict(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Verdict:
    return Verdict(tmp_path, capsys)


def first_key(history: History) -> Signer:
    return History(history.log, history.seed).signers[0]


def test_log_without_gaps_is_good(verdict: Verdict) -> None:
    assert verdict(busy(), "--require-anchor") == (GOOD, set())


def test_empty_log_is_good(verdict: Verdict) -> None:
    history = History()
    history.entries.clear()
    history.frontier = Frontier()
    history.sign(is_held=True)
    assert verdict(history, "--require-anchor") == (GOOD, set())


def test_log_that_swept_erased_held_and_rotated_is_good(verdict: Verdict) -> None:
    assert verdict(lived(), "--require-anchor") == (GOOD, set())


def test_log_of_which_whole_blocks_are_gone_is_good(verdict: Verdict) -> None:
    history = lived()
    for _ in range(12):
        history.tick(40 * DAY_MS)
        history.ask(1)
        history.sign(is_held=True)
        history.sweep()
    history.close_days()
    history.sign(is_held=True)
    assert len(history.collapsed) >= 2
    # The record that announced the second key is gone too: who trusts only the first can't follow.
    assert verdict(history)[1] == {"unsigned"}
    # Checkpoints inside the blocks that are gone can't be checked any more; nothing is wrong.
    assert verdict(history, "--key", str(history.signers[0].verifier)) == (GOOD, set())


@pytest.mark.timeout(400)
@settings(max_examples=1000)
@given(st.data())
def test_no_lawful_history_gives_an_alarm(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    history = History(seed=data.draw(st.integers(0, 2**32)))
    steps: list[Callable[[], object]] = [
        lambda: history.ask(data.draw(st.integers(0, 3))),
        lambda: history.login(data.draw(st.integers(0, 3))),
        history.refuse,
        lambda: history.sign(is_held=data.draw(st.booleans())),
        lambda: history.tick(data.draw(st.integers(0, 50 * DAY_MS))),
        history.sweep,
        lambda: history.erase(data.draw(st.integers(0, 3)), is_whole=data.draw(st.booleans())),
        history.close_days,
        history.hold,
        history.release,
        history.rotate,
        history.crash,
    ]
    for step in data.draw(st.lists(st.sampled_from(steps), max_size=40)):
        step()
    history.sign(is_held=True)
    folder, key = tmp_path_factory.mktemp("history"), first_key(history).verifier
    path, held = history.write(folder), history.write_held(folder)
    args = [str(path), "--key", str(key), "--checkpoints", str(held), "--require-anchor"]
    # The sweeper of a test that sweeps at will may be late: that is told, and is no alarm.
    code = main(args)
    assert code in (GOOD, OVERDUE)
    found = verify([ExportedLog(path)], Evidence([key.public], [*held_in(held)]))
    assert exit_code(found, needs_anchor=True) == code


def rebuilt(history: History) -> None:
    """The insider computes the tree anew."""
    history.frontier = Frontier()
    history.tiles.clear()
    for entry in history.entries:
        for level, index, tile in history.frontier.append(entry.record.leaf):
            if level == 8:
                history.tiles[index] = tile


def resign(history: History) -> None:
    """And signs every checkpoint in the database anew, with the true key."""
    rebuilt(history)
    leaves = [entry.record.leaf for entry in history.entries]
    signed = []
    for ts, note in history.checkpoints:
        size = min(int(note.text.split("\n")[1]), len(leaves))
        head = verify_head(history.log, size, leaves)
        signed.append((ts, head.signed_by(history.signers)))
    history.checkpoints = signed


def verify_head(log: str, size: int, leaves: list[bytes]) -> Checkpoint:
    return Checkpoint(log, size, frontier_of(leaves[:size]).root())


def altered(entry: Entry, **changes: object) -> Entry:
    body = encode({**decode(entry.record.body), **changes})  # type: ignore[dict-item]
    return Entry(entry.record._replace(body=body, leaf=leaf_hash(body)), entry.values)


def of_type(history: History, type_: str, nth: int = 3) -> int:
    return [e.record.seq for e in history.entries if e.record.type == type_][nth]


def renumber(history: History) -> None:
    for seq, entry in enumerate(history.entries):
        history.entries[seq] = Entry(entry.record._replace(seq=seq), entry.values, entry.is_pruned)


def a1_alter_a_body(history: History) -> None:
    at = of_type(history, "query.end")
    history.entries[at] = altered(history.entries[at], outcome="unknown")


def a2_alter_a_body_and_the_tree(history: History) -> None:
    a1_alter_a_body(history)
    rebuilt(history)


def a3_delete_a_body(history: History) -> None:
    history.entries[of_type(history, "query.start")].is_pruned = True


def a4_delete_and_renumber(history: History) -> None:
    del history.entries[of_type(history, "query.start")]
    renumber(history)
    rebuilt(history)


def a5_swap_two_bodies(history: History) -> None:
    one, other = of_type(history, "query.start", 2), of_type(history, "query.start", 5)
    first, second = history.entries[one], history.entries[other]
    history.entries[one] = Entry(first.record._replace(body=second.record.body), second.values)
    history.entries[other] = Entry(second.record._replace(body=first.record.body), first.values)


def a6_swap_two_records(history: History) -> None:
    one, other = of_type(history, "query.start", 2), of_type(history, "query.start", 5)
    entries = history.entries
    entries[one], entries[other] = entries[other], entries[one]
    rebuilt(history)


def a7_cut_the_tail(history: History) -> None:
    del history.entries[-5:]
    rebuilt(history)


def a9_replay_at_the_tail(history: History) -> None:
    history.add(history.entries[of_type(history, "query.start")].record)


def a10_insert_a_forged_record(history: History) -> None:
    at = of_type(history, "query.start")
    history.entries.insert(at, altered(history.entries[at], nonce="A" * 22))
    renumber(history)
    rebuilt(history)


def a11_erase_silently(history: History) -> None:
    history.entries[of_type(history, "auth.login")].values.clear()


def a12_alter_a_personal_value(history: History) -> None:
    values = history.entries[of_type(history, "auth.login")].values
    values["email"] = Personal("email", b"john@example.org", values["email"].salt)


def a13_swap_the_emails_of_two_records(history: History) -> None:
    one, other = of_type(history, "auth.login", 1), of_type(history, "auth.login", 2)
    first, second = history.entries[one].values, history.entries[other].values
    first["email"], second["email"] = second["email"], first["email"]


def a14_prune_without_a_record(history: History) -> None:
    for entry in history.entries[10:20]:
        entry.is_pruned = True


def a18_prune_with_a_forged_record(history: History) -> None:
    ranges = {"ranges": [[10, 20]], "count": 10, "cutoff_ms": history.now}
    told = {"sweep": history.uuid(), "swept": "query", **ranges}
    history.append("audit.sweep", told)  # type: ignore[arg-type]
    for entry in history.entries[10:20]:
        entry.is_pruned = True
    history.sign()


def a18_prune_with_a_cutoff_that_hides_it(history: History) -> None:
    cutoff = history.now - 90 * DAY_MS
    ranges = {"ranges": [[10, 20]], "count": 10, "cutoff_ms": cutoff}
    told = {"sweep": history.uuid(), "swept": "query", **ranges}
    history.append("audit.sweep", told)  # type: ignore[arg-type]
    for entry in history.entries[10:20]:
        entry.is_pruned = True
    history.sign()


def a22_replay_another_logs_record(history: History) -> None:
    other = busy(1, 50, log="gw.example.org/eu-1/other")
    history.add(other.entries[len(history.entries)].record)


def erase_with_a_list_that_is_too_long(history: History) -> None:
    """More is erased than the erasure's record says."""
    history.erase(1)
    entry = history.entries[of_type(history, "auth.login", 0)]
    for name in ("email", "subject"):
        if name in entry.values:
            history.tombstones.append(Tombstone(entry.record.seq, name, history.now // DAY_MS))
    entry.values.clear()
    history.sign()


def restore_what_was_erased(history: History) -> None:
    at = of_type(history, "auth.login")
    kept = dict(history.entries[at].values)
    history.erase(history.entries[at].values["subject"].value[0])
    history.entries[at].values.update(kept)
    history.sign()


def go_back_in_time(history: History) -> None:
    history.now -= 10 * DAY_MS
    history.ask()
    history.sign()


@pytest.mark.parametrize(
    ("attack", "codes"),
    [
        (a1_alter_a_body, {"root_mismatch"}),
        (a2_alter_a_body_and_the_tree, {"root_mismatch"}),
        (a3_delete_a_body, {"missing_body"}),
        (a4_delete_and_renumber, {"wrong_place", "root_mismatch"}),
        (a5_swap_two_bodies, {"wrong_place", "root_mismatch"}),
        (a6_swap_two_records, {"wrong_place", "root_mismatch"}),
        (a7_cut_the_tail, {"cut_off"}),
        (a9_replay_at_the_tail, {"wrong_place", "time_order"}),
        (a10_insert_a_forged_record, {"wrong_place", "root_mismatch"}),
        (a11_erase_silently, {"missing_field"}),
        (a12_alter_a_personal_value, {"bad_commitment"}),
        (a13_swap_the_emails_of_two_records, {"bad_commitment"}),
        (a14_prune_without_a_record, {"missing_body"}),
        (a18_prune_with_a_forged_record, {"early_sweep"}),
        (a18_prune_with_a_cutoff_that_hides_it, {"early_sweep"}),
        (a22_replay_another_logs_record, {"wrong_place"}),
        (erase_with_a_list_that_is_too_long, {"bad_tombstones"}),
        (restore_what_was_erased, {"erased_present"}),
        (go_back_in_time, {"time_order"}),
    ],
    ids=lambda value: value.__name__ if callable(value) else "",
)
def test_attack_is_told_without_any_checkpoint_outside(
    attack: Callable[[History], None], codes: set[str], verdict: Verdict
) -> None:
    history = busy()
    attack(history)
    code, found = verdict(history, is_held=False)
    assert code == BROKEN
    assert codes <= found


def a8_cut_the_tail_and_its_checkpoints(history: History) -> None:
    del history.entries[-5:]
    rebuilt(history)
    history.checkpoints = [
        (ts, note)
        for ts, note in history.checkpoints
        if int(note.text.split("\n")[1]) <= len(history.entries)
    ]


def a16_rewrite_all_with_the_key(history: History) -> None:
    a1_alter_a_body(history)
    resign(history)


def a17_drop_the_checkpoints_and_alter(history: History) -> None:
    a1_alter_a_body(history)
    rebuilt(history)
    history.checkpoints.clear()


@pytest.mark.parametrize(
    ("attack", "told"),
    [
        (a8_cut_the_tail_and_its_checkpoints, "cut_off"),
        (a16_rewrite_all_with_the_key, "root_mismatch"),
        (a17_drop_the_checkpoints_and_alter, "root_mismatch"),
    ],
    ids=lambda value: value.__name__ if callable(value) else "",
)
def test_attack_of_who_holds_everything_is_told_by_a_checkpoint_outside(
    attack: Callable[[History], None], told: str, verdict: Verdict
) -> None:
    history = busy()
    attack(history)
    code, found = verdict(history)
    assert (code, told in found) == (BROKEN, True)
    # The limit, stated openly: without one it isn't told, only that none was given.
    assert verdict(history, is_held=False) == (GOOD, {"not_anchored"})
    assert verdict(history, "--require-anchor", is_held=False)[0] == UNANCHORED


def test_a15_rewrite_with_another_key_is_told_by_the_key(verdict: Verdict) -> None:
    history = busy()
    truly = history.signers[0]
    a1_alter_a_body(history)
    history.signers = [Signer(LOG, b"x" * 32)]
    resign(history)
    code, found = verdict(history, is_held=False, key=truly)
    assert (code, "unsigned" in found) == (BROKEN, True)


def test_a15_signature_that_is_no_signature_is_told(verdict: Verdict) -> None:
    history = busy()
    ts, note = history.checkpoints[-1]
    forged = replace(note.signatures[0], value=bytes(64))
    history.checkpoints[-1] = (ts, replace(note, signatures=(forged,)))
    assert "bad_signature" in verdict(history, is_held=False)[1]


def test_a18_sweep_without_a_checkpoint_of_that_age_is_unproven(verdict: Verdict) -> None:
    history = lived()
    assert verdict(history, "--require-anchor")[0] == GOOD
    history.held = history.held[-1:]
    assert verdict(history, "--require-anchor") == (UNANCHORED, {"age_unproven"})
    assert verdict(history)[0] == GOOD


def test_a19_rollback_to_a_snapshot_is_told(verdict: Verdict) -> None:
    history, later = busy(questions=20), busy(questions=40)
    history.held = later.held
    assert "cut_off" in verdict(history)[1]


def test_a20_log_that_was_dropped_is_told_by_the_catalogue(
    verdict: Verdict, tmp_path: Path
) -> None:
    one, other = busy(), busy(1, log="gw.example.org/eu-1/other")
    catalogue = History("gw.example.org/eu-1")
    for log in (one, other):
        root = to_text(log.frontier.root())
        catalogue.append("log.opened", {"origin": log.log})
        head = {"origin": log.log, "size": log.frontier.size, "root": root}
        catalogue.append("log.head", head)  # type: ignore[arg-type]
    catalogue.sign()
    files = [str(log.write(tmp_path, f"{at}")) for at, log in enumerate([one, other, catalogue])]
    assert verdict.run(*files) == (GOOD, {"not_anchored"})
    assert "log_missing" in verdict.run(files[0], files[2])[1]
    other.entries[5] = altered(other.entries[5], auth="none")
    other.checkpoints.clear()
    other.write(tmp_path, "1")
    assert "root_mismatch" in verdict.run(*files)[1]
    del other.entries[-3:]
    rebuilt(other)
    other.write(tmp_path, "1")
    assert "cut_off" in verdict.run(*files)[1]


def test_a21_two_histories_are_told_by_comparing_their_checkpoints(verdict: Verdict) -> None:
    history, other = busy(), busy()
    other.append("audit.close", {})
    history.ask()
    history.sign()
    del history.entries[-1]
    rebuilt(history)
    history.checkpoints.pop()
    history.sign()
    other.sign()
    history.held += other.checkpoints[-1:]
    assert "split_view" in verdict(history)[1]


def test_lines_of_a_log_shipper_tell_what_happened_since_the_last_checkpoint(
    verdict: Verdict, tmp_path: Path
) -> None:
    history = busy()
    history.ask()
    history.checkpoints.clear()
    shipped = tmp_path / "shipped.jsonl"
    lines = [
        {"log": LOG, "seq": entry.record.seq, "leaf": to_text(entry.record.leaf)}
        for entry in history.entries
    ]
    shipped.write_text("".join(json.dumps(line) + "\n" for line in lines))
    against = ("--against", str(shipped))
    assert verdict(history, *against, is_held=False) == (GOOD, {"not_anchored"})
    at = len(history.entries) - 1
    history.entries[at] = altered(history.entries[at], outcome="timeout")
    assert "line_mismatch" in verdict(history, *against, is_held=False)[1]
    del history.entries[-1]
    rebuilt(history)
    assert "line_beyond" in verdict(history, *against, is_held=False)[1]


def test_key_that_nobody_trusted_announced_is_not_trusted(verdict: Verdict) -> None:
    history = busy()
    rotated = lived()
    assert verdict(rotated, is_held=False)[0] == GOOD
    thief = Signer(LOG, b"t" * 32)
    public = to_text(thief.verifier.public)
    history.append("audit.key.rotated", {"kind": "sign", "key": "01234567", "public": public})
    history.signers = [thief]
    history.sign()
    assert "unsigned" in verdict(history, is_held=False)[1]


def test_key_is_not_trusted_by_a_root_that_can_not_be_checked(verdict: Verdict) -> None:
    """A true checkpoint inside a pruned block vouches for nothing around it."""
    history = History()
    thief = Signer(LOG, b"t" * 32)
    public = to_text(thief.verifier.public)
    while len(history.entries) < 300:
        history.ask()
    history.sign()
    true_note = history.checkpoints.pop()
    while len(history.entries) < 520:
        history.ask()
    rotated = {"kind": "sign", "key": "01234567", "public": public}
    draft = Drafter(history.policy, Vocabulary()).draft("audit.key.rotated", rotated)  # type: ignore[arg-type]
    history.entries[9] = Entry(seal(draft, LOG, 9, history.entries[8].record.ts), {})
    history.tick(100 * DAY_MS)
    cutoff = history.now - 90 * DAY_MS
    told = {"sweep": history.uuid(), "swept": "query", "cutoff_ms": cutoff}
    told |= {"ranges": [[256, 512]], "count": 256}
    history.append("audit.sweep", told)  # type: ignore[arg-type]
    rebuilt(history)
    for entry in history.entries[256:512]:
        entry.is_pruned = True
    history.collapsed = {1}
    history.signers = [thief]
    history.checkpoints = [true_note]
    history.sign()
    code, found = verdict(history, key=first_key(history), is_held=False)
    assert (code, "unsigned" in found) == (BROKEN, True)


def test_retention_that_was_lengthened_makes_nothing_overdue(verdict: Verdict) -> None:
    history = busy()
    history.tick(92 * DAY_MS)
    history.policy = Policy.preset("pci")
    history.append("audit.policy", {"rules": history.policy.rules()})
    history.sign(is_held=True)
    assert verdict(history) == (GOOD, set())


def test_long_list_of_findings_is_cut_for_people(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    history = busy()
    for entry in history.entries[10:60]:
        entry.is_pruned = True
    assert main([str(history.write(tmp_path))]) == BROKEN
    told = capsys.readouterr().out
    assert told.count("missing_body") == 21
    assert "30 more" in told


def test_record_that_is_kept_for_too_long_has_a_code_of_its_own(
    verdict: Verdict, tmp_path: Path
) -> None:
    history = busy()
    history.tick(92 * DAY_MS)
    history.sign(is_held=True)
    assert verdict(history) == (OVERDUE, {"overdue"})
    history.hold()
    history.sign(is_held=True)
    assert verdict(history) == (GOOD, set())
    history.release()
    assert verdict(history)[0] == OVERDUE
    args = [str(history.write(tmp_path)), "--now", str(START_MS)]
    assert verdict.second(*args)[0] == GOOD


def changed(history: History, change: Callable[[dict[str, object]], None], seq: int = 7) -> bytes:
    lines = []
    for line in b"".join(history.lines()).splitlines():
        value = json.loads(line)
        if value.get("kind") == "record" and value["seq"] == seq:
            change(value)
        lines.append(json.dumps(value).encode())
    return b"\n".join(lines) + b"\n"


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda line: line.update(body=line["body"].replace(":", ": ", 1)), "not_canonical"),
        (lambda line: line.update(body=line["body"][:-1] + ',"v":1}'), "not_canonical"),
        (lambda line: line.update(body='{"a":1.5}'), "not_canonical"),
        (lambda line: line.update(body='{"a":null}'), "not_canonical"),
        (lambda line: line.update(body="[]"), "not_canonical"),
        (lambda line: line.update(body="{}"), "malformed"),
        (lambda line: line.update(body=7), "malformed"),
        (lambda line: line.update(personal=7), "malformed"),
        (lambda line: line.update(personal={"x": {"salt": "", "value": ""}}), "bad_commitment"),
        (lambda line: line.update(seq="7"), "out_of_order"),
        (lambda line: line.update(seq=6), "out_of_order"),
        (lambda line: line.update(seq=8), "gap"),
        (lambda line: line.update(kind="other"), "gap"),
        (lambda line: line.pop("body"), "malformed"),
        (lambda line: (line.pop("body"), line.update(leaf="AA")), "malformed"),
    ],
)
def test_line_that_is_spoilt_is_told(
    change: Callable[[dict[str, object]], None], told: str, verdict: Verdict, tmp_path: Path
) -> None:
    file = tmp_path / "log.jsonl"
    file.write_bytes(changed(busy(), change))
    for verifier in (verdict.own, verdict.second):
        code, found = verifier(str(file))
        assert code == BROKEN
        assert told in found


@given(st.integers(0, 10**6), st.binary(min_size=1, max_size=3))
@settings(max_examples=60)
def test_no_change_of_a_byte_passes_for_good(
    tmp_path_factory: pytest.TempPathFactory, at: int, junk: bytes
) -> None:
    lines = list(HISTORY.lines())
    start = len(lines[0])
    raw = b"".join(lines)
    at = start + at % (len(raw) - start)
    spoilt = raw[:at] + junk + raw[at + len(junk) :]
    # Nothing rests on the time beside a checkpoint nor on white space between members.
    for code in verdicts(spoilt, tmp_path_factory.mktemp("spoilt")):
        assert code != GOOD or without_weight(spoilt) == without_weight(raw)


@pytest.mark.parametrize(
    ("was", "becomes"),
    [
        (b"ip_retention_s", b"jp_retention_s"),
        (rb"ip_retention_s\":2592000", rb'ip_retention_s\":"259200'),
        (rb"\"retention_s", rb"\"netention_s"),
        (rb"\"retention_s\":{", rb"\"retention_s\":[{"),
    ],
)
def test_rules_that_were_altered_are_found(tmp_path: Path, was: bytes, becomes: bytes) -> None:
    raw = b"".join(HISTORY.lines())
    assert was in raw
    assert GOOD not in verdicts(raw.replace(was, becomes), tmp_path)


def verdicts(raw: bytes, folder: Path) -> list[int]:
    """What both verifiers say of an export."""
    (folder / "log.jsonl").write_bytes(raw)
    args = [str(folder / "log.jsonl"), "--key", str(first_key(HISTORY).verifier)]
    return [main(args), cli.main(["audit", "verify", *args])]


HISTORY = busy(questions=8)


def without_weight(raw: bytes) -> list[object]:
    found = []
    for line in raw.split(b"\n"):
        value = json.loads(line) if line else {}
        value.pop("ts", None)  # of a checkpoint's line: the time of its holder counts
        found.append(value)
    return found


def test_header_of_something_else_is_a_usage_error(tmp_path: Path) -> None:
    file = tmp_path / "log.jsonl"
    for text in ("", "{}", "[]", "x", '{"format": "other"}'):
        file.write_text(text)
        assert main([str(file)]) == USAGE
    assert main([str(tmp_path / "missing")]) == USAGE
    assert main([]) == USAGE
    assert main(["--key", "x", str(HISTORY.write(tmp_path))]) == USAGE


def test_part_of_a_log_is_proven_record_by_record(verdict: Verdict, tmp_path: Path) -> None:
    history = busy()
    leaves = [entry.record.leaf for entry in history.entries]
    node = tiled(lambda _, start, end: leaves[start:end])
    note = history.checkpoints[-1][1]
    keys = [history.signers[0].verifier]
    lines = [export.header(LOG, len(leaves), history.now, keys, note)]
    for seq in (2, 9, 30):
        entry = history.entries[seq]
        proof = inclusion_proof(seq, len(leaves), node)
        values = list(entry.values.values())[:1]
        lines.append(export.record(seq, entry.record.body, values, proof=proof))
    file = tmp_path / "part.jsonl"
    file.write_bytes(b"".join(lines))
    assert verdict.second(str(file), "--key", str(keys[0])) == (GOOD, {"not_anchored"})
    file.write_bytes(b"".join(lines).replace(b"query.start", b"query.stort"))
    assert "bad_proof" in verdict.second(str(file), "--key", str(keys[0]))[1]


def test_bundle_is_proven_alone(tmp_path: Path) -> None:
    history = busy()
    leaves = [entry.record.leaf for entry in history.entries]
    node = tiled(lambda _, start, end: leaves[start:end])
    entry, size = history.entries[9], len(leaves)
    values = list(entry.values.values())
    proof = inclusion_proof(9, size, node)
    note = str(history.checkpoints[-1][1])
    bundle = Bundle(LOG, 9, entry.record.body, values, proof, note)
    file = tmp_path / "proof.json"
    key = str(history.signers[0].verifier)
    file.write_text(json.dumps(bundle.to_object(), indent=2))
    assert main(["--proof", str(file), "--key", key]) == GOOD
    assert main(["--proof", str(file)]) == BROKEN
    for forged in (
        replace(bundle, seq=10),
        replace(bundle, proof=proof[:-1]),
        replace(bundle, body=history.entries[10].record.body),
        replace(bundle, personal=[Personal("email", b"x", bytes(32))]),
        replace(bundle, log="other"),
    ):
        file.write_text(json.dumps(forged.to_object()))
        assert main(["--proof", str(file), "--key", key]) == BROKEN


def test_script_runs_on_the_standard_library_alone(tmp_path: Path) -> None:
    history = busy()
    command = [sys.executable, "-I", "-S", str(SCRIPT), str(history.write(tmp_path))]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == GOOD, done.stderr
    assert "--key" in done.stdout
    assert "gateway" not in {line.split()[1] for line in imports(SCRIPT)}


def imports(path: Path) -> list[str]:
    return [line for line in path.read_text().splitlines() if line.startswith(("import", "from"))]


def test_checkpoint_files_have_the_time_of_the_file(verdict: Verdict, tmp_path: Path) -> None:
    history = lived()
    folder = tmp_path / "held"
    folder.mkdir()
    for number, (ts, note) in enumerate(history.held):
        file = folder / f"{number}.txt"
        file.write_text(str(note))
        os.utime(file, (ts / 1000, ts / 1000))
    more = ("--checkpoints", str(folder), "--require-anchor")
    assert verdict(history, *more, is_held=False) == (GOOD, set())


#: RFC 8032 §7.1, tests 1 to 3.
RFC_8032 = [
    (
        "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a",
        "",
        "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e06522490155"
        "5fb8821590a33bacc61e39701cf9b46bd25bf5f0595bbe24655141438e7a100b",
    ),
    (
        "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c",
        "72",
        "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da"
        "085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00",
    ),
    (
        "fc51cd8e6218a1a38da47ed00230f0580816ed13ba3303ac5deb911548908025",
        "af82",
        "6291d657deec24024827e69c3abe01a30ce548a284743a445e3680d7db5ac3ac"
        "18ff9b538d16f290ae67f760984dc6594a7c15e9716ed28dc027beceea1ec40a",
    ),
]


@pytest.mark.parametrize(("public", "message", "signature"), RFC_8032)
def test_signature_check_is_that_of_rfc_8032(public: str, message: str, signature: str) -> None:
    key, text, value = map(bytes.fromhex, (public, message, signature))
    assert verify_audit.ed25519(key, text, value)
    assert not verify_audit.ed25519(key, text + b"x", value)
    for at in (0, 31, 32, 63):
        forged = bytearray(value)
        forged[at] ^= 1
        assert not verify_audit.ed25519(key, text, bytes(forged))


@given(st.binary(min_size=32, max_size=32), st.binary())
@settings(max_examples=25)
def test_signature_check_agrees_with_another_library(seed: bytes, message: bytes) -> None:
    key = Ed25519PrivateKey.from_private_bytes(seed)
    public, signature = key.public_key().public_bytes_raw(), key.sign(message)
    assert verify_audit.ed25519(public, message, signature)
    order = verify_audit.L
    malleable = int.from_bytes(signature[32:], "little") + order
    assert not verify_audit.ed25519(
        public, message, signature[:32] + malleable.to_bytes(32, "little")
    )
    assert not verify_audit.ed25519(public, message, signature[:-1])


def test_sweep_of_a_log_may_be_recorded_in_the_catalogue(verdict: Verdict, tmp_path: Path) -> None:
    history, catalogue = busy(), History("gw.example.org/eu-1")
    told: dict[str, Json] = {"swept": "query", "cutoff_ms": history.now, "ranges": [[10, 20]]}
    told |= {"sweep": catalogue.uuid(), "count": 10, "origin": LOG}
    history.entries[10:20] = [
        Entry(entry.record, {}, is_pruned=True) for entry in history.entries[10:20]
    ]
    catalogue.now = history.now + 90 * DAY_MS
    catalogue.append("audit.sweep", told)
    catalogue.sign()
    files = [str(log.write(tmp_path, str(at))) for at, log in enumerate([history, catalogue])]
    for order in (files, files[::-1]):
        assert verdict.run(*order) == (GOOD, {"age_unproven", "not_anchored"})
    assert "missing_body" in verdict.run(files[0])[1]
