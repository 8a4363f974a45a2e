"""Lawful lives of a deployment on a real database, at random: neither verifier raises an alarm.

Only the clock isn't real, so that months pass. `tests/unit/audit/test_verify_script.py` does the
same with a thousand histories that are exports from the beginning.
"""

from __future__ import annotations

import asyncio
import random
import time
import uuid
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial
from pathlib import Path

import pytest

from gateway.audit import holds
from gateway.audit.erasure import Eraser
from gateway.audit.holds import Hold
from gateway.audit.instant import now_ms
from gateway.audit.journal import Journal
from gateway.audit.keys import Keys
from gateway.audit.person import Person
from gateway.audit.policy import DAY_S
from gateway.audit.recorder import Asked, Who
from gateway.audit.retention import Sweeper
from gateway.audit.subject import of_person
from gateway.audit.verify.audit import Evidence
from gateway.audit.verify.evidence import held_in
from gateway.audit.verify.stored import verify_stored
from scripts import verify_audit
from tests.auditing import Audited, exported, running_log, stored

DAY_MS = DAY_S * 1000
START_NS = 1_760_000_000 * 10**9
PEOPLE = [Who(f"sub:p{n}@example.org", "jwt", "192.0.2.7", f"p{n}@example.org") for n in range(3)]
SEEDS = [("sqlite", seed) for seed in range(24)] + [("postgres", seed) for seed in range(100, 108)]
Step = Callable[[Audited], Awaitable[None]]


class Crash(Exception):
    """The process ends without a word."""


class Clock:
    """Stands still until it is set forward."""

    def __init__(self) -> None:
        self.ns = START_NS

    def __call__(self) -> int:
        self.ns += 1_000_000
        return self.ns


class Life:
    """What may happen to a deployment."""

    def __init__(self, seed: int, folder: Path, clock: Clock) -> None:
        self.random = random.Random(seed)
        self.folder = folder
        self._clock = clock

    async def step(self, audited: Audited) -> None:
        steps: list[Step] = [
            *([self.ask] * 4),
            *(self.login, self.refuse, self.wait, self.wait, self.sign, self.sweep, self.sweep),
            *(self.erase, self.hold, self.release, self.rotate, self.crash_while_erasing),
        ]
        await self.random.choice(steps)(audited)

    async def opened(self, audited: Audited) -> None:
        """As a gateway begins."""
        await self._eraser(audited).check()

    async def ask(self, audited: Audited) -> None:
        for _ in range(self.random.randrange(1, 90)):
            who = self.random.choice(PEOPLE)
            ticket = audited.recorder.begin(Asked(who, "chat", "how?", "c"))
            if self.random.random() < 0.95:
                ticket.end("completed", {})
        await flushed(audited)

    async def login(self, audited: Audited) -> None:
        audited.recorder.login(self.random.choice(PEOPLE), "chat")
        await flushed(audited)

    async def refuse(self, audited: Audited) -> None:
        await audited.log.record(
            "security.auth_failed", {"reason": "unknown_key"}, {"ip": "192.0.2.7"}
        )

    async def wait(self, audited: Audited) -> None:
        await audited.log.signing.sign()
        self._clock.ns += self.random.randrange(40 * DAY_MS) * 1_000_000

    async def sign(self, audited: Audited) -> None:
        await audited.log.signing.sign()

    async def sweep(self, audited: Audited) -> None:
        await Sweeper(audited.log, trusts_clock=True).sweep()
        await flushed(audited)

    async def erase(self, audited: Audited) -> None:
        await self._erase(audited, None)

    async def crash_while_erasing(self, audited: Audited) -> None:
        def crash(done: int, total: int) -> None:
            raise Crash

        await self._erase(audited, crash)

    async def hold(self, audited: Audited) -> None:
        since = now_ms() - self.random.randrange(100 * DAY_MS)
        made = Hold(
            str(uuid.UUID(int=self.random.getrandbits(128))),
            *("time", now_ms(), now_ms() + 365 * DAY_MS),
            from_ms=since,
            to_ms=since + self.random.randrange(1, 50 * DAY_MS),
        )
        told = {"hold": made.id, "until_ms": made.until_ms, "scope": "time"}
        await audited.log.record("audit.hold", told)  # type: ignore[arg-type]
        await audited.store.run(partial(holds.place, hold=made), writes=True)

    async def release(self, audited: Audited) -> None:
        for one in (await audited.store.run(holds.in_force))[:1]:
            await audited.log.record("audit.release", {"hold": one.id})
            lift = partial(holds.lift, hold_id=one.id, now_ms=now_ms())
            await audited.store.run(lift, writes=True)

    async def rotate(self, audited: Audited) -> None:
        await asyncio.to_thread(Keys(self.folder / "audit-keys").rotate, "sign", now_ms())
        await audited.log.signing.follow_keys()

    async def _erase(self, audited: Audited, crash: Callable[[int, int], None] | None) -> None:
        person = Person.parse(str(self.random.choice(PEOPLE).email))
        keys = Keys(self.folder / "audit-keys").all("subject")
        found = await audited.store.run(lambda c: of_person(c, person, keys))
        eraser, is_whole = self._eraser(audited), self.random.random() < 0.3
        plan = await eraser.plan(found, [], is_whole=is_whole)
        if plan.hold is not None:
            await eraser.refuse(plan, {})
        elif crash is None:
            await eraser.erase(plan, {})
        else:
            await eraser.erase(plan, {}, crash)

    def _eraser(self, audited: Audited) -> Eraser:
        return Eraser(audited.log, Journal(self.folder / "erasures.jsonl"), NoAnswers())


class NoAnswers:
    """Nothing is stored of them."""

    async def erase(self, streams: object) -> int:
        return 0


async def flushed(audited: Audited) -> None:
    assert audited.log._writer is not None
    assert await audited.log._writer.flush(10)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(time, "time_ns", clock)
    return clock


@pytest.mark.parametrize(("database_url", "seed"), SEEDS, indirect=["database_url"], ids=str)
async def test_no_lawful_life_gives_an_alarm(
    database_url: str | None,
    seed: int,
    tmp_path: Path,
    clock: Clock,
    capsys: pytest.CaptureFixture[str],
) -> None:
    life = Life(seed, tmp_path, clock)
    for _ in range(life.random.randrange(1, 4)):
        is_closed = life.random.random() < 0.5
        with suppress(Crash):
            async with running_log(tmp_path, database_url, is_closed=is_closed) as audited:
                await life.opened(audited)
                for _ in range(life.random.randrange(1, 12)):
                    await life.step(audited)
    async with running_log(tmp_path, database_url) as audited:
        await life.opened(audited)
    await judged(tmp_path, database_url, capsys)


async def judged(
    folder: Path, database_url: str | None, capsys: pytest.CaptureFixture[str]
) -> None:
    held = folder / "checkpoints.jsonl"
    async with stored(folder, database_url) as store:
        keys = [one.verifier.public for one in Keys(folder / "audit-keys").signers("x")]
        found = await verify_stored(store, Evidence(keys, [*held_in(held)]))
        paths = await exported(store, folder)
    code = verify_audit.main([*map(str, paths), "--checkpoints", str(held), "--require-anchor"])
    told = capsys.readouterr().out
    # The sweeper of a test that sweeps at will may be late: that is told, and is no alarm.
    own = {finding: places[:3] for one in found for finding, places in one.places.items()}
    assert own.keys() <= {"overdue"}, (own, told)
    assert code == (verify_audit.OVERDUE if own else verify_audit.GOOD), told
