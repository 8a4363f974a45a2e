"""An audit log for tests: opened as the gateway opens it, and checked by the second verifier."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from gateway.audit.anchors import Anchors, Places
from gateway.audit.canonical import Object, decode
from gateway.audit.draft import Drafter
from gateway.audit.dump import dump
from gateway.audit.fields import Vocabulary
from gateway.audit.keys import Keys
from gateway.audit.log import AuditLog
from gateway.audit.manner import Manner
from gateway.audit.note import Verifier
from gateway.audit.people import Pseudonymiser
from gateway.audit.policy import Policy
from gateway.audit.recorder import Mode, Recorder
from gateway.audit.store import AuditStore, LogInfo, Stored, make_store
from gateway.tasks import TaskOwner

ROOT = Path(__file__).parents[1]


@dataclass
class Figures:
    """A meter that adds up."""

    classes: dict[str, int] = field(default_factory=dict)
    commits: int = 0
    lost: int = 0
    signed: int = 0
    refused: int = 0
    suppressed: int = 0

    def audit_committed(self, classes: Mapping[str, int], took_s: float) -> None:
        self.commits += 1
        for name, count in classes.items():
            self.classes[name] = self.classes.get(name, 0) + count

    def audit_lost(self, count: int) -> None:
        self.lost += count

    def audit_signed(self, now_s: float) -> None:
        self.signed += 1


@dataclass
class Audited:
    """A log, its recorder, and its figures."""

    recorder: Recorder
    figures: Figures
    store: AuditStore

    @property
    def log(self) -> AuditLog:
        return self.recorder.log


@asynccontextmanager
async def running_log(
    folder: Path,
    database_url: str | None = None,
    *,
    mode: Mode = "relay",
    is_closed: bool = True,
    policy: Policy | None = None,
    instance: str = "one",
    **manner: object,
) -> AsyncIterator[Audited]:
    """`is_closed` false leaves it as a crash would."""
    figures, store = Figures(), make_store(database_url, folder)
    drafter = Drafter(policy or Policy(), Vocabulary(frozenset({"m-large"})))
    told: dict[str, object] = {"checkpoint_s": 3600, **manner}
    log = AuditLog(
        store,
        drafter,
        Pseudonymiser(Keys(folder / "audit-keys")),
        Anchors(Places(prints_checkpoints=False, file=folder / "checkpoints.jsonl")),
        figures,
        Manner("gw.example.org", instance, folder, **told),  # type: ignore[arg-type]
    )
    tasks = TaskOwner()
    await log.open()
    tasks.spawn(log.run(), name="audit")

    def refused() -> None:
        figures.refused += 1

    def suppressed(count: int) -> None:
        figures.suppressed += count

    recorder = Recorder(log, mode, refused, suppressed)
    try:
        yield Audited(recorder, figures, store)
    finally:
        await tasks.cancel()
        if is_closed:
            await recorder.close()
        else:
            await log._tasks.cancel()
            await log._anchors.close()
            await store.close()


@asynccontextmanager
async def stored(folder: Path, database_url: str | None = None) -> AsyncIterator[AuditStore]:
    """The store, as somebody else reads it."""
    store = make_store(database_url, folder)
    try:
        yield store
    finally:
        await store.close()


async def bodies(store: AuditStore, *, catalogue: bool = False) -> list[Object]:
    """Every body of the gateways' logs, or of the catalogue, in order."""
    found: list[Stored] = []
    for log in await store.logs():
        if (log.kind == "catalogue") == catalogue:
            found += await store.records(log.id, 0, log.size)
    return [decode(one.body) for one in found if one.body is not None]


async def exported(store: AuditStore, folder: Path) -> list[Path]:
    """Every log in a file of its own."""
    keys = Keys(folder / "audit-keys")

    def verifiers_of(origin: str) -> list[Verifier]:
        return [signer.verifier for signer in keys.signers(origin)]

    write = partial(dump, folder=folder, verifiers_of=verifiers_of)
    return [one.path for one in await store.run(write)]


def verify(*exports: Path, held: Path | None = None, key: str | None = None) -> tuple[int, str]:
    """What scripts/verify_audit.py says: exit code and output. Without a key it trusts those that
    the exports name."""
    command = [sys.executable, str(ROOT / "scripts/verify_audit.py"), *map(str, exports)]
    if held is not None:
        command += ["--checkpoints", str(held), "--require-anchor"]
    if key is not None:
        command += ["--key", key]
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    return done.returncode, done.stdout + done.stderr


async def assert_sound(
    folder: Path, database_url: str | None = None, *, key: str | None = None
) -> list[LogInfo]:
    """The second verifier finds nothing wrong with anything that is stored."""
    async with stored(folder, database_url) as store:
        paths = await exported(store, folder)
        code, output = verify(*paths, held=folder / "checkpoints.jsonl", key=key)
        assert code == 0, output
        return await store.logs()
