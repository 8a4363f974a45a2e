"""The hub: which streams run, for whom, how many there may be, and the clocks that end them."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Coroutine
from dataclasses import dataclass
from functools import partial
from typing import Protocol

from gateway.errors import TooManyRequests, Unavailable
from gateway.stream.abandoned import Abandoned
from gateway.stream.archive import Archive
from gateway.stream.keeper import Keeper
from gateway.stream.limits import Clocks, Limits
from gateway.stream.live import LiveStream
from gateway.stream.log import EventLog, LogBudget
from gateway.stream.model import (
    CLIENT_GONE,
    USER_REQUESTED,
    Ending,
    StreamId,
    error_ending,
    new_stream_id,
)
from gateway.stream.plan import Claim, Plan
from gateway.stream.producer import Producer
from gateway.stream.reader import Reader, Sink
from gateway.stream.shelf import Shelf
from gateway.stream.store import StoreError
from gateway.tasks import TaskOwner

_BUSY_RETRY_S = 5
_FLUSH_S = 2.0


class Lease(Protocol):
    def release(self) -> None: ...


class Observer(Protocol):
    """Is told what happened; decides nothing."""

    def stream_started(self, stream: LiveStream) -> None: ...

    def stream_ended(self, stream: LiveStream) -> None: ...


class Observers:
    """Several, told one after the other."""

    def __init__(self, *observers: Observer) -> None:
        self._observers = observers

    def stream_started(self, stream: LiveStream) -> None:
        for observer in self._observers:
            observer.stream_started(stream)

    def stream_ended(self, stream: LiveStream) -> None:
        for observer in self._observers:
            observer.stream_ended(stream)


@dataclass(slots=True)
class _Running:
    stream: LiveStream
    producer: Producer
    lease: Lease
    is_told: bool = False


class Hub:
    """The live streams of this process."""

    def __init__(
        self,
        *,
        clocks: Clocks,
        limits: Limits,
        budget: LogBudget,
        observer: Observer,
        keeper: Keeper,
        archive: Archive,
    ) -> None:
        self._keeper = keeper
        self._archive = archive
        self._clocks = clocks
        self._limits = limits
        self._budget = budget
        self._observer = observer
        self._running: dict[StreamId, _Running] = {}
        self._shelf = Shelf(limits.resume_ttl_s, keeper.is_behind)
        budget.evict = self._shelf.drop_oldest
        self._claims: dict[Claim, StreamId] = {}
        self._abandoned = Abandoned()
        # One for all: each look-up would make an object that a stream keeps.
        self._on_end, self._way = self._ended, self._stored
        self._tasks = TaskOwner()
        self._is_draining = False
        self._became_idle = asyncio.Event()
        self._became_idle.set()

    def __len__(self) -> int:
        return len(self._running)

    @property
    def tick_s(self) -> float:
        """How often `tick` wants to be called."""
        return self._clocks.tick_s

    @property
    def buffered_bytes(self) -> int:
        """What all logs hold."""
        return self._budget.used_bytes

    @property
    def is_draining(self) -> bool:
        return self._is_draining

    def start(self, plan: Plan, lease: Lease) -> LiveStream:
        """Starts a stream, attached to the caller, who must `leave` it. Takes over the lease.

        Raises:
            Unavailable: `too_many_sessions`, `buffers_full` or `shutting_down`.
        """
        try:
            self._admit()
        except Unavailable:
            lease.release()
            raise
        stream_id = plan.stream_id or new_stream_id()
        log = EventLog(
            stream_id,
            max_bytes=self._limits.log_max_bytes,
            with_ids=plan.with_ids,
            budget=self._budget,
        )
        stream = LiveStream(
            stream_id,
            plan.origin,
            log=log,
            wire=plan.make_wire(stream_id),
            grace_s=plan.grace_s,
            max_duration_s=plan.max_duration_s,
            on_end=self._on_end,
            fingerprint=plan.fingerprint,
            idempotency_key=plan.claim.stored if plan.claim is not None else None,
            retry_key=plan.retry_key,
            resume_ttl_s=self._limits.resume_ttl_s,
            recording=plan.recording,
        )
        stream.attach()
        producer = Producer(stream, plan.ask, plan.dialect, self._limits.bounds, self._tasks)
        running = self._running[stream_id] = _Running(stream, producer, lease)
        producer.start()
        self._became_idle.clear()
        if plan.claim is not None:
            self._claims[plan.claim] = stream_id
        self._keep(stream)
        # The producer goes first: what is told of the stream costs as much as asking the backend.
        asyncio.get_running_loop().call_soon(self._tell_started, running)
        return stream

    def _keep(self, stream: LiveStream) -> None:
        """Brings the stream into the store, beside the backend's time to its first token."""
        stream.kept = self._keeper.created(stream)
        stream.stored = self._way
        if self._keeper.is_behind(stream):
            stream.log.note_changes(self._keeper.changed)

    def _stored(self, stream: LiveStream) -> int:
        """How far the store is; once it lacks half of a log, it shall catch up, so that mostly
        nobody waits for it."""
        log = stream.log
        way = self._keeper.make_way(
            stream, (log.first + log.last) // 2, partial(self._has_stored, stream)
        )
        return log.last if way is None else way

    def _has_stored(self, stream: LiveStream) -> None:
        running = self._running.get(stream.id)
        if running is not None:
            running.producer.make_room()
        elif not stream.is_attached:
            _trim_ended(stream)

    async def recall(self, stream_id: StreamId) -> LiveStream | None:
        """A stream from memory or else from the store, where it stays as long as memory allows.

        Raises:
            StoreError: it isn't in memory, and the store is away.
        """
        stream = self.find(stream_id) or await self._archive.find(stream_id)
        return self._remember(stream) if stream is not None else None

    async def recall_conversation(self, conversation_id: str) -> list[LiveStream]:
        """The streams of a conversation that can be read, oldest first."""
        live = [s for s in self.streams() if s.origin.conversation_id == conversation_id]
        known = {stream.id for stream in live}
        try:
            stored = await self._archive.of_conversation(conversation_id)
        except StoreError:
            stored = []  # what runs now is in memory
        return sorted(
            [*(s for s in stored if s.id not in known), *live], key=lambda s: s.created_at
        )

    async def recall_claimed(self, claim: Claim) -> LiveStream | None:
        """The stream that a claim began before this process did, as far as the store can tell."""
        try:
            stream = await self._archive.claimed(claim.owner, claim.stored)
        except StoreError:
            return None
        return self._remember(stream) if stream is not None else None

    def _remember(self, stream: LiveStream) -> LiveStream:
        """The one object that stands for the stream; two requests may have read it at once."""
        known = self.find(stream.id)
        if known is None:
            self._shelf.put(stream)
        return known or stream

    def claimed(self, claim: Claim) -> LiveStream | None:
        """The stream that a request with this claim began; none if it failed unheard."""
        stream_id = self._claims.get(claim)
        stream = self.find(stream_id) if stream_id is not None else None
        if stream is None or stream.failed_unheard:
            self._claims.pop(claim, None)
            return None
        return stream

    def take_abandoned(self, retry_key: bytes) -> LiveStream | None:
        """A stream whose client vanished before its first byte and now asks again."""
        return self._abandoned.take(retry_key)

    def find(self, stream_id: StreamId) -> LiveStream | None:
        """A stream that runs or ended less than the replay window ago."""
        running = self._running.get(stream_id)
        return running.stream if running is not None else self._shelf.get(stream_id)

    def streams(self) -> list[LiveStream]:
        """Every stream that can be read, the ended ones first."""
        return [*self._shelf, *self.running()]

    def running(self) -> list[LiveStream]:
        """Every stream that runs now, the oldest first."""
        return [running.stream for running in self._running.values()]

    def attach(self, stream: LiveStream) -> None:
        """Announces one more reader, who must `leave`.

        Raises:
            TooManyRequests: `too_many_readers`.
        """
        if 0 < self._limits.max_readers <= len(stream.readers):
            raise TooManyRequests(
                "Too many are reading this stream.",
                code="too_many_readers",
                retry_after_s=_BUSY_RETRY_S,
            )
        stream.attach()

    def read(
        self, stream: LiveStream, sink: Sink, *, interval_s: float, cursor: int = 0
    ) -> Coroutine[None, None, None]:
        """Copies what follows `cursor` to `sink`, until the end or until the client has gone."""
        running = self._running.get(stream.id)
        advanced = running.producer.make_room if running is not None else _nothing
        reader = Reader(
            stream,
            sink,
            interval_s=interval_s,
            advanced=advanced,
            cursor=cursor,
            max_age_s=self._limits.reader_max_age_s if stream.is_typed else 0,
        )
        return reader.run()

    def leave(self, stream: LiveStream) -> None:
        """The counterpart of an attachment."""
        stream.detach()
        if stream.is_attached:
            return
        if stream.is_active and stream.patience_s == 0:
            self.stop(stream, CLIENT_GONE)
        self._abandoned.put(stream)
        if stream.is_active:
            self._running[stream.id].producer.make_room()
        elif stream.log.is_closed:
            _trim_ended(stream)
            self._shelf.settle(stream)

    def stop(self, stream: LiveStream, ending: Ending) -> bool:
        """Ends a stream and closes the backend's connection; the first ending wins."""
        running = self._running.get(stream.id)
        has_ended = stream.end(ending)
        if has_ended and running is not None:
            running.producer.stop(ending.reason)
        return has_ended

    def forget(self, stream: LiveStream) -> bool:
        """Ends a stream whose owner wants to be forgotten, and keeps nothing of it; False as long
        as somebody reads what has come already."""
        self.stop(stream, USER_REQUESTED)
        return self._shelf.remove(stream)

    def tick(self, now: float) -> None:
        """Looks at every clock that may have run out; `now` is of `time.monotonic`."""
        for running in list(self._running.values()):
            stream = running.stream
            if now < stream.quiet_until:
                continue
            deadlines = self._clocks.deadlines(stream)
            ending = next((ending for due, ending in deadlines if due <= now), None)
            if ending is not None:
                self.stop(stream, ending)
                continue
            if stream.is_paused:
                running.producer.make_room()  # what others have given back is no reader's doing
            else:
                stream.quiet_until = min((due for due, _ in deadlines), default=math.inf)
            self._beat(stream, now)
        self._abandoned.expire(now)
        if self._shelf.expire(now):
            self._claims = {c: sid for c, sid in self._claims.items() if self.find(sid)}

    async def drain(self, grace_s: float) -> None:
        """Lets no stream in, waits for the running ones and ends the rest as `server_shutdown`."""
        self._is_draining = True
        try:
            async with asyncio.timeout(grace_s):
                await self._became_idle.wait()
        except TimeoutError:
            for running in list(self._running.values()):
                self.stop(running.stream, error_ending("server_shutdown"))
        await self._keeper.flush(_FLUSH_S)
        await self._tasks.cancel()

    def _admit(self) -> None:
        if self._is_draining:
            raise Unavailable(
                "The server is restarting.", code="shutting_down", retry_after_s=_BUSY_RETRY_S
            )
        if 0 < self._limits.max_streams <= len(self._running):
            raise Unavailable(
                "Too many streams are running.",
                code="too_many_sessions",
                retry_after_s=_BUSY_RETRY_S,
            )
        self._budget.relieve()
        while self._budget.is_spent and self._shelf.drop_oldest(even_unwritten=True):
            pass
        if self._budget.is_spent:
            raise Unavailable(
                "The stream buffers are full.", code="buffers_full", retry_after_s=_BUSY_RETRY_S
            )

    def _beat(self, stream: LiveStream, now: float) -> None:
        interval_s = self._clocks.heartbeat_s
        if stream.first_event is None:
            interval_s /= 2  # nothing to see yet: show sooner that somebody is there
        for reader in list(stream.readers):
            reader.tick(now, interval_s)
            stream.quiet_until = min(stream.quiet_until, reader.due(interval_s))

    def _tell_started(self, running: _Running) -> None:
        """Once."""
        if not running.is_told:
            running.is_told = True
            self._observer.stream_started(running.stream)

    def _ended(self, stream: LiveStream) -> None:
        running = self._running.pop(stream.id)
        running.lease.release()
        self._tell_started(running)
        if not self._running:
            self._became_idle.set()
        self._shelf.put(stream)
        self._keeper.ended(stream)
        self._observer.stream_ended(stream)


def _trim_ended(stream: LiveStream) -> None:
    """The last event stays, for who has all others."""
    log = stream.log
    log.trim(log.last - 1 if stream.stored is None else min(log.last - 1, stream.stored(stream)))


def _nothing() -> None:
    pass
