"""What the tests of stopping share: streams brought into every state, and every way to stop one."""

from __future__ import annotations

import asyncio
import re
import secrets
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import orjson

from gateway.keys import KeyRing, pepper_path
from gateway.stream.live import LiveStream
from gateway.stream.model import StreamId
from tests.backend import LAST_CHUNK, Exchange, chunked, json_response, sse_head
from tests.client import BrokenOffError, Client, connected
from tests.gateway import Gateway

SAID = "0 1 2 "
TYPED, CHAT, MESSAGES, RESPONSES = (
    "/api/v2/chat-stream",
    "/v1/chat/completions",
    "/v1/messages",
    "/v1/responses",
)
ROUTES = (TYPED, CHAT, MESSAGES, RESPONSES)
#: Before the backend has said anything that names the response.
UNNAMED = ("connecting", "asked", "headed")
RUNNING = (*UNNAMED, "opened", "speaking", "paused", "detached")
ENDED = ("completed", "failed")
_FLOOD = "x" * 8000


# the backend


@dataclass(frozen=True, slots=True)
class Script:
    """A dialect's events: before the text, of a piece of text, and after it."""

    opening: Callable[[str], list[bytes]]
    piece: Callable[[int, str], bytes]
    closing: Callable[[str], list[bytes]]


def _event(kind: str, **more: object) -> bytes:
    return b"event: %b\ndata: %b\n\n" % (kind.encode(), orjson.dumps({"type": kind, **more}))


def _chunk(delta: dict[str, object], finish: str | None = None) -> bytes:
    choice = {"index": 0, "delta": delta, "finish_reason": finish}
    return b"data: %b\n\n" % orjson.dumps({"id": "c1", "choices": [choice]})


def _response(marker: str, status: str) -> dict[str, object]:
    return {"id": f"resp_{marker}", "object": "response", "status": status, "output": []}


_MESSAGE = {"id": "m1", "type": "message", "role": "assistant", "content": [], "usage": {}}
SCRIPTS = {
    CHAT: Script(
        lambda marker: [_chunk({"role": "assistant"})],
        lambda at, text: _chunk({"content": text}),
        lambda marker: [_chunk({}, "stop"), b"data: [DONE]\n\n"],
    ),
    MESSAGES: Script(
        lambda marker: [
            _event("message_start", message=_MESSAGE),
            _event("content_block_start", index=0, content_block={"type": "text", "text": ""}),
        ],
        lambda at, text: _event(
            "content_block_delta", index=0, delta={"type": "text_delta", "text": text}
        ),
        lambda marker: [
            _event("content_block_stop", index=0),
            _event("message_delta", delta={"stop_reason": "end_turn"}, usage={"output_tokens": 3}),
            _event("message_stop"),
        ],
    ),
    RESPONSES: Script(
        lambda marker: [
            _event("response.created", sequence_number=0, response=_response(marker, "in_progress"))
        ],
        lambda at, text: _event("response.output_text.delta", sequence_number=at + 1, delta=text),
        lambda marker: [
            _event("response.completed", sequence_number=9, response=_response(marker, "completed"))
        ],
    ),
}
_MARKER = re.compile(rb"([a-z]+)-[0-9a-f]{12}")


class Stage:
    """A backend that brings each answer as far as the marker in its question says.

    `strays` are the requests without one: nothing but questions should get here.
    """

    def __init__(self) -> None:
        self.strays: list[str] = []
        self.exchanges: dict[str, Exchange] = {}

    async def __call__(self, exchange: Exchange) -> None:
        found = _MARKER.search(exchange.body)
        if found is None:
            self.strays.append(f"{exchange.method} {exchange.target}")
            await exchange.send(json_response(b"{}", "404 Not Found"))
            return
        marker = found[0].decode()
        self.exchanges[marker] = exchange
        await self._play(exchange, found[1].decode(), marker)

    async def _play(self, exchange: Exchange, state: str, marker: str) -> None:
        script = SCRIPTS[exchange.path]
        if state == "asked":
            return await exchange.stall()
        await exchange.send(sse_head())
        if state == "headed":
            return await exchange.stall()
        await exchange.send(*map(chunked, script.opening(marker)))
        if state == "opened":
            return await exchange.stall()
        for at in range(3):
            await exchange.send(chunked(script.piece(at, f"{at} ")))
        while state == "paused":
            await exchange.send(chunked(script.piece(3, _FLOOD)) * 10)
        if state == "completed":
            return await exchange.send(*map(chunked, script.closing(marker)), LAST_CHUNK)
        if state == "failed":
            return await exchange.close()
        return await exchange.stall()


@asynccontextmanager
async def deaf_listener() -> AsyncIterator[socket.socket]:
    """A port where connections are asked for and never made: its queue is full."""
    loop = asyncio.get_running_loop()
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        fillers = [socket.socket() for _ in range(2)]
        try:
            for filler in fillers:
                filler.setblocking(False)
                try:
                    async with asyncio.timeout(0.05):
                        await loop.sock_connect(filler, listener.getsockname())
                except TimeoutError:
                    filler.close()
            yield listener
        finally:
            for filler in fillers:
                filler.close()


def connecting_sockets(port: int) -> int:
    """How many connections to a port of 127.0.0.1 wait to be made (Linux: `SYN_SENT` is 2)."""
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return sum(row[2] == f"0100007F:{port:04X}" and row[3] == "02" for row in rows)


# the house


@dataclass(frozen=True, slots=True)
class Keys:
    """A file of API keys; Anna owns the streams, Bert is the stranger."""

    folder: Path
    anna: str
    bert: str

    @classmethod
    def made_in(cls, folder: Path) -> Keys:
        ring = KeyRing.load(folder / "keys.jsonl", pepper_path(folder))
        return cls(folder, ring.add("anna"), ring.add("bert"))

    @property
    def settings(self) -> dict[str, object]:
        return {
            "auth_mode": "api_key",
            "api_keys_file": self.folder / "keys.jsonl",
            "data_dir": self.folder,
        }


@dataclass(frozen=True, slots=True)
class House:
    """A gateway in front of the stage, and one in front of a port that takes no connection."""

    stage: Stage
    gateway: Gateway
    deaf: Gateway
    deaf_port: int
    client: aiohttp.ClientSession
    owner: str
    stranger: str

    def gateway_for(self, state: str) -> Gateway:
        return self.deaf if state == "connecting" else self.gateway


@dataclass(slots=True)
class Visit:
    """One stream in its state, and the client that asked for it."""

    house: House
    route: str
    state: str
    marker: str
    asker: Client
    own: dict[str, str]
    foreign: dict[str, str]
    sid: StreamId

    @property
    def gateway(self) -> Gateway:
        return self.house.gateway_for(self.state)

    @property
    def live(self) -> LiveStream:
        stream = self.gateway.services.hub.find(self.sid)
        assert stream is not None
        return stream

    @property
    def said(self) -> str:
        return "" if self.state in (*UNNAMED, "opened") else SAID

    async def until(self, is_so: Callable[[], bool]) -> None:
        async with asyncio.timeout(10):
            while not is_so():
                await asyncio.sleep(0.002)

    async def read_rest(self) -> bytes:
        """What the asker gets to the end of its answer, which must end in good order."""
        async with asyncio.timeout(10):
            return await self.asker.body()

    async def replay(self) -> bytes:
        """What a reader gets who comes now; also of an answer that is broken off."""
        headers = {"Accept": "text/event-stream", **self.own}
        async with connected(self.gateway.port) as reader, asyncio.timeout(10):
            await reader.ask(f"/api/v2/streams/{self.sid}", None, headers)
            assert b" 200 " in await reader.head()
            try:
                return await reader.body()
            except BrokenOffError as error:
                return error.got

    async def told(self) -> dict[str, object]:
        url = f"{self.gateway.url}/api/v2/streams/{self.sid}"
        async with self.house.client.get(url, headers=self.own) as response:
            assert response.status == 200
            return dict(await response.json())

    async def check_backend_closed(self) -> None:
        if self.state == "connecting":
            await self.until(lambda: not connecting_sockets(self.house.deaf_port))
            return
        async with asyncio.timeout(5):
            await self.house.stage.exchanges[self.marker].client_left.wait()


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"} if key else {}


@asynccontextmanager
async def visiting(house: House, route: str, state: str) -> AsyncIterator[Visit]:
    """Asks on `route`, and goes on until the stream is in `state`."""
    house.stage.strays.clear()
    marker = f"{state}-{secrets.token_hex(6)}"
    own, foreign = bearer(house.owner), bearer(house.stranger)
    port = house.gateway_for(state).port
    async with connected(port, rcvbuf=4096 if state == "paused" else None) as asker:
        question = {"query": marker} if route == TYPED else {"model": marker, "stream": True}
        await asker.ask(route, question, {"X-Stream-On-Disconnect": "grace=60", **own})
        head = (await asker.head()).decode()
        assert " 200 " in head, head
        sid = StreamId(head.partition("X-Stream-Id: ")[2][:16])
        visit = Visit(house, route, state, marker, asker, own, foreign, sid)
        await _reached(visit)
        yield visit
    assert not house.stage.strays


async def _reached(visit: Visit) -> None:
    live, exchanges = visit.live, visit.house.stage.exchanges
    if visit.state == "detached":
        await visit.until(lambda: _text_of(live) == SAID)
        visit.asker.leave()
    is_there: dict[str, Callable[[], bool]] = {
        "connecting": lambda: connecting_sockets(visit.house.deaf_port) == 1,
        "asked": lambda: visit.marker in exchanges,
        "headed": live.opened.done,
        "opened": lambda: live.first_event is not None,
        "speaking": lambda: _text_of(live) == SAID,
        "paused": lambda: live.is_paused,
        "detached": lambda: live.detached_since is not None and not live.is_attached,
        "completed": lambda: not live.is_active,
        "failed": lambda: not live.is_active,
    }
    await visit.until(is_there[visit.state])


def _text_of(live: LiveStream) -> str:
    return live.wire.summary(live.log.events()).text


# the ways


@dataclass(frozen=True, slots=True)
class Stopped:
    """What a stop was answered; `text` is None where the way doesn't tell."""

    status: int
    text: str | None = None


Way = Callable[[Visit, dict[str, str], str | None], Awaitable[Stopped]]


async def by_rest(visit: Visit, headers: dict[str, str], reason: str | None) -> Stopped:
    body = {"sessionId": visit.sid, **({"reason": reason} if reason else {})}
    url = f"{visit.gateway.url}/api/terminate-stream"
    async with visit.house.client.post(url, json=body, headers=headers) as response:
        answer = await response.json()
        assert answer["success"] is (response.status == 200)
        return Stopped(response.status, answer["partialResponse"])


async def by_delete(visit: Visit, headers: dict[str, str], reason: str | None) -> Stopped:
    url = f"{visit.gateway.url}/api/v2/streams/{visit.sid}"
    async with visit.house.client.delete(url, headers=headers) as response:
        return Stopped(response.status, (await response.json()).get("text"))


async def by_graphql(visit: Visit, headers: dict[str, str], reason: str | None) -> Stopped:
    """Without statuses of its own: success is taken for 200, else it must be not found."""
    query = (
        "mutation($input: TerminateStreamInput!) {"
        " terminateStream(input: $input) { success partialResponse error } }"
    )
    variables = {"input": {"sessionId": visit.sid, "reason": reason}}
    url = f"{visit.gateway.url}/graphql"
    body = {"query": query, "variables": variables}
    async with visit.house.client.post(url, json=body, headers=headers) as response:
        answer = (await response.json())["data"]["terminateStream"]
        if answer["success"]:
            return Stopped(200, answer["partialResponse"])
        assert answer["error"] == "There is no such stream."
        return Stopped(404, answer["partialResponse"])


async def by_cancel(visit: Visit, headers: dict[str, str], reason: str | None) -> Stopped:
    url = f"{visit.gateway.url}/v1/responses/resp_{visit.marker}/cancel"
    async with visit.house.client.post(url, headers=headers) as response:
        if response.status == 200:
            ended_as = visit.state if visit.state in ENDED else "cancelled"
            assert (await response.json())["status"] == ended_as
        return Stopped(response.status)


WAYS: dict[str, Way] = {
    "terminate": by_rest,
    "delete": by_delete,
    "graphql": by_graphql,
    "cancel": by_cancel,
}
WITH_REASON = ("terminate", "graphql")


def ways_of(route: str, state: str) -> list[str]:
    """Those that there are: OpenAI's cancel needs the response's id."""
    can_cancel = route == RESPONSES and state not in UNNAMED
    return [name for name in WAYS if name != "cancel" or can_cancel]
