"""`sluice audit find`, `export` and `erase`: the rights of who is in the log."""

from __future__ import annotations

import argparse
import os
import sys
import uuid
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import orjson

from gateway.audit import access, subject
from gateway.audit.canonical import Object
from gateway.audit.erasure import Eraser, Erasure
from gateway.audit.instant import now_ms
from gateway.audit.page import page
from gateway.audit.person import Person
from gateway.audit.plan import Plan
from gateway.audit.subject import Findings
from gateway.commands.audit_log import GOOD, Opened, complain, read_secret, run, words_of
from gateway.erasures import StoredAnswers
from gateway.settings import Settings
from gateway.sse.dialects import provider_dialect
from gateway.stream.archive import Archive
from gateway.stream.log import LogBudget

_TOLD = ("stream_id", "conversation_id", "status", "reason", "created_at", "ended_at", "text")
_POSTGRES = (
    "PostgreSQL keeps what was deleted until it vacuums, and in its archive and replicas: "
    "VACUUM FULL audit_personal, audit_record, stream_segments writes the files anew."
)
_LARGE = (
    "The values can't be read any more, but remains of them may be in the file, which is large, or "
    "somebody reads it: with --rewrite it is written anew. Nothing can be recorded meanwhile, so "
    "do it in a quiet hour."
)


def find(settings: Settings, options: argparse.Namespace) -> int:
    """Tells the records of a person, or of who asked a question: their ids, nothing more."""
    secret = read_secret()

    async def work(opened: Opened) -> int:
        if options.query_stdin:
            keys = {key.id: key.secret for key in opened.keys.all("query")}
            ask = partial(subject.with_query, text=secret, keys=keys)
            found = await opened.log.store.run(lambda connection: list(ask(connection)))
        else:
            findings = await _findings(opened, Person.parse(secret), is_linked=False)
            found = [(one.log, one.seq) for one in findings.places]
        words = words_of(options.reference)
        await opened.log.record("audit.read", {"verb": "find", "records": len(found)}, words)
        origins = await _origins(opened)
        ids = [f"{origins[log]}/{seq}" for log, seq in found]
        print(_json({"records": ids}) if options.json else "\n".join(ids) or "Nothing is there.")
        return GOOD

    return run(settings, work)


def export(settings: Settings, options: argparse.Namespace) -> int:
    """Writes all that is stored of a person."""
    person = Person.parse(read_secret())

    async def work(opened: Opened) -> int:
        findings = await _findings(opened, person, is_linked=options.linked)
        made = await _export(opened, person, findings, options)
        text = page(made) if options.html else _json(made) + "\n"
        if options.out is None:
            sys.stdout.write(text)
        else:
            _write(Path(options.out), text)
            print(f"{options.out} has {len(findings.places)} records.", file=sys.stderr)
        _tell_linked(findings)
        return GOOD

    return run(settings, work)


def erase(settings: Settings, options: argparse.Namespace) -> int:
    """Erases a person, once the operator has seen what goes."""
    person = Person.parse(read_secret())

    async def work(opened: Opened) -> int:
        answers = StoredAnswers(opened.answers)
        eraser = Eraser(opened.log, opened.journal, answers, is_patient=options.rewrite)
        findings = await _findings(opened, person, is_linked=options.linked)
        streams = [
            one.id
            for owner in await _owners(opened, person, findings)
            for one in await opened.answers.owned(owner)
        ]
        plan = await eraser.plan(findings, streams, is_whole=options.whole_record)
        _tell_plan(plan, is_json=options.json and options.dry_run)
        _tell_linked(findings)
        words = words_of(options.reference)
        if options.dry_run:
            await opened.log.record(
                "audit.read", {"verb": "find", "records": len(plan.places)}, words
            )
            return GOOD
        if plan.hold is not None or not (plan.places or plan.streams):
            return await _refuse(eraser, plan, options)
        if not options.yes and not _is_agreed():
            return complain("nothing was erased")
        done = await eraser.erase(plan, words, _progress)
        _tell_done(done, opened, is_json=options.json)
        return GOOD

    return run(settings, work)


async def _findings(opened: Opened, person: Person, *, is_linked: bool) -> Findings:
    look = partial(
        subject.of_person, person=person, keys=opened.keys.all("subject"), is_linked=is_linked
    )
    return await opened.log.store.run(look)


async def _owners(opened: Opened, person: Person, findings: Findings) -> list[str]:
    """Whose stored answers are theirs."""
    keys, everybody = opened.keys.all("subject"), await opened.answers.owners()
    behind = subject.owners_of(everybody, findings.pseudonyms, keys)
    return sorted({*person.owners, *behind} & {*everybody})


async def _origins(opened: Opened) -> dict[int, str]:
    return {log.id: log.origin for log in await opened.log.store.logs()}


async def _export(
    opened: Opened, person: Person, findings: Findings, options: argparse.Namespace
) -> Object:
    log, now, origins = opened.log, now_ms(), await _origins(opened)
    logs = sorted({place.log for place in findings.places})
    sign = partial(access.signed_heads, logs=logs, keys=log.people.sign_keys, now_ms=now)
    notes = await log.store.run(sign, writes=True)
    read = partial(
        access.read_found,
        places=findings.places,
        notes=notes,
        policy=log.drafter.policy,
        with_operator=options.with_operator,
    )
    records = [one.to_object() for one in await log.store.run(read)]
    answers = await _answers(opened, await _owners(opened, person, findings))
    hashes = log.people.hashes(person.owners[0], None, None)
    told: Object = {"request": str(uuid.uuid4()), "records": len(records), "scope": "subject"}
    told["fields"] = sum(len(place.fields) for place in findings.places)
    about: dict[str, str | bytes] = {
        "target": hashes.personal["subject"],
        **words_of(options.reference),
    }
    await log.record("audit.export", told, about, hashes.keys)
    keys = [str(one.verifier) for its in logs for one in opened.keys.signers(origins[its])]
    return {
        "format": access.FORMAT,
        "made_ms": now,
        "keys": keys,  # type: ignore[dict-item]
        "records": records,  # type: ignore[dict-item]
        "answers": answers,  # type: ignore[dict-item]
    }


async def _answers(opened: Opened, owners: Sequence[str]) -> list[Object]:
    from gateway.web.streams import describe  # with the whole server, for an export alone

    archive = Archive(opened.answers, provider_dialect, LogBudget(0))
    streams = [one for owner in owners for one in await archive.owned(owner)]
    told = [describe(one) for one in streams]
    return [{name: one[name] for name in _TOLD} for one in told]  # type: ignore[misc]


async def _refuse(eraser: Eraser, plan: Plan, options: argparse.Namespace) -> int:
    case = await eraser.refuse(plan, words_of(options.reference))
    why = "nothing is stored of this person"
    if plan.hold is not None:
        why = f"held by {plan.hold} (GDPR 17(3)(e))"
    return complain(f"nothing was erased: {why}; case {case}")


def _tell_plan(plan: Plan, *, is_json: bool) -> None:
    counts = plan.counts()
    if is_json:
        classes = {cls: {"records": n, "fields": m} for cls, (n, m) in counts.items()}
        print(_json({"classes": classes, "answers": len(plan.streams), "hold": plan.hold}))
        return
    for cls, (records, fields) in counts.items():
        print(f"{cls}: {fields} values of {records} records", file=sys.stderr)
    print(f"stored answers: {len(plan.streams)}", file=sys.stderr)


def _tell_linked(findings: Findings) -> None:
    if findings.linked:
        print(
            f"The e-mail stands beside {len(findings.linked)} other names, whose records are left "
            "out; --linked takes them too. Once the e-mail is erased they can't be found by it.",
            file=sys.stderr,
        )


def _is_agreed() -> bool:
    """Asks the terminal itself: standard input had the name."""
    try:
        with open("/dev/tty", "r+", encoding="utf-8") as terminal:
            terminal.write("This can't be undone. Erase? Type yes: ")
            terminal.flush()
            return terminal.readline().strip() == "yes"
    except OSError:
        print("There is no terminal to ask; say --yes.", file=sys.stderr)
        return False


def _progress(done: int, total: int) -> None:
    if sys.stderr.isatty():
        print(f"\r{done} of {total}", end="" if done < total else "\n", file=sys.stderr)


def _tell_done(done: Erasure, opened: Opened, *, is_json: bool) -> None:
    told: dict[str, object] = {"request": done.request, "records": done.records}
    told |= {"fields": done.fields, "answers": done.streams, "receipts": done.receipts}
    told["clean"] = done.is_clean
    if is_json:
        print(_json(told))
        return
    print(f"Erased {done.fields} values of {done.records} records, {done.streams} answers.")
    print(f"Case {done.request}. The records of it:")
    print("\n".join(done.receipts))
    if opened.settings.database_url is not None:
        print(_POSTGRES, file=sys.stderr)
    elif not done.is_clean:
        print(_LARGE, file=sys.stderr)


def _write(path: Path, text: str) -> None:
    flags = os.O_CREAT | os.O_WRONLY | os.O_TRUNC | os.O_CLOEXEC
    with os.fdopen(os.open(path, flags, 0o600), "w", encoding="utf-8") as out:
        out.write(text)


def _json(value: object) -> str:
    return orjson.dumps(value).decode()
