"""Places for streams per owner."""

from __future__ import annotations

import gc
import threading

import pytest

from gateway.errors import TooManyRequests
from gateway.limit.concurrency import OwnerLeases


def test_one_more_than_the_limit_is_refused_until_one_ends() -> None:
    leases = OwnerLeases(2)
    first, second = leases.acquire("a"), leases.acquire("a")
    with pytest.raises(TooManyRequests) as caught:
        leases.acquire("a")
    assert (caught.value.code, caught.value.status) == ("too_many_streams", 429)
    assert caught.value.retry_after_s
    first.release()
    third = leases.acquire("a")
    assert leases.count("a") == 2
    second.release()
    third.release()


def test_owners_are_counted_apart() -> None:
    leases = OwnerLeases(1)
    held = [leases.acquire("a"), leases.acquire("b")]
    assert (leases.count("a"), leases.count("b")) == (1, 1)
    assert len(held) == len(leases) == 2


def test_release_twice_frees_one_place() -> None:
    leases = OwnerLeases(0)
    first, second = leases.acquire("a"), leases.acquire("a")
    first.release()
    first.release()
    assert leases.count("a") == 1
    second.release()


def test_lease_that_is_forgotten_ends() -> None:
    leases = OwnerLeases(1)
    for _ in range(100):
        leases.acquire("a")
    gc.collect()
    assert len(leases) == 0


def test_lease_in_a_reference_cycle_ends_when_it_is_collected() -> None:
    leases = OwnerLeases(1)
    cycle: list[object] = [leases.acquire("a")]
    cycle.append(cycle)
    assert leases.count("a") == 1
    del cycle
    gc.collect()
    assert leases.count("a") == 0


def test_lease_ends_with_its_block_also_by_an_error() -> None:
    leases = OwnerLeases(1)
    with pytest.raises(RuntimeError), leases.acquire("a"):
        raise RuntimeError
    assert leases.count("a") == 0


def test_zero_limits_nothing() -> None:
    leases = OwnerLeases(0)
    held = [leases.acquire("a") for _ in range(1000)]
    assert leases.count("a") == len(held)


def test_owner_without_a_lease_takes_no_memory() -> None:
    leases = OwnerLeases(1)
    for number in range(1000):
        leases.acquire(f"owner {number}").release()
    held = leases.acquire("a")
    with pytest.raises(TooManyRequests):
        leases.acquire("a")
    held.release()
    assert len(leases) == 0


def test_leases_collected_in_other_threads_are_counted_right() -> None:
    leases = OwnerLeases(0)

    def work() -> None:
        for _ in range(2000):
            kept = leases.acquire("a")
            leases.acquire("a")
            kept.release()

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(leases) == 0
