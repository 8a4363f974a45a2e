"""A flood becomes one record and one number."""

from __future__ import annotations

from gateway.audit.floods import WINDOW_MS, Floods

NOW = 1_760_000_000_000
KEY = ("security.auth_failed", "missing", "192.0.2.1")


def test_first_of_a_kind_is_admitted_and_the_rest_of_its_window_is_counted() -> None:
    floods = Floods()
    assert floods.admits(KEY, NOW)
    for _ in range(7):
        assert not floods.admits(KEY, NOW + 1)
        floods.count(KEY, "addr:192.0.2.1", {"status": 401})
    assert list(floods.due(NOW + WINDOW_MS - 1)) == []
    assert list(floods.due(NOW + WINDOW_MS)) == [(KEY, "addr:192.0.2.1", {"status": 401}, 7)]
    assert floods.admits(KEY, NOW + WINDOW_MS)


def test_window_ends_when_the_clock_is_put_back_and_at_the_last() -> None:
    for now, is_last in ((NOW - 1, False), (NOW + 1, True)):
        floods = Floods()
        assert floods.admits(KEY, NOW)
        floods.count(KEY, "addr:192.0.2.1", {})
        assert list(floods.due(NOW + 1)) == []
        assert list(floods.due(now, is_last=is_last)) == [(KEY, "addr:192.0.2.1", {}, 1)]


def test_so_many_a_second_and_no_more_get_a_record() -> None:
    floods = Floods(per_second=10)
    admitted = sum(floods.admits((*KEY[:2], f"192.0.2.{n}"), NOW + n) for n in range(100))
    assert admitted == 10
    suppressed = floods.take_suppressed()
    assert suppressed is not None
    assert (suppressed.count, suppressed.from_ms, suppressed.to_ms) == (90, NOW + 10, NOW + 99)
    assert floods.take_suppressed() is None


def test_addresses_without_number_cost_memory_with_a_bound() -> None:
    floods = Floods(per_second=10**9)
    for number in range(20_000):
        floods.admits((*KEY[:2], str(number)), NOW)
    suppressed = floods.take_suppressed()
    assert suppressed is not None
    assert suppressed.count == 10_000
