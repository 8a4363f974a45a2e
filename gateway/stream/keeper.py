"""The keeper: brings running streams into the store, many of them in one transaction.

A stream says only that it has changed (`changed`); the writer asks it for what is new when the time
has come. So there is no queue of data: what isn't written waits in the streams' own logs. A log
that is full waits for the store as for a reader (`make_way`), but not for one that is away: what it
has dropped by then shows as a gap between two segments.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from typing import Protocol

from gateway.backoff import Backoff
from gateway.stream.draft import Draft, Kept, Source, take_drafts
from gateway.stream.model import StreamId
from gateway.stream.store import SessionStore, StoreError
from gateway.stream.turns import Turns
from gateway.tasks import TaskOwner

logger = logging.getLogger(__name__)

#: A write that takes longer is one to a store that is away: a locked file, a dead network. So long
#: does a full log wait for it.
_PATIENCE_S = 2.0
#: Turns that were missed for longer are left out.
_LATE_S = 1.0


class Watch(Protocol):
    """Is told of writes that failed and of what came of trying again; decides nothing."""

    def store_failed(
        self, problem: str, *, is_transient: bool, streams: int, failures: int
    ) -> None:
        """A write failed that concerned so many streams, the `failures`th time in a row."""
        ...

    def store_retried(self, *, succeeded: bool) -> None:
        """A store that was away was tried again; no success is that it still is."""
        ...


class Keeper:
    """Writes what its sources have to say.

    Args:
        flush_ms: Longest time that an event waits for its transaction, while the store answers;
            in proportion longer where more than 1,000 streams say something. A creation and an
            end don't wait.
        max_sources: How many streams it keeps at once; further ones live in memory only.
        on_lost: Called with a stream whose end came after another one's, from elsewhere.
    """

    def __init__(
        self,
        store: SessionStore,
        *,
        flush_ms: float = 1000,
        max_sources: int = 10_000,
        backoff: Backoff | None = None,
        watch: Watch | None = None,
        on_lost: Callable[[StreamId], None] | None = None,
    ) -> None:
        self._store = store
        self._max_sources = max_sources
        self._backoff = backoff or Backoff()
        self._watch = watch
        self._on_lost = on_lost
        self._kept: dict[StreamId, Kept] = {}
        self._turns = Turns(flush_ms / 1000)
        self._urgent: set[StreamId] = set()
        #: Those that the store refuses, for what they are: tried by themselves.
        self._refused: set[StreamId] = set()
        self._refused_due = 0.0
        self._wake = asyncio.Event()
        self._hurry = asyncio.Event()  #: a store that is away is tried at once: for `flush`
        self._settled = asyncio.Event()
        self._failures = 0
        self._is_writing = False
        self._in_hand: set[StreamId] = set()  #: those that the writer has taken, until written
        self._write_began: float | None = None
        self._tasks = TaskOwner()
        self.unkept = 0  #: streams that weren't taken, since there were too many

    @property
    def changed(self) -> set[StreamId]:
        """Where the id of a stream belongs that has new events; only of one that was `created`."""
        return self._turns.changed

    def start(self) -> None:
        """Begins to write. Needs a running loop and a store that is open, or will be."""
        self._tasks.spawn(self._run(), name="stream keeper")

    @property
    def is_degraded(self) -> bool:
        """Whether the store is away, or refuses some stream."""
        return self._is_away or bool(self._refused)

    @property
    def _is_away(self) -> bool:
        """Whether it didn't take the last write, or has been at one for too long."""
        began = self._write_began
        is_stuck = began is not None and time.monotonic() - began > _PATIENCE_S
        return self._failures > 0 or is_stuck

    @property
    def queued(self) -> int:
        """How many streams have something that isn't written."""
        changed = self._turns.everybody() & self._kept.keys()
        return len(changed | self._urgent | self._refused | self._in_hand)

    def created(self, source: Source) -> asyncio.Future[bool]:
        """Takes a new stream; the result tells whether it has come into the store.

        False as soon as the store is known to be away: the stream is then written when that is
        possible. Also False when there are too many already; that one isn't written at all.
        Wait for it by `asyncio.wait`: whoever is cancelled shall not cancel it.
        """
        durable: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        if len(self._kept) >= self._max_sources:
            self.unkept += 1
            durable.set_result(False)
            return durable
        self._kept[source.id] = Kept(source, durable)
        self._press(source.id)
        if self._is_away:
            durable.set_result(False)
        return durable

    def ended(self, source: Source) -> None:
        """It has ended: written at once, then forgotten."""
        if source.id in self._kept:
            self._press(source.id)

    def make_way(self, source: Source, wanted: int, wake: Callable[[], None]) -> int | None:
        """Up to which event a full log may drop its oldest without a gap in the store.

        What is missing up to event `wanted` is written at once; `wake` is called when more is
        written. None where nothing is waited for: the store is away, it has taken too long already,
        or it doesn't keep this stream.
        """
        kept = self._kept.get(source.id)
        if kept is None or self._failures or source.id in self._refused:
            return None
        kept.wake = wake
        if kept.seq >= wanted:
            return kept.seq
        self._press(source.id)
        now = time.monotonic()
        if kept.awaited_since is None:
            kept.awaited_since = now
        return kept.seq if now - kept.awaited_since < _PATIENCE_S else None

    def is_behind(self, source: Source) -> bool:
        """Whether something of it isn't in the store, though it is to be kept."""
        return source.id in self._kept

    async def flush(self, timeout_s: float) -> bool:
        """Writes everything without waiting for its time; whether that was done in `timeout_s`."""
        changed = self._turns.everybody()
        self._turns.take(changed)
        self._urgent |= changed & self._kept.keys()
        self._wake.set()
        self._hurry.set()
        self._note_settled()
        try:
            async with asyncio.timeout(timeout_s):
                await self._settled.wait()
        except TimeoutError:
            return False
        return not self._refused

    async def close(self) -> None:
        """Stops writing and leaves the store open. What isn't written is lost: `flush` first."""
        await self._tasks.cancel()
        for kept in self._kept.values():
            _resolve(kept, is_durable=False)

    def _press(self, stream_id: StreamId) -> None:
        self._urgent.add(stream_id)
        self._wake.set()

    async def _run(self) -> None:
        due = time.monotonic()
        while True:
            await self._await_work(due)
            now = time.monotonic()
            ids = self._turns.everybody() if self._failures else set[StreamId]()
            while due <= now:
                ids |= self._turns.step()
                due = max(due, now - _LATE_S) + self._turns.step_s
            self._is_writing = True
            try:
                await self._write_queued(ids)
                await self._retry_refused()
            finally:
                self._is_writing = False
                self._in_hand.clear()
            self._note_settled()

    async def _await_work(self, due: float) -> None:
        """Gathers more until `due` or until something is urgent; waits for a store that is away."""
        if not self._urgent:
            self._wake.clear()
        # Nobody tells of changes, so a look is due wherever there may be one.
        await _wait_for(self._wake, max(0.0, due - time.monotonic()) if self._kept else None)
        if self._failures:
            await _wait_for(self._hurry, self._backoff.delay_s(self._failures))
        self._hurry.clear()

    async def _write_queued(self, ids: set[StreamId]) -> None:
        """Writes these and what is urgent, which goes first: a client waits for a new stream."""
        urgent, self._urgent = self._urgent, set()
        self._turns.take(ids | urgent)
        self._in_hand = (ids | urgent) - self._refused
        in_order = [*(ids - urgent), *urgent]  # the last is taken first
        waiting = [self._kept[i] for i in in_order if i in self._in_hand and i in self._kept]
        while waiting:
            drafts = take_drafts(waiting)
            if not await self._write(drafts):
                self._urgent.update(kept.source.id for kept in waiting)
                self._urgent.update(draft.kept.source.id for draft in drafts)
                return

    async def _retry_refused(self) -> None:
        if not self._refused or time.monotonic() < self._refused_due:
            return
        self._refused_due = time.monotonic() + self._backoff.max_delay_ms / 1000
        for stream_id in list(self._refused):
            if not await self._write(take_drafts([self._kept[stream_id]])):
                self._refused.discard(stream_id)
                self._urgent.add(stream_id)
                return

    async def _write(self, drafts: list[Draft]) -> bool:
        """False if the store is away, and nothing was written."""
        error = await self._try(drafts)
        if error is None:
            return True
        if error.is_transient:
            self._failures += 1
            return False
        if len(drafts) == 1:
            self._refuse(drafts[0].kept.source.id)
            return True
        # One of them must be the reason: the others shall not suffer.
        for draft in drafts:
            if not await self._write([draft]):
                return False
        return True

    async def _try(self, drafts: list[Draft]) -> StoreError | None:
        try:
            changes = [change for draft in drafts for change in draft.changes]
            self._write_began = time.monotonic()
            lost = await self._store.write(changes) if changes else frozenset[StreamId]()
        except StoreError as error:
            self._note_fault(error, drafts)
            return error
        except Exception as error:
            # Whatever it is, it must not be the end of all keeping.
            unknown = StoreError(f"Unexpected {type(error).__name__}.", is_transient=False)
            logger.exception("store.bug")
            self._note_fault(unknown, drafts)
            return unknown
        finally:
            self._write_began = None
        if self._failures:
            logger.info("store.recovered", extra={"failures": self._failures})
            self._failures = 0
            if self._watch is not None:
                self._watch.store_retried(succeeded=True)
        for draft in drafts:
            self._note_written(draft, is_lost=draft.kept.source.id in lost)
        return None

    def _note_written(self, draft: Draft, *, is_lost: bool) -> None:
        kept = draft.kept
        self._refused.discard(kept.source.id)
        kept.is_created = True
        kept.seq = draft.last
        self._in_hand.discard(kept.source.id)
        _resolve(kept, is_durable=True)
        if draft.has_ended:
            self._kept.pop(kept.source.id, None)
            self._turns.take({kept.source.id})
        wake, kept.wake, kept.awaited_since = kept.wake, None, None
        if wake is not None:
            wake()
        if is_lost and self._on_lost is not None:
            self._on_lost(kept.source.id)

    def _note_fault(self, error: StoreError, drafts: list[Draft]) -> None:
        for draft in drafts:
            _resolve(draft.kept, is_durable=False)
        if self._watch is None:
            return
        if self._failures:
            self._watch.store_retried(succeeded=False)
        self._watch.store_failed(
            error.message,
            is_transient=error.is_transient,
            streams=len(drafts),
            failures=self._failures + 1,
        )

    def _refuse(self, stream_id: StreamId) -> None:
        if not self._refused:
            self._refused_due = time.monotonic() + self._backoff.max_delay_ms / 1000
        self._refused.add(stream_id)

    def _note_settled(self) -> None:
        if self._turns or self._urgent or self._is_writing:
            self._settled.clear()
        else:
            self._settled.set()


async def _wait_for(event: asyncio.Event, timeout_s: float | None) -> None:
    """Waits for the event, at most so long; None is for ever."""
    if event.is_set():
        return
    try:
        async with asyncio.timeout(timeout_s):
            await event.wait()
    except TimeoutError:
        pass


def _resolve(kept: Kept, *, is_durable: bool) -> None:
    if not kept.durable.done():
        kept.durable.set_result(is_durable)
