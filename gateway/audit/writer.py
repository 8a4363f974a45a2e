"""The writer of one log: what is reported becomes records, many in one transaction.

Nobody who reports waits for a lock or for the disk, but for the receipt if they want one. While the
store is away the writer keeps what it has, tries on, and tells how long it has been so.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Protocol

from gateway.audit.bundle import Receipt
from gateway.audit.ledger import Entry, Head, Ledger, Sealed
from gateway.audit.record import Record
from gateway.audit.store import AuditStoreError, translated
from gateway.database import Database
from gateway.errors import AuditError

logger = logging.getLogger("sluice.audit")

BATCH = 256
QUEUE = 10_000
#: Between commits that nobody waits for: one costs as much as a dozen records that share it, and
#: with this a stream costs a third less at 100, 300 and 1000 of them a second.
_PAUSE_S = 0.02
_RETRY_S = (0.05, 0.1, 0.25, 0.5, 1.0)


class Witness(Protocol):
    """Is told what became of what was written; decides nothing."""

    def committed(self, records: Sequence[Record], took_s: float) -> None: ...

    async def failed(self, error: AuditStoreError, waiting: Sequence[Entry]) -> None:
        """The store is away; `waiting` is what it doesn't have yet."""
        ...

    async def recovered(self) -> None: ...


class Writer:
    """Appends to one log. `run` is its task; the rest is called from the same loop."""

    def __init__(
        self,
        database: Database,
        head: Head,
        witness: Witness,
        *,
        max_queue: int = QUEUE,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._database = database
        self._ledger = Ledger(database)
        self._witness = witness
        self._max_queue = max_queue
        self._clock = clock
        self._queue: deque[Entry] = deque()
        self._batch: list[Entry] = []
        self._doubtful: Sealed | None = None
        self._wake = asyncio.Event()
        self._timer: asyncio.TimerHandle | None = None
        self._committed_s = 0.0
        self._idle = asyncio.Event()
        self._idle.set()
        self._since: float | None = None
        self.head = head
        self.failures = 0
        self.dropped: list[Entry] = []
        self.is_broken = False

    @property
    def depth(self) -> int:
        """Entries that wait, those of the transaction that runs included."""
        return len(self._queue) + len(self._batch)

    def is_away(self, patience_s: float) -> bool:
        """Whether the last try failed, or one has been under way for longer than `patience_s`."""
        is_late = self._since is not None and self._clock() - self._since > patience_s
        return self.is_broken or self.failures > 0 or is_late

    def submit(self, entry: Entry) -> None:
        """Queues an entry, to be written at once if the last commit was a while ago. When the queue
        is full, the oldest entry makes way and is counted."""
        if len(self._queue) >= self._max_queue:
            self._drop(self._queue.popleft())
        self._queue.append(entry)
        self._idle.clear()
        if len(self._queue) >= BATCH:
            self.hurry()
        elif self._timer is None:
            loop = asyncio.get_running_loop()
            self._timer = loop.call_at(self._committed_s + _PAUSE_S, self.hurry)

    def hurry(self) -> None:
        """Somebody waits for what is queued: it is written as soon as the writer is free."""
        if self._queue:
            self._wake.set()

    def withdraw(self, entry: Entry) -> bool:
        """Takes an entry back that isn't being written yet; its end isn't recorded either."""
        if entry in self._batch or entry.receipt is not None:
            return False
        entry.is_withdrawn = True
        return True

    async def flush(self, timeout_s: float) -> bool:
        """Waits until everything is stored; whether it is."""
        self.hurry()
        try:
            async with asyncio.timeout(timeout_s):
                await self._idle.wait()
        except TimeoutError:
            return False
        return True

    def waiting(self) -> list[Entry]:
        """What isn't stored yet."""
        return [*self._batch, *self._queue]

    async def run(self) -> None:
        """Writes until cancelled."""
        while not self.is_broken:
            if not self._batch:
                await self._wake.wait()
                self._batch = self._take()
            if self._batch:
                await self._try()
            if not self._batch and not self._queue:
                self._idle.set()

    def _take(self) -> list[Entry]:
        self._wake.clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        batch: list[Entry] = []
        while self._queue and len(batch) < BATCH:
            entry = self._queue.popleft()
            if not entry.has_no_use:
                batch.append(entry)
        self.hurry()  # what is left has waited for longer
        return batch

    async def _try(self) -> None:
        self._since = self._clock()
        try:
            sealed = await self._append()
        except AuditStoreError as error:
            await self._failed(error)
        except AuditError as error:
            self._break(error)
        else:
            await self._committed(sealed)
        finally:
            self._since = None

    async def _append(self) -> Sealed:
        attempt: list[Sealed] = []

        def work(connection: object) -> Sealed:
            sealed = self._ledger.append(connection, self.head, self._batch, self._doubtful)  # type: ignore[arg-type]
            attempt.append(sealed)
            return sealed

        async with translated():
            try:
                return await self._database.run(work, writes=True)
            except BaseException:
                # Its commit may have come through all the same.
                self._doubtful = attempt[-1] if attempt else self._doubtful
                raise

    async def _committed(self, sealed: Sealed) -> None:
        batch, self._batch, self._doubtful = self._batch, [], None
        self.head = sealed.head
        self._committed_s = asyncio.get_running_loop().time()
        for entry, record in zip(batch, sealed.records, strict=True):
            entry.receipt = Receipt.of(record, self.head.origin)
            if entry.done is not None and not entry.done.done():
                entry.done.set_result(entry.receipt)
        took_s = self._clock() - (self._since or 0)
        self._witness.committed(sealed.records, took_s)
        if self.failures:
            logger.info("audit.recovered", extra={"failures": self.failures})
            self.failures = 0
            await self._witness.recovered()

    async def _failed(self, error: AuditStoreError) -> None:
        if not self.failures:
            logger.warning("audit.write_failed", extra={"problem": error.message})
        self.failures += 1
        await self._witness.failed(error, self.waiting())
        await asyncio.sleep(_RETRY_S[min(self.failures, len(_RETRY_S)) - 1])

    def _break(self, error: AuditError) -> None:
        """Whoever else has written to this log: going on would fork it."""
        self.is_broken = True
        logger.error("audit.broken", extra={"code": error.code})

    def _drop(self, entry: Entry) -> None:
        entry.is_withdrawn = True
        self.dropped.append(entry)
