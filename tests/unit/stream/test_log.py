"""The event log: numbers without gaps, bounds that hold, a tail that is never given silently."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.stream.log import FRAME_OVERHEAD_BYTES, CursorTrimmedError, EventLog, LogBudget
from gateway.stream.model import StreamId

_SID = StreamId("AAAAAAAAAAAAAAAA")


def _log(*, max_bytes: int = 10_000, with_ids: bool = False, limit: int = 0) -> EventLog:
    return EventLog(_SID, max_bytes=max_bytes, with_ids=with_ids, budget=LogBudget(limit))


def test_events_are_numbered_from_1() -> None:
    log = _log(with_ids=True)
    assert (log.first, log.last) == (1, 0)
    log.append(b"data: a\n\n")
    log.append(b"data: b\n\n")
    assert (log.first, log.last) == (1, 2)
    assert log.read(0, 1000) == (
        b"id: AAAAAAAAAAAAAAAA.1\ndata: a\n\nid: AAAAAAAAAAAAAAAA.2\ndata: b\n\n",
        2,
    )


@given(st.lists(st.sampled_from([1, 7, 8, 60, 999, 1000, 1001, 2500]), max_size=8))
def test_numbers_are_the_same_however_many_events_come_at_once(counts: list[int]) -> None:
    log = _log(max_bytes=10**7, with_ids=True)
    for count in counts:
        log.extend([b"data: a\n\n"] * count)
    for seq, frame in enumerate(log.events(), 1):
        assert (
            frame
            == log.with_id(b"data: a\n\n", seq)
            == b"id: %b.%d\ndata: a\n\n"
            % (
                _SID.encode(),
                seq,
            )
        )
    assert log.last == sum(counts)


def test_read_gives_whole_events_and_at_least_one() -> None:
    log = _log()
    for frame in (b"aaaa", b"bb", b"cc"):
        log.append(frame)
    assert log.read(0, 1) == (b"aaaa", 1)
    assert log.read(0, 7) == (b"aaaabb", 2)
    assert log.read(1, 4) == (b"bbcc", 3)
    assert log.read(3, 4) == (b"", 3)


@given(st.lists(st.binary(min_size=1, max_size=40), max_size=60), st.integers(1, 200))
def test_reader_gets_every_event_once_in_order(frames: list[bytes], most: int) -> None:
    log = _log()
    for frame in frames:
        log.append(frame)
    got, cursor = b"", 0
    while cursor < log.last:
        data, cursor = log.read(cursor, most)
        got += data
    assert got == b"".join(frames)


def _blocks(count: int, sizes: list[int]) -> list[bytes]:
    return [bytes([65 + n % 26]) * sizes[n % len(sizes)] for n in range(count)]


@given(
    st.lists(
        st.tuples(
            st.builds(_blocks, st.integers(1, 120), st.lists(st.integers(1, 40), min_size=1)),
            st.integers(0, 600),
        ),
        max_size=5,
    ),
    st.integers(1, 2000),
    st.booleans(),
)
def test_events_are_the_same_whether_they_come_at_once_or_one_by_one(
    steps: list[tuple[list[bytes], int]], most: int, with_ids: bool
) -> None:
    """What comes at once is kept in one piece, and nobody who reads it can tell."""
    together, alone = (_log(max_bytes=9000, with_ids=with_ids) for _ in range(2))
    most_kept_after = 0
    for blocks, keep_after in steps:
        most_kept_after = max(most_kept_after, keep_after)
        together.extend(blocks)
        for block in blocks:
            alone.append(block)
        for log in (together, alone):
            log.trim(keep_after)
        assert alone.last == together.last
        # A small run may go as a whole, though less would do.
        assert alone.first <= together.first <= max(alone.first, most_kept_after + 1)
        assert alone.bytes - 9000 // 8 <= together.bytes <= alone.bytes
        for after in range(together.first - 1, alone.last + 1, 41):
            events = alone.events(after)
            assert together.events(after) == events
            pieces, lengths = together.pieces(after)
            assert (b"".join(pieces), list(lengths)) == (b"".join(events), list(map(len, events)))
            for log in (together, alone):
                _assert_reads(log, after, events, most)
        if together.first > 1:
            with pytest.raises(CursorTrimmedError):
                together.read(together.first - 2, most)


def _assert_reads(log: EventLog, cursor: int, events: list[bytes], most: int) -> None:
    """A reader gets the events in pieces, each of at least one and otherwise within bounds."""
    while events:
        data, then = log.read(cursor, most)
        count = then - cursor
        assert data == b"".join(events[:count])
        assert count == 1 or 0 < len(data) <= most
        assert len(data) + sum(map(len, events[count : count + 1])) > most or count == len(events)
        cursor, events = then, events[count:]
    assert log.read(cursor, most) == (b"", cursor)


def test_run_is_kept_once_and_goes_with_its_last_event() -> None:
    log = _log(max_bytes=1000)
    log.extend([b"x" * 100] * 100)
    run = log._frames[0]
    assert all(frame is run for frame in log._frames)
    log.trim(keep_after=50)
    assert (log.first, log._frames[:50]) == (51, [b""] * 50)
    assert log.events() == [b"x" * 100] * 50
    log.trim(keep_after=100)
    assert run in log._frames, "as many as fit are kept"
    log.extend([b"y" * 100] * 100)
    log.trim(keep_after=200)
    assert run not in log._frames


@given(
    st.lists(st.tuples(st.integers(1, 60), st.integers(1, 120), st.integers(0, 700)), max_size=300)
)
def test_trimming_keeps_numbers_and_bounds(steps: list[tuple[int, int, int]]) -> None:
    log = _log(max_bytes=2000)
    sizes: list[int] = []
    for size, count, keep_after in steps:
        log.extend([b"x" * size] * count)
        sizes += [size + FRAME_OVERHEAD_BYTES] * count
        first = log.first
        log.trim(keep_after)
        assert first <= log.first <= max(first, keep_after + 1)
        assert log.bytes == sum(sizes[log.first - 1 :])
        assert log.last == len(sizes)
        assert not log.is_full or log.first > keep_after
        assert log.first == first or log.bytes + sizes[log.first - 2] > 2000, "more than needed"


def test_events_no_longer_there_are_never_left_out_silently() -> None:
    log = _log(max_bytes=200)
    for _ in range(5):
        log.append(b"x" * 36)
    log.trim(keep_after=4)
    assert log.first == 4
    assert log.read(3, 36) == (b"x" * 36, 4)
    with pytest.raises(CursorTrimmedError):
        log.read(2, 36)


def test_long_log_gives_its_memory_back() -> None:
    log = _log(max_bytes=1000)
    for number in range(1, 5001):
        log.append(b"x" * 36)
        log.trim(keep_after=number)
    assert len(log._frames) < 600
    assert log.read(log.first - 1, 36) == (b"x" * 36, log.first)


def test_all_logs_share_a_budget() -> None:
    budget = LogBudget(300)
    logs = [EventLog(_SID, max_bytes=1000, with_ids=False, budget=budget) for _ in range(2)]
    logs[0].append(b"x" * 200)
    assert not budget.is_spent
    logs[1].append(b"x")
    assert budget.is_spent
    assert [log.is_full for log in logs] == [True, True]
    logs[0].release()
    assert budget.used_bytes == logs[1].bytes == 1 + FRAME_OVERHEAD_BYTES
    logs[1].release()
    assert budget.used_bytes == 0


def test_full_log_drops_nothing_while_another_can_be_spared() -> None:
    budget = LogBudget(300)
    spare, log = (EventLog(_SID, max_bytes=1000, with_ids=False, budget=budget) for _ in range(2))
    for each in (spare, log):
        each.append(b"x" * 100)

    def evict() -> bool:
        spare.release()
        return True

    budget.evict = evict
    log.trim(log.last)
    assert (log.first, spare.bytes) == (1, 0)


def test_empty_log_has_room_though_the_budget_is_spent() -> None:
    """Else it would wait for room that nobody reading it can make."""
    assert not _log(limit=1).is_full


def test_released_log_goes_on_counting() -> None:
    log = _log(with_ids=True)
    log.append(b"a")
    log.release()
    with pytest.raises(CursorTrimmedError):
        log.read(0, 100)
    log.append(b"b")
    assert log.read(1, 100) == (b"id: AAAAAAAAAAAAAAAA.2\nb", 2)


def test_listeners_hear_of_appends_and_of_the_end() -> None:
    log = _log()
    heard: list[tuple[int, int, bytes]] = []

    def listener(after: int, last: int, newest: bytes) -> None:
        heard.append((after, last, newest))

    log.listen(listener)
    log.append(b"a")
    log.extend([])
    log.extend([b"b", b"c"])
    log.close()
    log.unlisten(listener)
    assert (heard, log.is_closed) == ([(0, 1, b"a"), (1, 3, b"bc"), (3, 3, b"")], True)
    with pytest.raises(RuntimeError, match="closed"):
        log.append(b"b")


def test_changes_are_noted_where_somebody_wants_to_know() -> None:
    log = _log()
    log.append(b"a")
    changed: set[StreamId] = set()
    log.note_changes(changed)
    assert not changed
    log.append(b"b")
    assert len(changed) == 1


def test_last_events_and_the_end_are_heard_of_at_once() -> None:
    log = _log()
    heard: list[tuple[int, bool]] = []
    log.listen(lambda *_: heard.append((log.last, log.is_closed)))
    log.close([b"a", b"b"])
    assert heard == [(2, True)]


def test_events_after_a_cursor_are_those_that_remain() -> None:
    log = _log(max_bytes=200)
    for number in range(5):
        log.append(b"%d" % number + b"x" * 35)
    assert [frame[:1] for frame in log.events(after=3)] == [b"3", b"4"]
    log.trim(keep_after=5)
    assert [frame[:1] for frame in log.events()] == [b"3", b"4"]
