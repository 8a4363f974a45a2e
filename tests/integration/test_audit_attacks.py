"""The threat model's attacks on a real database, as docs/audit-format.md numbers them.

Each is made by SQL, then both verifiers look: with the checkpoints that somebody else has kept, and
without. They must say the same; what a database alone can't show, a checkpoint outside does.
"""

from __future__ import annotations

import asyncio
import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import asyncpg
import pytest
import sqlalchemy as sa

from gateway.audit import tables
from gateway.audit.erasure import Eraser
from gateway.audit.journal import Journal
from gateway.audit.keys import Keys
from gateway.audit.note import Signer
from gateway.audit.person import Person
from gateway.audit.recorder import Asked, Who
from gateway.audit.retention import Sweeper
from gateway.audit.subject import of_person
from gateway.audit.verify.audit import Evidence
from gateway.audit.verify.evidence import held_in
from gateway.audit.verify.findings import BROKEN, GOOD, exit_code
from gateway.audit.verify.stored import verify_stored
from scripts import verify_audit
from tests.auditing import Audited, exported, running_log, stored
from tests.clock import movable
from tests.insider import Insider
from tests.servers import new_database
from tests.unit.audit.test_retention import SHORT, outlive

ADA = Who("sub:ada@example.org", "jwt", "192.0.2.7", email="ada@example.org")
BOB = Who("sub:bob@example.org", "jwt", "192.0.2.8", email="bob@example.org")
HELD = "checkpoints.jsonl"
STRANGER = bytes(32)


@dataclass(frozen=True, slots=True)
class Scene:
    """A deployment's folder, and its database if that isn't a file in it."""

    folder: Path
    url: str | None

    def signing(self, origin: str) -> Signer:
        return Keys(self.folder / "audit-keys").signers(origin)[0]


@dataclass(frozen=True, slots=True)
class Lived:
    """A deployment after its life, and as it was in the middle of that."""

    now: Scene
    before: Scene


@pytest.fixture(scope="module", params=["sqlite", "postgres"])
def lived(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Lived:
    folder = tmp_path_factory.mktemp(request.param)
    server = request.getfixturevalue("postgres_url") if request.param == "postgres" else None
    with movable():
        return asyncio.run(live(folder, server))


async def live(folder: Path, server: str | None) -> Lived:
    """Two gateways, one after the other; a sweep and an erasure."""
    now = Scene(folder / "now", await new_database(server) if server else None)
    now.folder.mkdir()
    async with running_log(now.folder, now.url, policy=SHORT) as audited:
        await ask(audited, ADA, 2)
    before = await copied(now, folder / "before")
    outlive()
    async with running_log(now.folder, now.url, policy=SHORT) as audited:
        await Sweeper(audited.log).sweep()
        for who in (ADA, BOB) * 3:
            await ask(audited, who, 2)
            await audited.log.signing.sign()
        for who in (ADA, BOB, BOB):
            await audited.log.record(
                "auth.login", {"auth": "jwt", "route": "chat"}, {"email": str(who.email)}
            )
        keys = Keys(now.folder / "audit-keys").all("subject")
        found = await audited.store.run(
            lambda c: of_person(c, Person.parse("ada@example.org"), keys)
        )
        eraser = Eraser(audited.log, Journal(now.folder / "erasures.jsonl"), Nothing())
        await eraser.erase(await eraser.plan(found, []), {})
        await ask(audited, BOB, 6)
    return Lived(now, before)


class Nothing:
    """No stored answers."""

    async def erase(self, streams: object) -> int:
        return 0


async def ask(audited: Audited, who: Who, times: int) -> None:
    for _ in range(times):
        audited.recorder.begin(Asked(who, "chat", "how?", "c")).end("completed", {})
    assert audited.log._writer is not None
    assert await audited.log._writer.flush(10)


async def copied(scene: Scene, folder: Path) -> Scene:
    shutil.copytree(scene.folder, folder)
    if scene.url is None:
        return Scene(folder, None)
    server, _, name = scene.url.rpartition("/")
    connection = await asyncpg.connect(f"{server}/postgres")
    await connection.execute(f"CREATE DATABASE {folder.name}_{name} TEMPLATE {name}")
    await connection.close()
    return Scene(folder, f"{server}/{folder.name}_{name}")


@dataclass(frozen=True, slots=True)
class Verdict:
    code: int
    codes: frozenset[str]


class Judges:
    """Both verifiers."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys

    async def __call__(self, scene: Scene, held: Path | None) -> Verdict:
        """What they say; it must be the same."""
        async with stored(scene.folder, scene.url) as store:
            evidence = Evidence(
                [scene.signing("x").verifier.public], [*held_in(held)] if held else ()
            )
            found = await verify_stored(store, evidence)
            own = Verdict(
                exit_code(found, needs_anchor=False),
                frozenset(code for one in found for code in one.codes),
            )
            paths = await exported(store, scene.folder)
        assert self._second(scene, paths, held) == own
        return own

    def _second(self, scene: Scene, paths: list[Path], held: Path | None) -> Verdict:
        arguments = [*map(str, paths), "--key", str(scene.signing("x").verifier), "--json"]
        if held is not None:
            arguments += ["--checkpoints", str(held)]
        self._capsys.readouterr()
        code = verify_audit.main(arguments)
        lines = [json.loads(line) for line in self._capsys.readouterr().out.splitlines()]
        return Verdict(code, frozenset(code for one in lines for code, _ in one["findings"]))


@pytest.fixture
def judges(capsys: pytest.CaptureFixture[str]) -> Judges:
    return Judges(capsys)


Attack = Callable[[Insider, Scene], None]


def an_end(insider: Insider) -> int:
    return insider.seqs("query.end")[3]


def a_start(insider: Insider, nth: int = 3) -> int:
    return insider.seqs("query.start")[nth]


def a_login(insider: Insider, nth: int = -1) -> int:
    return insider.seqs("auth.login")[nth]


def a1_alter_a_body(insider: Insider, scene: Scene) -> None:
    insider.alter(an_end(insider), outcome="unknown")


def a2_alter_a_body_and_the_tree(insider: Insider, scene: Scene) -> None:
    a1_alter_a_body(insider, scene)
    insider.rebuild()


def a3_delete_a_body(insider: Insider, scene: Scene) -> None:
    insider.prune(an_end(insider), an_end(insider))


def a3_delete_a_record_and_its_leaf(insider: Insider, scene: Scene) -> None:
    insider.delete(tables.records, an_end(insider))


def a4_delete_and_renumber(insider: Insider, scene: Scene) -> None:
    seq = an_end(insider)
    insider.delete(tables.records, seq)
    insider.shift(seq + 1, -1)
    insider.rebuild()


def a5_swap_two_bodies(insider: Insider, scene: Scene) -> None:
    insider.swap(tables.records, a_start(insider, 2), a_start(insider, 5))


def a6_swap_two_records(insider: Insider, scene: Scene) -> None:
    one, other = a_start(insider, 2), a_start(insider, 5)
    for table in (tables.records, tables.personal, tables.tombstones):
        insider.swap(table, one, other)
    insider.rebuild()


def a7_cut_the_tail(insider: Insider, scene: Scene) -> None:
    insider.cut(insider.size - 5)
    insider.rebuild()


def a8_cut_the_tail_and_its_checkpoints(insider: Insider, scene: Scene) -> None:
    size = insider.size - 5
    insider.cut(size)
    insider.rebuild()
    insider.cut_checkpoints(size)
    catalogue = insider.of("catalogue")
    late = [
        seq
        for type_ in ("log.head", "log.closed")
        for seq in catalogue.seqs(type_)
        if catalogue.body(seq)["origin"] == insider.origin
        and int(str(catalogue.body(seq)["size"])) > size
    ]
    catalogue.cut(min(late))
    catalogue.rebuild()
    catalogue.cut_checkpoints(min(late))


def a9_replay_at_the_tail(insider: Insider, scene: Scene) -> None:
    insider.put(insider.size, insider.body(an_end(insider)))
    insider.rebuild()


def a10_insert_a_forged_record(insider: Insider, scene: Scene) -> None:
    seq = an_end(insider)
    body = insider.body(seq)
    insider.shift(seq, 1)
    insider.put(seq, {**body, "nonce": "A" * 22})
    insider.rebuild()


def a11_erase_silently(insider: Insider, scene: Scene) -> None:
    insider.delete(tables.personal, a_login(insider))


def a12_alter_a_personal_value(insider: Insider, scene: Scene) -> None:
    insider.personal(a_login(insider), "email", value=b"eve@example.org")


def a13_swap_the_emails_of_two_records(insider: Insider, scene: Scene) -> None:
    insider.swap(tables.personal, a_login(insider, -2), a_login(insider))


def a14_prune_without_a_record(insider: Insider, scene: Scene) -> None:
    insider.prune(a_start(insider, 2), a_start(insider, 4))


def a15_rewrite_with_another_key(insider: Insider, scene: Scene) -> None:
    insider.alter(an_end(insider), outcome="unknown")
    insider.rewrite_all(lambda origin: Signer(origin, STRANGER))


def a16_rewrite_with_the_key(insider: Insider, scene: Scene) -> None:
    insider.alter(an_end(insider), outcome="unknown")
    insider.rewrite_all(scene.signing)


def a17_drop_all_checkpoints_and_alter(insider: Insider, scene: Scene) -> None:
    insider.alter(an_end(insider), outcome="unknown")
    insider.rewrite_all(None)
    first = insider.of("gateway")
    first.resign(None)


def forge_a_sweep(insider: Insider, scene: Scene, cutoff_ms: int) -> None:
    """And has the gateway sign it."""
    first, last = a_start(insider, 2), a_start(insider, 4)
    body = insider.body(insider.seqs("audit.policy")[-1])
    ranges = [[first, last + 1]]
    insider.put(
        insider.size,
        {
            **{name: body[name] for name in ("v", "cls", "log", "policy", "nonce", "commit")},
            "type": "audit.sweep",
            "seq": insider.size,
            "swept": "query",
            "ts": insider.body(insider.size - 1)["ts"],
            "cutoff_ms": cutoff_ms,
            "ranges": ranges,
            "count": last + 1 - first,  # type: ignore[dict-item]
            "sweep": "0199c2f0-0000-7000-8000-000000000000",
        },
    )
    insider.prune(first, last)
    insider.rebuild()


def a18_prune_with_a_forged_record(insider: Insider, scene: Scene) -> None:
    forge_a_sweep(insider, scene, int(str(insider.body(insider.size - 1)["ts"])))


def a18_prune_with_a_cutoff_that_hides_it(insider: Insider, scene: Scene) -> None:
    forge_a_sweep(insider, scene, int(str(insider.body(0)["ts"])) - 1)


def a20_drop_a_log(insider: Insider, scene: Scene) -> None:
    insider.cut(0)
    for table in (tables.tiles, tables.checkpoints):
        insider.connection.execute(sa.delete(table).where(table.c.log == insider.id))
    logs = tables.logs
    insider.connection.execute(sa.delete(logs).where(logs.c.id == insider.id))


def a22_replay_another_logs_record(insider: Insider, scene: Scene) -> None:
    other = insider.of("gateway")
    assert other.id != insider.id
    other.put(other.size, insider.body(an_end(insider)))
    other.rebuild()


def more_is_erased_than_was_told(insider: Insider, scene: Scene) -> None:
    seq, day = a_login(insider), insider.stones()[0].day
    insider.delete(tables.personal, seq)
    insider.insert(tables.tombstones, seq, field="email", day=day)


def what_was_erased_is_there_again(insider: Insider, scene: Scene) -> None:
    stone = insider.stones()[0]
    values = {"field": stone.field, "salt": bytes(32), "value": b"ada", "subject": bytes(32)}
    insider.insert(tables.personal, stone.seq, **values)


@pytest.mark.parametrize(
    ("attack", "codes"),
    [
        (a1_alter_a_body, {"root_mismatch"}),
        (a2_alter_a_body_and_the_tree, {"root_mismatch"}),
        (a3_delete_a_body, {"missing_body"}),
        (a3_delete_a_record_and_its_leaf, {"gap"}),
        (a4_delete_and_renumber, {"wrong_place", "root_mismatch"}),
        (a5_swap_two_bodies, {"wrong_place", "root_mismatch"}),
        (a6_swap_two_records, {"wrong_place", "root_mismatch"}),
        (a7_cut_the_tail, {"cut_off"}),
        (a9_replay_at_the_tail, {"wrong_place"}),
        (a10_insert_a_forged_record, {"wrong_place", "root_mismatch"}),
        (a11_erase_silently, {"missing_field"}),
        (a12_alter_a_personal_value, {"bad_commitment"}),
        (a13_swap_the_emails_of_two_records, {"bad_commitment"}),
        (a14_prune_without_a_record, {"missing_body"}),
        (a15_rewrite_with_another_key, {"unsigned"}),
        (a18_prune_with_a_forged_record, {"early_sweep"}),
        (a18_prune_with_a_cutoff_that_hides_it, {"early_sweep"}),
        (a20_drop_a_log, {"log_missing"}),
        (a22_replay_another_logs_record, {"wrong_place"}),
        (more_is_erased_than_was_told, {"bad_tombstones"}),
        (what_was_erased_is_there_again, {"erased_present", "bad_commitment"}),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
async def test_attack_is_told_by_both_verifiers(
    attack: Attack, codes: set[str], lived: Lived, tmp_path: Path, judges: Judges
) -> None:
    scene = await attacked(lived.now, tmp_path, attack)
    for held in (None, lived.now.folder / HELD):
        verdict = await judges(scene, held)
        assert verdict.code == BROKEN
        assert codes <= verdict.codes


@pytest.mark.parametrize(
    ("attack", "codes"),
    [
        (a8_cut_the_tail_and_its_checkpoints, {"cut_off"}),
        (a16_rewrite_with_the_key, {"root_mismatch"}),
        (a17_drop_all_checkpoints_and_alter, {"root_mismatch"}),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
async def test_attack_of_who_holds_everything_is_told_by_a_checkpoint_outside(
    attack: Attack, codes: set[str], lived: Lived, tmp_path: Path, judges: Judges
) -> None:
    scene = await attacked(lived.now, tmp_path, attack)
    alone = await judges(scene, None)
    assert alone.code == GOOD, alone.codes
    assert "not_anchored" in alone.codes
    outside = await judges(scene, lived.now.folder / HELD)
    assert outside.code == BROKEN
    assert codes <= outside.codes


async def test_a19_rollback_to_a_snapshot_is_told_by_a_checkpoint_outside(
    lived: Lived, judges: Judges
) -> None:
    assert (await judges(lived.before, None)).code == GOOD
    told = await judges(lived.before, lived.now.folder / HELD)
    assert "cut_off" in told.codes


async def test_a21_two_histories_are_told_once_auditors_compare_their_checkpoints(
    lived: Lived, tmp_path: Path, judges: Judges
) -> None:
    scene = await attacked(lived.now, tmp_path, a16_rewrite_with_the_key)
    told = await judges(scene, lived.now.folder / HELD)
    assert "split_view" in told.codes


async def test_life_without_an_attack_is_good(lived: Lived, judges: Judges) -> None:
    assert await judges(lived.now, lived.now.folder / HELD) == Verdict(GOOD, frozenset())


async def attacked(scene: Scene, tmp_path: Path, attack: Attack) -> Scene:
    """A copy of the deployment, after the attack."""
    copy = await copied(scene, tmp_path / f"x{abs(hash(tmp_path)):x}")
    async with stored(copy.folder, copy.url) as store:
        await store.run(lambda c: attack(Insider.at(c), copy), writes=True)
    return copy
