"""The log of one gateway: opened, written to, signed now and then, and closed.

`gateway.audit.recorder` says what goes in. The store may come later than the gateway, go away and
come back; whoever must not go on without it asks `is_away` and waits for receipts.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import partial
from operator import attrgetter

import gateway.audit.catalogue as catalogues
from gateway.audit.anchors import Anchors
from gateway.audit.bundle import Receipt
from gateway.audit.canonical import Json, Object, to_text
from gateway.audit.catalogue import Catalogue, Opened
from gateway.audit.checkpoint import Checkpoint
from gateway.audit.crossing import crossing
from gateway.audit.draft import Drafter
from gateway.audit.instant import now_ms
from gateway.audit.keyfile import Key
from gateway.audit.ledger import Entry, Head
from gateway.audit.manner import Manner, Meter
from gateway.audit.note import Note, parse
from gateway.audit.people import Pseudonymiser
from gateway.audit.record import Record
from gateway.audit.reserve import Reserve
from gateway.audit.store import AuditStore, AuditStoreError, last_checkpoints
from gateway.audit.writer import QUEUE, Writer
from gateway.errors import AuditError, SettingsError
from gateway.tasks import TaskOwner, wait_at_most

logger = logging.getLogger("sluice.audit")

_REOPEN_S = 1.0
_CLOSE_S = 5.0
_ANCHOR_MS = 3_600_000
#: So long, and no longer, a copy may have been under way.
_COPIES_LAG_MS = 60_000
_DISK_FULL = "SQLITE_FULL"
_SERVERS_DISK_FULL = "53100"
_CLASS_OF = attrgetter("cls")


class AuditLog:
    """What a gateway writes to."""

    def __init__(
        self,
        store: AuditStore,
        drafter: Drafter,
        people: Pseudonymiser,
        anchors: Anchors,
        meter: Meter,
        manner: Manner,
    ) -> None:
        self.drafter = drafter
        self.people = people
        self.manner = manner
        self.store = store
        self._anchors = anchors
        self._meter = meter
        self._tasks = TaskOwner()
        self._early: list[Entry] = []
        self._writer: Writer | None = None
        self._catalogue: Catalogue | None = None
        self._reserve = Reserve(manner.folder, manner.ballast_bytes)
        self._signed_size = -1
        self._anchored_ms = 0
        self._announced = ""  #: the key that was told last
        self.trouble = "store_slow"  #: the last reason for not having written
        self._made: list[tuple[str, str]] = []  #: keys that are new and not told yet
        self.silence_ms = 0  #: how long nobody had been heard of when this log was opened

    @property
    def is_away(self) -> bool:
        """Whether waiting for a receipt is in vain for now."""
        writer = self._writer
        return (
            writer is None or self._reserve.is_disk_full or writer.is_away(self.manner.patience_s)
        )

    @property
    def depth(self) -> int:
        """Records that wait to be stored."""
        return self._writer.depth if self._writer is not None else len(self._early)

    @property
    def origin(self) -> str | None:
        return self._writer.head.origin if self._writer is not None else None

    @property
    def size(self) -> int:
        return self._writer.head.frontier.size if self._writer is not None else 0

    async def open(self) -> bool:
        """Opens the store and a log in it; whether the store was there. If not, `run` tries on.

        Raises:
            SettingsError: what is there can't be used: keys, tables, a damaged catalogue.
        """
        try:
            await asyncio.to_thread(self._prepare)
        except (AuditError, OSError) as error:
            raise SettingsError(f"audit log: {error}") from error
        try:
            await self._open()
        except AuditStoreError as error:
            logger.warning("audit.unavailable", extra={"problem": error.detail})
            return False
        except AuditError as error:
            raise SettingsError(f"audit log: {error}") from error
        return True

    async def run(self) -> None:
        """Goes on until cancelled."""
        await self._reopen()
        while True:
            await asyncio.sleep(self.manner.checkpoint_s)
            await self._tick()

    async def close(self) -> None:
        """Writes what waits, as far as the store takes it, and closes the log."""
        writer = self._writer
        if writer is not None:
            self.note("audit.close", {"reason": "shutdown"})
            if await writer.flush(_CLOSE_S):
                try:
                    await self._close_log(writer.head)
                except (AuditStoreError, AuditError) as error:
                    logger.warning("audit.unavailable", extra={"problem": str(error)})
            else:
                await self._reserve.keep_ends(writer.waiting())
        await self._tasks.cancel()
        await self._anchors.close()
        await self.store.close()

    def submit(self, entry: Entry) -> None:
        """Has an entry written; before the store is there, it waits."""
        if self._writer is not None:
            self._writer.submit(entry)
        elif len(self._early) < QUEUE:
            self._early.append(entry)
        else:
            entry.is_withdrawn = True
            self._meter.audit_lost(1)

    def withdraw(self, entry: Entry) -> bool:
        """Takes back what nobody waits for any more; False if it is being written."""
        if self._writer is not None:
            return self._writer.withdraw(entry)
        entry.is_withdrawn = True
        return True

    def hurry(self) -> None:
        """Somebody waits: what is queued is written without a pause."""
        if self._writer is not None:
            self._writer.hurry()

    def kept(self, end: Entry, done: asyncio.Future[Receipt]) -> asyncio.Future[None]:
        """Done once this end is durable: in the store, or in the spool if that takes too long."""
        return self._tasks.spawn(self._keep_end(end, done), name="audit end")

    async def _keep_end(self, end: Entry, done: asyncio.Future[Receipt]) -> None:
        self.hurry()
        await wait_at_most(done, 0 if self.is_away else self.manner.patience_s)
        if not done.done():
            await self._reserve.keep_ends([end])

    def note(self, type_: str, fields: Mapping[str, Json]) -> None:
        """Records an event of the log itself."""
        self.submit(Entry(self.drafter.draft(type_, fields), now_ms()))

    async def record(
        self,
        type_: str,
        fields: Mapping[str, Json],
        personal: Mapping[str, str | bytes] | None = None,
        keys: Mapping[str, str] | None = None,
    ) -> Receipt:
        """Records an event of the log itself; durable when it returns.

        Raises:
            TimeoutError: it isn't within the time for a commit. It may be later.
        """
        done: asyncio.Future[Receipt] = asyncio.get_running_loop().create_future()
        draft = self.drafter.draft(type_, fields, personal, keys)
        self.submit(Entry(draft, now_ms(), done=done))
        self.hurry()
        async with asyncio.timeout(self.manner.patience_s):
            return await done

    # As the writer's witness

    def committed(self, records: Sequence[Record], took_s: float) -> None:
        self._meter.audit_committed(Counter(map(_CLASS_OF, records)), took_s)
        self._anchors.records((records and self.origin) or "", records)

    async def failed(self, error: AuditStoreError, waiting: Sequence[Entry]) -> None:
        is_full = error.detail in (_DISK_FULL, _SERVERS_DISK_FULL)
        self.trouble = "disk_full" if is_full else "store_away"
        if error.detail == _DISK_FULL:
            await self._reserve.release()
        await self._reserve.keep_ends(waiting)

    async def recovered(self) -> None:
        self._note_gap()
        await self._reserve.forget_ends()

    def _note_gap(self) -> None:
        """What was lost while the store was away: nothing is missing without a word."""
        writer = self._writer
        lost = writer.dropped if writer is not None else []
        if writer is None or not lost:
            return
        writer.dropped = []
        self._meter.audit_lost(len(lost))
        times = [entry.ts for entry in lost]
        fields: dict[str, Json] = {"count": len(lost), "reason": "queue_full"}
        self.note("audit.gap", fields | {"from_ms": min(times), "to_ms": max(times)})

    # Opening, signing, closing

    def _prepare(self) -> None:
        self._made = self.people.refresh(now_ms())
        self._reserve.prepare()

    async def _open(self) -> None:
        await self.store.open()
        is_gateway = self.manner.kind == "gateway"
        ends = await self._reserve.ends() if is_gateway else {}
        manner = self.manner
        public = self.people.signer(manner.origin).verifier.public
        identity = catalogues.Identity(manner.origin, manner.instance, public, manner.kind)
        catalogue = Catalogue(self.store.database, self.drafter, identity)
        work = partial(catalogue.open, now_ms=now_ms(), resumes=not self.store.is_shared, ends=ends)
        opened: Opened = await self.store.run(work, writes=True)
        if is_gateway:
            await self._reserve.drop_ends()
        self._catalogue = catalogue
        self.silence_ms = opened.silence_ms
        self._writer = Writer(self.store.database, opened.head, self)
        self._tasks.spawn(self._write(self._writer), name="audit writer")
        self._tell_keys()
        early, self._early = self._early, []
        for entry in early:
            self._writer.submit(entry)
        level = logging.INFO if opened.after_crash else logging.DEBUG
        found = {
            "log": opened.head.origin,
            "resumed": opened.is_resumed,
            "unknown": opened.unknown,
            "abandoned": opened.abandoned,
        }
        logger.log(level, "audit.opened", extra=found)
        await self.sign_ended()
        await self.sign()
        if opened.after_crash:  # after what is new, which nobody has yet
            await self._copy_again()

    async def _copy_again(self) -> None:
        """Sends outside once more what was signed last: a crash may have come before the copy."""
        for ts, text in await self.store.run(partial(last_checkpoints, within_ms=_COPIES_LAG_MS)):
            self._anchors.checkpoint(parse(text), ts)

    async def _write(self, writer: Writer) -> None:
        """Until somebody else has written to this log: then on in another one."""
        await writer.run()
        self._writer = self._catalogue = None
        self._signed_size = -1
        self._early[:0] = [one for one in writer.waiting() if not one.has_no_use]
        self._tasks.spawn(self._reopen(), name="audit log anew")

    async def _reopen(self) -> None:
        """Until there is a log to write to."""
        while self._writer is None:
            await asyncio.sleep(_REOPEN_S)
            try:
                await self._open()
            except (AuditStoreError, AuditError, SettingsError) as error:
                logger.warning("audit.unavailable", extra={"problem": type(error).__name__})

    async def _tick(self) -> None:
        await self._reserve.refill()
        try:
            await self._note_alive()
            await self.follow_keys()
        except AuditStoreError as error:
            logger.warning("audit.unavailable", extra={"problem": error.detail})
        except TimeoutError:
            logger.warning("audit.unavailable", extra={"problem": "timeout"})
        except (AuditError, OSError) as error:
            logger.error("audit.unsigned", extra={"problem": type(error).__name__})  # noqa: TRY400

    async def _note_alive(self) -> None:
        writer, catalogue = self._writer, self._catalogue
        if writer is not None and catalogue is not None:
            work = partial(catalogue.note_alive, head=writer.head, now_ms=now_ms())
            await self.store.run(work, writes=True)

    def _tell_keys(self) -> None:
        made, self._made = self._made, []
        for kind, key in made:
            self.note("audit.key.created", {"kind": kind, "key": key})

    async def sign(self, words: Mapping[str, str | bytes] | None = None) -> Checkpoint | None:
        """Signs the log as it is stored, tells the catalogue, and sends copies outside. Nothing
        happens if nothing was written since. A new key is announced first, with these `words`."""
        writer, catalogue = self._writer, self._catalogue
        if writer is None or catalogue is None:
            return None
        keys = self.people.sign_keys  # those that are announced sign, whoever reads keys meanwhile
        await self._announce_key(writer, keys, words)
        head, now = writer.head, now_ms()
        if head.frontier.size == self._signed_size:
            return None
        await self._signed(partial(catalogue.sign, head=head, now_ms=now, keys=keys))
        self._signed_size = head.frontier.size
        self._anchor(head.checkpoint, now)
        return head.checkpoint

    async def sign_all(self) -> None:
        """Signs every log that is open, whoever writes to it, as far as it has come.

        Raises:
            AuditStoreError: the store is away.
            AuditError: there is no key to sign with.
        """
        if self._catalogue is not None:
            keys = self.people.sign_keys
            await self._signed(partial(self._catalogue.sign_all, now_ms=now_ms(), keys=keys))

    async def sign_ended(self) -> None:
        """Signs the logs that a crash has ended: what no checkpoint covers is never swept.

        Raises:
            AuditStoreError: the store is away.
        """
        if self._catalogue is not None:
            keys = self.people.sign_keys
            await self._signed(partial(self._catalogue.sign_ended, now_ms=now_ms(), keys=keys))

    async def _signed(self, work: partial[list[Note]]) -> None:
        """Signs, and sends copies outside."""
        now = now_ms()
        if notes := await self.store.run(work, writes=True):
            for note in notes:
                self._anchors.checkpoint(note, now)
            self._meter.audit_signed(now / 1000)

    async def tell_catalogue(self, events: Sequence[tuple[str, Object]]) -> None:
        """Says in the catalogue again what still holds.

        Raises:
            AuditStoreError: the store is away.
        """
        if self._catalogue is not None and events:
            work = partial(self._catalogue.tell, events=events, now_ms=now_ms())
            await self.store.run(work, writes=True)

    async def drop(self, log_id: int) -> bool:
        """Drops a log that has ended and of which nothing is left; whether it has.

        Raises:
            AuditStoreError: the store is away.
        """
        if self._catalogue is None:
            return False
        work = partial(self._catalogue.drop, log_id=log_id, now_ms=now_ms())
        return await self.store.run(work, writes=True)

    async def follow_keys(self, words: Mapping[str, str | bytes] | None = None) -> None:
        """Takes over keys that another process has made, and signs with them from now on.

        Raises:
            AuditError, OSError: they can't be read.
            AuditStoreError, TimeoutError: the crossing couldn't be recorded.
        """
        self._made += await asyncio.to_thread(self.people.refresh, now_ms())
        self._tell_keys()
        await self.sign(words)

    async def _announce_key(
        self, writer: Writer, keys: Sequence[Key], words: Mapping[str, str | bytes] | None
    ) -> None:
        crossed = await self.store.run(partial(crossing, head=writer.head, keys=keys))
        if crossed is not None and crossed.after.id != self._announced:
            await self.record("audit.key.rotated", crossed.announcement(), words)
            self._announced = crossed.after.id

    def _anchor(self, checkpoint: Checkpoint, now: int) -> None:
        """Once an hour a checkpoint goes into the log itself."""
        if not 0 <= now - self._anchored_ms < _ANCHOR_MS:  # a clock may be put back
            self._anchored_ms = now
            fields: dict[str, Json] = {"size": checkpoint.size, "root": to_text(checkpoint.root)}
            self.note("audit.anchor", fields)

    async def _close_log(self, head: Head) -> None:
        if self._catalogue is not None:
            keys = self.people.sign_keys
            work = partial(self._catalogue.close, head=head, now_ms=now_ms(), keys=keys)
            await self._signed(work)
