"""A client that leaves, at any moment and in any way, leaves nothing behind."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import re
import socket
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

import pytest

from tests.backend import (
    LAST_CHUNK,
    Exchange,
    ScriptedBackend,
    chunked,
    response_head,
    sse_head,
)
from tests.client import BrokenOffError, Client, connected, request
from tests.gateway import Gateway, running_gateway

DEPARTURES = 1000
AT_ONCE = 50
TOKEN = b'data: {"choices":[{"index":0,"delta":{"content":"word "}}]}\n\n'
DONE = b"data: [DONE]\n\n"
UPLOAD = b"x" * 200_000
CANCEL = {"X-Stream-On-Disconnect": "cancel"}


def typed_get(moment: str) -> bytes:
    return request(f"/api/v2/chat-stream?query={moment}")


def typed(moment: str) -> bytes:
    return request("/api/v2/chat-stream", {"query": moment}, CANCEL)


def provider(moment: str) -> bytes:
    return request("/v1/chat/completions", {"stream": True, "messages": [moment]})


def provider_at_once(moment: str) -> bytes:
    return request("/v1/chat/completions", {"messages": [moment]})


def download(moment: str) -> bytes:
    return request(f"/files/{moment}")


def upload(moment: str) -> bytes:
    head = f"PUT /files/{moment} HTTP/1.1\r\nHost: gateway\r\nContent-Length: {len(UPLOAD)}\r\n\r\n"
    return head.encode() + UPLOAD


ROUTES = (typed_get, typed, provider, provider_at_once, download, upload)
MOMENTS = ("unanswered", "headed", "flowing", "unread", "ending", "complete", "whenever")
EVERY_ROUTE = pytest.mark.parametrize("route", ROUTES, ids=lambda route: route.__name__)
EVERY_WAY = pytest.mark.parametrize("reset", [False, True], ids=["fin", "rst"])


class Answering:
    """A backend's script that does what the moment in the request asks for."""

    def __init__(self, seed: int = 0) -> None:
        self.unfinished = 0
        self.seen: Counter[str] = Counter()
        self._random = random.Random(seed)

    async def __call__(self, exchange: Exchange) -> None:
        moment = "|".join(MOMENTS).encode()
        found = re.search(moment, exchange.head + exchange.body)
        assert found is not None
        self.unfinished += 1
        try:
            self.seen[found[0].decode()] += 1
            await getattr(self, found[0].decode())(exchange)
        finally:
            self.unfinished -= 1

    async def unanswered(self, exchange: Exchange) -> None:
        await exchange.stall()

    async def headed(self, exchange: Exchange) -> None:
        await exchange.send(_head(exchange))
        await exchange.stall()

    async def flowing(self, exchange: Exchange) -> None:
        await exchange.send(_head(exchange))
        while True:
            await exchange.send(chunked(TOKEN))
            await asyncio.sleep(0.001)

    async def unread(self, exchange: Exchange) -> None:
        await exchange.send(_head(exchange))
        while True:
            await exchange.send(chunked(TOKEN * 100))
            await asyncio.sleep(0)

    async def ending(self, exchange: Exchange) -> None:
        """Everything but what HTTP ends it with; that never comes."""
        await exchange.send(_head(exchange) + chunked(TOKEN * 3) + chunked(DONE))
        await exchange.stall()

    async def complete(self, exchange: Exchange) -> None:
        await exchange.send(_head(exchange) + chunked(TOKEN * 3) + chunked(DONE) + LAST_CHUNK)

    async def whenever(self, exchange: Exchange) -> None:
        for part in (_head(exchange), *[chunked(TOKEN)] * 3, chunked(DONE), LAST_CHUNK):
            await asyncio.sleep(self._random.uniform(0, 0.004))
            await exchange.send(part)


def _head(exchange: Exchange) -> bytes:
    is_stream = b'"stream":true' in exchange.body.replace(b" ", b"")
    return sse_head() if is_stream else response_head()


@dataclass(frozen=True, slots=True)
class Scene:
    answering: Answering
    backend: ScriptedBackend
    gateway: Gateway

    def leftovers(self) -> dict[str, object]:
        """Everything that a request may leave behind, by name; what is nought isn't there."""
        services = self.gateway.services
        idle = self._idle_connections()
        counts = {
            "streams": len(services.hub),
            "streams that can be read": len(services.hub.streams()),
            "streams in the metric": self.gateway.metric("sluice_streams_active"),
            "leases": len(services.leases),
            "buffered bytes": services.hub.buffered_bytes,
            "watched outlets": len(services.stalls.waiting),
            "watched clients": len(services.presence.transports),
            "unfinished answers": self.answering.unfinished,
            "backend connections": self.backend.open_connections - idle,
            "tasks": sorted(_tasks()),
            "files": len(os.listdir("/proc/self/fd")) - idle - self.backend.open_connections,
        }
        return {name: count for name, count in counts.items() if count}

    def _idle_connections(self) -> int:
        """Those to the backend that wait in the pool, their answers complete."""
        session = self.gateway.services.upstream._session
        assert session is not None
        assert session.connector is not None
        return sum(map(len, session.connector._conns.values()))

    async def wait_until_left(self, before: dict[str, object]) -> None:
        """Until nothing is left but what was before; fails with what is."""
        with contextlib.suppress(TimeoutError):
            await until(lambda: self.leftovers() == before)
        assert self.leftovers() == before

    async def wait_for_ending(self, reason: str) -> None:
        await until(lambda: self.gateway.metric("sluice_streams_total", reason=reason) == 1)


def _tasks() -> list[str]:
    """Those of the gateway and of its server."""
    names = (task.get_name() for task in asyncio.all_tasks() if task != asyncio.current_task())
    return [re.sub(r"\d+", "N", name) for name in names if not name.startswith("scripted")]


async def until(is_so: Callable[[], bool], seconds: float = 5) -> None:
    async with asyncio.timeout(seconds):
        while not is_so():
            await asyncio.sleep(0.005)


@asynccontextmanager
async def scene(seed: int = 0, **settings: object) -> AsyncIterator[Scene]:
    answering = Answering(seed)
    soon = {"detach_grace_seconds": 0, "resume_ttl_seconds": 0.1, "heartbeat_interval": 0.5}
    soon["upstream_preconnect"] = 0  # connections and files are counted
    async with (
        ScriptedBackend(answering) as backend,
        running_gateway(backend.url, **{**soon, **settings}) as gateway,
    ):
        yield Scene(answering, backend, gateway)


# a thousand


async def test_nothing_is_left_after_a_thousand_random_departures(
    caplog: pytest.LogCaptureFixture,
) -> None:
    rng = random.Random(1)
    async with scene(seed=2) as on:
        before = on.leftovers()
        places = asyncio.Semaphore(AT_ONCE)
        async with asyncio.TaskGroup() as departures:
            for _ in range(DEPARTURES):
                await places.acquire()
                task = departures.create_task(_depart(on.gateway.port, rng))
                task.add_done_callback(lambda _: places.release())
        await on.wait_until_left(before)
        created = on.gateway.metric("sluice_sessions_created_total")
        # Every moment came to pass, and a part of them before the backend knew.
        assert set(on.answering.seen) == set(MOMENTS)
        assert DEPARTURES / 4 < created < DEPARTURES
        assert len(on.backend.exchanges) < DEPARTURES
    await on.backend.wait_until_idle()
    assert [record.message for record in caplog.records if record.levelname == "ERROR"] == []


async def _depart(port: int, rng: random.Random) -> None:
    """One client: it asks something and leaves somewhere on the way."""
    route, moment, reset = rng.choice(ROUTES), rng.choice(MOMENTS), rng.random() < 0.5
    asked = route(moment)
    how_far = rng.choice(("cut short", "asked", "asked twice"))
    is_answered = how_far != "cut short" and moment not in ("unanswered", "unread")
    if is_answered and rng.random() < 0.7:
        # No more than any answer's head, unless the answer never ends.
        patience_s, enough_bytes = 10.0, rng.randrange(1, 4000 if moment == "flowing" else 400)
    else:
        patience_s, enough_bytes = rng.uniform(0, 0.1), rng.randrange(1, 2000)
    async with connected(port, rcvbuf=4096 if moment == "unread" else None) as client:
        if how_far == "cut short":
            asked = asked[: rng.randrange(len(asked))]
        elif how_far == "asked twice":
            asked *= 2  # the second waits for the end of the first
        with contextlib.suppress(TimeoutError, BrokenOffError, ConnectionError):
            async with asyncio.timeout(patience_s):
                await client.send(asked)
                await (_read(client, enough_bytes) if moment != "unread" else asyncio.sleep(1))
        client.leave(reset=reset)


async def _read(client: Client, enough_bytes: int) -> None:
    while enough_bytes > 0:
        enough_bytes -= len(await client.some())


# before the first token


@EVERY_ROUTE
@EVERY_WAY
@pytest.mark.parametrize("moment", ["unanswered", "headed", "flowing", "ending"])
async def test_leaving_closes_the_backend_connection(
    route: Callable[[str], bytes], moment: str, reset: bool
) -> None:
    async with scene() as on:
        before = on.leftovers()
        async with connected(on.gateway.port) as client:
            await client.send(route(moment))
            exchange = await on.backend.wait_for_exchanges()
            if moment in ("flowing", "ending"):
                await client.some()
            client.leave(reset=reset)
            async with asyncio.timeout(5):
                await exchange.client_left.wait()
        await on.wait_until_left(before)
        assert on.backend.open_connections == 0
        created = on.gateway.metric("sluice_sessions_created_total")
        ended = "completed" if moment == "ending" else "client_gone"
        assert on.gateway.metric("sluice_streams_total", reason=ended) == created


@EVERY_ROUTE
@EVERY_WAY
async def test_leaving_while_the_backend_does_not_accept_gives_up_connecting(
    route: Callable[[str], bytes], reset: bool
) -> None:
    async with deaf_port() as port:
        settings = {"detach_grace_seconds": 0, "commit_delay_ms": 0}
        async with running_gateway(f"http://127.0.0.1:{port}", **settings) as gateway:
            async with connected(gateway.port) as client:
                await client.send(route("unanswered"))
                await until(lambda: _connecting_to(port) == 1)
                client.leave(reset=reset)
                await until(lambda: _connecting_to(port) == 0)
            await gateway.wait_for_streams(0)


@asynccontextmanager
async def deaf_port() -> AsyncIterator[int]:
    """A port whose queue is full, so that connecting to it neither succeeds nor fails."""
    with socket.socket() as listener, contextlib.ExitStack() as stack:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        sock = stack.enter_context(socket.socket())
        sock.connect(listener.getsockname())
        yield listener.getsockname()[1]


def _connecting_to(port: int) -> int:
    """Connections to the port whose first packet hasn't been answered."""
    with open("/proc/net/tcp") as table:
        lines = [line.split() for line in table.readlines()[1:]]
    syn_sent = "02"
    return sum(1 for line in lines if line[2].endswith(f":{port:04X}") and line[3] == syn_sent)


async def test_leaving_in_the_middle_of_an_upload_breaks_it_off_at_the_backend() -> None:
    async with scene() as on:
        before = on.leftovers()
        async with connected(on.gateway.port) as client:
            await client.send(upload("unanswered")[:-1])
            await until(lambda: on.backend.open_connections == 1)
            client.leave()
            await on.backend.wait_until_idle()
        await on.wait_until_left(before)
        assert on.backend.exchanges == []  # it never saw a whole request


@EVERY_WAY
async def test_leaving_is_noticed_while_nothing_is_read_from_the_client(reset: bool) -> None:
    """Its second request waits for the first one's end, and the event loop doesn't look."""
    async with scene() as on:
        before = on.leftovers()
        async with connected(on.gateway.port) as client:
            await client.send(upload("unanswered"))
            exchange = await on.backend.wait_for_exchanges()
            await client.send(upload("unanswered")[:120_000])  # what the kernel takes for it
            (connection,) = on.gateway.services.presence.transports
            await until(lambda: not connection.is_reading())
            client.leave(reset=reset)
            async with asyncio.timeout(5):
                await exchange.client_left.wait()
        await on.wait_until_left(before)
        assert len(on.backend.exchanges) == 1


# what is told to go on


@EVERY_WAY
async def test_typed_stream_goes_on_for_its_grace_and_then_ends(reset: bool) -> None:
    async with scene(detach_grace_seconds=0.3) as on:
        before = on.leftovers()
        exchange = await leave(on, "/api/v2/chat-stream", {"query": "flowing"}, reset=reset)
        sent = exchange.bytes_accepted
        await until(lambda: exchange.bytes_accepted > sent + 10 * len(TOKEN))
        assert len(on.gateway.services.hub) == 1
        await on.wait_for_ending("client_gone")
        await on.wait_until_left(before)
        assert on.backend.open_connections == 0


@pytest.mark.parametrize("told", ["finish", "grace=60", " Finish "])
@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/api/v2/chat-stream", {"query": "whenever"}),
        ("/v1/chat/completions", {"stream": True, "messages": ["whenever"]}),
    ],
    ids=["typed", "provider"],
)
async def test_stream_that_is_told_to_go_on_completes(path: str, body: object, told: str) -> None:
    async with scene() as on:
        before = on.leftovers()
        await leave(on, path, body, {"X-Stream-On-Disconnect": told})
        await on.wait_for_ending("completed")
        await on.wait_until_left(before)


@pytest.mark.parametrize("told", ["cancel", "grace=0"])
async def test_request_may_ask_to_be_cancelled_at_once(told: str) -> None:
    async with scene(detach_grace_seconds=120) as on:
        before = on.leftovers()
        asked = {"query": "flowing"}
        await leave(on, "/api/v2/chat-stream", asked, {"X-Stream-On-Disconnect": told})
        await on.wait_for_ending("client_gone")
        await on.wait_until_left(before)


async def test_request_may_ask_for_a_grace_of_its_own() -> None:
    async with scene(detach_grace_seconds=120) as on:
        before = on.leftovers()
        asked = {"query": "flowing"}
        exchange = await leave(
            on, "/api/v2/chat-stream", asked, {"X-Stream-On-Disconnect": "grace=1"}
        )
        sent = exchange.bytes_accepted
        await until(lambda: exchange.bytes_accepted > sent + 10 * len(TOKEN))
        await on.wait_for_ending("client_gone")
        await on.wait_until_left(before)


@pytest.mark.parametrize("told", ["", "never", "grace=", "grace=-1", "grace=1.5"])
async def test_word_that_is_not_understood_is_refused(told: str) -> None:
    async with scene() as on, connected(on.gateway.port) as client:
        headers = {"X-Stream-On-Disconnect": told}
        await client.ask("/api/v2/chat-stream", {"query": "complete"}, headers)
        assert (await client.head()).startswith(b"HTTP/1.1 400 ")
        assert on.backend.exchanges == []


async def leave(
    on: Scene,
    path: str,
    body: object,
    headers: dict[str, str] | None = None,
    *,
    reset: bool = False,
) -> Exchange:
    """Asks, leaves after the first bytes, and gives the exchange that the backend has with us."""
    async with connected(on.gateway.port) as client:
        await client.ask(path, body, headers)
        await client.head()
        client.leave(reset=reset)
    return await on.backend.wait_for_exchanges()
