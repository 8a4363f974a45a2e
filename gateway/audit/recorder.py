"""What a gateway reports, and what those who must not go on unrecorded wait for.

Everything here is called on the event loop, costs some hashing and never waits for the disk, but
`Ticket.durable`. Who reports gives what it knows in clear; it goes no further than this module.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal, get_args

from gateway.audit.bundle import Receipt
from gateway.audit.canonical import Json
from gateway.audit.floods import Floods, Suppressed
from gateway.audit.instant import now_ms
from gateway.audit.ledger import Entry
from gateway.audit.log import AuditLog
from gateway.errors import Unavailable
from gateway.tasks import wait_at_most

Mode = Literal["off", "async", "relay", "dispatch", "end"]
MODES = get_args(Mode)
_RETRY_S = 5
_LOGIN_MS = 3_600_000
_MAX_LOGINS = 10_000


@dataclass(frozen=True, slots=True)
class Who:
    """Somebody at the gateway.

    Args:
        owner: Whom a stream belongs to, with its prefix (`sub:`, `user:`, `addr:`).
        auth: How that was proven: `none`, `api_key`, `jwt`, `proxy`, `link`, `admin`.
        address: The client's.
        email: What they say theirs is.
    """

    owner: str
    auth: str
    address: str
    email: str | None = None

    @property
    def known_as(self) -> str | None:
        """The owner, if that is a person and not an address."""
        return None if self.owner.startswith("addr:") else self.owner


@dataclass(frozen=True, slots=True)
class Asked:
    """A request for an answer.

    Args:
        question: The text, or a whole body where there is none.
        stream: The id of the stream that answers, if one does.
    """

    who: Who
    route: str
    question: str | bytes | None = None
    conversation: str | None = None
    model: str | None = None
    upstream: str | None = None
    stream: str | None = None
    is_streaming: bool = True


class Ticket:
    """A request on record, from its beginning to its end."""

    __slots__ = (
        "_entry",
        "_has_ended",
        "_is_counted",
        "_is_refused",
        "_recorder",
        "_rid",
        "_stream",
        "is_handed_over",
    )

    def __init__(self, recorder: Recorder, entry: Entry, stream: str | None) -> None:
        self._recorder = recorder
        self._entry = entry
        self._rid = entry.rid
        self._stream = stream
        self._has_ended = self._is_refused = self._is_counted = False
        self.is_handed_over = False  #: somebody else than who began it will end it

    @property
    def receipt(self) -> Receipt | None:
        """Once it is durable."""
        return self._entry.receipt

    async def durable(self) -> None:
        """Returns once the beginning is stored, within the time that a commit may take. In the mode
        `async`, at once. Cancelled, it leaves the record as it is.

        Raises:
            Unavailable: `audit_unavailable`.
        """
        done, log = self._entry.done, self._recorder.log
        if done is None or (done.done() and not self._is_refused):
            return
        if not log.is_away and not self._is_refused:
            log.hurry()
            await wait_at_most(done, log.manner.patience_s)
        if not done.done() or self._is_refused:
            raise unavailable()

    def refuse(self) -> None:
        """The request is refused, since nobody could record it in time. Counted, once. A stream
        that has ended by then keeps its record: who asks again gets it when that is stored."""
        if not self._is_counted:
            self._is_counted = True
            self._recorder.refused(self._entry)
        if not self._has_ended:
            self._is_refused = True
            if self._recorder.log.withdraw(self._entry):
                self._has_ended = True
            else:
                self.end("audit_failed", {"status": 503})

    def end(self, outcome: str, fields: Mapping[str, Json] | None = None) -> Ending:
        """Records the end; the first call counts."""
        if self._has_ended:
            return Ending(self._recorder, None)
        self._has_ended = True
        known: dict[str, Json] = {"rid": self._rid, "outcome": outcome, **(fields or {})}
        if self._stream is not None:
            known["stream"] = self._stream
        return self._recorder.end(known, self._entry)


@dataclass(frozen=True, slots=True)
class Ending:
    """The record of an end, for who holds something back until it is stored."""

    recorder: Recorder
    entry: Entry | None

    @property
    def done(self) -> asyncio.Future[Receipt] | None:
        """None where nobody has to wait."""
        return self.entry.done if self.entry is not None else None


@dataclass(slots=True)
class _Refusals:
    """Requests that were refused because they couldn't be recorded, until that can be told."""

    count: int = 0
    from_ms: int = 0
    to_ms: int = 0


@dataclass(slots=True)
class Recorder:
    """Makes records of what is reported.

    Args:
        refused_meter: Is told of each request that was refused for want of a record.
    """

    log: AuditLog
    mode: Mode
    refused_meter: Callable[[], None]
    suppressed_meter: Callable[[int], None]
    floods: Floods = field(default_factory=Floods)
    _refusals: _Refusals = field(default_factory=_Refusals)
    _logins: dict[bytes, int] = field(default_factory=dict)

    @property
    def is_strict(self) -> bool:
        """Whether nothing is answered unrecorded."""
        return self.mode != "async"

    @property
    def holds_dispatch(self) -> bool:
        """Whether the backend isn't asked before the record is durable."""
        return self.mode in ("dispatch", "end")

    def held(self, ending: Ending) -> asyncio.Future[None] | None:
        """With the mode `end`, what the last bytes wait for: the record of the end, in the store or
        after the time for a commit beside it."""
        done = ending.done
        if done is None or ending.entry is None:
            return None
        return self.log.kept(ending.entry, done)

    def begin(self, asked: Asked) -> Ticket:
        """Records that somebody asks. What must wait for it awaits the ticket.

        Raises:
            Unavailable: `audit_unavailable`: the store is known to be away, in a strict mode.
        """
        if self.is_strict and self.log.is_away:
            self._count_refusal(now_ms())
            raise unavailable()
        who = asked.who
        hashes = self.log.people.hashes(who.known_as, asked.question, asked.conversation)
        fields: dict[str, Json] = {
            "rid": str(uuid.uuid4()),
            "auth": who.auth,
            "route": asked.route,
            "strict": self.mode,
            "streaming": asked.is_streaming,
        }
        told = {"model": asked.model, "upstream": asked.upstream, "stream": asked.stream}
        fields |= {name: value for name, value in told.items() if value is not None}
        personal: dict[str, str | bytes] = dict(hashes.personal)
        if who.email is not None and who.auth != "none" and self._keeps_email("query"):
            personal["email"] = who.email
        entry = self._entry("query.start", fields, personal, hashes.keys, waits=self.is_strict)
        self.log.submit(entry)
        return Ticket(self, entry, asked.stream)

    def end(self, fields: Mapping[str, Json], start: Entry) -> Ending:
        """The counterpart of `begin`."""
        entry = self._entry("query.end", fields, waits=self.mode == "end")
        entry.start = start
        self.log.submit(entry)
        return Ending(self, entry)

    def stopped(self, who: Who, route: str, stream: str, by: str) -> None:
        """Somebody has stopped a stream."""
        fields: dict[str, Json] = {"stream": stream, "route": route, "by": by}
        self._about_stream("stream.stopped", who, fields)

    def resumed(self, who: Who, route: str, stream: str, after: int) -> None:
        """Somebody reads a stream again, or goes on with it, from after this event."""
        fields: dict[str, Json] = {"stream": stream, "route": route, "after": after}
        self._about_stream("stream.resumed", who, fields)

    def login(self, who: Who, route: str) -> None:
        """Somebody has proven who they are: recorded once an hour for each."""
        if who.known_as is None or who.auth == "none":
            return
        hashes = self.log.people.hashes(who.known_as, None, None)
        now, pseudonym = now_ms(), hashes.personal["subject"]
        if 0 <= now - self._logins.get(pseudonym, 0) < _LOGIN_MS:  # a clock may be put back
            return
        if len(self._logins) >= _MAX_LOGINS:
            self._logins.clear()
        self._logins[pseudonym] = now
        personal: dict[str, str | bytes] = dict(hashes.personal)
        if who.email is not None and self._keeps_email("auth"):
            personal["email"] = who.email
        fields: dict[str, Json] = {"auth": who.auth, "route": route}
        self.log.submit(self._entry("auth.login", fields, personal, hashes.keys))

    def linked(self, who: Who) -> None:
        """Somebody has made a link to a stream."""
        hashes = self.log.people.hashes(who.known_as, None, None)
        fields: dict[str, Json] = {"auth": who.auth, "route": "stream"}
        personal = dict(hashes.personal)
        self.log.submit(self._entry("auth.link_made", fields, personal, hashes.keys))

    def configured(self, fields: Mapping[str, Json]) -> None:
        """An operator has changed how the gateway works."""
        told = {"policy_id": self.log.drafter.policy.id(), **fields}
        self.log.submit(self._entry("admin.config", told))

    def violated(self, type_: str, reason: str, who: Who, fields: Mapping[str, Json]) -> None:
        """A limit or a rule was violated: floods of one kind become one record."""
        if self.floods.admits((type_, reason, who.address), now_ms()):
            self._violation(type_, reason, who, fields)
        else:
            self.floods.count((type_, reason, who.address), who.owner, fields)

    def tick(self) -> None:
        """Tells what was counted. Called now and then."""
        self._tell(now_ms())
        if self._refusals.count and not self.log.is_away:
            self._tell_refusals()

    async def close(self) -> None:
        """Tells all that was counted, and closes the log."""
        self._tell(now_ms(), is_last=True)
        if self._refusals.count:
            self._tell_refusals()
        await self.log.close()

    def refused(self, entry: Entry) -> None:
        """A request was refused since its record wasn't stored in time."""
        self._count_refusal(entry.ts)

    def _tell(self, now: int, *, is_last: bool = False) -> None:
        for key, owner, fields, count in self.floods.due(now, is_last=is_last):
            type_, reason, address = key
            told = {**fields, "count": count, "window_s": self.floods.window_s}
            self._violation(type_, reason, Who(owner, "none", address), told)
        self._tell_suppressed(self.floods.take_suppressed())

    def _tell_refusals(self) -> None:
        told, self._refusals = self._refusals, _Refusals()
        span: dict[str, Json] = {"from_ms": told.from_ms, "to_ms": told.to_ms}
        self.log.note("audit.unavailable", span | {"count": told.count, "reason": self.log.trouble})

    def _tell_suppressed(self, suppressed: Suppressed | None) -> None:
        if suppressed is None:
            return
        self.suppressed_meter(suppressed.count)
        span: dict[str, Json] = {"from_ms": suppressed.from_ms, "to_ms": suppressed.to_ms}
        fields: dict[str, Json] = {"count": suppressed.count, "reason": "flood"}
        self.log.note("audit.suppressed", fields | span | {"class": "security"})

    def _violation(self, type_: str, reason: str, who: Who, fields: Mapping[str, Json]) -> None:
        hashes = self.log.people.hashes(who.known_as, None, None)
        personal: dict[str, str | bytes] = dict(hashes.personal)
        if who.address not in ("local", "unknown"):
            personal["ip"] = who.address
        told: dict[str, Json] = {"reason": reason, **fields}
        self.log.submit(self._entry(type_, told, personal, hashes.keys))

    def _about_stream(self, type_: str, who: Who, fields: dict[str, Json]) -> None:
        hashes = self.log.people.hashes(who.known_as, None, None)
        told = {"rid": str(uuid.uuid4()), "auth": who.auth, **fields}
        self.log.submit(self._entry(type_, told, hashes.personal, hashes.keys))

    def _entry(
        self,
        type_: str,
        fields: Mapping[str, Json],
        personal: Mapping[str, str | bytes] | None = None,
        keys: Mapping[str, str] | None = None,
        *,
        waits: bool = False,
    ) -> Entry:
        draft = self.log.drafter.draft(type_, fields, personal, keys)
        done = asyncio.get_running_loop().create_future() if waits else None
        return Entry(draft, now_ms(), done=done)

    def _keeps_email(self, cls: str) -> bool:
        return cls in self.log.drafter.policy.email_classes

    def _count_refusal(self, ts: int) -> None:
        refusals = self._refusals
        refusals.from_ms = refusals.from_ms or ts
        refusals.to_ms = ts
        refusals.count += 1
        self.refused_meter()


def unavailable() -> Unavailable:
    """What a request is told that can't be recorded."""
    return Unavailable(
        "The request can't be recorded now.", code="audit_unavailable", retry_after_s=_RETRY_S
    )
