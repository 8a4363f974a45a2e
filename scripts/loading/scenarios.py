"""The scenarios of a comparison. Each drives one running peer and gives its figures.

Figures are flat: a name with its unit, and a number.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace

from scripts.loading import process
from scripts.loading.crowd import Crowd, Plan
from scripts.loading.meter import Meter
from scripts.loading.running import PeerFailed, Running
from scripts.loading.tally import Tally, quantile, summary

Figures = dict[str, float]

#: How much longer than it is measured a paced stream goes on: for machines that pause.
SLACK_S = 2.0
#: How long an event may take when none came in time.
PATIENCE_S = 10.0


@dataclass(frozen=True, slots=True)
class Size:
    """How large a scenario is; the defaults of each are what is published."""

    streams: int
    seconds: float = 4.0
    per_second: float = 0.0
    tokens: int = 0
    ramp_per_s: float = 200.0


async def paced(running: Running, size: Size) -> Figures:
    """Streams at the backend's pace: what an event costs and how late it is."""
    up_s = size.streams / size.ramp_per_s
    tokens = int(size.per_second * (up_s + size.seconds + SLACK_S))
    question = (
        f"[mock: first=0 jitter=0 pace={1000 / size.per_second:g} tokens={tokens} stamp=text]"
    )
    crowd = Crowd(Plan(running.target, question, tokens, is_stamped=True, is_timed=True))
    await crowd.open_loop(size.ramp_per_s, size.streams)
    await crowd.until(lambda tally: tally.talking == size.streams, 10)
    await asyncio.sleep(0.3)
    crowd.tally.forget_times()
    figures = await _measured(crowd, running, size.seconds) | _times(crowd.tally)
    await crowd.until(lambda tally: tally.ended == size.streams, up_s + 10)
    return await _closed(crowd, figures)


async def flat_out(running: Running, size: Size) -> Figures:
    """Streams as fast as they are taken, each followed at once by the next."""
    crowd = Crowd(Plan(running.target, f"[mock: first=0 pace=0 tokens={size.tokens}]", size.tokens))
    settle_s = 1.0
    loop = asyncio.get_running_loop()
    driving = loop.create_task(crowd.closed_loop(size.streams, settle_s + size.seconds + 0.1))
    await asyncio.sleep(settle_s)
    figures = await _measured(crowd, running, size.seconds)
    first = summary(crowd.tally.first_ns, 1e6)
    figures |= {"first_p50_ms": first["p50"], "first_p99_ms": first["p99"]} if first else {}
    await driving
    await crowd.until(lambda tally: not tally.open, 5)
    return await _closed(crowd, figures)


async def _measured(crowd: Crowd, running: Running, seconds: float) -> Figures:
    """What the meter reads after so many seconds, or later: when an event has come in them.

    Raises:
        PeerFailed: none can come any more, or none came for a long time.
    """
    meter = Meter(crowd.tally, running.pid, running.backend.pid)
    before = crowd.tally.events
    await asyncio.sleep(seconds)
    await crowd.until(
        lambda tally: tally.events > before or tally.ended == tally.started, PATIENCE_S
    )
    if crowd.tally.events == before:
        await crowd.close()
        raise PeerFailed("no event came while it was measured")
    return meter.read()


async def idle(running: Running, size: Size) -> Figures:
    """Open streams in which nothing is said: what one holds in memory."""
    before = process.memory_bytes(running.pid) if running.pid else 0
    crowd = Crowd(Plan(running.target, "[mock: first=0 pace=1 stall=1 tokens=2]"))
    await crowd.open_loop(size.ramp_per_s, size.streams)
    await crowd.until(lambda tally: tally.talking == size.streams, 20)
    await asyncio.sleep(1)
    open_streams = crowd.tally.talking
    figures: Figures = {"open": open_streams}
    if running.pid and open_streams:
        taken = process.memory_bytes(running.pid) - before
        figures |= {"base_mib": before / 2**20, "kib_per_stream": taken / open_streams / 1024}
    first = summary(crowd.tally.first_ns, 1e6)
    figures |= {"first_p50_ms": first["p50"], "first_p99_ms": first["p99"]} if first else {}
    figures |= {"failed": crowd.tally.ended + size.streams - crowd.tally.started}
    await crowd.close()
    return figures


async def gone(running: Running, size: Size) -> Figures:
    """Clients leave silent streams, so many a second: when the backend's connection is closed."""
    question = "[mock: first=0 pace=1 stall=1 tokens=2 tag={tag}]"
    crowd = Crowd(Plan(running.target, question, is_tagged=True))
    await crowd.open_loop(size.ramp_per_s, size.streams)
    await crowd.until(lambda tally: tally.talking == size.streams, 20)
    await asyncio.sleep(0.5)
    for wire in list(crowd.wires):
        wire.leave()
        await asyncio.sleep(1 / size.per_second)
    delays = await _departures(running, crowd.tally)
    figures: Figures = {"left": len(crowd.tally.left_ns), "noticed": len(delays)}
    if delays:
        figures |= {
            "gone_p50_ms": quantile(delays, 0.5) / 1e6,
            "gone_p99_ms": quantile(delays, 0.99) / 1e6,
        }
        figures |= {"gone_max_ms": delays[-1] / 1e6}
    await crowd.close()
    return figures


async def _departures(running: Running, tally: Tally) -> list[int]:
    """Nanoseconds from each client's leave to the end of the backend's connection, in order."""
    end = time.monotonic() + 5
    while True:
        seen = (await running.backend.stats())["gone_ns"]
        assert isinstance(seen, dict)
        delays = [seen[str(tag)] - at for tag, at in tally.left_ns.items() if str(tag) in seen]
        if len(delays) == len(tally.left_ns) or time.monotonic() > end:
            return sorted(delays)
        await asyncio.sleep(0.1)


def _times(tally: Tally) -> Figures:
    figures: Figures = {}
    for name, series, unit, unit_ns in (
        ("first", tally.first_ns, "ms", 1e6),
        ("latency", tally.latency_ns, "us", 1e3),
        ("gap", tally.gap_ns, "ms", 1e6),
    ):
        found = summary(series, unit_ns) or {}
        figures |= {f"{name}_{key}_{unit}": found[key] for key in found if key != "count"}
    return figures


async def _closed(crowd: Crowd, figures: Figures) -> Figures:
    endings = crowd.tally.endings
    figures["ok"] = endings["ok"]
    figures["failed"] = endings.total() - endings["ok"] - endings["left"] + crowd.tally.open
    await crowd.close()
    return figures


@dataclass(frozen=True, slots=True)
class Scenario:
    name: str
    size: Size
    run: Callable[[Running, Size], Awaitable[Figures]]
    meaning: str

    def scaled(self, factor: float, seconds: float | None) -> Scenario:
        """The same with fewer streams, and as long as said."""
        streams = max(1, round(self.size.streams * factor))
        tokens = (
            max(1, round(self.size.tokens * factor)) if self.name == "blast" else self.size.tokens
        )
        size = replace(self.size, streams=streams, tokens=tokens)
        return replace(self, size=replace(size, seconds=seconds) if seconds else size)


SCENARIOS = {
    each.name: each
    for each in (
        Scenario("pace", Size(200, per_second=50), paced, "200 streams × 50 events/s"),
        Scenario("short", Size(32, tokens=20), flat_out, "32 connections, streams of 20 events"),
        Scenario("blast", Size(16, tokens=20_000), flat_out, "16 streams × 20,000 events"),
        Scenario("idle", Size(2000, ramp_per_s=500), idle, "2,000 open streams"),
        Scenario(
            "many",
            Size(4000, per_second=2.5, ramp_per_s=500),
            paced,
            "4,000 streams × 2.5 events/s",
        ),
        Scenario("gone", Size(1000, per_second=200, ramp_per_s=400), gone, "1,000 clients leave"),
    )
}
