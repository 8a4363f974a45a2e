"""Keys are destroyed once nothing can need them, and the log says so."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.audit import holds
from gateway.audit.holds import Hold
from gateway.audit.instant import now_ms
from gateway.audit.key_ends import KeyEnds
from gateway.audit.keys import destroyable_from
from gateway.audit.policy import DAY_S
from gateway.errors import AuditError
from tests.auditing import Audited, assert_sound, bodies, running_log
from tests.unit.audit.test_explanations import BRIEF, age
from tests.unit.audit.test_retention import HOLD, SHORT, ask, sweep

pytestmark = pytest.mark.usefixtures("wall_clock")

DAY_MS = DAY_S * 1000


def kinds(audited: Audited) -> list[str]:
    return sorted(key.kind for key in audited.log.people.keys.infos())


async def test_key_goes_after_the_last_record_that_needs_it(
    tmp_path: Path, database_url: str | None
) -> None:
    async with running_log(tmp_path, database_url, policy=SHORT) as audited:
        await ask(audited)
        keys, ends = audited.log.people.keys, KeyEnds(audited.log)
        key = keys.current("query", now_ms())
        over = destroyable_from(key.id, 1)
        assert await ends.destroy(over) == 0  # a record is there
        await age(audited)
        await sweep(audited)
        assert await ends.destroy(over - 1) == 0
        assert await ends.destroy(over) == 1
        assert await ends.destroy(over) == 0
        assert kinds(audited) == ["sign", "subject"]
        with pytest.raises(AuditError):
            keys.get("query", key.id)
        told = [one for one in await bodies(audited.store) if one["type"] == "audit.key.destroyed"]
        assert [(one["kind"], one["key"]) for one in told] == [("query", key.id)]
    await assert_sound(tmp_path, database_url)


async def test_key_of_pseudonyms_stays_for_a_hold_on_a_person(
    tmp_path: Path, database_url: str | None
) -> None:
    hold = Hold(HOLD.id, "subject", now_ms() + DAY_MS, 2**41, subjects=(bytes(32),))
    async with running_log(tmp_path, database_url, policy=BRIEF) as audited:
        await ask(audited)
        await age(audited)
        await sweep(audited)
        ends, much_later = KeyEnds(audited.log), now_ms() + 800 * DAY_MS
        await audited.store.run(lambda c: holds.place(c, hold), writes=True)
        assert await ends.destroy(much_later) == 1
        assert kinds(audited) == ["sign", "subject"]
        await audited.store.run(lambda c: holds.lift(c, hold.id, 1), writes=True)
        assert await ends.destroy(much_later) == 1
        assert kinds(audited) == ["sign"]


async def test_what_the_log_says_of_a_person_needs_the_key_of_pseudonyms(tmp_path: Path) -> None:
    async with running_log(tmp_path, policy=SHORT) as audited:
        hashes = audited.log.people.hashes("sub:ada", None, None)
        case = {"request": HOLD.id, "records": 1}
        target = {"target": hashes.personal["subject"]}
        await audited.log.record("audit.export", case, target, hashes.keys)
        ends, much_later = KeyEnds(audited.log), now_ms() + 1600 * DAY_MS
        assert await ends.destroy(much_later) == 1  # that of questions
        assert kinds(audited) == ["sign", "subject"]
