"""How values and records leave the store: deleted, each with a tombstone, a few at a time.

Functions of a connection. A body leaves its leaf's hash behind. docs/audit-format.md, "What may be
missing".
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import sqlalchemy as sa

from gateway.audit import tables
from gateway.audit.export import WHOLE_RECORD
from gateway.audit.journal import Erased, leaf_text
from gateway.audit.merkle import leaf_hash
from gateway.audit.subject import Place, slices


@dataclass(frozen=True, slots=True)
class Taken:
    """What one transaction has erased."""

    records: int
    fields: int


def batches(places: Sequence[Place]) -> Iterator[Sequence[Place]]:
    """As many as one transaction takes."""
    return (places[at : at + 500] for at in range(0, len(places), 500))


def take(connection: sa.Connection, log: int, places: Sequence[Place], day: int) -> Taken:
    """Erases what is still there of these places of one log."""
    stored = _values(connection, log, [place.seq for place in places])
    bodies = _bodies(connection, log, [one.seq for one in places if WHOLE_RECORD in one.fields])
    tombs: list[tuple[int, str]] = [(seq, WHOLE_RECORD) for seq in bodies]
    doomed: dict[str, list[int]] = defaultdict(list)
    for place in places:
        names = stored.get(place.seq, set())
        if WHOLE_RECORD not in place.fields:
            names = names & {*place.fields}
            tombs += [(place.seq, name) for name in sorted(names)]
        for name in names:
            doomed[name].append(place.seq)
    _delete(connection, log, doomed)
    _forget(connection, log, [*doomed["subject"], *doomed["target"]])
    _prune(connection, log, bodies)
    rows = [{"log": log, "seq": seq, "field": name, "day": day} for seq, name in tombs]
    if rows:
        connection.execute(sa.insert(tables.tombstones), rows)
    return Taken(len({seq for seq, _ in tombs}), len(tombs))


def leaves(connection: sa.Connection, log: int, seqs: Sequence[int]) -> dict[int, str]:
    """What the journal tells these records by; of those whose bodies are gone nothing."""
    return {
        seq: leaf_text(leaf_hash(body))
        for some in slices(seqs)
        for seq, body in _bodies(connection, log, some).items()
    }


def returned(connection: sa.Connection, erased: Iterable[Erased]) -> list[Place]:
    """What was erased and is there again."""
    ids = {row.origin: row.id for row in connection.execute(sa.select(tables.logs))}
    wanted: dict[int, dict[tuple[int, str], set[str]]] = defaultdict(lambda: defaultdict(set))
    for one in erased:
        if one.log in ids:
            wanted[ids[one.log]][one.seq, one.leaf] |= {*one.fields}
    return [place for log in sorted(wanted) for place in _returned_of(connection, log, wanted[log])]


def _returned_of(
    connection: sa.Connection, log: int, wanted: Mapping[tuple[int, str], set[str]]
) -> Iterator[Place]:
    whole = {seq for (seq, _), names in wanted.items() if WHOLE_RECORD in names}
    for some in slices(sorted({seq for seq, _ in wanted})):
        stored = _values(connection, log, some)
        present = leaves(connection, log, [seq for seq in some if seq in stored or seq in whole])
        for seq, leaf in present.items():
            names = wanted.get((seq, leaf), set())
            there = stored.get(seq, set())
            left = {WHOLE_RECORD} if WHOLE_RECORD in names else names & there
            if left:
                yield Place(log, seq, "", "", tuple(sorted(left)))


def _values(connection: sa.Connection, log: int, seqs: Sequence[int]) -> dict[int, set[str]]:
    """Which values of these records are there."""
    table, found = tables.personal, defaultdict[int, set[str]](set)
    query = sa.select(table.c.seq, table.c.field)
    these = (table.c.log == log) & table.c.seq.in_(seqs)
    for seq, name in connection.execute(query.where(these)):
        found[seq].add(name)
    return found


def _bodies(connection: sa.Connection, log: int, seqs: Sequence[int]) -> dict[int, bytes]:
    table = tables.records
    these = (table.c.log == log) & table.c.seq.in_(seqs)
    query = sa.select(table.c.seq, table.c.body).where(these)
    return {row.seq: row.body for row in connection.execute(query)}


def _delete(connection: sa.Connection, log: int, doomed: Mapping[str, Sequence[int]]) -> None:
    """Each by its key: a list of hundreds makes PostgreSQL read the whole table each time."""
    table = tables.personal
    this = (table.c.log == log) & (table.c.seq == sa.bindparam("the_seq"))
    delete = sa.delete(table).where(this, table.c.field == sa.bindparam("the_field"))
    rows = [{"the_seq": seq, "the_field": name} for name in doomed for seq in doomed[name]]
    if rows:
        connection.execute(delete, rows)


def _forget(connection: sa.Connection, log: int, seqs: Sequence[int]) -> None:
    """Values that stay, such as an operator's name, no longer say whom the record was about."""
    table = tables.personal
    this = (table.c.log == log) & (table.c.seq == sa.bindparam("the_seq"))
    update = sa.update(table).where(this, table.c.subject.is_not(None)).values(subject=None)
    if seqs:
        connection.execute(update, [{"the_seq": seq} for seq in seqs])


def _prune(connection: sa.Connection, log: int, bodies: Mapping[int, bytes]) -> None:
    if not bodies:
        return
    rows = [
        {"log": log, "seq": seq, "leaf": leaf_hash(body)} for seq, body in sorted(bodies.items())
    ]
    connection.execute(sa.insert(tables.pruned), rows)
    table = tables.records
    these = (table.c.log == log) & table.c.seq.in_(list(bodies))
    connection.execute(sa.delete(table).where(these))
