"""Fixtures that every test may use."""

from __future__ import annotations

import gc
from collections.abc import Generator, Iterator
from pathlib import Path

import hypothesis
import pytest

from tests import clock, disk
from tests.servers import new_database, postgres_server, redis_server

#: The files that take longest, from the longest on. Begun last, one of them would be waited for.
LONGEST = (
    *("test_every_cut", "test_cuts", "test_playground", "test_crash", "test_dashboard"),
    *("test_browser_client", "test_load", "test_audit_rights", "test_cli", "test_store_away"),
    *("test_departures", "test_backpressure", "test_audit_strict", "test_benchmarks"),
    *("test_many_streams", "test_run_script", "test_one_process", "test_verify_script"),
    *("test_audit_sweeps", "test_audit_histories", "test_sdks", "test_audit_attacks", "test_lives"),
    *("test_react", "test_sdk_failures", "test_stop_matrix", "test_sdk_injections"),
)

_NOT_RUN = "skipped"

# How long an example takes is the machine's business; a hang is pytest-timeout's.
hypothesis.settings.register_profile("sluice", deadline=None)
hypothesis.settings.load_profile("sluice")

# The imports leave 440,000 objects for good. Full rounds of the collector over them took 2 s of the
# 9 s in which a process collects the tests, and then a sixth of what the tests themselves took.
gc.disable()


@pytest.fixture(scope="session")
def redis_url() -> Iterator[str]:
    """A real Redis; shared, so a test uses keys of its own or flushes first."""
    with redis_server() as url:
        yield url


@pytest.fixture(scope="session")
def postgres_url() -> Iterator[str]:
    """A real PostgreSQL; shared, so a test makes a database or schema of its own."""
    with postgres_server() as url:
        yield url


@pytest.fixture(params=["sqlite", "postgres"])
async def database_url(request: pytest.FixtureRequest) -> str | None:
    """`DATABASE_URL` for each kind of store: none is SQLite, else a database of its own."""
    if request.param == "sqlite":
        return None
    return await new_database(request.getfixturevalue("postgres_url"))


@pytest.fixture
def wall_clock() -> Iterator[None]:
    """The test may put the clock forward (`tests.clock`)."""
    with clock.movable():
        yield


@pytest.fixture
def small_disk() -> Iterator[Path]:
    """A disk that the test may fill up (`tests.disk`)."""
    with disk.mounted() as folder:
        yield folder


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest files first (scripts/test deals whole files out, in this order)."""
    rank = {name: number for number, name in enumerate(LONGEST)}
    items.sort(key=lambda item: rank.get(item.path.stem, len(rank)))


def pytest_collection_finish() -> None:
    """Switches the collector on again, set as `sluice serve` sets it."""
    gc.freeze()
    gc.set_threshold(10_000, 20, 50)
    gc.enable()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """A skipped test shows nothing, so it fails: what a test needs, scripts/test installs."""
    report = yield
    if report.outcome == _NOT_RUN:
        report.outcome = "failed"
        report.longrepr = f"{item.nodeid} was skipped: {report.longrepr}"
    return report
