"""Nothing that the gateway does while it serves blocks its event loop, not even reading its keys.

blockbuster raises where a file is touched, a socket waited for or the thread put to sleep.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import pytest
from blockbuster import BlockingError, blockbuster_ctx

from gateway.keys import KeyRing, pepper_path
from tests.backend import CHAT_STREAM, Exchange, ScriptedBackend, json_response, streaming
from tests.client import connected, events, said
from tests.gateway import ADMIN_TOKEN, AS_ADMIN, Gateway, running_gateway
from tests.recordings import SAID

CHAT = "/api/v2/chat-stream"
PROVIDER = "/v1/chat/completions"


async def answering(exchange: Exchange) -> None:
    """Streams where a stream is asked for, else a small answer; hangs where it is told to."""
    if b"hang" in exchange.body:
        await exchange.stall()
    elif b'"stream":true' in exchange.body.replace(b" ", b""):
        await streaming(CHAT_STREAM)(exchange)
    else:
        await exchange.send(json_response(b"{}"))


class Keys:
    """The key file, used as the command line uses it, from a thread."""

    def __init__(self, folder: Path) -> None:
        self.file = folder / "keys.jsonl"
        self.data_dir = folder / "data"

    async def add(self) -> str:
        return await asyncio.to_thread(self._ring_add)

    async def revoke(self, key: str) -> None:
        await asyncio.to_thread(self._ring_revoke, key)

    def _ring_add(self) -> str:
        return KeyRing.load(self.file, pepper_path(self.data_dir)).add("ada")

    def _ring_revoke(self, key: str) -> None:
        ring = KeyRing.load(self.file, pepper_path(self.data_dir))
        assert ring.revoke(key.removeprefix("sk-sluice-").partition("-")[0])


@asynccontextmanager
async def serving(keys: Keys) -> AsyncIterator[Gateway]:
    """A gateway with keys, that isn't allowed to block from its start on."""
    settings = {"auth_mode": "api_key", "api_keys_file": keys.file, "data_dir": keys.data_dir}
    async with (
        ScriptedBackend(answering) as backend,
        running_gateway(backend.url, detach_grace_seconds=0, **settings) as gateway,
    ):
        with blockbuster_ctx(scanned_modules=["gateway"]):
            yield gateway


async def test_nothing_blocks_the_event_loop(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.ERROR)
    keys = Keys(tmp_path)
    key = await keys.add()
    async with (
        serving(keys) as gateway,
        aiohttp.ClientSession(gateway.url, headers={"Authorization": f"Bearer {key}"}) as client,
    ):
        await ask_for_everything(client)
        await leave_on_the_way(gateway, key)
        newer = await keys.add()
        await until_status(client, newer, 200)
        await keys.revoke(newer)
        await until_status(client, newer, 401)
    assert [record.getMessage() for record in caplog.records] == []


async def test_operators_routes_do_not_block_it_either(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.ERROR)
    async with (
        ScriptedBackend(answering) as backend,
        running_gateway(backend.url, data_dir=tmp_path, admin_token=ADMIN_TOKEN) as gateway,
        aiohttp.ClientSession(gateway.url) as client,
    ):
        with blockbuster_ctx(scanned_modules=["gateway"]):
            async with client.post(CHAT, json={"query": "Say it."}) as answer:
                await answer.read()
            for path in ("diagnostics", "analytics", "overview", "controls"):
                async with client.get(f"/api/admin/{path}", headers=AS_ADMIN) as answer:
                    assert answer.status == 200, path
                    assert await answer.read()
            # The ticker looks at the gateway's condition too.
            gateway.services.vitals.alarm._next = 0
            async with asyncio.timeout(5):
                while not gateway.services.vitals.alarm._next:
                    await asyncio.sleep(0.01)
    assert [record.getMessage() for record in caplog.records] == []


async def ask_for_everything(client: aiohttp.ClientSession) -> None:
    async with client.post(CHAT, json={"query": "Say it."}) as answer:
        assert answer.status == 200
        stream_id = answer.headers["X-Stream-Id"]
        assert said(events(await answer.read())) == SAID
    async with client.get(f"/api/v2/streams/{stream_id}") as answer:
        assert (await answer.json())["text"] == SAID
    async with client.post(PROVIDER, json={"stream": True, "messages": []}) as answer:
        assert (await answer.read()).count(b"data: ") == CHAT_STREAM.count(b"data: ")
    async with client.post(PROVIDER, json={"messages": []}) as answer:
        assert await answer.read() == b"{}"
    async with client.put("/files/one", data=b"x" * 300_000) as answer:
        assert await answer.read() == b"{}"
    for path in ("/health", "/livez", "/readyz", "/metrics", "/playground", "/v1/models"):
        async with client.get(path) as answer:
            assert answer.status == 200, path
    async with client.post("/graphql", json={"query": "{ __typename }"}) as answer:
        assert (await answer.json())["data"]
    async with client.post("/api/terminate-stream", json={"sessionId": stream_id}) as answer:
        assert (await answer.json())["sessionId"] == stream_id
    async with client.post(CHAT, json={"query": 1}) as answer:
        assert answer.status == 400


async def leave_on_the_way(gateway: Gateway, key: str) -> None:
    asked = {"stream": True, "messages": ["hang"]}
    async with connected(gateway.port) as client:
        await client.ask(PROVIDER, asked, {"Authorization": f"Bearer {key}"})
        await gateway.wait_for_streams(1)
    await gateway.wait_for_streams(0)


async def until_status(client: aiohttp.ClientSession, key: str, status: int) -> None:
    """Asks with this key until the gateway has looked at the file and answers so."""
    async with asyncio.timeout(10):
        while True:
            async with client.get("/v1/models", headers={"Authorization": f"Bearer {key}"}) as got:
                if got.status == status:
                    return
            await asyncio.sleep(0.02)


async def test_blocking_is_noticed(tmp_path: Path) -> None:
    """Or the other test would show nothing."""
    keys = Keys(tmp_path)
    ring = KeyRing(keys.file, pepper_path(keys.data_dir))
    with (
        blockbuster_ctx(scanned_modules=["gateway"]),
        pytest.raises(BlockingError),
    ):
        ring.refresh()
