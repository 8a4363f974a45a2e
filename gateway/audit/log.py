"""The log of one gateway: opened, written to, and closed; `gateway.audit.signing` signs it.

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
from gateway.audit.canonical import Json
from gateway.audit.catalogue import Catalogue, Opened
from gateway.audit.draft import Drafter
from gateway.audit.instant import now_ms
from gateway.audit.ledger import Entry
from gateway.audit.manner import Manner, Meter
from gateway.audit.people import Pseudonymiser
from gateway.audit.record import Record
from gateway.audit.reserve import Reserve
from gateway.audit.signing import Signing
from gateway.audit.store import AuditStore, AuditStoreError
from gateway.audit.writer import QUEUE, Writer
from gateway.errors import AuditError, SettingsError
from gateway.tasks import TaskOwner, wait_at_most

logger = logging.getLogger("sluice.audit")

_REOPEN_S = 1.0
_CLOSE_S = 5.0
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
        self.signing = Signing(store, people, anchors, meter, self)
        self._anchors = anchors
        self._meter = meter
        self._tasks = TaskOwner()
        self._early: list[Entry] = []
        self._writer: Writer | None = None
        self._reserve = Reserve(manner.folder, manner.ballast_bytes)
        self.trouble = "store_slow"  #: the last reason for not having written
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
            await self.signing.read_keys()
            await asyncio.to_thread(self._reserve.prepare)
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
                    await self.signing.close()
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

    # Opening and going on

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
        self.silence_ms = opened.silence_ms
        self._writer = Writer(self.store.database, opened.head, self)
        self._tasks.spawn(self._write(self._writer), name="audit writer")
        self.signing.begin(catalogue, self._writer)
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
        await self.signing.sign_ended()
        await self.signing.sign()
        if opened.after_crash:  # after what is new, which nobody has yet
            await self.signing.copy_again()

    async def _write(self, writer: Writer) -> None:
        """Until somebody else has written to this log: then on in another one."""
        await writer.run()
        self._writer = None
        self.signing.end()
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
            await self.signing.note_alive()
            await self.signing.follow_keys()
        except AuditStoreError as error:
            logger.warning("audit.unavailable", extra={"problem": error.detail})
        except TimeoutError:
            logger.warning("audit.unavailable", extra={"problem": "timeout"})
        except (AuditError, OSError) as error:
            logger.error("audit.unsigned", extra={"problem": type(error).__name__})  # noqa: TRY400
