"""One behaviour suite over every store of streams, and what is particular to each database."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import sqlite3
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import asyncpg
import pytest
import sqlalchemy as sa
import zstandard
from blockbuster import blockbuster_ctx
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy.engine.interfaces import DBAPIConnection

from gateway.database.postgres import Postgres
from gateway.errors import SettingsError
from gateway.stream.cipher import Cipher
from gateway.stream.migrations import MIGRATIONS
from gateway.stream.model import Status, StreamId, error_ending, new_stream_id
from gateway.stream.rows import Rows
from gateway.stream.sql import SqlStore, make_store
from gateway.stream.store import (
    Appended,
    Change,
    Created,
    Ended,
    Segment,
    SessionStore,
    StoreError,
    StreamRecord,
    without_overlap,
)
from tests.faults import FaultProxy
from tests.servers import new_database

ROOT = Path(__file__).parents[3]
CANARY = b"kingfisher-7731"
#: Nothing makes it smaller.
NOISE = random.Random(1).randbytes(1_000_000)
MakeStore = Callable[..., SessionStore]


@pytest.fixture
async def make(database_url: str | None, tmp_path: Path) -> AsyncIterator[MakeStore]:
    """Makes stores on one database."""
    stores = []

    def make_one(cipher: Cipher | None = None, instance: str = "") -> SessionStore:
        store = make_store(database_url, tmp_path, cipher or Cipher(), instance=instance)
        stores.append(store)
        return store

    yield make_one
    for store in stores:
        await store.close()


@pytest.fixture
async def store(make: MakeStore) -> SessionStore:
    store = make()
    await store.open()
    return store


def a_record(**fields: object) -> StreamRecord:
    defaults: dict[str, object] = {
        "id": new_stream_id(),
        "owner": "ada",
        "trace_id": "trace",
        "route": "chat",
        "created_at_ms": 1000,
    }
    return StreamRecord(**{**defaults, **fields})  # type: ignore[arg-type]


def ended(record: StreamRecord, **fields: object) -> StreamRecord:
    defaults: dict[str, object] = {
        "status": Status.COMPLETED,
        "reason": "completed",
        "ended_at_ms": 2000,
        "expires_at_ms": 3000,
    }
    return replace(record, **{**defaults, **fields})  # type: ignore[arg-type]


def appended(record: StreamRecord, first: int, *frames: bytes) -> Appended:
    segment = Segment.of(record.id, first, frames)
    return Appended(replace(record, last_seq=segment.last), segment)


async def frames_of(store: SessionStore, stream_id: StreamId, after: int = 0) -> list[bytes]:
    return [f for s in await store.segments(stream_id, after) for f in s.after(after)]


# Segments


@given(st.lists(st.binary(max_size=300), min_size=1), st.integers(1, 10**9), st.data())
def test_segment_packs_and_slices_by_event(
    frames: list[bytes], first: int, data: st.DataObject
) -> None:
    segment = Segment.of(StreamId("s"), first, frames)
    assert Segment.unpack(StreamId("s"), first, b"".join(segment.pack())) == segment
    skipped = data.draw(st.integers(0, len(frames)))
    assert segment.after(first - 1 + skipped) == frames[skipped:]
    assert segment.after(0) == frames


@given(st.binary(max_size=40))
def test_segment_of_garbage_is_refused_or_consistent(data: bytes) -> None:
    try:
        segment = Segment.unpack(StreamId("s"), 1, data)
    except StoreError:
        return
    assert [b"".join(segment.after(0))] == segment.pieces


@given(st.lists(st.binary(max_size=300), min_size=1), st.integers(1, 50))
def test_segment_comes_back_from_its_row_as_it_was(frames: list[bytes], times: int) -> None:
    rows = Rows(Cipher(), "a")
    segment = Segment.of(StreamId("s"), 7, frames * times)
    assert rows.segment(segment.stream_id, rows.segment_row(segment)) == segment


def test_segment_in_pieces_makes_the_same_row_as_in_one() -> None:
    """Also where it is so large that it isn't put together before it is compressed."""
    rows = Rows(Cipher(), "a")
    for count in (1, 10, 5000):
        frames = [b"data: %d\n\n" % number * 3 for number in range(count)]
        whole = Segment.of(StreamId("s"), 1, frames)
        apart = replace(whole, pieces=[b"".join(frames[:7]), b"", *frames[7:]])
        assert (apart.size, apart.after(0)) == (whole.size, frames)
        assert rows.segment(StreamId("s"), rows.segment_row(apart)) == whole


def test_row_of_events_that_differ_in_a_word_is_a_tenth_of_them() -> None:
    frames = [
        b'data: {"id":"c","choices":[{"delta":{"content":"w%d"}}]}\n\n' % n for n in range(50)
    ]
    row = Rows(Cipher(), "a").segment_row(Segment.of(StreamId("s"), 1, frames))
    assert isinstance(row["data"], bytes)
    assert 0 < row["size"] == len(row["data"]) < len(b"".join(frames)) / 10


def test_row_that_an_earlier_release_wrote_uncompressed_is_read() -> None:
    segment = Segment.of(StreamId("s"), 1, [b"x" * 1000] * 3)
    row = {"first": 1, "data": Cipher().seal(b"".join(segment.pack()), "s.1")}
    assert Rows(Cipher(), "a").segment(StreamId("s"), row) == segment


@pytest.mark.parametrize(
    "data",
    [
        zstandard.FRAME_HEADER,
        zstandard.compress(b"x" * 1000)[:-3],
        zstandard.FRAME_HEADER + b"x" * 100,
        # 4 GiB of nothing in a few bytes: refused for what its header says.
        zstandard.FRAME_HEADER + b"\xa0" + (2**32 - 1).to_bytes(4, "little") + b"\x01\0\0",
    ],
)
def test_damaged_compressed_row_is_refused(data: bytes) -> None:
    row = {"first": 1, "data": Cipher().seal(data, "s.1")}
    with pytest.raises(StoreError, match="damaged") as caught:
        Rows(Cipher(), "a").segment(StreamId("s"), row)
    assert not caught.value.is_transient


def test_overlapping_segments_are_read_without_repeating_an_event() -> None:
    def some(first: int, last: int) -> Segment:
        return Segment.of(StreamId("s"), first, [b"%d" % seq for seq in range(first, last + 1)])

    kept = list(without_overlap([some(1, 4), some(3, 6), some(4, 5), some(9, 9)]))
    assert [(s.first, s.last, s.after(0)) for s in kept] == [
        (1, 4, [b"1", b"2", b"3", b"4"]),
        (5, 6, [b"5", b"6"]),
        (9, 9, [b"9"]),
    ]


# Every store


async def test_record_comes_back_as_it_was_written(store: SessionStore) -> None:
    record = a_record(
        conversation_id="c\u20ac",
        fingerprint=b"\0\xff",
        idempotency_key="k",
        with_ids=False,
    )
    end = ended(
        record,
        status=Status.ERROR,
        reason="upstream_error",
        message="Größe",
        retryable=True,
        total_chunks=3,
        total_tokens=2**40,
        input_tokens=7,
        estimated=True,
        last_seq=5,
    )
    assert await store.write([Created(record)]) == frozenset()
    assert await store.load(record.id) == record
    assert await store.write([Ended(end)]) == frozenset()
    assert await store.load(record.id) == end
    assert await store.load(new_stream_id()) is None


async def test_whole_life_may_come_in_one_batch(store: SessionStore) -> None:
    record = a_record()
    end = ended(record, last_seq=2, total_chunks=1)
    assert not await store.write([Created(end), appended(end, 1, b"a", b"b"), Ended(end)])
    assert await store.load(record.id) == end
    assert await frames_of(store, record.id) == [b"a", b"b"]


@pytest.mark.parametrize("reason", ["user_requested", "Too slow for me", "nul\0", "half \ud83d"])
async def test_any_reason_can_be_stored(store: SessionStore, reason: str) -> None:
    record = a_record()
    end = ended(record, status=Status.TERMINATED, reason=reason, message=reason)
    await store.write([Created(record), Ended(end)])
    found = await store.load(record.id)
    assert found is not None
    assert found.reason == reason.replace("\0", "\ufffd").replace("\ud83d", "?")


async def test_endings_are_stored_in_capitals(store: SessionStore) -> None:
    record = a_record()
    await store.write([Created(record), Ended(ended(record, reason="incomplete"))])
    assert isinstance(store, SqlStore)
    query = sa.text("SELECT status, reason FROM stream_sessions")
    row = await store._database.run(lambda connection: connection.execute(query).one())
    assert tuple(row) == ("COMPLETED", "INCOMPLETE")


async def test_segments_are_read_from_a_cursor_in_order(store: SessionStore) -> None:
    record = a_record()
    await store.write([Created(record), appended(record, 1, b"a", b"b")])
    await store.write([appended(record, 3, b"c"), appended(record, 4, b"", b"e" * 70_000)])
    assert await frames_of(store, record.id) == [b"a", b"b", b"c", b"", b"e" * 70_000]
    assert await frames_of(store, record.id, 1) == [b"b", b"c", b"", b"e" * 70_000]
    assert await frames_of(store, record.id, 5) == []
    found = await store.load(record.id)
    assert found is not None
    assert found.last_seq == 5


async def test_repeated_batch_changes_nothing(store: SessionStore) -> None:
    record = a_record()
    end = ended(record, last_seq=2)
    batch = [Created(record), appended(record, 1, b"a", b"b"), Ended(end)]
    assert await store.write(batch) == frozenset()
    assert await store.write(batch) == frozenset()
    assert await store.load(record.id) == end
    assert await frames_of(store, record.id) == [b"a", b"b"]


async def test_repeated_segment_that_has_grown_replaces_the_shorter(store: SessionStore) -> None:
    record = a_record()
    await store.write([Created(record), appended(record, 1, b"a")])
    await store.write([appended(record, 1, b"a", b"b", b"c")])
    await store.write([appended(record, 1, b"a", b"b")])
    await store.write([appended(record, 2, b"b", b"c", b"d")])
    assert await frames_of(store, record.id) == [b"a", b"b", b"c", b"d"]


async def test_gap_is_visible(store: SessionStore) -> None:
    record = a_record()
    await store.write([Created(record), appended(record, 1, b"a"), appended(record, 5, b"e")])
    assert [(s.first, s.last) for s in await store.segments(record.id, 0)] == [(1, 1), (5, 5)]


async def test_later_end_loses_and_changes_nothing(make: MakeStore) -> None:
    first, second = make(), make()
    await first.open()
    await second.open()
    record = a_record()
    end = ended(record)
    await first.write([Created(record), Ended(end)])
    late = ended(record, status=Status.TERMINATED, reason="user_requested", last_seq=9)
    assert await second.write([Ended(late)]) == {record.id}
    assert await first.load(record.id) == end


async def test_of_concurrent_ends_exactly_one_wins(make: MakeStore) -> None:
    stores = [make() for _ in range(4)]
    await asyncio.gather(*(store.open() for store in stores))
    for _ in range(10):
        record = a_record()
        await stores[0].write([Created(record)])
        end = ended(record)
        results = await asyncio.gather(*(store.write([Ended(end)]) for store in stores))
        assert sorted(map(len, results)) == [0, 1, 1, 1]


async def test_what_concerns_a_vanished_stream_is_left_out(store: SessionStore) -> None:
    gone, here = a_record(), a_record()
    batch = [appended(gone, 1, b"a"), Ended(ended(gone)), Created(here), appended(here, 1, b"b")]
    assert await store.write(batch) == {gone.id}
    assert await store.load(gone.id) is None
    assert await frames_of(store, here.id) == [b"b"]


async def test_large_batch_of_many_streams(store: SessionStore) -> None:
    records = [a_record() for _ in range(1200)]
    await store.write([change for r in records for change in (Created(r), Ended(ended(r)))])
    assert await store.load(records[-1].id) == ended(records[-1])


async def test_end_and_more_in_one_batch_are_those_of_the_last(store: SessionStore) -> None:
    record = a_record()
    await store.write([Created(record)])
    end = ended(record, last_seq=3, total_chunks=2)
    assert not await store.write([appended(record, 1, b"a"), appended(end, 2, b"b"), Ended(end)])
    assert await store.load(record.id) == end
    assert await frames_of(store, record.id) == [b"a", b"b"]


async def test_creation_that_is_repeated_with_more_brings_the_stream_forward(
    store: SessionStore,
) -> None:
    record = a_record()
    await store.write([Created(record)])
    await store.write([Created(record), appended(record, 1, b"a", b"b")])
    assert await store.load(record.id) == replace(record, last_seq=2)
    await store.write([Created(record), appended(record, 1, b"a")])
    assert await store.load(record.id) == replace(record, last_seq=2)
    end = ended(record, last_seq=2)
    assert not await store.write([Created(record), Ended(end)])
    assert await store.load(record.id) == end
    assert await frames_of(store, record.id) == [b"a", b"b"]


async def test_creation_that_is_repeated_changes_no_other_end(make: MakeStore) -> None:
    first, second = make(), make()
    await first.open()
    await second.open()
    record, running = a_record(), a_record()
    end = ended(record)
    await first.write([Created(record), Ended(end)])
    late = ended(record, status=Status.TERMINATED, reason="user_requested", last_seq=9)
    batch = [Created(running), Created(record), appended(late, 9, b"z"), Ended(late)]
    assert await second.write(batch) == {record.id}
    assert await first.load(record.id) == end
    assert await first.load(running.id) == running


async def test_erased_stream_that_goes_on_stays_erased(store: SessionStore) -> None:
    record = a_record()
    await store.write([Created(record), appended(record, 1, b"a")])
    assert await store.erase([record.id]) == 1
    await store.write([appended(record, 2, b"b")])
    assert await store.write([appended(record, 3, b"c"), Ended(ended(record))]) == {record.id}
    assert await store.load(record.id) is None
    assert await store.segments(record.id, 0) == []


async def test_write_whose_caller_leaves_is_whole_or_not_there(store: SessionStore) -> None:
    whole, waits_s = 0, [*(n / 5000 for n in range(20)), 0.02, 0.2, 1]
    for wait_s in waits_s:
        record = a_record()
        end = ended(record, last_seq=2)
        batch = [Created(record), appended(record, 1, b"a", b"b"), Ended(end)]
        writing = asyncio.ensure_future(store.write(batch))
        await asyncio.sleep(wait_s)
        writing.cancel()
        await asyncio.wait({writing})
        assert await store.write([]) == frozenset()  # nothing is in its way
        found = await store.load(record.id)
        assert found in (None, end)
        assert await frames_of(store, record.id) == ([] if found is None else [b"a", b"b"])
        whole += found is not None
    assert whole


async def test_conversation_finds_the_owners_newest_first(store: SessionStore) -> None:
    old, new, other = (
        a_record(conversation_id="c", created_at_ms=at, owner=owner)
        for at, owner in ((1, "ada"), (2, "ada"), (3, "eve"))
    )
    await store.write([Created(r) for r in (old, new, other, a_record(conversation_id="d"))])
    assert await store.find_by_conversation("ada", "c", 10) == [new, old]
    assert await store.find_by_conversation(None, "c", 2) == [other, new]


async def test_idempotency_finds_the_owners_newest(store: SessionStore) -> None:
    old, new = (a_record(idempotency_key="k", created_at_ms=at) for at in (1, 2))
    await store.write([Created(old), Created(new)])
    assert await store.find_by_idempotency("ada", "k") == new
    assert await store.find_by_idempotency("eve", "k") is None
    assert await store.find_by_idempotency("ada", "\0") is None


async def test_start_ends_what_this_instance_left(make: MakeStore) -> None:
    crashed, alive = make(instance="one"), make(instance="two")
    await crashed.open()
    await alive.open()
    left, done, theirs = a_record(), a_record(), a_record()
    await crashed.write([Created(left), appended(left, 1, b"a", b"b"), Created(done)])
    await crashed.write([Ended(ended(done))])
    await alive.write([Created(theirs)])

    restarted = make(instance="one")
    await restarted.open()
    ending = error_ending("interrupted")
    expected = replace(
        left,
        status=Status.ERROR,
        reason="interrupted",
        message=ending.message,
        retryable=True,
        ended_at_ms=5000,
        expires_at_ms=5600,
        last_seq=2,
    )
    assert await restarted.end_interrupted(5000, 600) == [expected]
    assert await restarted.end_interrupted(6000, 600) == []
    assert await restarted.load(theirs.id) == theirs
    assert await frames_of(restarted, left.id) == [b"a", b"b"]


async def test_sweep_deletes_what_has_expired_and_its_segments(store: SessionStore) -> None:
    records = [a_record() for _ in range(250)]
    running, kept = a_record(), a_record()
    for record in records:
        await store.write([Created(record), appended(record, 1, b"a"), Ended(ended(record))])
    await store.write([Created(running), Created(kept), Ended(ended(kept, expires_at_ms=3001))])
    assert await store.sweep(3000, 0) == 250
    assert await store.load(records[0].id) is None
    assert await store.segments(records[0].id, 0) == []
    assert await store.load(running.id) is not None
    assert await store.load(kept.id) is not None


async def test_sweep_by_size_deletes_the_oldest_ended_and_no_more(store: SessionStore) -> None:
    records = [a_record() for _ in range(5)]
    for number, record in enumerate(records):
        end = ended(record, ended_at_ms=number, expires_at_ms=9999)
        changes = [Created(record), appended(record, 1, NOISE[:1000])]
        await store.write([*changes, Ended(end)] if number else changes)
    assert await store.sweep(0, 3500) == 2
    alive = [await store.load(record.id) is not None for record in records]
    assert alive == [True, False, False, True, True]
    assert await store.sweep(0, 100) == 2  # the running one is over the bound, and stays
    assert await store.load(records[0].id) is not None


async def test_erasing_the_streams_of_an_owner_leaves_the_others(store: SessionStore) -> None:
    mine, theirs = [a_record() for _ in range(3)], a_record(owner="eve")
    await store.write([Created(record) for record in (*mine, theirs)])
    assert sorted(await store.owners()) == ["ada", "eve"]
    owned = [record.id for record in await store.owned("ada")]
    assert sorted(owned) == sorted(record.id for record in mine)
    assert await store.erase([*owned, "unknown"]) == 3
    assert await store.owned("ada") == []
    assert await store.load(theirs.id) == theirs


async def test_no_byte_of_an_erased_answer_is_left(tmp_path: Path) -> None:
    store = make_store(None, tmp_path, Cipher())
    await store.open()
    swept, erased, kept = (a_record() for _ in range(3))
    for record in (swept, erased, kept):
        await store.write([Created(record), appended(record, 1, f"secret {record.id}".encode())])
    await store.write([Ended(ended(swept, expires_at_ms=1))])
    assert await store.sweep(2, 0) == 1  # which leaves its bytes where they were
    assert await store.erase([erased.id]) == 1
    is_left = [_holds(tmp_path, record.id) for record in (swept, erased, kept)]
    assert is_left == [False, False, True]
    await store.close()


def _holds(folder: Path, text: str) -> bool:
    """Whether any file has it."""
    return any(text.encode() in path.read_bytes() for path in folder.iterdir())


async def test_nothing_blocks_the_event_loop(make: MakeStore) -> None:
    store = make(Cipher([b"k" * 32]))
    with blockbuster_ctx(scanned_modules=["gateway"]) as blockbuster:
        # The driver looks for a password file and for certificates once per connection.
        for name in ("os.stat", "os.path.abspath"):
            blockbuster.functions[name].can_block_in("asyncpg/connect_utils.py", "_connect")
        await store.open()
        record = a_record()
        await store.write([Created(record), appended(record, 1, b"a"), Ended(ended(record))])
        await store.segments(record.id, 0)
        await store.sweep(10**9, 0)
        await store.ping()
        await store.close()


async def test_encrypted_store_reads_after_rotation_and_refuses_without_the_key(
    make: MakeStore,
) -> None:
    old, new = b"o" * 32, b"n" * 32
    store = make(Cipher([old]))
    await store.open()
    record = a_record()
    end = ended(record, message="told", last_seq=1)
    await store.write([Created(record), appended(record, 1, CANARY), Ended(end)])

    rotated = make(Cipher([new, old]))
    assert await rotated.load(record.id) == end
    assert await frames_of(rotated, record.id) == [CANARY]
    with pytest.raises(StoreError) as caught:
        await make(Cipher([new])).segments(record.id, 0)
    assert not caught.value.is_transient


async def test_segment_moved_to_another_stream_is_refused(make: MakeStore) -> None:
    store = make(Cipher([b"k" * 32]))
    await store.open()
    mine, theirs = a_record(), a_record()
    await store.write([Created(mine), Created(theirs), appended(theirs, 1, CANARY)])
    assert isinstance(store, SqlStore)
    move = sa.text("UPDATE stream_segments SET stream_id = :mine").bindparams(mine=mine.id)
    await store._database.run(lambda connection: connection.execute(move).close(), writes=True)
    with pytest.raises(StoreError, match="altered"):
        await store.segments(mine.id, 0)


OPEN = """
import asyncio, sys
from pathlib import Path
from gateway.stream.cipher import Cipher
from gateway.stream.sql import make_store
async def main():
    store = make_store(sys.argv[1] or None, Path(sys.argv[2]), Cipher())
    await store.open()
    await store.ping()
    await store.close()
asyncio.run(main())
"""


async def test_start_that_finds_nothing_to_migrate_loads_no_steps(
    make: MakeStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps = "gateway.database.steps"
    await make().open()
    assert sys.modules[steps].Steps(MIGRATIONS).head == MIGRATIONS.newest
    monkeypatch.delitem(sys.modules, steps)
    await make().open()
    assert steps not in sys.modules


async def test_four_processes_may_migrate_at_once(
    make: MakeStore, database_url: str | None, tmp_path: Path
) -> None:
    arguments = [sys.executable, "-c", OPEN, database_url or "", str(tmp_path)]
    processes = [
        await asyncio.create_subprocess_exec(*arguments, cwd=ROOT, stderr=subprocess.PIPE)
        for _ in range(4)
    ]
    for process in processes:
        _, errors = await process.communicate()
        assert process.returncode == 0, errors.decode()
    store = make()
    await store.open()
    record = a_record()
    await store.write([Created(record)])
    assert await store.load(record.id) == record


async def test_tables_of_a_newer_release_stop_the_start(
    store: SessionStore, make: MakeStore
) -> None:
    assert isinstance(store, SqlStore)
    newer = sa.text("UPDATE stream_schema_version SET version_num = '9999'")
    await store._database.run(lambda connection: connection.execute(newer).close(), writes=True)
    with pytest.raises(SettingsError, match="newer"):
        await make().open()


WRITE = """
import asyncio, sys
from pathlib import Path
from gateway.stream.cipher import Cipher
from gateway.stream.model import StreamId
from gateway.stream.sql import make_store
from gateway.stream.store import *
async def main():
    store = make_store(sys.argv[1] or None, Path(sys.argv[2]), Cipher())
    await store.open()
    number = 0
    while True:
        number += 1
        record = StreamRecord(StreamId(f"{number:016d}"), "ada", "t", "chat", number)
        segment = Segment.of(record.id, 1, [b"x" * 500] * 20)
        await store.write([Created(record), Appended(record, segment)])
        print(number, flush=True)
asyncio.run(main())
"""


@pytest.mark.parametrize("acknowledged", [1, 40])
async def test_killed_writer_leaves_every_acknowledged_batch(
    make: MakeStore, database_url: str | None, tmp_path: Path, acknowledged: int
) -> None:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", WRITE, database_url or "", str(tmp_path)),
        cwd=ROOT,
        stdout=subprocess.PIPE,
    )
    assert process.stdout is not None
    last = 0
    while last < acknowledged:
        last = int(await process.stdout.readline())
    process.send_signal(signal.SIGKILL)
    for line in (await process.stdout.read()).splitlines():
        last = int(line)
    await process.wait()

    store = make()
    await store.open()
    left = await store.end_interrupted(10, 10)
    assert len(left) in (last, last + 1)
    for number in range(1, last + 1):
        frames = await frames_of(store, StreamId(f"{number:016d}"))
        assert frames == [b"x" * 500] * 20


# SQLite


@pytest.fixture
async def in_file(tmp_path: Path) -> AsyncIterator[SqlStore]:
    store = make_store(None, tmp_path / "data", Cipher([b"k" * 32]))
    await store.open()
    assert isinstance(store, SqlStore)
    yield store
    await store.close()


async def set_pragma(store: SqlStore, text: str) -> None:
    """On the connection that writes."""
    statement = sa.text(f"PRAGMA {text}")
    await store._database.run(lambda connection: connection.execute(statement).close(), writes=True)


def database_in(tmp_path: Path) -> Path:
    return tmp_path / "data" / "streams.sqlite3"


async def test_plaintext_is_in_none_of_the_files(in_file: SqlStore, tmp_path: Path) -> None:
    record = a_record()
    end = ended(record, message=CANARY.decode())
    for seq in range(1, 50):
        await in_file.write([Created(record), appended(record, seq, b"say " + CANARY)])
    await in_file.write([Ended(end)])
    files = list(database_in(tmp_path).parent.iterdir())
    assert any(path.name.endswith("-wal") and path.stat().st_size for path in files)
    assert not any(CANARY in path.read_bytes() for path in files)
    await in_file.close()
    assert not any(CANARY in path.read_bytes() for path in database_in(tmp_path).parent.iterdir())


async def test_files_are_the_owners_alone(in_file: SqlStore, tmp_path: Path) -> None:
    await in_file.write([Created(a_record())])
    files = list(database_in(tmp_path).parent.iterdir())
    assert {path.stat().st_mode & 0o777 for path in files} == {0o600}


async def test_connections_are_set_up(in_file: SqlStore) -> None:
    def pragmas(connection: sa.Connection) -> dict[str, object]:
        names = ("journal_mode", "synchronous", "foreign_keys", "auto_vacuum", "busy_timeout")
        return {name: connection.exec_driver_sql(f"PRAGMA {name}").scalar() for name in names}

    assert await in_file._database.run(pragmas) == {
        "journal_mode": "wal",
        "synchronous": 1,
        "foreign_keys": 1,
        "auto_vacuum": 2,
        "busy_timeout": 5000,
    }


async def test_sweep_gives_space_back(in_file: SqlStore, tmp_path: Path) -> None:
    record = a_record()
    end = ended(record)
    await in_file.write([Created(record), appended(record, 1, NOISE), Ended(end)])

    async def pages() -> int:
        return await in_file._database.run(
            lambda connection: int(connection.exec_driver_sql("PRAGMA page_count").scalar() or 0)
        )

    before = await pages()
    await in_file.sweep(10_000, 0)
    assert await pages() < before / 2


async def test_locked_file_is_a_transient_error(in_file: SqlStore, tmp_path: Path) -> None:
    await set_pragma(in_file, "busy_timeout=20")
    with closing(sqlite3.connect(database_in(tmp_path), isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreError, match="SQLITE_BUSY") as caught:
            await in_file.write([Created(a_record())])
        assert caught.value.is_transient
        await in_file.ping()  # who reads isn't kept waiting
    await in_file.write([Created(a_record())])


async def test_reader_does_not_wait_for_a_writer_that_does(
    in_file: SqlStore, tmp_path: Path
) -> None:
    record = a_record()
    await in_file.write([Created(record)])
    with closing(sqlite3.connect(database_in(tmp_path), isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        writing = asyncio.ensure_future(in_file.write([Ended(ended(record))]))
        assert await in_file.load(record.id) == record
        assert not writing.done()
        other.execute("ROLLBACK")
        assert await writing == frozenset()


async def test_batch_executes_only_what_it_must(in_file: SqlStore) -> None:
    seen: list[str] = []
    connection = await in_file._database.run(lambda one: one.connection, writes=True)
    driver = connection.driver_connection
    assert isinstance(driver, sqlite3.Connection)
    driver.set_trace_callback(lambda text: seen.append(text.split("_s")[0].lower()))
    begin, commit, insert, update = (
        "begin immediate",
        "commit",
        "insert into stream",
        "update stream",
    )

    async def executed(*batch: Change) -> list[str]:
        seen.clear()
        assert await in_file.write(batch) == frozenset()
        return seen.copy()

    whole, record = a_record(), a_record()
    life = [Created(whole), appended(whole, 1, b"a"), Ended(ended(whole, last_seq=1))]
    assert await executed(*life) == [begin, insert, insert, commit]
    assert await executed(Created(record)) == [insert]
    assert await executed(appended(record, 1, b"a")) == [begin, insert, update, commit]
    end = ended(record, last_seq=2)
    assert await executed(appended(end, 2, b"b"), Ended(end)) == [begin, insert, update, commit]
    assert len(await executed(Ended(end))) == 2  # it must ask whose end that was


async def test_server_begins_no_transaction_for_one_row(postgres_url: str, tmp_path: Path) -> None:
    store = make_store(await new_database(postgres_url), tmp_path, Cipher())
    assert isinstance(store, SqlStore)
    await store.open()
    database, said = store._database, list[str]()
    assert isinstance(database, Postgres)

    def note(query: asyncpg.connection.LoggedQuery) -> None:
        said.append(query.query.strip(";").split()[0])

    @sa.event.listens_for(database.engine.sync_engine, "checkout")
    def listen(connection: DBAPIConnection, *_: object) -> None:
        connection.driver_connection.add_query_logger(note)

    async def plain_statements(*batch: Change) -> list[str]:
        """What isn't prepared, as the rows' statements are."""
        said.clear()
        assert await store.write(batch) == frozenset()
        await asyncio.sleep(0)
        return said.copy()

    record = a_record()
    assert await plain_statements(Created(record)) == []
    assert await plain_statements(appended(record, 1, b"a")) == ["BEGIN", "COMMIT"]
    assert await plain_statements(Ended(ended(record, last_seq=1))) == []
    await store.close()


async def test_full_disk_is_a_transient_error_and_leaves_nothing_half(in_file: SqlStore) -> None:
    await set_pragma(in_file, "max_page_count=40")
    record = a_record()
    batch = [Created(record), appended(record, 1, NOISE)]
    with pytest.raises(StoreError, match="SQLITE_FULL") as caught:
        await in_file.write(batch)
    assert caught.value.is_transient
    assert await in_file.load(record.id) is None
    await set_pragma(in_file, "max_page_count=100000")
    await in_file.write(batch)
    assert await frames_of(in_file, record.id) == [NOISE]


@pytest.mark.parametrize("where", [0, 4096])
async def test_damaged_file_stops_the_start(in_file: SqlStore, tmp_path: Path, where: int) -> None:
    for _ in range(20):
        await in_file.write([Created(a_record())])
    await in_file.close()
    with database_in(tmp_path).open("r+b") as file:
        file.seek(where)
        file.write(os.urandom(4096))
    store = make_store(None, tmp_path / "data", Cipher())
    with pytest.raises(SettingsError, match="damaged"):
        await store.open()
    await store.close()


async def test_folder_that_cannot_be_made_stops_the_start(tmp_path: Path) -> None:
    (tmp_path / "data").write_text("a file")
    store = make_store(None, tmp_path / "data", Cipher())
    with pytest.raises(SettingsError, match="DATA_DIR"):
        await store.open()


# PostgreSQL


@pytest.mark.parametrize(
    "url", ["mysql://u:hunter2@h/d", "hunter2", "postgresql://u:hunter2@h", "://hunter2"]
)
def test_url_that_is_none_stops_the_start_and_is_not_quoted(url: str, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="DATABASE_URL") as caught:
        make_store(url, tmp_path, Cipher())
    assert "hunter2" not in str(caught.value)


async def test_both_schemes_and_sslmode_are_accepted(postgres_url: str, tmp_path: Path) -> None:
    url = (await new_database(postgres_url)).replace("postgresql://", "postgres://")
    store = make_store(f"{url}?sslmode=disable", tmp_path, Cipher())
    await store.open()
    await store.ping()
    await store.close()


async def test_server_that_is_away_is_a_transient_error_without_the_password(
    tmp_path: Path,
) -> None:
    store = make_store("postgresql://u:hunter2@127.0.0.1:1/d", tmp_path, Cipher())
    with pytest.raises(StoreError) as caught:
        await store.open()
    assert caught.value.is_transient
    assert "hunter2" not in str(caught.value)


async def test_store_goes_on_after_its_connections_were_cut(
    postgres_url: str, tmp_path: Path
) -> None:
    url = sa.make_url(await new_database(postgres_url))
    assert url.port is not None
    async with FaultProxy(url.port) as proxy:
        through = url.set(port=proxy.port).render_as_string(hide_password=False)
        store = make_store(through, tmp_path, Cipher())
        await store.open()
        record = a_record()
        await asyncio.gather(store.write([Created(record)]), store.ping(), store.ping())
        proxy.cut_all(reset=True)
        assert await store.load(record.id) == record
        proxy.refuse = True
        proxy.cut_all()
        with pytest.raises(StoreError) as caught:
            await store.load(record.id)
        assert caught.value.is_transient
        proxy.refuse = False
        assert await store.load(record.id) == record
        await store.close()


async def test_commit_whose_answer_was_lost_can_be_repeated(
    postgres_url: str, tmp_path: Path
) -> None:
    url = sa.make_url(await new_database(postgres_url))
    assert url.port is not None
    async with FaultProxy(url.port) as proxy:
        through = url.set(port=proxy.port).render_as_string(hide_password=False)
        store = make_store(through, tmp_path, Cipher())
        await store.open()
        cuts = 0
        for cut_after in range(200, 3000, 150):
            proxy.cut_all()
            record = a_record()
            end = ended(record, last_seq=1)
            batch = [Created(record), appended(record, 1, b"a"), Ended(end)]
            proxy.down.cut_after = cut_after
            try:
                lost = await store.write(batch)
            except StoreError:
                cuts += 1
                proxy.down.cut_after = None
                lost = await store.write(batch)
            proxy.down.cut_after = None
            assert lost == frozenset()
            assert await store.load(record.id) == end
            assert await frames_of(store, record.id) == [b"a"]
        assert cuts
        await store.close()


async def test_connections_that_the_server_ended_are_made_anew(
    postgres_url: str, tmp_path: Path
) -> None:
    url = await new_database(postgres_url)
    store = make_store(url, tmp_path, Cipher())
    await store.open()
    await asyncio.gather(store.ping(), store.ping())
    connection = await asyncpg.connect(url)
    await connection.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
        " WHERE pid <> pg_backend_pid() AND datname = current_database()"
    )
    await connection.close()
    await store.ping()
    await store.close()
