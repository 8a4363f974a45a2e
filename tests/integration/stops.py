"""What the tests of stopping share: streams brought into every state, and every way to stop one."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import aiohttp

from gateway.keys import KeyRing, pepper_path
from gateway.stream.live import LiveStream
from gateway.stream.model import StreamId
from tests.client import BrokenOffError, Client, connected
from tests.gateway import Gateway
from tests.integration.stage import CHAT, MESSAGES, RESPONSES, Stage, connecting_sockets

SAID = "0 1 2 "
TYPED = "/api/v2/chat-stream"
ROUTES = (TYPED, CHAT, MESSAGES, RESPONSES)
#: Before the backend has said anything that names the response.
UNNAMED = ("connecting", "asked", "headed")
RUNNING = (*UNNAMED, "opened", "speaking", "paused", "detached")
ENDED = ("completed", "failed")


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


async def by_link(visit: Visit, headers: dict[str, str], reason: str | None) -> Stopped:
    """The owner asks for a link, and somebody without a credential stops by it."""
    links = f"{visit.gateway.url}/api/v2/streams/{visit.sid}/links"
    async with visit.house.client.post(links, json={"scope": "stop"}, headers=headers) as response:
        if response.status != 201:
            return Stopped(response.status)
        url = visit.gateway.url + (await response.json())["url"]
    async with visit.house.client.delete(url) as response:
        return Stopped(response.status, (await response.json()).get("text"))


WAYS: dict[str, Way] = {
    "terminate": by_rest,
    "delete": by_delete,
    "graphql": by_graphql,
    "link": by_link,
    "cancel": by_cancel,
}
WITH_REASON = ("terminate", "graphql")


def ways_of(route: str, state: str) -> list[str]:
    """Those that there are: OpenAI's cancel needs the response's id."""
    can_cancel = route == RESPONSES and state not in UNNAMED
    return [name for name in WAYS if name != "cancel" or can_cancel]
