"""`sluice audit hold`, `release` and `holds`: what neither a sweep nor an erasure may take."""

from __future__ import annotations

import argparse
import sys
import uuid
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import partial

import orjson

from gateway.audit import holds as holds_
from gateway.audit.canonical import Json
from gateway.audit.fields import UUID
from gateway.audit.holds import Hold
from gateway.audit.instant import now_ms
from gateway.audit.person import Person
from gateway.commands.audit_log import FAILED, GOOD, Opened, complain, read_secret, run, words_of
from gateway.errors import AuditError
from gateway.settings import Settings


def hold(settings: Settings, options: argparse.Namespace) -> int:
    """Places a hold, told in the log first."""
    person = Person.parse(read_secret()) if options.subject_stdin else None

    async def work(opened: Opened) -> int:
        placed = _hold(opened, person, options)
        count = await opened.log.store.run(partial(holds_.count, hold=placed))
        told: dict[str, Json] = {
            "hold": placed.id,
            "until_ms": placed.until_ms,
            "scope": placed.scope,
            "reason": options.reason,
            "records": count,
        }
        extent = {"from_ms": placed.from_ms, "to_ms": placed.to_ms, "rid": placed.rid}
        told |= {name: value for name, value in extent.items() if value is not None}
        about: dict[str, str | bytes] = {**words_of(options.reference)}
        keys: Mapping[str, str] = {}
        if person is not None:
            hashes = opened.log.people.hashes(person.owners[0], None, None)
            about["target"], keys = hashes.personal["subject"], hashes.keys
        await opened.log.record("audit.hold", told, about, keys)
        await opened.log.store.run(partial(holds_.place, hold=placed), writes=True)
        _tell([placed], is_json=options.json)
        print(f"It holds {count} records by now.", file=sys.stderr)
        return GOOD

    return run(settings, work)


def release(settings: Settings, options: argparse.Namespace) -> int:
    """Ends a hold, told in the log first."""

    async def work(opened: Opened) -> int:
        in_force = {one.id for one in await opened.log.store.run(holds_.in_force)}
        if options.id not in in_force:
            return complain("there is no such hold in force", FAILED)
        words = words_of(options.reference)
        await opened.log.record("audit.release", {"hold": options.id}, words)
        lift = partial(holds_.lift, hold_id=options.id, now_ms=now_ms())
        await opened.log.store.run(lift, writes=True)
        await opened.log.store.scrub()
        print(orjson.dumps({"released": options.id}).decode() if options.json else "Released.")
        return GOOD

    return run(settings, work)


def holds(settings: Settings, options: argparse.Namespace) -> int:
    """Lists every hold, those to be looked at again first told apart."""

    async def work(opened: Opened) -> int:
        found = await opened.log.store.run(holds_.all_holds)
        words = words_of(options.reference)
        await opened.log.record("audit.read", {"verb": "report", "records": len(found)}, words)
        _tell(found, is_json=options.json)
        return GOOD

    return run(settings, work)


def _hold(opened: Opened, person: Person | None, options: argparse.Namespace) -> Hold:
    """
    Raises:
        AuditError: `bad_hold`: a time that is none, or an empty span.
    """
    now, until_ms = now_ms(), _time(options.until)
    made = partial(Hold, str(uuid.uuid4()), made_ms=now, until_ms=until_ms)
    if until_ms <= now:
        raise AuditError("bad_hold", "--until lies behind us")
    if (options.begin is None) != (options.end is None):
        raise AuditError("bad_hold", "--from goes with --to")
    if person is not None:
        return made("subject", subjects=person.pseudonyms(opened.keys.all("subject")))
    if options.rid is not None:
        if not UUID.pattern.fullmatch(options.rid):
            raise AuditError("bad_hold", "--rid isn't the number of a request")
        return made("request", rid=options.rid)
    begin, end = _time(options.begin), _time(options.end)
    if begin >= end:
        raise AuditError("bad_hold", "--to isn't after --from")
    return made("time", from_ms=begin, to_ms=end)


def _time(text: str) -> int:
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        raise AuditError("bad_hold", "a time looks like 2026-10-31 or 2026-10-31T12:00Z") from None
    return round((time if time.tzinfo else time.replace(tzinfo=UTC)).timestamp() * 1000)


def _tell(found: list[Hold], *, is_json: bool) -> None:
    """Without whom a hold is about."""
    told = [_told(one) for one in found]
    if is_json:
        print(orjson.dumps({"holds": told}).decode())
        return
    for one in told:
        print("\t".join(f"{name}={value}" for name, value in one.items()))


def _told(hold: Hold) -> dict[str, object]:
    told: dict[str, object] = {
        "id": hold.id,
        "scope": hold.scope,
        "made": _day(hold.made_ms),
        "until": _day(hold.until_ms),
        "state": _state(hold),
    }
    extent = {"from_ms": hold.from_ms, "to_ms": hold.to_ms, "rid": hold.rid}
    return told | {name: value for name, value in extent.items() if value is not None}


def _state(hold: Hold) -> str:
    if hold.released_ms is not None:
        return f"released {_day(hold.released_ms)}"
    return "in force" if hold.until_ms > now_ms() else "to be reviewed"


def _day(ms: int) -> str:
    return datetime.fromtimestamp(ms / 1000, UTC).strftime("%Y-%m-%d")
