"""Legal holds: records that neither a sweep nor an erasure takes while a claim is open.

A hold covers the records of a person, of a request or of a time, those that are still to come too.
It ends when somebody releases it and never by itself: `until_ms` is the day to look at it again.
The condition here is SQL about `tables.records`, for whoever deletes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import sqlalchemy as sa
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler

from gateway.audit import tables
from gateway.audit.draft import HASH_BYTES

Scope = Literal["subject", "time", "request"]


@dataclass(frozen=True, slots=True)
class Hold:
    """What is held, and until when somebody has to look at it again.

    Args:
        subjects: The person's pseudonyms, one for each living key.
        from_ms, to_ms: Of a time; `to_ms` isn't in it any more.
    """

    id: str
    scope: Scope
    made_ms: int
    until_ms: int
    released_ms: int | None = None
    rid: str | None = None
    subjects: tuple[bytes, ...] = ()
    from_ms: int | None = None
    to_ms: int | None = None


def all_holds(connection: sa.Connection) -> list[Hold]:
    """Those that were released too, in the order of their making."""
    return _read(connection, sa.true())


def in_force(connection: sa.Connection) -> list[Hold]:
    """Read from the database each time: a command may have placed or released one."""
    return _read(connection, tables.holds.c.released_ms.is_(None))


def is_held(holds: Sequence[Hold]) -> sa.ColumnElement[bool]:
    """Whether a row of `tables.records` is under one of these holds.

    The end of a request is held with its beginning, which alone says whose it was.
    """
    return sa.or_(sa.false(), *map(_covers, holds))


def held_by(
    connection: sa.Connection, log_id: int, start: int, end: int, holds: Sequence[Hold]
) -> dict[int, str]:
    """Which records of a log, from `start` to before `end`, are held, and by what."""
    records = tables.records
    found: dict[int, str] = {}
    for hold in holds:
        query = sa.select(records.c.seq).where(
            records.c.log == log_id, records.c.seq.between(start, end - 1), is_held([hold])
        )
        found |= dict.fromkeys(connection.scalars(query), hold.id)
    return found


def count(connection: sa.Connection, hold: Hold) -> int:
    """How many records it covers by now."""
    query = sa.select(sa.func.count()).select_from(tables.records).where(is_held([hold]))
    return connection.execute(query).scalar_one()


def place(connection: sa.Connection, hold: Hold) -> None:
    """Keeps a hold that has been recorded."""
    row = {name: getattr(hold, name) for name in Hold.__slots__}
    row["subjects"] = b"".join(hold.subjects) or None
    connection.execute(sa.insert(tables.holds).values(row))


def lift(connection: sa.Connection, hold_id: str, now_ms: int) -> bool:
    """Ends a hold, and forgets whom it was about; whether it was in force."""
    table = tables.holds
    these = (table.c.id == hold_id) & table.c.released_ms.is_(None)
    ended = sa.update(table).where(these).values(released_ms=now_ms, subjects=None)
    return connection.execute(ended).rowcount == 1


def _read(connection: sa.Connection, which: sa.ColumnElement[bool]) -> list[Hold]:
    table = tables.holds
    rows = connection.execute(sa.select(table).where(which).order_by(table.c.made_ms, table.c.id))
    return [Hold(**{**row, "subjects": _split(row["subjects"])}) for row in rows.mappings()]


def _split(joined: bytes | None) -> tuple[bytes, ...]:
    whole = joined or b""
    return tuple(whole[at : at + HASH_BYTES] for at in range(0, len(whole), HASH_BYTES))


def _covers(hold: Hold) -> sa.ColumnElement[bool]:
    records, personal = tables.records, tables.personal
    if hold.scope == "time":
        return records.c.ts.between(hold.from_ms, (hold.to_ms or 0) - 1)
    if hold.scope == "request":
        return _member("rid").is_not_distinct_from(hold.rid)
    start = sa.cast(_member("start"), sa.BigInteger)
    is_end = records.c.type == "query.end"
    said_by = sa.case((is_end, sa.func.coalesce(start, records.c.seq)), else_=records.c.seq)
    return sa.exists(personal.c.seq).where(
        personal.c.log == records.c.log,
        personal.c.seq == said_by,
        personal.c.subject.in_(hold.subjects),
    )


class _Member(sa.sql.functions.FunctionElement[str]):
    """A member of a record's body, as text: `_Member(body, name)`."""

    type = sa.Text()
    inherit_cache = True


@compiles(_Member, "sqlite")
def _in_sqlite(member: _Member, compiler: SQLCompiler, **options: object) -> str:
    body, name = (compiler.process(one, **options) for one in member.clauses)
    return f"json_extract(CAST({body} AS TEXT), '$.' || {name})"


@compiles(_Member, "postgresql")
def _in_postgres(member: _Member, compiler: SQLCompiler, **options: object) -> str:
    body, name = (compiler.process(one, **options) for one in member.clauses)
    return f"(convert_from({body}, 'UTF8')::json ->> {name})"


def _member(name: str) -> sa.ColumnElement[str]:
    return _Member(tables.records.c.body, sa.literal(name, sa.Text))
