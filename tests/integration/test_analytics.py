"""How streams lived, as the running gateway tells it: the events, the bounds, and nobody's name."""

from __future__ import annotations

import asyncio
import logging
import sys
from asyncio.subprocess import PIPE
from pathlib import Path

import aiohttp
import orjson
import pytest

from tests.backend import (
    CHAT_STREAM,
    LAST_CHUNK,
    Exchange,
    ScriptedBackend,
    blocks,
    chunked,
    sse_head,
    streaming,
)
from tests.gateway import ADMIN_TOKEN, AS_ADMIN, running_gateway

PATH = "/api/admin/analytics"
TYPED = "/api/v2/chat-stream"
Event = dict[str, object]


async def told(client: aiohttp.ClientSession) -> list[Event]:
    async with client.get(PATH, headers=AS_ADMIN) as response:
        assert response.content_type == "application/x-ndjson"
        return [orjson.loads(line) for line in (await response.read()).splitlines()]


async def test_life_of_a_stream_is_told_in_the_order_of_its_events() -> None:
    async with (
        ScriptedBackend(streaming(CHAT_STREAM)) as backend,
        running_gateway(backend.url, admin_token=ADMIN_TOKEN) as gateway,
        aiohttp.ClientSession(gateway.url) as client,
    ):
        async with client.get(TYPED, params={"query": "hello"}) as response:
            await response.read()
        started, first, ended = await told(client)
    assert {started["event"], first["event"], ended["event"]} == {"started", "first_token", "ended"}
    assert started["stream"] == first["stream"] == ended["stream"]
    assert (started["route"], ended["status"], ended["reason"]) == (
        "chat",
        "COMPLETED",
        "completed",
    )
    assert 0 < float(str(first["ms"])) <= float(str(ended["ms"]))
    assert set(ended) == {"stream", "event", "ms", "status", "reason", "events", "tokens"}
    assert set(started) == {"stream", "event", "ms", "at", "route"}
    assert str(started["at"]).endswith("Z")


async def test_client_that_leaves_and_comes_back_is_told_of() -> None:
    release = asyncio.Event()

    async def script(exchange: Exchange) -> None:
        first, *rest = blocks(CHAT_STREAM)
        await exchange.send(sse_head() + chunked(first))
        await release.wait()
        await exchange.send(chunked(b"".join(rest)) + LAST_CHUNK)

    async with (
        ScriptedBackend(script) as backend,
        running_gateway(backend.url, admin_token=ADMIN_TOKEN) as gateway,
        aiohttp.ClientSession(gateway.url) as client,
    ):
        async with client.get(TYPED, params={"query": "hello"}) as response:
            sid = response.headers["X-Stream-Id"]
            await response.content.readuntil(b"\n\n")
        (stream,) = gateway.services.hub.running()
        async with asyncio.timeout(5):
            while stream.is_attached:
                await asyncio.sleep(0.005)
        headers = {"Accept": "text/event-stream"}
        async with client.get(f"/api/v2/streams/{sid}", headers=headers) as response:
            release.set()
            await response.read()
        names = [event["event"] for event in await told(client)]
        assert sorted(map(str, names[1:-1])) == ["client_left", "client_returned", "first_token"]
        assert names.index("client_left") < names.index("client_returned")
        assert (names[0], names[-1]) == ("started", "ended")


async def test_nothing_in_it_tells_of_anybody(tmp_path: Path) -> None:
    words = [f"canary{number}" for number in range(12)]
    (
        query,
        email,
        role,
        conversation,
        history,
        user,
        trace,
        agent,
        connection,
        key,
        reason,
        said,
    ) = words

    async def script(exchange: Exchange) -> None:
        block = orjson.dumps({"choices": [{"index": 0, "delta": {"content": said}}]})
        await exchange.send(sse_head(), chunked(b"data: %b\n\n" % block))
        await exchange.stall()

    async with (
        ScriptedBackend(script) as backend,
        running_gateway(backend.url, admin_token=ADMIN_TOKEN, data_dir=tmp_path) as gateway,
        aiohttp.ClientSession(gateway.url) as client,
    ):
        asked = {
            "query": query,
            "user_email": f"{email}@example.org",
            "user_role": role,
            "conversation_id": conversation,
            "conversation_history": [{"role": "user", "content": history}],
        }
        headers = {
            "X-User-Id": user,
            "X-Trace-ID": trace,
            "User-Agent": agent,
            "X-Connection-Id": connection,
            "Idempotency-Key": key,
        }
        async with client.post(TYPED, json=asked, headers=headers) as response:
            sid = response.headers["X-Stream-Id"]
            await response.content.readuntil(said.encode())
            stop = {"sessionId": sid, "reason": reason}
            async with client.post("/api/terminate-stream", json=stop) as stopped:
                assert (await stopped.json())["success"]
            await response.read()
        events = await told(client)
    assert events[-1]["reason"] == "custom"
    kept = b"".join(path.read_bytes() for path in (tmp_path / "analytics").iterdir()).decode()
    assert [word for word in [*words, sid, "127.0.0.1"] if word in kept] == []
    assert kept.count("\n") == len(events)


async def test_two_streams_have_nothing_in_common_but_the_minute() -> None:
    async with (
        ScriptedBackend(streaming(CHAT_STREAM)) as backend,
        running_gateway(backend.url, admin_token=ADMIN_TOKEN) as gateway,
        aiohttp.ClientSession(gateway.url) as client,
    ):
        for _ in range(2):
            async with client.get(TYPED, params={"query": "hello"}) as response:
                await response.read()
        assert len({event["stream"] for event in await told(client)}) == 2


async def test_command_gives_what_a_gateway_has_left(tmp_path: Path) -> None:
    async with (
        ScriptedBackend(streaming(CHAT_STREAM)) as backend,
        running_gateway(backend.url, admin_token=ADMIN_TOKEN, data_dir=tmp_path) as gateway,
        aiohttp.ClientSession(gateway.url) as client,
        client.get(TYPED, params={"query": "hello"}) as response,
    ):
        await response.read()
    printed = await sluice("analytics", "export", data_dir=tmp_path)
    assert [orjson.loads(line)["event"] for line in printed.splitlines()][-1] == "ended"
    path = tmp_path / "out.ndjson"
    assert await sluice("analytics", "export", "--out", str(path), data_dir=tmp_path) == b""
    assert path.read_bytes() == printed


async def sluice(*arguments: str, data_dir: Path) -> bytes:
    environment = {"PYTHONPATH": ":".join(sys.path), "DATA_DIR": str(data_dir)}
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "gateway.cli", *arguments, env=environment, stdout=PIPE
    )
    printed, _ = await process.communicate()
    assert process.returncode == 0
    return printed


async def test_switched_off_nothing_is_kept(tmp_path: Path) -> None:
    async with (
        ScriptedBackend(streaming(CHAT_STREAM)) as backend,
        running_gateway(
            backend.url, admin_token=ADMIN_TOKEN, data_dir=tmp_path, analytics_max_bytes=0
        ) as gateway,
        aiohttp.ClientSession(gateway.url) as client,
    ):
        async with client.get(TYPED, params={"query": "hello"}) as response:
            await response.read()
        async with client.get(PATH, headers=AS_ADMIN) as response:
            assert response.status == 404
    assert not (tmp_path / "analytics").exists()


async def test_disk_that_refuses_is_told_of_once_and_holds_up_nobody(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, "sluice.analytics")
    (tmp_path / "analytics").write_text("a file where the folder should be")
    async with (
        ScriptedBackend(streaming(CHAT_STREAM)) as backend,
        running_gateway(backend.url, data_dir=tmp_path) as gateway,
        aiohttp.ClientSession(gateway.url) as client,
    ):
        assert gateway.services.analytics is not None
        for _ in range(2):
            async with client.get(TYPED, params={"query": "hello"}) as response:
                assert b"event: complete" in await response.read()
            await gateway.services.analytics.flush()
        assert gateway.services.analytics.left_out == 2
    assert caplog.messages.count("analytics.failed") == 1
