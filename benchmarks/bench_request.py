"""What a request costs before its stream: the rate limit, the owner, the ids."""

from __future__ import annotations

import asyncio
import logging
import os
from ipaddress import ip_network
from pathlib import Path

import pytest

from benchmarks.conftest import Measure, MeasureAsync
from gateway.flags import Flags
from gateway.identity import identify
from gateway.limit.concurrency import OwnerLeases
from gateway.limit.rate import RateLimiter
from gateway.settings import Settings
from gateway.stream.cursor import Cursor
from gateway.stream.model import new_stream_id
from gateway.telemetry.logs import configure_logging
from gateway.telemetry.trace import accept

logger = logging.getLogger(__name__)

_HITS = 1000
_PARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


@pytest.mark.parametrize("keys", [1, 20_000])
def bench_rate_limit_hit(measure_async: MeasureAsync, runner: asyncio.Runner, keys: int) -> None:
    limiter = RateLimiter("100000/minute")

    async def hit(count: int = _HITS) -> None:
        for number in range(count):
            await limiter.hit(f"addr:{number % keys}")

    runner.run(hit(keys))
    measure_async(hit, "request", _HITS)


def bench_lease(measure: Measure) -> None:
    leases = OwnerLeases(10)

    def lease() -> None:
        leases.acquire("addr:192.0.2.1").release()

    measure(lease, "lease")


@pytest.mark.parametrize("parent", [None, _PARENT], ids=["new", "continued"])
def bench_trace(measure: Measure, parent: str | None) -> None:
    measure(lambda: accept(None, parent), "request")


def bench_stream_id(measure: Measure) -> None:
    measure(new_stream_id, "id")


def bench_cursor(measure: Measure) -> None:
    event_id = f"{new_stream_id()}.1234"
    measure(lambda: Cursor.parse(event_id), "cursor")


def bench_identity(measure: Measure) -> None:
    networks = [ip_network("10.0.0.0/8")]

    def tell() -> None:
        identify(
            subject=None, user_id=None, peer="192.0.2.1", address="192.0.2.1", trusted=networks
        )

    measure(tell, "request")


@pytest.mark.parametrize("form", ["json", "text"])
def bench_log_line(measure: Measure, form: str) -> None:
    fields = {"trace_id": "4bf92f3577b34da6a3ce929d0e0e4736", "status": "COMPLETED", "chunks": 20}
    with Path(os.devnull).open("w") as nowhere:
        configure_logging("info", form, nowhere)
        measure(lambda: logger.info("stream.ended", extra=fields), "line")
        logging.getLogger().handlers.clear()


def bench_streaming_flag(measure: Measure) -> None:
    rollout = {"enable_sse_streaming": True, "sse_streaming_rollout_percent": 50}
    flags = Flags(Settings(**rollout))  # type: ignore[arg-type]
    measure(lambda: flags.streaming_enabled("addr:192.0.2.1"), "request")
    flags.close()
