"""Fixtures of the micro-benchmarks: real databases, and operations counted singly."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Protocol

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from gateway.stream.cipher import Cipher
from gateway.stream.sql import make_store
from gateway.stream.store import SessionStore
from tests.servers import new_database, postgres_server

_ROUNDS = 30
_WARM_UP_ROUNDS = 3


class Measure(Protocol):
    def __call__(self, operation: Callable[[], object], unit: str, count: int = 1) -> None:
        """Times `operation`, which does `count` of `unit` each time."""


class MeasureAsync(Protocol):
    def __call__(self, operation: Callable[[], Awaitable[object]], unit: str, count: int) -> None:
        """The same for a coroutine function; `count` should make the loop's own start small."""


@pytest.fixture
def measure(benchmark: BenchmarkFixture) -> Measure:
    def run(operation: Callable[[], object], unit: str, count: int = 1) -> None:
        benchmark.extra_info.update(unit=unit, count=count)
        benchmark(operation)

    return run


@pytest.fixture
def measure_async(benchmark: BenchmarkFixture, runner: asyncio.Runner) -> MeasureAsync:
    def run(operation: Callable[[], Awaitable[object]], unit: str, count: int) -> None:
        async def once() -> None:
            await operation()

        benchmark.extra_info.update(unit=unit, count=count)
        benchmark.pedantic(  # type: ignore[no-untyped-call]
            lambda: runner.run(once()), rounds=_ROUNDS, warmup_rounds=_WARM_UP_ROUNDS
        )

    return run


@pytest.fixture
def runner() -> Iterator[asyncio.Runner]:
    with asyncio.Runner() as runner:
        yield runner


@pytest.fixture(scope="session")
def postgres_url() -> Iterator[str]:
    with postgres_server() as url:
        yield url


@pytest.fixture(params=["SQLite", "PostgreSQL"])
def store(
    request: pytest.FixtureRequest, tmp_path: Path, runner: asyncio.Runner
) -> Iterator[SessionStore]:
    """An open, empty store of each kind."""
    url = None
    if request.param == "PostgreSQL":
        url = runner.run(new_database(request.getfixturevalue("postgres_url")))
    opening = _opened(make_store(url, tmp_path, Cipher(), instance="bench"))
    yield runner.run(opening.__aenter__())
    runner.run(opening.__aexit__(None, None, None))


@asynccontextmanager
async def _opened(store: SessionStore) -> AsyncIterator[SessionStore]:
    await store.open()
    try:
        yield store
    finally:
        await store.close()
