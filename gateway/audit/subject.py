"""What the logs hold of one person: found by their pseudonyms, by their e-mail or address.

What stands beside an e-mail under another name is told apart: an e-mail may be no more than what a
client said, so whoever said it isn't taken for its owner unless the operator says so.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import sqlalchemy as sa

from gateway.audit import tables
from gateway.audit.canonical import decode
from gateway.audit.keyfile import Key
from gateway.audit.person import Person, pseudonym
from gateway.audit.pseudonyms import query_hash, subject_scope, tenant_scope

#: A statement takes only so many parameters.
_SLICE = 500


@dataclass(frozen=True, slots=True)
class Place:
    """A record, and which of its personal fields are meant."""

    log: int
    seq: int
    cls: str
    type: str
    fields: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Findings:
    """What there is of a person.

    Args:
        places: In order of logs and numbers.
        pseudonyms: Under which they were looked for.
        linked: Pseudonyms of others, beside whose name the e-mail stands.
    """

    places: Sequence[Place]
    pseudonyms: tuple[bytes, ...]
    linked: tuple[bytes, ...] = ()


def of_person(
    connection: sa.Connection, person: Person, keys: Sequence[Key], *, is_linked: bool = False
) -> Findings:
    """
    Args:
        keys: Every living key of the kind `subject`.
        is_linked: Whoever stands beside the e-mail is this person too.
    """
    own = person.pseudonyms(keys)
    by_email = _with_value(connection, "email", person.email)
    by_address = _with_value(connection, "ip", person.address)
    linked = tuple(sorted({one for one in by_email.values() if one and one not in own}))
    if is_linked:
        own, linked = (*own, *linked), ()
    found = {(one.log, one.seq): one for one in _with_subjects(connection, own)}
    for field, by_value in (("email", by_email), ("ip", by_address)):
        others = [place for place in by_value if place not in found]
        for place in _described(connection, others, field):
            found[place.log, place.seq] = place
    return Findings([found[key] for key in sorted(found)], own, linked)


def owners_of(owners: Iterable[str], pseudonyms: Iterable[bytes], keys: Sequence[Key]) -> list[str]:
    """Which of these owners stand behind some pseudonyms."""
    wanted = set(pseudonyms)
    return [one for one in owners if any(pseudonym(one, key) in wanted for key in keys)]


def ends_of(connection: sa.Connection, places: Sequence[Place]) -> list[Place]:
    """The ends of the requests that begin at these places: they say nothing of whom."""
    starts = {(one.log, one.seq) for one in places if one.type == "query.start"}
    found = []
    for log in sorted({log for log, _ in starts}):
        first = min(seq for its, seq in starts if its == log)
        for seq, body in _ends(connection, log, first):
            if (log, decode(body).get("start")) in starts:
                found.append(Place(log, seq, "query", "query.end", ()))
    return found


def underway(connection: sa.Connection) -> set[tuple[int, int]]:
    """Requests that have no end yet."""
    table = tables.unended
    return {(row.log, row.seq) for row in connection.execute(sa.select(table.c.log, table.c.seq))}


def with_query(
    connection: sa.Connection, text: str, keys: Mapping[str, bytes]
) -> Iterator[tuple[int, int]]:
    """The records of those who asked this very text, as log and number.

    Costs one hash for each person and key, and a look at every question that is stored.

    Args:
        keys: Secrets of the kind `query` by their ids.
    """
    personal = tables.personal
    query = sa.select(personal.c.log, personal.c.seq, personal.c.subject, personal.c.value)
    hashed = _hasher(text, list(keys.values()))
    asked = query.where(personal.c.field == "query").order_by(personal.c.log, personal.c.seq)
    rows = connection.execute(asked.execution_options(yield_per=1000))
    return ((row.log, row.seq) for row in rows if row.value in hashed(row.subject))


def _hasher(text: str, keys: Sequence[bytes]) -> Callable[[bytes | None], frozenset[bytes]]:
    everybody = frozenset(query_hash(key, tenant_scope(), text) for key in keys)
    known: dict[bytes | None, frozenset[bytes]] = {None: everybody}

    def hashed(subject: bytes | None) -> frozenset[bytes]:
        if subject not in known:
            scope = subject_scope(subject or b"")
            known[subject] = everybody | {query_hash(key, scope, text) for key in keys}
        return known[subject]

    return hashed


def _with_subjects(connection: sa.Connection, pseudonyms: Sequence[bytes]) -> Iterator[Place]:
    personal, records = tables.personal, tables.records
    columns = (personal.c.log, personal.c.seq, records.c.cls, records.c.type, personal.c.field)
    query = (
        sa.select(*columns)
        .join(records, (records.c.log == personal.c.log) & (records.c.seq == personal.c.seq))
        .where(personal.c.subject.in_(pseudonyms))
        .order_by(personal.c.log, personal.c.seq, personal.c.field)
    )
    last: Place | None = None
    for log, seq, cls, type_, field in connection.execute(query):
        if last is not None and (last.log, last.seq) == (log, seq):
            last = replace(last, fields=(*last.fields, field))
            continue
        if last is not None:
            yield _about(last)
        last = Place(log, seq, cls, type_, (field,))
    if last is not None:
        yield _about(last)


def _about(place: Place) -> Place:
    """Of a record about somebody, who wrote it isn't theirs."""
    return replace(place, fields=tuple(one for one in place.fields if one != "operator"))


def _with_value(
    connection: sa.Connection, field: str, value: bytes | None
) -> dict[tuple[int, int], bytes | None]:
    """Where a value stands in clear, and beside whose name. Looks at every value of its field."""
    if value is None:
        return {}
    personal = tables.personal
    query = sa.select(personal.c.log, personal.c.seq, personal.c.subject)
    query = query.where(personal.c.field == field, personal.c.value == value)
    return {(log, seq): subject for log, seq, subject in connection.execute(query)}


def _described(
    connection: sa.Connection, places: Sequence[tuple[int, int]], field: str
) -> Iterator[Place]:
    records = tables.records
    columns = (records.c.log, records.c.seq, records.c.cls, records.c.type)
    for log in sorted({log for log, _ in places}):
        seqs = [seq for its, seq in places if its == log]
        for some in slices(seqs):
            query = sa.select(*columns).where(records.c.log == log, records.c.seq.in_(some))
            yield from (Place(*row, (field,)) for row in connection.execute(query))


def _ends(connection: sa.Connection, log: int, first: int) -> Iterator[tuple[int, bytes]]:
    records = tables.records
    query = sa.select(records.c.seq, records.c.body).where(
        records.c.log == log, records.c.seq > first, records.c.type == "query.end"
    )
    rows = connection.execute(query.order_by(records.c.seq).execution_options(yield_per=1000))
    return ((row.seq, row.body) for row in rows)


def slices(numbers: Sequence[int]) -> Iterator[Sequence[int]]:
    """In parts that a statement takes."""
    return (numbers[at : at + _SLICE] for at in range(0, len(numbers), _SLICE))
