"""The JavaScript client in a real Chromium: cuts, silence, reloads, restarts, stops."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from playwright.async_api import Page

from gateway.keys import KeyRing, pepper_path
from scripts.mock.answers import answer_to
from scripts.mock.behaviour import Behaviour
from scripts.mock.server import serving
from tests.backend import (
    LAST_CHUNK,
    Exchange,
    ScriptedBackend,
    chunked,
    json_response,
    response_head,
    sse_head,
)
from tests.faults import FaultProxy
from tests.gateway import Gateway, gateway_process, running_gateway, wait_until_ready
from tests.servers import free_port

pytestmark = pytest.mark.asyncio(loop_scope="module")  # the browser's
STATIC = Path(__file__).parents[2] / "gateway" / "static"
QUESTION = "How do I brew a cup of coffee?"
CHAT = "/api/v2/chat-stream"
ASKED = {"method": "POST", "body": json.dumps({"query": QUESTION})}
QUICK = Behaviour(first=0, pace=2, seed=1)
STEADY = Behaviour(first=0, pace=10, seed=1)
ENDLESS = Behaviour(first=0, pace=20, seed=1, tokens=5000)
FAST = {"retry": {"min": 1, "max": 20, "maxAttempts": 1000, "heedsRetry": False}}

#: Opens a stream as `window.stream`, with all that it tells in `window.told`.
OPEN = """
async ([url, options]) => {
  const { openStream } = await import('/static/sluice.js');
  const stream = openStream(url, options);
  window.told = { states: [], ids: [], resets: 0 };
  window.stream = stream;
  stream.addEventListener('statechange', (e) => told.states.push(e.state));
  stream.addEventListener('reset', () => { told.resets += 1; });
  for (const type of ['start', 'content_chunk', 'complete', 'message:error'])
    stream.addEventListener(type, (e) => told.ids.push(e.lastEventId));
}
"""
END = """
async () => {
  const ended = await stream.finished.catch((error) =>
    ({ code: error.code, text: error.partial, outcome: stream.outcome }));
  return { ...ended, ...told, metrics: stream.metrics, streamId: stream.streamId };
}
"""


def whole_answer() -> str:
    return answer_to(QUESTION, QUICK, None, None).whole


@asynccontextmanager
async def gateway_before(behaviour: Behaviour, **settings: object) -> AsyncIterator[Gateway]:
    settings = {"upstream_dialect": "rag", **settings}
    async with serving(behaviour) as upstream, running_gateway(upstream, **settings) as gateway:
        yield gateway


async def open_stream(
    page: Page, url: str, options: dict[str, object] | None = None, storage_key: str | None = None
) -> None:
    await page.goto(f"{url}/livez")
    more = {**(options or {}), "storageKey": storage_key}
    await page.evaluate(OPEN, [CHAT, ASKED | more])


async def has_said(page: Page, characters: int) -> None:
    await page.wait_for_function("n => stream.text.length >= n", arg=characters)


async def end_of(page: Page) -> dict[str, Any]:
    """How the stream ended, and all that it told."""
    async with asyncio.timeout(20):
        ended: dict[str, Any] = await page.evaluate(END)
    return ended


def assert_whole(ended: dict[str, Any]) -> None:
    """Everything once, in order."""
    assert ended["text"] == whole_answer()
    assert ended["outcome"] == "completed"
    ids = ended["ids"]
    assert ids == [f"{ended['streamId']}.{n}" for n in range(1, len(ids) + 1)]


async def test_answer_comes_whole(page: Page) -> None:
    async with gateway_before(QUICK) as gateway:
        await open_stream(page, gateway.url)
        ended = await end_of(page)
    assert_whole(ended)
    assert ended["states"] == ["connecting", "open", "closed"]
    assert ended["metrics"]["reconnects"] == 0
    assert ended["metrics"]["firstEventMs"] > 0


@pytest.mark.parametrize("reset", [False, True], ids=["fin", "rst"])
async def test_connections_that_are_cut_lose_and_repeat_nothing(page: Page, reset: bool) -> None:
    async with gateway_before(QUICK) as gateway, FaultProxy(gateway.port) as proxy:
        await page.goto(f"{proxy.url}/livez")
        await page.evaluate("import('/static/sluice.js')")
        proxy.down.reset = reset
        proxy.down.cut_after = 2500
        await page.evaluate(OPEN, [CHAT, ASKED | FAST])
        ended = await end_of(page)
    assert_whole(ended)
    assert ended["metrics"]["reconnects"] > 3


async def test_iterator_goes_on_over_a_cut(page: Page) -> None:
    async with gateway_before(QUICK) as gateway, FaultProxy(gateway.port) as proxy:
        await page.goto(f"{proxy.url}/livez")
        await page.evaluate("import('/static/sluice.js')")
        proxy.down.cut_after = 2500
        text = await page.evaluate(
            """async ([options, query]) => {
              const { openStream } = await import('/static/sluice.js');
              const body = JSON.stringify({ query });
              const asked = { method: 'POST', body, ...options };
              const stream = openStream('/api/v2/chat-stream', asked);
              let text = '';
              for await (const event of stream)
                if (event.type === 'content_chunk') text += event.json().content;
              return text;
            }""",
            [FAST, QUESTION],
        )
    assert text == whole_answer()


async def test_silent_connection_is_replaced(page: Page) -> None:
    async with gateway_before(STEADY) as gateway, FaultProxy(gateway.port) as proxy:
        await open_stream(page, proxy.url, {**FAST, "silence": 300})
        await has_said(page, 1)
        proxy.down.stall()
        await page.wait_for_function("stream.metrics.silences > 0")
        proxy.down.resume()
        ended = await end_of(page)
    assert_whole(ended)
    assert "reconnecting" in ended["states"]


async def test_heartbeats_are_no_silence(page: Page) -> None:
    thinking = Behaviour(first=1.5, pace=1, seed=1)
    async with gateway_before(thinking, heartbeat_interval=0.1) as gateway:
        await open_stream(page, gateway.url, {"silence": 600})
        ended = await end_of(page)
    assert_whole(ended)
    assert ended["metrics"]["heartbeats"] > 3
    assert ended["metrics"]["silences"] == 0


async def test_page_that_is_offline_waits_and_goes_on(page: Page) -> None:
    async with gateway_before(STEADY) as gateway, FaultProxy(gateway.port) as proxy:
        await open_stream(page, proxy.url, {"retry": {"maxAttempts": 0}})
        await has_said(page, 1)
        proxy.down.stall()
        await page.context.set_offline(True)
        await page.wait_for_function("stream.state === 'offline'")
        proxy.down.resume()
        await page.context.set_offline(False)
        ended = await end_of(page)
    assert_whole(ended)
    assert "offline" in ended["states"]


async def test_page_that_is_loaded_anew_shows_the_whole_answer(page: Page) -> None:
    async with gateway_before(STEADY) as gateway:
        await open_stream(page, gateway.url, storage_key="chat")
        await has_said(page, 20)
        await page.reload()
        ended = await page.evaluate(
            """async () => {
              const { resumeStored } = await import('/static/sluice.js');
              const { outcome, text } = await resumeStored('chat').finished;
              return { outcome, text, again: resumeStored('chat') };
            }"""
        )
        assert ended == {"outcome": "completed", "text": whole_answer(), "again": None}
        assert gateway.metric("sluice_sessions_created_total") == 1


async def test_restarted_server_tells_what_has_become_of_the_answer(
    page: Page, tmp_path: Path
) -> None:
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    async with serving(ENDLESS) as upstream, aiohttp.ClientSession() as client:
        async with gateway_process(upstream, port, tmp_path) as process:
            await wait_until_ready(client, url)
            await open_stream(page, url, FAST)
            await has_said(page, 50)
            await asyncio.sleep(0.05)
            process.kill()
            await process.wait()
        async with gateway_process(upstream, port, tmp_path):
            ended = await end_of(page)
    assert ended["outcome"] == "failed"
    # What the page has seen may be a second ahead of what the store had when it was killed.
    assert ended["code"] in {"interrupted", "cursor_ahead"}
    assert answer_starts_with(ended["text"])


def answer_starts_with(text: str) -> bool:
    """Of an endless answer: what was said begins it."""
    return bool(text) and answer_to(QUESTION, ENDLESS, None, None).whole.startswith(text)


async def test_stop_ends_the_answer_and_keeps_what_was_said(page: Page) -> None:
    async with gateway_before(ENDLESS) as gateway:
        await open_stream(page, gateway.url)
        await has_said(page, 20)
        account = await page.evaluate("stream.stop()")
        ended = await end_of(page)
        await gateway.wait_for_streams(0)
    assert account["status"] == "TERMINATED"
    assert account["text"] == ended["text"] != ""
    assert ended["outcome"] == "cancelled"


async def test_stop_before_the_first_token_works(page: Page) -> None:
    thinking = Behaviour(first=60)
    async with gateway_before(thinking, commit_delay_ms=50) as gateway:
        await open_stream(page, gateway.url)
        account = await page.evaluate("stream.stop()")
        await gateway.wait_for_streams(0)
    assert account["status"] == "TERMINATED"


async def test_close_leaves_the_answer_running(page: Page) -> None:
    async with gateway_before(ENDLESS) as gateway:
        await open_stream(page, gateway.url)
        await has_said(page, 20)
        await page.evaluate("stream.close()")
        ended = await end_of(page)
        assert ended["outcome"] == "detached"
        assert len(gateway.services.hub) == 1


async def test_aborted_signal_leaves_the_stream(page: Page) -> None:
    async with gateway_before(ENDLESS) as gateway:
        await page.goto(f"{gateway.url}/livez")
        outcome = await page.evaluate(
            """async (query) => {
              const { openStream } = await import('/static/sluice.js');
              const abort = new AbortController();
              const { signal } = abort;
              const stream = openStream(`/api/v2/chat-stream?query=${query}`, { signal });
              for await (const event of stream) if (event.name === 'content_chunk') abort.abort();
              return (await stream.finished).outcome;
            }""",
            QUESTION,
        )
    assert outcome == "detached"


#: The page is out of sight for so many milliseconds by its own clock.
AWAY = """
(away) => {
  let seen = 'hidden';
  Object.defineProperty(document, 'visibilityState', { get: () => seen, configurable: true });
  document.dispatchEvent(new Event('visibilitychange'));
  const now = Date.now.bind(Date);
  Date.now = () => now() + away;
  seen = 'visible';
  document.dispatchEvent(new Event('visibilitychange'));
}
"""


async def test_hidden_tab_that_heard_nothing_asks_again_when_it_is_seen(page: Page) -> None:
    """At once, long before the silence would have told: 10 s of 15 s, and no attempt to spare."""
    async with gateway_before(STEADY) as gateway, FaultProxy(gateway.port) as proxy:
        await open_stream(page, proxy.url, {"retry": {"maxAttempts": 0}})
        await has_said(page, 1)
        proxy.down.stall()
        await page.evaluate(AWAY, 10_000)
        await page.wait_for_function("stream.metrics.reconnects === 1")
        proxy.down.resume()
        ended = await end_of(page)
    assert_whole(ended)
    assert ended["metrics"]["silences"] == 0


async def test_tab_that_was_hidden_for_a_moment_keeps_its_connection(page: Page) -> None:
    async with gateway_before(STEADY) as gateway:
        await open_stream(page, gateway.url)
        await has_said(page, 1)
        await page.evaluate(AWAY, 1000)
        ended = await end_of(page)
    assert_whole(ended)
    assert ended["metrics"]["reconnects"] == 0


async def test_frozen_tab_goes_on_when_it_thaws(page: Page) -> None:
    """Chromium's own freezing, as of a phone's tab in the background."""
    async with gateway_before(STEADY) as gateway, FaultProxy(gateway.port) as proxy:
        await open_stream(page, proxy.url, {**FAST, "silence": 500})
        await has_said(page, 1)
        devtools = await page.context.new_cdp_session(page)
        await devtools.send("Page.setWebLifecycleState", {"state": "frozen"})
        proxy.down.stall()
        await asyncio.sleep(0.05)
        await devtools.send("Page.setWebLifecycleState", {"state": "active"})
        proxy.down.resume()
        ended = await end_of(page)
    assert_whole(ended)


async def test_page_in_the_back_forward_cache_holds_no_connection(page: Page) -> None:
    async with gateway_before(ENDLESS) as gateway:
        await open_stream(page, gateway.url)
        await has_said(page, 20)
        await page.evaluate("addEventListener('pagehide', () => { window.left = stream.state; })")
        await page.evaluate("addEventListener('pageshow', (event) => { window.back = event; })")
        await page.goto(f"{gateway.url}/readyz")
        await gateway.wait_for_readers(0)
        await page.go_back(wait_until="commit")  # it isn't loaded again
        await page.wait_for_function("window.back?.persisted")
        assert await page.evaluate("left") == "paused"
        await has_said(page, await page.evaluate("stream.text.length") + 20)
        told = await page.evaluate("told.ids")
        assert [int(one.rpartition(".")[2]) for one in told] == list(range(1, len(told) + 1))
        assert gateway.metric("sluice_sessions_created_total") == 1


async def test_frames_gather_events(page: Page) -> None:
    async with gateway_before(QUICK) as gateway:
        await page.goto(f"{gateway.url}/livez")
        told = await page.evaluate(
            """async (query) => {
              const { openStream } = await import('/static/sluice.js');
              const url = `/api/v2/chat-stream?query=${query}`;
              const stream = openStream(url, { coalesce: 'frame' });
              const batches = [];
              stream.addEventListener('events', ({ events }) => batches.push(events.length));
              await stream.finished;
              const { events, heartbeats } = stream.metrics;
              return { batches, events, heartbeats };
            }""",
            QUESTION,
        )
    assert sum(told["batches"]) == told["events"] + told["heartbeats"]
    assert len(told["batches"]) < told["events"]


async def test_reader_that_takes_its_time_gets_everything(page: Page) -> None:
    behaviour = Behaviour(first=0, pace=0, tokens=3000, seed=1)
    async with gateway_before(behaviour) as gateway:
        await page.goto(f"{gateway.url}/livez")
        numbers = await page.evaluate(
            """async (query) => {
              const { openStream } = await import('/static/sluice.js');
              const stream = openStream(`/api/v2/chat-stream?query=${query}`);
              const numbers = [];
              for await (const event of stream) {
                if (event.name === 'content_chunk') numbers.push(event.json().index);
                if (numbers.length % 100 === 0) await new Promise((go) => setTimeout(go));
              }
              return numbers;
            }""",
            QUESTION,
        )
    assert numbers == list(range(3000))


async def test_refusal_is_told_with_the_servers_own_code(page: Page) -> None:
    async with gateway_before(QUICK, enable_sse_streaming=False) as gateway:
        await open_stream(page, gateway.url)
        ended = await end_of(page)
    assert (ended["outcome"], ended["code"]) == ("failed", "streaming_disabled")
    assert ended["metrics"]["reconnects"] == 0


async def test_credentials_are_asked_for_again_once(page: Page, tmp_path: Path) -> None:
    keys = tmp_path / "keys.jsonl"
    secret = KeyRing.load(keys, pepper_path(tmp_path)).add("alice")
    settings = {"auth_mode": "api_key", "api_keys_file": keys, "data_dir": tmp_path}
    async with gateway_before(QUICK, **settings) as gateway:
        await page.goto(f"{gateway.url}/livez")
        asked = await page.evaluate(
            """async ([query, secret]) => {
              const { openStream } = await import('/static/sluice.js');
              let asked = 0;
              const headers = async () => ({ Authorization: `Bearer ${asked++ ? secret : 'old'}` });
              const stream = openStream('/api/v2/chat-stream',
                { method: 'POST', body: JSON.stringify({ query }), headers });
              await stream.finished;
              return asked;
            }""",
            [QUESTION, secret],
        )
    assert asked == 2


async def test_client_of_another_origin_may_resume_and_stop(page: Page) -> None:
    async with (
        gateway_before(QUICK) as elsewhere,
        gateway_before(QUICK, allowed_origins=elsewhere.url) as gateway,
    ):
        await page.goto(f"{elsewhere.url}/livez")
        async with FaultProxy(gateway.port) as proxy:
            proxy.down.cut_after = 3000
            ended = await page.evaluate(
                """async ([url, options, query]) => {
                  const { openStream } = await import('/static/sluice.js');
                  const stream = openStream(`${url}/api/v2/chat-stream`,
                    { method: 'POST', body: JSON.stringify({ query }), ...options });
                  const { text } = await stream.finished;
                  return { text, url: stream.url, reconnects: stream.metrics.reconnects };
                }""",
                [proxy.url, FAST, QUESTION],
            )
            assert ended["url"].startswith(proxy.url)
    assert ended["text"] == whole_answer()
    assert ended["reconnects"] > 0


@dataclass
class Odd:
    """A server that sends to each connection what it is told; and the client itself."""

    answers: list[list[tuple[str, str, dict[str, object]]]]
    cursors: list[str] = field(default_factory=list)

    async def __call__(self, exchange: Exchange) -> None:
        if exchange.path.startswith("/static/"):
            body = (STATIC / exchange.path.rpartition("/")[2]).read_bytes()
            head = response_head(content_type="text/javascript", framing="length", length=len(body))
            await exchange.send(head + body)
        elif exchange.path == "/ask":
            self.cursors.append(exchange.headers.get("last-event-id", ""))
            await exchange.send(sse_head("X-Stream-Id: s"))
            for event_id, name, data in self.answers.pop(0):
                await exchange.send(chunked(block(event_id, name, data)))
            await exchange.send(LAST_CHUNK)
        else:
            await exchange.send(json_response(b"{}"))


def block(event_id: str, name: str, data: dict[str, object]) -> bytes:
    return f"id: {event_id}\nevent: {name}\ndata: {json.dumps(data)}\n\n".encode()


def chunk(number: int) -> tuple[str, str, dict[str, object]]:
    return f"s.{number}", "content_chunk", {"content": f"{number} "}


def complete(number: int) -> tuple[str, str, dict[str, object]]:
    return f"s.{number}", "complete", {"reason": "completed"}


async def read_odd(page: Page, odd: Odd) -> dict[str, Any]:
    async with ScriptedBackend(odd) as server:
        await page.goto(f"{server.url}/")
        await page.evaluate(OPEN, ["/ask", FAST])
        return await end_of(page)


async def test_missing_event_is_asked_for_again(page: Page) -> None:
    odd = Odd([[chunk(1), chunk(2), chunk(4)], [chunk(3), chunk(4), complete(5)]])
    ended = await read_odd(page, odd)
    assert ended["text"] == "1 2 3 4 "
    assert odd.cursors == ["", "s.2"]
    assert ended["metrics"]["gaps"] == 1


async def test_event_that_stays_missing_is_an_error(page: Page) -> None:
    odd = Odd([[chunk(1), chunk(3)], [chunk(3), complete(4)]])
    ended = await read_odd(page, odd)
    assert (ended["outcome"], ended["code"], ended["text"]) == ("failed", "gap", "1 ")


async def test_what_comes_twice_is_shown_once(page: Page) -> None:
    odd = Odd([[chunk(1), chunk(2)], [chunk(1), chunk(2), chunk(3), complete(4)]])
    ended = await read_odd(page, odd)
    assert ended["text"] == "1 2 3 "
    assert ended["metrics"]["duplicates"] == 2


async def test_snapshot_replaces_what_came_before(page: Page) -> None:
    snapshot = ("s.90", "snapshot", {"text": "all of it ", "reason": "trimmed"})
    odd = Odd([[chunk(1)], [snapshot, chunk(91), complete(92)]])
    ended = await read_odd(page, odd)
    assert ended["text"] == "all of it 91 "
    assert ended["resets"] == 1


async def test_typed_error_is_a_failure_with_what_was_said(page: Page) -> None:
    error = {"code": "upstream_idle", "message": "It stopped.", "retryable": True}
    ended = await read_odd(page, Odd([[chunk(1), ("s.2", "error", error)]]))
    assert (ended["outcome"], ended["code"], ended["text"]) == ("failed", "upstream_idle", "1 ")


async def test_answers_that_bring_nothing_are_given_up(page: Page) -> None:
    odd = Odd([[chunk(1)], [], [], []])
    async with ScriptedBackend(odd) as server:
        await page.goto(f"{server.url}/")
        code = await page.evaluate(
            """async () => {
              const { openStream } = await import('/static/sluice.js');
              const stream = openStream('/ask', { retry: { min: 1, maxAttempts: 3 } });
              return stream.finished.catch((error) => error.code);
            }"""
        )
    assert code == "ended_early"
    assert odd.answers == []
