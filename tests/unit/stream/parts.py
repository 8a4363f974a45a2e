"""The ends of a stream that are the network's: a backend's answer and a client, both in memory."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping

from gateway.errors import UpstreamError
from gateway.sse.dialects import DIALECTS
from gateway.stream.answer import Answer, Follower
from gateway.stream.hub import Hub
from gateway.stream.limits import Bounds, Clocks, Limits
from gateway.stream.live import LiveStream, Origin
from gateway.stream.log import EventLog, LogBudget
from gateway.stream.model import StreamId, new_stream_id
from gateway.stream.plan import Plan
from gateway.stream.wires.base import Wire
from gateway.stream.wires.provider import ProviderWire

DIALECT = DIALECTS["openai"]
EVENT = b'data: {"choices":[]}\n\n'
DONE = b"data: [DONE]\n\n"
_SSE = {"Content-Type": "text/event-stream"}


class ScriptedAnswer:
    """A backend's answer; after its pieces it ends, or waits if it is `endless`. Those in a list
    come together."""

    def __init__(
        self,
        pieces: Iterable[bytes | list[bytes] | UpstreamError] = (),
        *,
        status: int = 200,
        headers: Mapping[str, str] = _SSE,
        endless: bool = False,
    ) -> None:
        self.status = status
        self.headers = headers
        self.is_closed = False
        self.is_finished = False
        self.fed = 0
        self._pieces = iter(pieces)
        self._endless = endless
        self._flows = asyncio.Event()
        self._flows.set()
        self._feeding: asyncio.Task[None] | None = None

    async def read(self) -> bytes:
        piece = next(self._pieces, b"")
        assert isinstance(piece, bytes)
        return piece

    def follow(self, follower: Follower) -> None:
        self._feeding = asyncio.create_task(self._feed(follower))

    def pause(self) -> None:
        self._flows.clear()

    def resume(self) -> None:
        self._flows.set()

    def release(self) -> bool:
        self.is_finished = True
        return True

    async def finish(self) -> None:
        self.release()

    def close(self) -> None:
        self.is_closed = True
        if self._feeding is not None:
            self._feeding.cancel()

    async def _feed(self, follower: Follower) -> None:
        for piece in self._pieces:
            await self._flows.wait()
            await asyncio.sleep(0)
            if isinstance(piece, UpstreamError):
                follower.feed_end(piece)
                return
            self.fed += 1
            if isinstance(piece, list):
                follower.feed_many(piece, b"".join(piece))
            else:
                follower.feed(piece)
        if not self._endless:
            follower.feed_end(None)


class RecordingSink:
    """A client that takes everything, unless it is told to leave or to wait."""

    def __init__(self) -> None:
        self.writes: list[bytes] = []
        self.is_broken_off = False
        self.has_left = False
        self.has_end = False  #: whether the last write ended the response
        self.begun_after: int | None = None  #: how many writes came before it had to begin
        self.takes = asyncio.Event()
        self.takes.set()

    def push(self, frames: bytes) -> bool:
        if self.has_left:
            raise ConnectionResetError
        self.writes.append(frames)
        return self.takes.is_set()

    def push_last(self, frames: bytes) -> bool:
        self.has_end = True
        return self.push(frames)

    def begin(self) -> None:
        self.begun_after = len(self.writes)

    async def drained(self) -> None:
        await self.takes.wait()

    async def flush(self, *, is_end: bool) -> None:
        if self.has_left:
            raise ConnectionResetError

    def break_off(self) -> None:
        self.is_broken_off = True

    def abort(self) -> None:
        self.has_left = True
        self.takes.set()


class Lease:
    def __init__(self) -> None:
        self.releases = 0

    def release(self) -> None:
        self.releases += 1


class Listening:
    """An observer that keeps what it is told."""

    def __init__(self) -> None:
        self.told: list[tuple[str, StreamId]] = []

    def stream_started(self, stream: LiveStream) -> None:
        self.told.append(("started", stream.id))

    def stream_ended(self, stream: LiveStream) -> None:
        assert stream.ending is not None
        self.told.append((stream.ending.reason, stream.id))


class NoStore:
    """The keeper and the archive of a hub whose streams live in memory only."""

    def created(self, stream: LiveStream) -> asyncio.Future[bool]:
        created: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        created.set_result(False)
        return created

    def ended(self, stream: LiveStream) -> None: ...

    def make_way(self, stream: LiveStream, wanted: int, wake: Callable[[], None]) -> int | None:
        return None

    def is_behind(self, stream: LiveStream) -> bool:
        return False

    async def flush(self, timeout_s: float) -> bool:
        return True


def make_stream(*, max_bytes: int = 100_000, wire: Wire | None = None) -> LiveStream:
    """A stream that no hub knows, a provider's by default."""
    stream_id = new_stream_id()
    log = EventLog(stream_id, max_bytes=max_bytes, with_ids=False, budget=LogBudget(0))
    return LiveStream(
        stream_id,
        Origin("me", "t", "/v1/chat/completions"),
        log=log,
        wire=wire or ProviderWire(DIALECT, trace_id="t"),
        grace_s=0,
        max_duration_s=0,
        on_end=lambda _: None,
    )


def make_hub(
    *, max_streams: int = 0, budget: LogBudget | None = None, log_max_bytes: int = 100_000
) -> tuple[Hub, Listening]:
    observer = Listening()
    hub = Hub(
        clocks=Clocks(first_token_s=30, idle_s=30, heartbeat_s=5),
        limits=Limits(
            max_streams, log_max_bytes, Bounds(event_max_bytes=1000, pauses=True), resume_ttl_s=0
        ),
        budget=budget or LogBudget(0),
        observer=observer,
        keeper=NoStore(),  # type: ignore[arg-type]
        archive=NoStore(),  # type: ignore[arg-type]
    )
    return hub, observer


def plan(
    answer: Answer, *, grace_s: float | None = 0, max_duration_s: float = 0, with_ids: bool = False
) -> Plan:
    """A provider's stream, which the backend answers with `answer`."""

    async def ask() -> Answer:
        return answer

    return Plan(
        origin=Origin("me", "t", "/v1/chat/completions"),
        dialect=DIALECT,
        make_wire=lambda _: ProviderWire(DIALECT, trace_id="t"),
        ask=ask,
        with_ids=with_ids,
        grace_s=grace_s,
        max_duration_s=max_duration_s,
    )


async def turn() -> None:
    """Lets everything that is ready run."""
    for _ in range(20):
        await asyncio.sleep(0)
