"""What an erasure will take, before it takes anything: of a dry run, and of the erasure itself."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace

import sqlalchemy as sa

from gateway.audit import holds, tables
from gateway.audit.export import WHOLE_RECORD
from gateway.audit.policy import Cls
from gateway.audit.subject import Findings, Place, ends_of, slices, underway


@dataclass(frozen=True, slots=True)
class Plan:
    """What is to go.

    Args:
        hold: The id of a hold on some of it: then nothing may go.
    """

    places: Sequence[Place]
    streams: Sequence[str] = ()
    is_whole: bool = False
    hold: str | None = None

    @property
    def fields(self) -> int:
        return sum(len(place.fields) for place in self.places)

    def counts(self) -> dict[str, tuple[int, int]]:
        """Records and values of each class."""
        records = Counter(place.cls for place in self.places)
        values: Counter[str] = Counter()
        for place in self.places:
            values[place.cls] += len(place.fields)
        return {cls: (records[cls], values[cls]) for cls in sorted(records)}


def planned(connection: sa.Connection, findings: Findings, *, is_whole: bool) -> Plan:
    places = list(findings.places)
    if is_whole:
        open_ = underway(connection)
        places = [
            one if one.cls == Cls.AUDIT or (one.log, one.seq) in open_ else _wholly(one)
            for one in places
        ]
        ends = map(_wholly, ends_of(connection, places))
        places = sorted([*places, *ends], key=lambda one: (one.log, one.seq))
    places = [one for one in places if one.fields]
    return Plan(places, is_whole=is_whole, hold=_hold_on(connection, places))


def _wholly(place: Place) -> Place:
    return replace(place, fields=(WHOLE_RECORD,))


def _hold_on(connection: sa.Connection, places: Sequence[Place]) -> str | None:
    """The id of a hold on any of these places."""
    records = tables.records
    in_force = holds.in_force(connection)
    by_log: dict[int, list[int]] = defaultdict(list)
    for place in places if in_force else ():
        by_log[place.log].append(place.seq)
    for log, seqs in by_log.items():
        for some in slices(seqs):
            these = (records.c.log == log) & records.c.seq.in_(some)
            for hold in in_force:
                query = sa.select(records.c.seq).where(these, holds.is_held([hold]))
                if connection.scalar(query.limit(1)) is not None:
                    return hold.id
    return None
