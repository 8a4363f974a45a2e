"""The clients: how many streams at once or how many a second, and which of them misbehave."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace

from scripts.loading.tally import Tally
from scripts.loading.targets import Target
from scripts.loading.wire import Stream, Wire

_now = time.monotonic_ns


@dataclass(frozen=True, slots=True)
class Manners:
    """Shares of the clients, 0 to 1, that read slowly, leave early, or drop and come back."""

    slow: float = 0.0
    slow_bytes_per_s: int = 2000
    leave: float = 0.0
    leave_after: int = 5
    reconnect: float = 0.0
    drop_after: int = 5


@dataclass(frozen=True, slots=True)
class Plan:
    """What every client asks. `expected` 0 accepts any number of events."""

    target: Target
    question: str
    expected: int = 0
    is_stamped: bool = False
    is_timed: bool = False
    manners: Manners = field(default_factory=Manners)
    seed: int = 1
    #: Put `{tag}` into the question to tell the streams apart in the backend's ledger.
    is_tagged: bool = False


class Crowd:
    """Starts streams and keeps their connections; leave it by `close`."""

    def __init__(self, plan: Plan) -> None:
        self.tally = Tally()
        self.wires: set[Wire] = set()
        self._plan = plan
        self._random = random.Random(plan.seed)
        self._tasks: set[asyncio.Task[None]] = set()
        self._number = 0
        self._template = self._make_template()
        self._then: Callable[[Wire, Stream], None] | None = None

    def _make_template(self) -> Stream:
        target = self._plan.target
        return Stream(
            request=target.request(self._plan.question),
            mark=target.event_mark,
            empty=target.empty_mark,
            terminal=target.speaks.terminal,
            intended_ns=0,
            expected=self._plan.expected,
            is_stamped=self._plan.is_stamped,
            is_timed=self._plan.is_timed,
        )

    async def open_loop(self, rate: float, count: int, arrivals: str = "even") -> None:
        """Starts `count` streams at `rate` a second, at their time whether or not others answered.

        A stream that is begun late is timed from when it should have begun.
        """
        start = _now()
        for due in self._times(start, rate, count, arrivals):
            wait = (due - _now()) / 1e9
            if wait > 0:
                await asyncio.sleep(wait)
            self.start(min(due, _now()))  # uvloop's timers may be a millisecond early

    def _times(self, start: int, rate: float, count: int, arrivals: str) -> Iterator[int]:
        at = float(start)
        for _ in range(count):
            yield int(at)
            at += 1e9 / rate if arrivals == "even" else self._random.expovariate(rate) * 1e9

    async def closed_loop(self, streams: int, seconds: float) -> None:
        """Keeps `streams` running, each followed at once by the next on the same connection."""
        end = _now() + int(seconds * 1e9)
        self._then = lambda wire, _: self._again(wire, end)
        for _ in range(streams):
            self.start(_now())
        await asyncio.sleep(seconds)
        self._then = None

    def _again(self, wire: Wire, end: int) -> None:
        now = _now()
        if now >= end:
            return
        if wire.is_reusable:
            wire.begin(self._stream(now))
        else:
            self.start(now)

    def start(self, intended_ns: int) -> None:
        """One stream, on a connection of its own."""
        self._connect(self._stream(intended_ns))

    def _connect(self, stream: Stream) -> None:
        task = asyncio.get_running_loop().create_task(self._open(stream))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _open(self, stream: Stream) -> None:
        loop, target = asyncio.get_running_loop(), self._plan.target
        self.tally.lag_ns.append(max(0, _now() - stream.intended_ns))
        try:
            _, wire = await loop.create_connection(self._wire, target.host, target.port)
        except OSError as error:
            self.tally.endings[f"refused: {type(error).__name__}"] += 1
            return
        self.wires.add(wire)
        wire.begin(stream)

    def _wire(self) -> Wire:
        return Wire(self.tally, self._on_end)

    def _stream(self, intended_ns: int) -> Stream:
        stream = replace(self._template, intended_ns=intended_ns)
        self.tally.started += 1
        if self._plan.is_tagged:
            stream.tag = self._number
            question = self._plan.question.format(tag=self._number)
            stream.request = self._plan.target.request(question)
        self._number += 1
        self._give_manners(stream)
        return stream

    def _give_manners(self, stream: Stream) -> None:
        manners = self._plan.manners
        drawn = self._random.random()
        if drawn < manners.slow:
            stream.bytes_per_s = manners.slow_bytes_per_s
        elif drawn < manners.slow + manners.leave:
            stream.leave_after = manners.leave_after
        elif drawn < manners.slow + manners.leave + manners.reconnect:
            stream.drop_after = manners.drop_after

    def _on_end(self, wire: Wire, stream: Stream) -> None:
        if stream.ending == "dropped":
            self._resume(stream)
        if self._then is not None:
            self._then(wire, stream)
        if not wire.is_busy:
            self.wires.discard(wire)
            wire.close()

    def _resume(self, stream: Stream) -> None:
        """Comes back as an `EventSource` does: the same request with the last event's id."""
        self.tally.resumed += 1
        stream.request = self._plan.target.request(self._plan.question, stream.last_id)
        stream.drop_after = 0
        stream.ending = ""
        self._connect(stream)

    async def until(self, is_reached: Callable[[Tally], bool], seconds: float) -> bool:
        """Waits for a state of the tally; whether it came in time."""
        end = time.monotonic() + seconds
        while not is_reached(self.tally):
            if time.monotonic() >= end:
                return False
            await asyncio.sleep(0.02)
        return True

    async def close(self) -> None:
        """Leaves every stream that still runs."""
        self._then = None
        for task in list(self._tasks):
            task.cancel()
        for wire in list(self.wires):
            wire.leave("unfinished")
            wire.close()
        self.wires.clear()
        await asyncio.sleep(0.05)
