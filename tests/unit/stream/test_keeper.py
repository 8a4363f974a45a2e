"""The keeper over a real store: group commit, the store away and back, nothing lost."""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, closing
from pathlib import Path

import pytest
import sqlalchemy as sa

from gateway.backoff import Backoff
from gateway.stream.cipher import Cipher
from gateway.stream.keeper import Keeper
from gateway.stream.log import EventLog, LogBudget
from gateway.stream.model import Status, StreamId, new_stream_id
from gateway.stream.sql import SqlStore, make_store
from gateway.stream.store import Ended, Progress, Segment, SessionStore, StreamRecord
from tests.postgres import Postgres
from tests.servers import free_port

FAST = Backoff(base_delay_ms=20, max_delay_ms=40)


class Stream:
    """A source over a real log."""

    def __init__(self, *, max_bytes: int = 1 << 20, fingerprint: bytes = b"") -> None:
        self.id: StreamId = new_stream_id()
        self.log = EventLog(self.id, max_bytes=max_bytes, with_ids=True, budget=LogBudget(0))
        self.sent: list[bytes] = []
        self.status = Status.ACTIVE
        self.fingerprint = fingerprint

    def say(self, block: bytes = b"data: x\n\n") -> None:
        self.log.append(block)
        self.sent.append(self.log.events()[-1])

    def end(self) -> None:
        self.status = Status.COMPLETED
        self.log.close()

    @property
    def is_active(self) -> bool:
        return self.status is Status.ACTIVE

    def progress(self) -> Progress:
        return Progress(self.id, 0, None, None, False, self.log.last)

    def record(self) -> StreamRecord:
        has_ended = self.status is not Status.ACTIVE
        return StreamRecord(
            id=self.id,
            owner="ada",
            trace_id="t",
            route="chat",
            created_at_ms=1,
            fingerprint=self.fingerprint,
            status=self.status,
            reason="completed" if has_ended else None,
            ended_at_ms=2 if has_ended else None,
            expires_at_ms=3 if has_ended else None,
            last_seq=self.log.last,
        )

    def pending(self, after_seq: int) -> tuple[Segment | None, int]:
        first = max(after_seq + 1, self.log.first)
        frames = self.log.events(after_seq)
        return Segment.of(self.id, first, frames) if frames else None, self.log.last


class Told:
    """A watch that keeps what it is told."""

    def __init__(self) -> None:
        self.problems: list[str] = []
        self.retries: list[bool] = []

    def store_failed(
        self, problem: str, *, is_transient: bool, streams: int, failures: int
    ) -> None:
        self.problems.append(problem)

    def store_retried(self, *, succeeded: bool) -> None:
        self.retries.append(succeeded)


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[SqlStore]:
    store = make_store(None, tmp_path, Cipher())
    assert isinstance(store, SqlStore)
    await store.open()
    yield store
    await store.close()


async def with_driver(store: SqlStore, work: Callable[[sqlite3.Connection], object]) -> None:
    """Does something with the connection that writes."""

    def do(connection: sa.Connection) -> None:
        driver = connection.connection.driver_connection
        assert isinstance(driver, sqlite3.Connection)
        work(driver)

    await store._database.run(do, writes=True)


@pytest.fixture
async def committed(store: SqlStore) -> list[float]:
    """When each transaction that wrote was committed."""
    times: list[float] = []

    def note(statement: str) -> None:
        if statement == "COMMIT":
            times.append(time.monotonic())

    await with_driver(store, lambda driver: driver.set_trace_callback(note))
    times.clear()
    return times


@asynccontextmanager
async def keeping(store: SessionStore, **options: object) -> AsyncIterator[Keeper]:
    keeper = Keeper(store, **{"flush_ms": 20, "backoff": FAST, **options})  # type: ignore[arg-type]
    keeper.start()
    try:
        yield keeper
    finally:
        await keeper.close()


@asynccontextmanager
async def locked(store: SqlStore, tmp_path: Path) -> AsyncIterator[None]:
    """Nobody can write meanwhile."""
    await with_driver(store, lambda driver: driver.execute("PRAGMA busy_timeout=5"))
    with closing(sqlite3.connect(tmp_path / "streams.sqlite3", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        yield


async def until(condition: object) -> None:
    assert callable(condition)
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.005)


async def frames_of(store: SessionStore, stream: Stream) -> list[bytes]:
    return [frame for s in await store.segments(stream.id, 0) for frame in s.after(0)]


async def test_whole_stream_is_kept(store: SqlStore) -> None:
    stream = Stream()
    async with keeping(store) as keeper:
        assert await keeper.created(stream)
        for _ in range(30):
            stream.say()
            keeper.changed.add(stream.id)
            await asyncio.sleep(0.002)
        stream.end()
        keeper.ended(stream)
        assert await keeper.flush(5)
        assert keeper.queued == 0
        assert not keeper.is_degraded
    assert await store.load(stream.id) == stream.record()
    assert await frames_of(store, stream) == stream.sent


async def test_streams_share_transactions_and_events_share_segments(
    store: SqlStore, committed: list[float]
) -> None:
    streams = [Stream() for _ in range(50)]
    async with keeping(store, flush_ms=100) as keeper:
        await asyncio.gather(*(keeper.created(stream) for stream in streams))
        assert len(committed) <= 3
        committed.clear()
        began = time.monotonic()
        for _ in range(20):
            for stream in streams:
                stream.say()
                keeper.changed.add(stream.id)
            await asyncio.sleep(0.01)
        assert await keeper.flush(5)
        allowed = (time.monotonic() - began) / 0.1 + 2
        assert 1 <= len(committed) <= 10 * allowed  # a turn every 10 ms
    for stream in streams:
        assert await frames_of(store, stream) == stream.sent
        assert len(await store.segments(stream.id, 0)) <= allowed


async def test_creation_and_end_wait_for_no_interval(store: SqlStore) -> None:
    stream = Stream()
    async with keeping(store, flush_ms=60_000) as keeper:
        assert await keeper.created(Stream())
        assert await keeper.created(stream)
        stream.say()
        stream.end()
        keeper.ended(stream)
        await until(lambda: keeper.queued == 0)
        assert await keeper.flush(5)
    record = await store.load(stream.id)
    assert record is not None
    assert record.status is Status.COMPLETED


async def test_store_away_and_back_loses_nothing(store: SqlStore, tmp_path: Path) -> None:
    before, during = Stream(), Stream()
    told = Told()
    async with keeping(store, watch=told) as keeper:
        assert await keeper.created(before)
        async with locked(store, tmp_path):
            before.say()
            keeper.changed.add(before.id)
            assert not await keeper.created(during)  # known to be away
            for stream in (before, during):
                stream.say()
                stream.end()
                keeper.ended(stream)
            await until(lambda: len(told.problems) >= 6)
            assert keeper.is_degraded
            assert keeper.queued == 2
            assert "SQLITE_BUSY" in told.problems[-1]
            assert not await keeper.flush(0.02)
        assert await keeper.flush(5)
        assert told.retries == [False] * (len(told.problems) - 1) + [True]
        assert not keeper.is_degraded
        assert keeper.queued == 0
    for stream in (before, during):
        assert await store.load(stream.id) == stream.record()
        assert await frames_of(store, stream) == stream.sent


async def test_nothing_but_a_flush_cuts_the_wait_for_a_store_that_is_away(
    store: SqlStore, tmp_path: Path
) -> None:
    stream, told = Stream(), Told()
    slow = Backoff(base_delay_ms=60_000, max_delay_ms=60_000)
    async with keeping(store, backoff=slow, watch=told) as keeper:
        async with locked(store, tmp_path):
            assert not await keeper.created(stream)
            stream.say()
            stream.end()
            keeper.ended(stream)
            await asyncio.sleep(0.05)
            assert len(told.problems) == 1
            assert not await keeper.flush(0.05)
            assert len(told.problems) == 2
        assert await keeper.flush(5)
    assert await frames_of(store, stream) == stream.sent


async def test_creation_is_known_only_when_it_is_committed(store: SqlStore, tmp_path: Path) -> None:
    stream = Stream()
    with closing(sqlite3.connect(tmp_path / "streams.sqlite3", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")  # the store waits for it for seconds
        async with keeping(store) as keeper:
            created = keeper.created(stream)
            await asyncio.wait({created}, timeout=0.03)
            assert not created.done()
            other.execute("ROLLBACK")
            assert await created
    assert await store.load(stream.id) is not None


async def test_events_that_the_log_dropped_meanwhile_are_a_visible_gap(
    store: SqlStore, tmp_path: Path
) -> None:
    stream = Stream(max_bytes=1000)
    async with keeping(store) as keeper:
        assert await keeper.created(stream)
        stream.say()
        keeper.changed.add(stream.id)
        assert await keeper.flush(5)
        async with locked(store, tmp_path):
            for _ in range(50):
                stream.say()
                stream.log.trim(stream.log.last)
                keeper.changed.add(stream.id)
            await until(lambda: keeper.is_degraded)
        assert await keeper.flush(5)
    (one, rest) = await store.segments(stream.id, 0)
    assert (one.first, one.last) == (1, 1)
    assert rest.first == stream.log.first > 2
    assert rest.last == 51


async def test_released_log_still_leaves_an_honest_record(store: SqlStore, tmp_path: Path) -> None:
    stream = Stream()
    async with keeping(store) as keeper:
        async with locked(store, tmp_path):
            await keeper.created(stream)
            stream.say()
            stream.end()
            stream.log.release()
            keeper.ended(stream)
        assert await keeper.flush(5)
    assert await store.load(stream.id) == stream.record()
    assert await frames_of(store, stream) == []


async def test_more_streams_than_the_bound_live_in_memory_only(store: SqlStore) -> None:
    streams = [Stream() for _ in range(3)]
    async with keeping(store, max_sources=2) as keeper:
        assert [await keeper.created(stream) for stream in streams] == [True, True, False]
        streams[2].say()
        keeper.changed.add(streams[2].id)
        keeper.ended(streams[2])
        assert keeper.queued == 0
        assert keeper.unkept == 1
        streams[0].end()
        keeper.ended(streams[0])
        assert await keeper.flush(5)
        assert await keeper.created(Stream())
    assert await store.load(streams[2].id) is None


async def test_stream_that_the_store_refuses_does_not_hold_up_the_others(store: SqlStore) -> None:
    good = [Stream() for _ in range(5)]
    bad = Stream(fingerprint=object())  # type: ignore[arg-type] - no database takes that
    async with keeping(store) as keeper:
        results = await asyncio.gather(*(keeper.created(s) for s in (*good, bad)))
        assert results[-1] is False
        for stream in good:
            stream.say()
            stream.end()
            keeper.ended(stream)
        assert not await keeper.flush(5)
        assert keeper.is_degraded
        assert keeper.queued == 1
        for stream in good:
            assert await store.load(stream.id) == stream.record()
        bad.fingerprint = b"ok"
        await until(lambda: not keeper.is_degraded)
        assert await store.load(bad.id) == bad.record()


async def test_end_that_came_second_is_reported(store: SqlStore, tmp_path: Path) -> None:
    stream, lost = Stream(), list[StreamId]()
    elsewhere = make_store(None, tmp_path, Cipher())
    async with keeping(store, on_lost=lost.append) as keeper:
        assert await keeper.created(stream)
        stream.end()
        await elsewhere.write([Ended(stream.record())])
        keeper.ended(stream)
        assert await keeper.flush(5)
    await elsewhere.close()
    assert lost == [stream.id]


async def test_errors_are_told_without_content(store: SqlStore, tmp_path: Path) -> None:
    stream, told = Stream(), Told()
    async with keeping(store, watch=told) as keeper, locked(store, tmp_path):
        await keeper.created(stream)
        stream.say(b"data: canary\n\n")
        keeper.changed.add(stream.id)
        await until(lambda: len(told.problems) == 3)
        assert "canary" not in repr(told.problems)


async def test_transactions_are_bounded(store: SqlStore, committed: list[float]) -> None:
    streams = [Stream(max_bytes=1 << 30) for _ in range(6)]
    async with keeping(store) as keeper:
        await asyncio.gather(*(keeper.created(stream) for stream in streams))
        committed.clear()
        for stream in streams:
            stream.say(b"x" * 2_000_000)
            keeper.changed.add(stream.id)
        assert await keeper.flush(10)
        assert len(committed) == 2
    for stream in streams:
        assert await frames_of(store, stream) == stream.sent


async def test_real_postgres_that_is_stopped_and_comes_back(tmp_path: Path) -> None:
    with Postgres(free_port()) as server:
        store = make_store(server.url, tmp_path, Cipher())
        await store.open()
        streams = [Stream() for _ in range(3)]
        async with keeping(store) as keeper:
            await asyncio.gather(*(keeper.created(stream) for stream in streams))
            server.stop()
            for _ in range(10):
                for stream in streams:
                    stream.say()
                    keeper.changed.add(stream.id)
                await asyncio.sleep(0.01)
            await until(lambda: keeper.is_degraded)
            late = Stream()
            assert not await keeper.created(late)
            for stream in (*streams, late):
                stream.end()
                keeper.ended(stream)
            server.start()
            await until(lambda: keeper.queued == 0 and not keeper.is_degraded)
            assert await keeper.flush(5)
        for stream in (*streams, late):
            assert await store.load(stream.id) == stream.record()
            assert await frames_of(store, stream) == stream.sent
        await store.close()


@pytest.mark.parametrize(
    ("failures", "bounds_s"),
    [(1, (0.5, 1)), (2, (1, 2)), (3, (2, 4)), (4, (5, 10)), (500, (5, 10))],
)
def test_delay_grows_and_stays_at_its_maximum(failures: int, bounds_s: tuple[float, float]) -> None:
    delays = [Backoff().delay_s(failures) for _ in range(200)]
    assert bounds_s[0] <= min(delays) < max(delays) <= bounds_s[1]
    assert len(set(delays)) > 100
