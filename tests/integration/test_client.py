"""The Python client through a real gateway and a network that breaks, and at other sources."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from aiohttp_sse import sse_response

from gateway.client import Answer, EventStream, StreamError, Timing, open_stream
from scripts.mock.behaviour import Behaviour
from scripts.mock.server import serving
from tests.faults import FaultProxy
from tests.gateway import Gateway, running_gateway

CHAT = "/api/v2/chat-stream"
QUICK = Behaviour(first=0, pace=1, tokens=120, seed=7)
ENDLESS = Behaviour(first=0, pace=5, tokens=100_000, seed=7)
QUESTION = {"query": "What is a gateway?"}


async def _no_wait(seconds: float) -> None:
    await asyncio.sleep(0)


IMPATIENT = Timing(sleep=_no_wait)


@dataclass(frozen=True)
class Site:
    backend_url: str
    gateway: Gateway
    proxy: FaultProxy

    def ask(self, **options: Any) -> EventStream:
        """The typed route, through the proxy."""
        asked = {"method": "POST", "json": QUESTION, "timing": IMPATIENT, **options}
        return open_stream(self.proxy.url + CHAT, **asked)

    async def stats(self) -> dict[str, Any]:
        return await get_json(f"{self.backend_url}/stats")

    async def described(self, stream_id: str | None) -> dict[str, Any]:
        return await get_json(f"{self.gateway.url}/api/v2/streams/{stream_id}")


async def get_json(url: str) -> dict[str, Any]:
    async with aiohttp.ClientSession() as session, session.get(url) as response:
        return dict(await response.json())


@asynccontextmanager
async def site(behaviour: Behaviour, **settings: object) -> AsyncIterator[Site]:
    async with (
        serving(behaviour) as backend_url,
        running_gateway(backend_url, **settings) as gateway,
        FaultProxy(gateway.port) as proxy,
    ):
        yield Site(backend_url, gateway, proxy)


async def whole_text(site: Site) -> str:
    async with open_stream(site.gateway.url + CHAT, method="POST", json=QUESTION) as stream:
        return await stream.text()


@pytest.mark.parametrize("reset", [False, True], ids=["fin", "rst"])
@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_answer_cut_at_many_random_points_comes_whole_and_once(
    method: str, reset: bool
) -> None:
    points = random.Random(f"{method}{reset}")
    async with site(QUICK) as here:
        expected = await whole_text(here)
        here.proxy.down.reset = reset
        url, body = here.proxy.url + CHAT, QUESTION
        if method == "GET":
            url, body = f"{url}?query=What+is+a+gateway%3F", None
        answer, indices = Answer(), []
        here.proxy.down.cut_after = points.randrange(800, 2500)
        async with open_stream(url, method=method, json=body, timing=IMPATIENT) as stream:
            async for event in stream:
                here.proxy.down.cut_after = points.randrange(800, 2500)
                answer.add(event)
                if event.type == "content_chunk":
                    indices.append(event.json()["index"])
        assert answer.text == expected
        assert indices == list(range(QUICK.tokens))
        assert stream.has_ended
        assert stream.reconnects >= 4
        assert (await here.stats())["requests"] == 2


async def test_providers_answer_is_resumed_where_the_client_asks_for_grace() -> None:
    body = {"model": "demo", "stream": True, "messages": [{"role": "user", "content": "Hello?"}]}
    headers = {"X-Stream-On-Disconnect": "grace=30"}
    asked = {"method": "POST", "json": body, "headers": headers, "timing": IMPATIENT}
    async with site(QUICK) as here:
        path = "/v1/chat/completions"
        async with open_stream(here.gateway.url + path, **asked) as stream:
            expected = [event.data async for event in stream]
        here.proxy.down.cut_after = 6000
        async with open_stream(here.proxy.url + path, **asked) as stream:
            assert [event.data async for event in stream] == expected
        assert expected[-1] == "[DONE]"
        assert stream.reconnects >= 2
        assert (await here.stats())["requests"] == 2


async def test_providers_answer_without_grace_ends_with_its_error() -> None:
    body = {"model": "demo", "stream": True, "messages": [{"role": "user", "content": "Hello?"}]}
    async with site(QUICK) as here:
        gone = asyncio.Event()

        async def mend(seconds: float) -> None:
            here.proxy.down.cut_after = None
            await here.gateway.wait_for_streams(0)
            gone.set()

        here.proxy.down.cut_after = 6000
        url, timing = here.proxy.url + "/v1/chat/completions", Timing(sleep=mend)
        async with open_stream(url, method="POST", json=body, timing=timing) as stream:
            events = [event async for event in stream]
        assert gone.is_set()
        assert "error" in events[-1].json()


async def test_compressed_answer_that_is_cut_comes_whole_too() -> None:
    async with site(QUICK, stream_compression="auto") as here:
        expected = await whole_text(here)
        here.proxy.down.cut_after = 1500
        async with here.ask(headers={"Accept-Encoding": "gzip"}) as stream:
            assert await stream.text() == expected
        assert stream.reconnects >= 1
        assert (await here.stats())["requests"] == 2


async def test_post_cut_before_its_answer_is_asked_once() -> None:
    async with site(QUICK) as here:
        here.proxy.down.cut_after = 0

        async def mend(seconds: float) -> None:
            here.proxy.down.cut_after = None

        async with here.ask(timing=Timing(sleep=mend)) as stream:
            text = await stream.text()
        assert text
        assert stream.reconnects == 1
        assert (await here.stats())["requests"] == 1


async def test_network_that_is_gone_for_a_while_is_waited_for() -> None:
    async with site(QUICK) as here:
        expected = await whole_text(here)
        waits = []

        async def wait(seconds: float) -> None:
            waits.append(seconds)
            if len(waits) == 3:
                here.proxy.refuse = False

        async with here.ask(timing=Timing(sleep=wait)) as stream:
            await anext(stream)
            here.proxy.refuse = True
            here.proxy.cut_all(reset=True)
            assert await stream.text() == expected
        assert len(waits) == 3
        assert min(waits) >= 2  # the server's `retry`


async def test_network_that_stalls_is_noticed_and_left() -> None:
    async with site(QUICK, silence_threshold=0.2, heartbeat_interval=0.05) as here:
        expected = await whole_text(here)

        async def mend(seconds: float) -> None:
            here.proxy.down.resume()

        async with here.ask(timing=Timing(sleep=mend)) as stream:
            await anext(stream)
            here.proxy.down.stall()
            assert await stream.text() == expected
        assert stream.reconnects == 1
        assert (await here.stats())["requests"] == 2


async def test_heartbeats_of_a_slow_backend_are_no_silence() -> None:
    slow = Behaviour(first=0.3, pace=1, tokens=5)
    async with site(slow, silence_threshold=0.15, heartbeat_interval=0.05) as here:
        async with here.ask() as stream:
            kinds = [event.type async for event in stream]
        assert stream.reconnects == 0
        assert kinds.count("heartbeat") >= 2


async def test_stop_keeps_the_partial_answer_and_brings_the_end() -> None:
    async with site(ENDLESS) as here, here.ask() as stream:
        answer = Answer()
        account: dict[str, object] = {}
        async for event in stream:
            answer.add(event)
            if event.type == "content_chunk" and not account:
                account = await stream.stop()
            last = event
        assert account["reason"] == "user_requested"
        assert str(account["text"]).startswith(answer.text[:5])
        assert (last.type, last.json()["reason"]) == ("complete", "user_requested")
        assert answer.text == account["text"]
        assert stream.has_ended
        await here.gateway.wait_for_streams(0)


async def test_stop_that_the_network_swallowed_can_be_repeated() -> None:
    async with site(ENDLESS) as here, here.ask() as stream:
        await anext(stream)
        here.proxy.cut_all()
        here.proxy.refuse = True
        with pytest.raises(StreamError, match="onnect"):
            await stream.stop()
        here.proxy.refuse = False
        assert (await stream.stop())["reason"] == "user_requested"
        rest = [event.type async for event in stream]
        assert stream.reconnects == 0
        assert "start" not in rest


async def test_stop_by_another_task_ends_a_reader_whose_network_stalls() -> None:
    async with site(ENDLESS) as here:
        url = f"{here.gateway.url}/api/terminate-stream"
        async with here.ask(stop_url=url, timing=Timing(stop_wait_s=0.02)) as stream:

            async def read() -> list[str]:
                return [event.type async for event in stream]

            here.proxy.down.stall()
            reading = asyncio.create_task(read())
            account = await stream.stop()
            assert (account["success"], account["sessionId"]) == (True, stream.stream_id)
            assert "complete" not in await reading
            assert (stream.reconnects, stream.has_ended) == (0, False)


async def test_stop_before_the_first_token_reaches_the_backend() -> None:
    silent = Behaviour(first=1000)
    async with site(silent) as here:
        stream = here.ask()

        async def read() -> list[str]:
            async with stream:
                return [event.type async for event in stream]

        reading = asyncio.create_task(read())
        await here.gateway.wait_for_streams(1)
        assert (await stream.stop())["reason"] == "user_requested"
        assert (await reading)[-1] == "complete"
        await here.gateway.wait_for_streams(0)


async def test_close_leaves_the_stream_running_and_it_can_be_read_on_later() -> None:
    async with site(QUICK) as here:
        expected = await whole_text(here)
        answer = Answer()
        async with here.ask() as first:
            async for event in first:
                answer.add(event)
                if len(answer.text) > 50:
                    break
        url = f"{here.gateway.url}/api/v2/streams/{first.stream_id}"
        async with open_stream(url, last_event_id=first.last_event_id) as second:
            async for event in second:
                answer.add(event)
        assert answer.text == expected
        assert (await here.described(first.stream_id))["status"] == "COMPLETED"


async def test_stream_that_was_read_to_its_end_answers_204() -> None:
    async with site(QUICK) as here:
        async with here.ask() as first:
            await first.text()
        url = f"{here.gateway.url}/api/v2/streams/{first.stream_id}"
        async with open_stream(url, last_event_id=first.last_event_id) as again:
            assert [event async for event in again] == []
            assert again.has_ended


async def test_unknown_stream_is_an_error() -> None:
    async with site(QUICK) as here:
        url = f"{here.gateway.url}/api/v2/streams/{'A' * 16}"
        with pytest.raises(StreamError) as caught:
            async with open_stream(url, timing=IMPATIENT):
                pass
        assert (caught.value.status, caught.value.code) == (404, "stream_not_found")


async def test_client_knows_the_stream_and_its_trace() -> None:
    async with site(QUICK) as here, here.ask(headers={"X-Trace-ID": "trace-1"}) as stream:
        start = (await anext(stream)).json()
        assert (stream.stream_id, stream.trace_id) == (start["stream_id"], "trace-1")


async def test_too_old_connection_is_changed_without_a_trace() -> None:
    slow = Behaviour(first=0, pace=3, tokens=200, seed=7)
    async with site(slow, connection_max_age_seconds=0.15) as here:
        async with here.ask() as stream:
            numbers = [e.json()["index"] async for e in stream if e.type == "content_chunk"]
        assert numbers == list(range(200))
        assert stream.reconnects >= 1


@asynccontextmanager
async def aiohttp_sse_source(*, with_ids: bool) -> AsyncIterator[str]:
    """Three events a connection, nine in all; then 204."""
    given = 0

    async def handle(request: web.Request) -> web.StreamResponse:
        nonlocal given
        start = int(request.headers.get("Last-Event-ID", "0")) if with_ids else given
        if start >= 9:
            return web.Response(status=204)
        async with sse_response(request) as response:
            for number in range(start + 1, start + 4):
                await response.send(f"line\n{number}", id=str(number) if with_ids else None)
            given = start + 3
        return response

    app = web.Application()
    app.router.add_get("/events", handle)
    runner = web.AppRunner(app, shutdown_timeout=0.01)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}/events"
    finally:
        await runner.cleanup()


@pytest.mark.parametrize("with_ids", [True, False])
async def test_source_of_somebody_else_is_read_to_its_end(with_ids: bool) -> None:
    async with aiohttp_sse_source(with_ids=with_ids) as url:
        async with open_stream(url, timing=IMPATIENT) as stream:
            data = [event.data async for event in stream]
        assert data == [f"line\n{number}" for number in range(1, 10)]
        assert stream.last_event_id == ("9" if with_ids else "")
