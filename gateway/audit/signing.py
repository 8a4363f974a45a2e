"""What is signed: the log of this process, those of others, and the catalogue that tells of them.

Copies of each checkpoint go outside, and keys that other processes have made are taken over. While
there is no log to write to, nothing happens.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Protocol

from gateway.audit.anchors import Anchors
from gateway.audit.bundle import Receipt
from gateway.audit.canonical import Json, Object, to_text
from gateway.audit.catalogue import Catalogue
from gateway.audit.checkpoint import Checkpoint
from gateway.audit.crossing import crossing
from gateway.audit.instant import now_ms
from gateway.audit.keyfile import Key
from gateway.audit.manner import Meter
from gateway.audit.note import Note, parse
from gateway.audit.people import Pseudonymiser
from gateway.audit.store import AuditStore, last_checkpoints
from gateway.audit.writer import Writer

_ANCHOR_MS = 3_600_000
#: So long, and no longer, a copy may have been under way.
_COPIES_LAG_MS = 60_000


class Journal(Protocol):
    """Where events of the log itself are recorded."""

    def note(self, type_: str, fields: Mapping[str, Json]) -> None: ...

    async def record(
        self,
        type_: str,
        fields: Mapping[str, Json],
        personal: Mapping[str, str | bytes] | None = None,
    ) -> Receipt: ...


class Signing:
    """Signs for one process. Every method that is awaited may raise `AuditStoreError`."""

    def __init__(
        self,
        store: AuditStore,
        people: Pseudonymiser,
        anchors: Anchors,
        meter: Meter,
        journal: Journal,
    ) -> None:
        self._store = store
        self._people = people
        self._anchors = anchors
        self._meter = meter
        self._journal = journal
        self._catalogue: Catalogue | None = None
        self._writer: Writer | None = None
        self._signed_size = -1
        self._anchored_ms = 0
        self._announced = ""  #: the key that was told last
        self._made: list[tuple[str, str]] = []  #: keys that are new and not told yet

    def begin(self, catalogue: Catalogue, writer: Writer) -> None:
        """There is a log to write to."""
        self._catalogue, self._writer = catalogue, writer
        self._tell_keys()

    def end(self) -> None:
        """The counterpart of `begin`."""
        self._catalogue = self._writer = None
        self._signed_size = -1

    async def read_keys(self) -> None:
        """Reads the keys of now, and makes those that aren't there.

        Raises:
            AuditError, OSError: they can't be read or made.
        """
        made = await asyncio.to_thread(self._people.refresh, now_ms())
        self._made += made

    async def follow_keys(self, words: Mapping[str, str | bytes] | None = None) -> None:
        """Takes over keys that another process has made, and signs with them from now on.

        Raises:
            AuditError, OSError: they can't be read.
            TimeoutError: the crossing couldn't be recorded.
        """
        await self.read_keys()
        self._tell_keys()
        await self.sign(words)

    async def sign(self, words: Mapping[str, str | bytes] | None = None) -> Checkpoint | None:
        """Signs the log as it is stored, and the catalogue. Nothing happens if nothing was written
        since. A new key is announced first, with these `words`.

        Raises:
            TimeoutError: the announcement couldn't be recorded.
        """
        writer, catalogue = self._writer, self._catalogue
        if writer is None or catalogue is None:
            return None
        keys = self._people.sign_keys  # those that are announced sign, whoever reads keys meanwhile
        await self._announce_key(writer, keys, words)
        head, now = writer.head, now_ms()
        if head.frontier.size == self._signed_size:
            return None
        await self._run(partial(catalogue.sign, head=head, now_ms=now, keys=keys))
        self._signed_size = head.frontier.size
        self._anchor(head.checkpoint, now)
        return head.checkpoint

    async def sign_all(self) -> None:
        """Signs every log that is open, whoever writes to it, as far as it has come."""
        if self._catalogue is not None:
            keys = self._people.sign_keys
            await self._run(partial(self._catalogue.sign_all, now_ms=now_ms(), keys=keys))

    async def sign_ended(self) -> None:
        """Signs the logs that a crash has ended: what no checkpoint covers is never swept."""
        if self._catalogue is not None:
            keys = self._people.sign_keys
            await self._run(partial(self._catalogue.sign_ended, now_ms=now_ms(), keys=keys))

    async def copy_again(self) -> None:
        """Sends outside once more what was signed last: a crash may have come before the copy."""
        for ts, text in await self._store.run(partial(last_checkpoints, within_ms=_COPIES_LAG_MS)):
            self._anchors.checkpoint(parse(text), ts)

    async def tell(self, events: Sequence[tuple[str, Object]]) -> None:
        """Says in the catalogue again what still holds."""
        if self._catalogue is not None and events:
            work = partial(self._catalogue.tell, events=events, now_ms=now_ms())
            await self._store.run(work, writes=True)

    async def drop(self, log_id: int) -> bool:
        """Drops a log that has ended and of which nothing is left; whether it has."""
        if self._catalogue is None:
            return False
        work = partial(self._catalogue.drop, log_id=log_id, now_ms=now_ms())
        return await self._store.run(work, writes=True)

    async def note_alive(self) -> None:
        """Says that the log has somebody."""
        if self._writer is not None and self._catalogue is not None:
            work = partial(self._catalogue.note_alive, head=self._writer.head, now_ms=now_ms())
            await self._store.run(work, writes=True)

    async def close(self) -> None:
        """Signs the log for the last time: nothing more is written to it."""
        if self._writer is not None and self._catalogue is not None:
            head, keys = self._writer.head, self._people.sign_keys
            await self._run(partial(self._catalogue.close, head=head, now_ms=now_ms(), keys=keys))

    async def _run(self, work: partial[list[Note]]) -> None:
        """Signs, and sends copies outside."""
        now = now_ms()
        if notes := await self._store.run(work, writes=True):
            for note in notes:
                self._anchors.checkpoint(note, now)
            self._meter.audit_signed(now / 1000)

    async def _announce_key(
        self, writer: Writer, keys: Sequence[Key], words: Mapping[str, str | bytes] | None
    ) -> None:
        crossed = await self._store.run(partial(crossing, head=writer.head, keys=keys))
        if crossed is not None and crossed.after.id != self._announced:
            await self._journal.record("audit.key.rotated", crossed.announcement(), words)
            self._announced = crossed.after.id

    def _anchor(self, checkpoint: Checkpoint, now: int) -> None:
        """Once an hour a checkpoint goes into the log itself."""
        if not 0 <= now - self._anchored_ms < _ANCHOR_MS:  # a clock may be put back
            self._anchored_ms = now
            fields: dict[str, Json] = {"size": checkpoint.size, "root": to_text(checkpoint.root)}
            self._journal.note("audit.anchor", fields)

    def _tell_keys(self) -> None:
        made, self._made = self._made, []
        for kind, key in made:
            self._journal.note("audit.key.created", {"kind": kind, "key": key})
