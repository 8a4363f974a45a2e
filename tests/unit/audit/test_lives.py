"""Whatever happens to a log that is swept again and again: it verifies, and nothing is kept."""

from __future__ import annotations

import random
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import pytest

from gateway.audit import holds, removal
from gateway.audit.canonical import Json
from gateway.audit.holds import Hold
from gateway.audit.instant import now_ms
from gateway.audit.keys import Keys
from gateway.audit.recorder import Who
from gateway.audit.retention import Sweeper
from gateway.audit.store import LogInfo
from gateway.audit.subject import Place
from gateway.audit.uuids import uuid7
from gateway.audit.verify.audit import Evidence
from gateway.audit.verify.evidence import held_in
from gateway.audit.verify.findings import exit_code
from gateway.audit.verify.stored import verify_stored
from tests.auditing import Audited, assert_sound, bodies, running_log, stored
from tests.unit.audit.test_explanations import BRIEF, age
from tests.unit.audit.test_retention import ask, flush

pytestmark = pytest.mark.usefixtures("wall_clock")

PEOPLE = [Who(f"sub:person{n}", "jwt", "192.0.2.7", email=f"{n}@example.org") for n in range(3)]
ROUNDS, STEPS = 3, 12
#: Long over, so that each is closed by the next sweep; an erasure never comes back to one.
FIRST_DAY = 10_000


@dataclass
class Life:
    """What happens, at random; and what is held meanwhile."""

    audited: Audited
    chance: random.Random
    held: dict[str, str] = field(default_factory=dict)
    day: int = FIRST_DAY

    async def step(self) -> None:
        often, rarely = (self.ask,) * 3, (self.refuse, self.sign, self.hold, self.release)
        await self.chance.choice([*often, *rarely, self.erase, self.sweep])()

    async def ask(self) -> None:
        for _ in range(self.chance.choice([1, 3, 60])):
            await ask(self.audited, self.chance.choice(PEOPLE))

    async def refuse(self) -> None:
        await self.audited.log.record("security.origin_denied", {"reason": "origin"}, {"ip": "::1"})

    async def sign(self) -> None:
        await self.audited.log.signing.sign()

    async def sweep(self) -> None:
        await Sweeper(self.audited.log).sweep()
        await flush(self.audited)

    async def hold(self) -> None:
        rids = [one["rid"] for one in await bodies(self.audited.store) if "rid" in one]
        if not rids:
            return
        hold = Hold(uuid7(now_ms()), "request", now_ms(), 2**41, rid=str(self.chance.choice(rids)))
        fields: dict[str, Json] = {"hold": hold.id, "until_ms": 2**41, "scope": "request"}
        await self.audited.log.record("audit.hold", fields)
        await self.audited.store.run(lambda c: holds.place(c, hold), writes=True)
        self.held[hold.id] = str(hold.rid)

    async def release(self) -> None:
        if self.held:
            name, _ = self.held.popitem()
            await self.audited.log.record("audit.release", {"hold": name})
            await self.audited.store.run(lambda c: holds.lift(c, name, now_ms()), writes=True)

    async def erase(self) -> None:
        """Some questions of each log that aren't held; of one the record as a whole."""
        self.day += 1
        found = [
            one
            for one in await bodies(self.audited.store)
            if one["type"] == "query.start" and one["rid"] not in self.held.values()
        ]
        for log in await self.audited.store.logs():
            mine = [int(str(one["seq"])) for one in found if one["log"] == log.origin]
            if some := sorted(self.chance.sample(mine, min(len(mine), 5))):
                await self._erase(log, some)

    async def _erase(self, log: LogInfo, some: list[int]) -> None:
        names = ("query", "subject")
        places = [Place(log.id, seq, "query", "query.start", names) for seq in some]
        places[0] = replace(places[0], fields=("*",))
        told: dict[str, Json] = {"request": uuid7(now_ms()), "day": self.day}
        if log.origin != self.audited.log.origin:
            told["origin"] = log.origin
        planned = {"fields": sum(len(one.fields) for one in places), "records": len(places)}
        await self.audited.log.record("audit.erase", {**told, **planned})
        take = partial(removal.take, log=log.id, places=places, day=self.day)
        done = await self.audited.store.run(take, writes=True)
        counts = {"fields": done.fields, "records": done.records}
        await self.audited.log.record("audit.erase.done", {**told, **counts})


@pytest.mark.parametrize("seed", range(2))
async def test_any_life_leaves_a_sound_log(
    tmp_path: Path, database_url: str | None, seed: int
) -> None:
    chance, held, day = random.Random(seed), dict[str, str](), FIRST_DAY
    for _ in range(ROUNDS):
        is_closed = chance.random() < 0.5
        async with running_log(
            tmp_path, database_url, policy=BRIEF, is_closed=is_closed
        ) as audited:
            life = Life(audited, chance, held, day)
            for _ in range(STEPS):
                await life.step()
            await age(audited)
            await life.sweep()
            day, left = life.day, await bodies(audited.store)
            rids = {one["rid"] for one in left if one["type"] == "query.start"}
            assert rids <= set(held.values())
            await audited.log.signing.sign()
        await assert_sound(tmp_path, database_url)
        await assert_own_verifier_agrees(tmp_path, database_url)


async def assert_own_verifier_agrees(folder: Path, database_url: str | None) -> None:
    keys = [one.verifier.public for one in Keys(folder / "audit-keys").signers("log")]
    evidence = Evidence(keys, [*held_in(folder / "checkpoints.jsonl")])
    async with stored(folder, database_url) as store:
        found = await verify_stored(store, evidence)
    assert exit_code(found, needs_anchor=True) == 0, found
