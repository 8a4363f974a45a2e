"""Which logs there are: the catalogue, a log of its own, and how a log begins and ends.

Functions of a connection, each a transaction of its own. The catalogue's row is locked first, so
processes take turns. docs/audit-format.md, "The catalogue".
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import sqlalchemy as sa

import gateway
from gateway.audit import tables
from gateway.audit.canonical import Json, Object, encode, to_text
from gateway.audit.crossing import crossing, signed
from gateway.audit.draft import Drafter
from gateway.audit.keyfile import Key
from gateway.audit.ledger import Entry, Head, Ledger, stored_head
from gateway.audit.merkle import Frontier, frontier_at
from gateway.audit.note import Note
from gateway.audit.policy import DAY_S
from gateway.audit.store import node_reader
from gateway.audit.uuids import uuid7
from gateway.database import Database
from gateway.errors import AuditError

#: A log whose process has said nothing for so long has lost it. It says something each minute.
ABANDONED_MS = 5 * 60_000
#: Times in a log never go back, so one that is this far ahead of the clock isn't gone on with: what
#: was written to it would be kept for so much too long.
_AHEAD_MS = DAY_S * 1000


@dataclass(frozen=True, slots=True)
class Opened:
    """What a start has found and made.

    `unknown` counts the requests that a crash had left without an end, `silence_ms` is how long
    nobody had been heard of.
    """

    head: Head
    is_resumed: bool = False
    unknown: int = 0
    abandoned: int = 0
    silence_ms: int = 0

    @property
    def after_crash(self) -> bool:
        return self.is_resumed or self.unknown + self.abandoned > 0


@dataclass(frozen=True, slots=True)
class Identity:
    """Whose log it is.

    Args:
        origin: What the names of this deployment's logs begin with.
        instance: Names this process among those that share the store, the same after a restart.
        kind: `gateway` or `command`.
        public: The key that signs.
    """

    origin: str
    instance: str
    public: bytes
    kind: str = "gateway"


class Catalogue:
    """The catalogue of one deployment."""

    def __init__(self, database: Database, drafter: Drafter, identity: Identity) -> None:
        self._database = database
        self._ledger = Ledger(database)
        self._drafter = drafter
        self._identity = identity
        self.origin = f"{identity.origin}/catalogue"

    def open(
        self,
        connection: sa.Connection,
        *,
        now_ms: int,
        resumes: bool,
        ends: Mapping[str, Object] | None = None,
    ) -> Opened:
        """A log to write to. With `resumes` it is the one that a crash left, if there is one; else
        that one is closed as abandoned, like those of others that have vanished.

        `ends` are the ends that were kept outside the store, by their request.

        Raises:
            AuditError: the catalogue itself is damaged.
        """
        heard_ms = connection.scalar(sa.select(sa.func.max(tables.logs.c.seen_ms)))
        silence_ms = now_ms - (heard_ms or now_ms)
        catalogue = self._lock(connection, now_ms)
        self._note_policy(connection, now_ms)
        unknown = abandoned = 0
        resumed: Head | None = None
        left = self._left(connection, now_ms) if self._identity.kind == "gateway" else []
        for row in left:
            head = Head(row.id, row.origin, row.last_ts, Frontier.restore(row.frontier))
            is_sound = _is_sound(connection, head)
            if is_sound:
                count, head = self._end_unended(connection, head, now_ms, ends or {})
                unknown += count
            goes_on = resumes and is_sound and row.last_ts <= now_ms + _AHEAD_MS
            if goes_on and resumed is None and row.kind == self._identity.kind:
                resumed = head
                continue
            catalogue = self._abandon(connection, catalogue, head, now_ms)
            abandoned += 1
        if resumed is not None:
            head = self._begin(connection, resumed, now_ms, is_resumed=True)
            return Opened(head, True, unknown, abandoned, silence_ms)
        head = self._make(connection, f"{self._identity.origin}/{uuid7(now_ms)}", now_ms)
        public = to_text(self._identity.public)
        self._append(
            connection, catalogue, now_ms, ("log.opened", {"origin": head.origin, "public": public})
        )
        head = self._begin(connection, head, now_ms)
        return Opened(head, False, unknown, abandoned, silence_ms)

    def sign(
        self, connection: sa.Connection, head: Head, now_ms: int, keys: Sequence[Key]
    ) -> list[Note]:
        """Signs a log that has announced the current one of these keys, as far as it has come, and
        the catalogue, which tells of it."""
        catalogue = self._lock(connection, now_ms)
        mine = signed(connection, head, keys, now_ms, crosses=True)
        told = ("log.head", _told(head))
        return [mine, self._signed(connection, catalogue, now_ms, keys, told)]

    def sign_all(self, connection: sa.Connection, now_ms: int, keys: Sequence[Key]) -> list[Note]:
        """Signs each open log that has grown since it was signed, and the catalogue."""
        catalogue, logs, marks = self._lock(connection, now_ms), tables.logs, tables.checkpoints
        is_signed = sa.exists().where(marks.c.log == logs.c.id, marks.c.size == logs.c.size)
        open_ = (logs.c.state == "open") & (logs.c.kind != "catalogue")
        found = connection.scalars(sa.select(logs.c.id).where(open_, ~is_signed)).all()
        heads = [stored_head(connection, one) for one in found]
        notes = [signed(connection, head, keys, now_ms, crosses=False) for head in heads]
        told = [("log.head", _told(head)) for head in heads]
        return [*notes, self._signed(connection, catalogue, now_ms, keys, *told)]

    def sign_ended(self, connection: sa.Connection, now_ms: int, keys: Sequence[Key]) -> list[Note]:
        """Signs logs that have ended without a checkpoint over their last records, as a crash
        leaves them. One whose tree isn't that of its rows is nobody's to sign."""
        logs, marks = tables.logs, tables.checkpoints
        is_signed = sa.exists().where(marks.c.log == logs.c.id, marks.c.size == logs.c.size)
        ended = logs.c.state.in_(("closed", "abandoned"))
        rows = connection.execute(sa.select(logs).where(ended, logs.c.size > 0, ~is_signed))
        heads = [Head(r.id, r.origin, r.last_ts, Frontier.restore(r.frontier)) for r in rows]
        sound = [head for head in heads if _is_sound(connection, head)]
        return [signed(connection, head, keys, now_ms, crosses=False) for head in sound]

    def note_alive(self, connection: sa.Connection, head: Head, now_ms: int) -> None:
        """This log has somebody, though nothing may have happened that goes into it."""
        logs = tables.logs
        connection.execute(sa.update(logs).where(logs.c.id == head.id).values(seen_ms=now_ms))

    def close(
        self, connection: sa.Connection, head: Head, now_ms: int, keys: Sequence[Key]
    ) -> list[Note]:
        """Nothing more is written to this log: signs it, and the catalogue."""
        catalogue = self._lock(connection, now_ms)
        _set_state(connection, head, "closed")
        last = signed(connection, head, keys, now_ms, crosses=False)
        told = ("log.closed", _told(head))
        return [last, self._signed(connection, catalogue, now_ms, keys, told)]

    def tell(
        self, connection: sa.Connection, events: Sequence[tuple[str, Object]], now_ms: int
    ) -> None:
        """Says something again that still holds, before the record of it goes."""
        self._append(connection, self._lock(connection, now_ms), now_ms, *events)

    def drop(self, connection: sa.Connection, log_id: int, now_ms: int) -> bool:
        """Tells that all of a log that has ended is over, if that is so. What is left of it, the
        tree, may then be deleted (`gateway.audit.pruning.clear`)."""
        catalogue = self._lock(connection, now_ms)
        head = stored_head(connection, log_id)
        if not _is_over(connection, log_id):
            return False
        _set_state(connection, head, "dropped")
        self._append(connection, catalogue, now_ms, ("log.dropped", _told(head)))
        return True

    def _signed(
        self,
        connection: sa.Connection,
        catalogue: Head,
        now_ms: int,
        keys: Sequence[Key],
        *events: tuple[str, Object],
    ) -> Note:
        """Has the catalogue tell this and signs it, all while it is locked: what one process signs
        with a new key is never smaller than what announces that key. A crossing goes first."""
        crossed = crossing(connection, catalogue, keys)
        if crossed is not None:
            events = (("audit.key.rotated", crossed.announcement()), *events)
        if events:
            catalogue = self._append(connection, catalogue, now_ms, *events)
        return signed(connection, catalogue, keys, now_ms, crosses=True)

    def _lock(self, connection: sa.Connection, now_ms: int) -> Head:
        logs = tables.logs
        known = connection.scalar(sa.select(logs.c.id).where(logs.c.origin == self.origin))
        if known is None:
            row = self._row(self.origin, now_ms) | {"kind": "catalogue", "instance": ""}
            connection.execute(self._database.insert(logs).values(row).on_conflict_do_nothing())
            known = connection.scalar(sa.select(logs.c.id).where(logs.c.origin == self.origin))
        return stored_head(connection, int(known or 0), locks=True)

    def _make(self, connection: sa.Connection, origin: str, now_ms: int) -> Head:
        connection.execute(sa.insert(tables.logs).values(self._row(origin, now_ms)))
        found = sa.select(tables.logs.c.id).where(tables.logs.c.origin == origin)
        return stored_head(connection, connection.execute(found).scalar_one())

    def _row(self, origin: str, now_ms: int) -> dict[str, object]:
        return {
            "origin": origin,
            "kind": self._identity.kind,
            "state": "open",
            "instance": self._identity.instance,
            "opened_ms": now_ms,
            "seen_ms": now_ms,
            "size": 0,
            "last_ts": 0,
            "frontier": Frontier().save(),
        }

    def _left(self, connection: sa.Connection, now_ms: int) -> list[sa.Row[tuple[object, ...]]]:
        """Logs that are open and have nobody any more."""
        logs, mine = tables.logs, self._identity
        is_mine = (logs.c.instance == mine.instance) & (logs.c.kind == mine.kind)
        has_vanished = logs.c.seen_ms < now_ms - ABANDONED_MS
        query = sa.select(logs).where(
            logs.c.state == "open",
            logs.c.kind != "catalogue",
            is_mine | has_vanished,
        )
        return list(connection.execute(query.order_by(logs.c.id.desc()).with_for_update()))

    def _begin(
        self, connection: sa.Connection, head: Head, now_ms: int, *, is_resumed: bool = False
    ) -> Head:
        opened: dict[str, Json] = {
            "version": gateway.__version__,
            "public": to_text(self._identity.public),
        }
        if is_resumed:
            opened["resumed"] = True
        policy: dict[str, Json] = {"rules": self._drafter.policy.rules()}
        return self._append(
            connection, head, now_ms, ("audit.open", opened), ("audit.policy", policy)
        )

    def _abandon(self, connection: sa.Connection, catalogue: Head, head: Head, now_ms: int) -> Head:
        _set_state(connection, head, "abandoned")
        return self._append(connection, catalogue, now_ms, ("log.abandoned", _told(head)))

    def _end_unended(
        self, connection: sa.Connection, head: Head, now_ms: int, ends: Mapping[str, Object]
    ) -> tuple[int, Head]:
        """Ends each request that a crash left, as it was kept outside or else as unknown."""
        table = tables.unended
        query = sa.select(table.c.seq, table.c.rid).where(table.c.log == head.id)
        entries = []
        for row in connection.execute(query.order_by(table.c.seq)):
            fields = ends.get(row.rid) or {"rid": row.rid, "outcome": "unknown"}
            entries.append(Entry(self._drafter.draft("query.end", fields), now_ms, row.seq))
        for at in range(0, len(entries), 256):
            head = self._ledger.append(connection, head, entries[at : at + 256]).head
        return len(entries), head

    def _append(
        self, connection: sa.Connection, head: Head, now_ms: int, *events: tuple[str, Object]
    ) -> Head:
        entries = [Entry(self._drafter.draft(*event), now_ms) for event in events]
        return self._ledger.append(connection, head, entries).head

    def _note_policy(self, connection: sa.Connection, now_ms: int) -> None:
        policy = self._drafter.policy
        row = {"id": policy.id(), "rules": encode(policy.rules()), "first_ms": now_ms}
        insert = self._database.insert(tables.policies).values(row)
        connection.execute(insert.on_conflict_do_nothing())


def _is_sound(connection: sa.Connection, head: Head) -> bool:
    """Whether the tree that was saved is that of the rows, as far as the last of them show."""
    table = tables.records
    last = sa.select(sa.func.max(table.c.seq)).where(table.c.log == head.id)
    newest = connection.scalar(last)
    if newest is not None and newest >= head.frontier.size:
        return False
    try:
        rebuilt = frontier_at(head.frontier.size, node_reader(connection, head.id))
    except AuditError:
        return False
    return rebuilt.save() == head.frontier.save()


def _is_over(connection: sa.Connection, log_id: int) -> bool:
    """Whether a log has ended and no record or tombstone of it is left."""
    logs = tables.logs
    ended = (logs.c.id == log_id) & logs.c.state.in_(("closed", "abandoned"))
    left = (tables.records, tables.unended, tables.tombstones)
    none_left = [sa.not_(sa.exists().where(one.c.log == log_id)) for one in left]
    return connection.scalar(sa.select(logs.c.id).where(ended, *none_left)) is not None


def _set_state(connection: sa.Connection, head: Head, state: str) -> None:
    logs = tables.logs
    connection.execute(sa.update(logs).where(logs.c.id == head.id).values(state=state))


def _told(head: Head) -> Object:
    checkpoint = head.checkpoint
    return {"origin": head.origin, "size": checkpoint.size, "root": to_text(checkpoint.root)}
