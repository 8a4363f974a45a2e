"""The client's rules, against a scripted source of events; nothing here waits for a clock."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import pytest

from gateway.client import (
    Answer,
    Event,
    EventStream,
    Retry,
    State,
    StreamError,
    StreamGapError,
    Timing,
    is_terminal,
    open_stream,
)
from gateway.client.cursor import Cursor, Verdict
from gateway.client.retry import parse_retry_after, server_floor_s
from gateway.client.silence import Silence
from tests.backend import Exchange, Script, ScriptedBackend, json_response

SID = "AAAAAAAAAAAAAAAA"
DONE = b"data: [DONE]\n\n"


class Waits:
    """Sleeps no longer than a turn of the loop, and remembers what was asked for."""

    def __init__(self) -> None:
        self.slept: list[float] = []

    @property
    def timing(self) -> Timing:
        return Timing(uniform=lambda low, high: high, sleep=self._sleep)

    async def _sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        await asyncio.sleep(0)


def says(body: bytes, **headers: str) -> Script:
    """An event stream of exactly these bytes; then the connection is closed in good order."""

    async def script(exchange: Exchange) -> None:
        extra = {name.replace("_", "-"): value for name, value in headers.items()}
        await exchange.send(head(extra) + body)
        await exchange.close()

    return script


def refuses(status: int, code: str = "", **headers: str) -> Script:
    async def script(exchange: Exchange) -> None:
        lines = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in headers.items())
        body = b'{"error": {"code": "%b", "message": "no"}}' % code.encode() if code else b""
        answer = f"HTTP/1.1 {status} X\r\n{lines}Content-Length: {len(body)}\r\n\r\n"
        await exchange.send(answer.encode() + body)

    return script


async def stalls(exchange: Exchange) -> None:
    await exchange.send(head({}))
    await exchange.stall()


async def resets(exchange: Exchange) -> None:
    exchange.reset()


def head(headers: Mapping[str, str]) -> bytes:
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    return f"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n{lines}\r\n".encode()


def source(*scripts: Script) -> ScriptedBackend:
    """Answers one request after the other by these; a request too many fails the test."""
    left = iter(scripts)

    async def script(exchange: Exchange) -> None:
        await next(left)(exchange)

    return ScriptedBackend(script)


def stream_of(backend: ScriptedBackend, waits: Waits | None = None, **options: Any) -> EventStream:
    return open_stream(backend.url, timing=(waits or Waits()).timing, **options)


async def data_of(stream: EventStream) -> list[str]:
    async with stream:
        return [event.data async for event in stream]


async def error_of(stream: EventStream) -> StreamError:
    with pytest.raises(StreamError) as caught:
        await data_of(stream)
    return caught.value


async def test_events_come_with_type_data_id_and_json() -> None:
    async with source(says(b'id: 4\nevent: tick\ndata: {"a": 1}\n\n' + DONE)) as backend:
        async with stream_of(backend) as stream:
            assert stream.state is State.OPEN
            event = await anext(stream)
            assert (event.type, event.id, event.json()) == ("tick", "4", {"a": 1})
            assert stream.last_event_id == "4"
            assert [event.data async for event in stream] == ["[DONE]"]
        assert (stream.state, stream.has_ended, stream.reconnects) == ("closed", True, 0)
        assert stream.time_to_first_event_s is not None
        request = backend.exchanges[0]
        assert request.headers["accept"] == "text/event-stream"
        assert "idempotency-key" not in request.headers


async def test_plain_source_is_asked_again_with_its_last_id_until_204() -> None:
    scripts = says(b"id: a\ndata: 1\n\n"), says(b"id: b\ndata: 2\n\nid: c\n\n"), refuses(204)
    async with source(*scripts) as backend:
        stream = stream_of(backend)
        assert await data_of(stream) == ["1", "2"]
        ids = [exchange.headers.get("last-event-id") for exchange in backend.exchanges]
        assert ids == [None, "a", "c"]
        assert (stream.has_ended, stream.reconnects) == (True, 2)


async def test_plain_source_without_ids_is_asked_again_as_at_first() -> None:
    async with source(says(b"data: 1\n\n"), says(b"data: 2\n\n"), refuses(204)) as backend:
        assert await data_of(stream_of(backend)) == ["1", "2"]
        assert all("last-event-id" not in exchange.headers for exchange in backend.exchanges)


async def test_half_an_event_is_not_given_out() -> None:
    async with source(says(b"id: 1\ndata: a\n\nid: 2\ndata: b"), refuses(204)) as backend:
        assert await data_of(stream_of(backend)) == ["a"]
        assert backend.exchanges[1].headers["last-event-id"] == "1"


async def test_post_is_sent_again_with_the_same_key_body_and_cursor() -> None:
    async with source(resets, says(b"id: 1\ndata: a\n\n"), says(b"id: 2\n" + DONE)) as backend:
        stream = stream_of(backend, method="post", json={"query": "?"})
        assert await data_of(stream) == ["a", "[DONE]"]
        assert {exchange.body for exchange in backend.exchanges} == {b'{"query":"?"}'}
        assert len({exchange.headers["idempotency-key"] for exchange in backend.exchanges}) == 1
        ids = [exchange.headers.get("last-event-id") for exchange in backend.exchanges]
        assert ids == [None, None, "1"]


async def test_post_that_broke_off_without_ids_is_not_asked_twice() -> None:
    async with source(says(b"data: a\n\n")) as backend:
        error = await error_of(stream_of(backend, method="POST", json={}))
        assert error.code == "not_resumable"


async def test_stream_with_an_address_is_resumed_there_by_get() -> None:
    first = says(b"id: 1\ndata: a\n\n", Location="/streams/7")
    async with source(first, says(DONE)) as backend:
        stream = stream_of(backend, method="POST", json={}, idempotency_key="k")
        assert await data_of(stream) == ["a", "[DONE]"]
        again = backend.exchanges[1]
        assert (again.method, again.path, again.body) == ("GET", "/streams/7", b"")
        assert "idempotency-key" not in again.headers


async def test_address_on_another_origin_gets_no_credentials() -> None:
    first = says(b"id: 1\ndata: a\n\n", Location="http://localhost:1/streams/7")
    async with source(first, says(DONE)) as backend:
        assert await data_of(stream_of(backend)) == ["a", "[DONE]"]
        assert backend.exchanges[1].path == "/"


async def test_given_cursor_is_sent_and_counted_from() -> None:
    body = b"".join(b"id: %b.%d\ndata: %d\n\n" % (SID.encode(), n, n) for n in (3, 4, 5))
    async with source(says(body + DONE, X_Stream_Id=SID)) as backend:
        stream = stream_of(backend, last_event_id=f"{SID}.4")
        assert await data_of(stream) == ["5", "[DONE]"]
        assert backend.exchanges[0].headers["last-event-id"] == f"{SID}.4"


async def test_cursor_of_the_consumer_is_that_of_the_event_it_was_given() -> None:
    async with (
        source(says(b"id: 1\ndata: a\n\nid: 2\ndata: b\n\n" + DONE)) as backend,
        stream_of(backend) as stream,
    ):
        await anext(stream)
        assert stream.last_event_id == "1"


def numbered(*numbers: int) -> Script:
    body = b"".join(b"id: %b.%d\ndata: %d\n\n" % (SID.encode(), n, n) for n in numbers)
    return says(body, X_Stream_Id=SID)


async def test_event_that_was_sent_twice_is_given_once() -> None:
    async with source(numbered(1, 2, 3), numbered(2, 3, 4, 4), refuses(204)) as backend:
        assert await data_of(stream_of(backend)) == ["1", "2", "3", "4"]


async def test_gap_is_closed_by_asking_again_from_the_last_event() -> None:
    async with source(numbered(1, 2, 4), numbered(3, 4), refuses(204)) as backend:
        assert await data_of(stream_of(backend)) == ["1", "2", "3", "4"]
        assert backend.exchanges[1].headers["last-event-id"] == f"{SID}.2"


async def test_gap_that_stays_is_an_error_after_what_came_before_it() -> None:
    async with source(numbered(1, 3), numbered(3)) as backend, stream_of(backend) as stream:
        assert (await anext(stream)).data == "1"
        with pytest.raises(StreamGapError) as caught:
            await anext(stream)
        assert (caught.value.code, caught.value.last, caught.value.found) == ("gap", 1, 3)


async def test_numbers_in_ids_of_others_mean_nothing() -> None:
    body = b"id: 1.10\ndata: a\n\nid: 1.20\ndata: b\n\nid: 1.5\ndata: c\n\n"
    async with source(says(body), refuses(204)) as backend:
        assert await data_of(stream_of(backend)) == ["a", "b", "c"]


@pytest.mark.parametrize("status", [400, 403, 404, 410, 415, 422, 409, 405, 206])
async def test_status_that_will_not_change_fails_at_once(status: int) -> None:
    async with source(refuses(status, "its_code")) as backend:
        error = await error_of(stream_of(backend))
        assert (error.status, error.code, str(error)) == (status, "its_code", "no")


@pytest.mark.parametrize("status", [408, 425, 429, 500, 502, 503, 504, 529])
async def test_status_that_may_change_is_asked_again(status: int) -> None:
    async with source(refuses(status), says(DONE)) as backend:
        assert await data_of(stream_of(backend)) == ["[DONE]"]


async def test_conflict_is_asked_again_where_the_server_says_when() -> None:
    waits = Waits()
    async with source(refuses(409, Retry_After="7"), says(DONE)) as backend:
        assert await data_of(stream_of(backend, waits)) == ["[DONE]"]
        assert waits.slept == [7]


async def test_retry_after_of_an_hour_is_left_to_the_caller() -> None:
    async with source(refuses(503, Retry_After="3600")) as backend:
        error = await error_of(stream_of(backend))
        assert (error.code, error.retry_after_s) == ("http_503", 3600)


async def test_other_content_type_fails() -> None:
    async def answers_json(exchange: Exchange) -> None:
        await exchange.send(json_response(b"{}"))

    async with source(answers_json) as backend:
        assert (await error_of(stream_of(backend))).code == "wrong_content_type"


async def test_no_server_is_an_error_after_three_more_attempts() -> None:
    waits = Waits()
    async with source() as backend:
        url = backend.url
    error = await error_of(open_stream(url, timing=waits.timing))
    assert (error.code, error.status) == ("connection_failed", None)
    assert waits.slept == [1, 2, 4]


async def test_attempts_count_anew_after_an_event_but_not_after_a_mere_200() -> None:
    waits, retry = Waits(), Retry(max_attempts=2)
    empty, one = says(b""), says(b"id: 1\ndata: a\n\n")
    async with source(empty, empty, one, empty, says(b"event: ping\ndata: {}\n\n")) as backend:
        async with stream_of(backend, waits, retry=retry) as stream:
            with pytest.raises(StreamError) as caught:
                [event async for event in stream]
        assert caught.value.code == "ended_early"
        assert waits.slept == [1, 2, 1, 2]


async def test_servers_retry_is_the_least_wait() -> None:
    waits = Waits()
    async with source(says(b"retry: 3000\ndata: a\n\n"), refuses(204)) as backend:
        await data_of(stream_of(backend, waits))
        assert waits.slept == [3]


async def test_401_asks_for_new_headers_once() -> None:
    tokens = iter(["old", "new"])

    async def headers() -> dict[str, str]:
        return {"Authorization": f"Bearer {next(tokens)}"}

    async with source(refuses(401), says(DONE)) as backend:
        waits = Waits()
        assert await data_of(stream_of(backend, waits, headers=headers)) == ["[DONE]"]
        sent = [exchange.headers["authorization"] for exchange in backend.exchanges]
        assert (sent, waits.slept) == (["Bearer old", "Bearer new"], [])


async def test_second_401_fails() -> None:
    async def headers() -> dict[str, str]:
        return {}

    async with source(refuses(401), refuses(401, "unauthorized")) as backend:
        assert (await error_of(stream_of(backend, headers=headers))).code == "unauthorized"


async def test_401_with_headers_that_never_change_fails_at_once() -> None:
    async with source(refuses(401)) as backend:
        assert (await error_of(stream_of(backend, headers={"X-A": "b"}))).status == 401


async def test_silence_is_a_drop() -> None:
    async with source(stalls, says(DONE)) as backend:
        assert await data_of(stream_of(backend, silence_s=0.03)) == ["[DONE]"]


async def test_servers_silence_threshold_is_used_from_the_start() -> None:
    async def stalls_early(exchange: Exchange) -> None:
        await exchange.send(head({"X-Silence-Threshold": "0.03"}))
        await exchange.stall()

    async with source(stalls_early, says(DONE)) as backend:
        assert await data_of(stream_of(backend)) == ["[DONE]"]


async def test_time_inside_the_consumer_is_no_silence() -> None:
    async with source(says(b"data: a\n\n" + DONE)) as backend:
        async with stream_of(backend, silence_s=0.02) as stream:
            async for _ in stream:
                await asyncio.sleep(0.04)
        assert stream.reconnects == 0


async def test_event_beyond_the_limit_fails() -> None:
    async with source(says(b"data: " + b"x" * 100)) as backend:
        assert (await error_of(stream_of(backend, max_event_bytes=50))).code == "event_too_large"


async def test_cancelled_reader_closes_its_connection_and_leaves_no_task() -> None:
    async with source(stalls) as backend:
        before = asyncio.all_tasks()
        reading = asyncio.create_task(data_of(stream := stream_of(backend)))
        await backend.wait_for_exchanges()
        while stream.state is not State.OPEN:
            await asyncio.sleep(0.001)
        reading.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reading
        await backend.wait_until_idle()
        assert asyncio.all_tasks() <= before
        with pytest.raises(StreamError, match="cancelled"):
            await anext(stream)


async def test_close_from_elsewhere_ends_a_waiting_reader() -> None:
    async with source(stalls) as backend, stream_of(backend) as stream:
        reading = asyncio.create_task(anext(stream, None))
        await asyncio.sleep(0.01)
        await stream.close()
        assert await reading is None
        assert not stream.has_ended
        await backend.wait_until_idle()


async def test_events_that_come_while_it_is_closed_are_not_given_out() -> None:
    more = asyncio.Event()

    async def speaks(exchange: Exchange) -> None:
        await exchange.send(head({}) + b"data: a\n\n")
        await more.wait()
        await exchange.send(b"data: b\n\n")
        await exchange.stall()

    async with source(speaks) as backend, stream_of(backend) as stream:
        assert (await anext(stream)).data == "a"
        reading = asyncio.create_task(anext(stream, None))
        await asyncio.sleep(0)
        more.set()
        await stream.close()
        assert await reading is None


async def test_close_ends_a_reader_that_waits_for_its_next_attempt() -> None:
    asleep = asyncio.Event()

    async def sleep(seconds: float) -> None:
        asleep.set()
        await asyncio.Event().wait()

    async with (
        source(says(b"")) as backend,
        open_stream(backend.url, timing=Timing(sleep=sleep)) as stream,
    ):
        reading = asyncio.create_task(anext(stream, None))
        await asleep.wait()
        assert stream.state is State.RECONNECTING
        await stream.close()
        assert await reading is None


async def test_stream_that_cannot_be_stopped_is_left() -> None:
    async with source(stalls) as backend, stream_of(backend) as stream:
        assert await stream.stop() == {}
        assert [event async for event in stream] == []
        await backend.wait_until_idle()


async def test_stop_is_asked_for_again_while_the_server_is_busy() -> None:
    async def opens(exchange: Exchange) -> None:
        await exchange.send(head({"Location": "/s"}) + b"data: a\n\n")
        await exchange.stall()

    async def stopped(exchange: Exchange) -> None:
        await exchange.send(json_response(b'{"text": "a"}'))

    async with (
        source(opens, refuses(503), resets, stopped) as backend,
        stream_of(backend) as stream,
    ):
        assert await stream.stop() == {"text": "a"}
        assert [exchange.method for exchange in backend.exchanges[1:]] == ["DELETE"] * 3


async def test_given_stop_url_gets_a_post() -> None:
    async def opens(exchange: Exchange) -> None:
        await exchange.send(head({"X-Stream-Id": SID, "Location": "/s"}))
        await exchange.stall()

    async def stopped(exchange: Exchange) -> None:
        await exchange.send(json_response(b'{"success": true}'))

    async with (
        source(opens, stopped) as backend,
        stream_of(backend, stop_url=f"{backend.url}/stop") as stream,
    ):
        assert await stream.stop() == {"success": True}
        asked = backend.exchanges[1]
        assert (asked.method, asked.path) == ("POST", "/stop")
        assert asked.body == b'{"sessionId":"%b"}' % SID.encode()


async def test_text_is_gathered_and_a_snapshot_replaces_it() -> None:
    body = (
        b'event: content_chunk\ndata: {"content": "old"}\n\n'
        b'event: snapshot\ndata: {"text": "new"}\n\n'
        b'event: content_chunk\ndata: {"content": " end"}\n\nevent: complete\ndata: {}\n\n'
    )
    async with source(says(body)) as backend, stream_of(backend) as stream:
        assert await stream.text() == "new end"


async def test_text_of_a_failed_stream_is_kept_with_the_error() -> None:
    body = (
        b'event: content_chunk\ndata: {"content": "half"}\n\n'
        b'event: error\ndata: {"code": "upstream_idle", "message": "It fell silent."}\n\n'
    )
    async with source(says(body)) as backend, stream_of(backend) as stream:
        with pytest.raises(StreamError, match="fell silent") as caught:
            await stream.text()
        assert (caught.value.code, caught.value.partial) == ("upstream_idle", "half")


async def test_given_session_stays_open() -> None:
    import aiohttp

    async with source(says(DONE)) as backend, aiohttp.ClientSession() as session:
        assert await data_of(stream_of(backend, session=session)) == ["[DONE]"]
        assert not session.closed


async def test_stream_is_opened_once_and_not_read_before() -> None:
    async with source(says(DONE)) as backend:
        stream = stream_of(backend)
        with pytest.raises(RuntimeError, match="async with"):
            await anext(stream)
        await data_of(stream)
        with pytest.raises(RuntimeError, match="once"):
            await stream.__aenter__()


@pytest.mark.parametrize(
    ("event", "is_last"),
    [
        (Event("complete", "{}"), True),
        (Event("error", "{}"), True),
        (Event("message_stop", "{}"), True),
        (Event("response.completed", "{}"), True),
        (Event("response.failed", "{}"), True),
        (Event("message", "[DONE]"), True),
        (Event("message", '{"error": {"message": "no"}}'), True),
        (Event("message", '{"choices": []}'), False),
        (Event("content_chunk", "[DONE]"), False),
        (Event("heartbeat", "{}"), False),
    ],
)
def test_ends_of_known_streams_are_known(event: Event, is_last: bool) -> None:
    assert is_terminal(event) is is_last


def test_answer_ignores_what_is_no_text() -> None:
    answer = Answer()
    answer.add(Event("content_chunk", "[]"))
    answer.add(Event("start", "no json"))
    assert answer.text == ""


def test_backoff_doubles_up_to_its_limit() -> None:
    retry = Retry(base_s=1, max_s=30, max_attempts=None)
    assert [retry.ceiling_s(n) for n in (1, 2, 3, 6, 10_000)] == [1, 2, 4, 30, 30]
    assert retry.allows(10_000)


def test_retry_after_is_read_as_seconds_or_as_a_date() -> None:
    soon = format_datetime(datetime.now(UTC) + timedelta(seconds=50), usegmt=True)
    assert parse_retry_after("12") == 12
    assert 45 < (parse_retry_after(soon) or 0) <= 50
    past = format_datetime(datetime.now(UTC) - timedelta(days=1), usegmt=True)
    assert parse_retry_after(past) == 0
    assert parse_retry_after("soon") is parse_retry_after(None) is None


def test_least_wait_is_the_longer_of_the_servers_two_and_retry_is_bounded() -> None:
    assert server_floor_s(2000, 5) == 5
    assert server_floor_s(10**9, None) == 60


def test_silence_follows_the_heartbeats_within_its_limits() -> None:
    silence = Silence("auto")
    assert silence.limit_s == 60
    silence.connected("15")
    assert silence.limit_s == 15
    silence.heard(0, is_beat=True)
    silence.heard(8, is_beat=True)
    assert silence.limit_s == 20
    silence.heard(9, is_beat=False)
    silence.heard(30, is_beat=True)  # an event came between
    assert silence.limit_s == 20
    silence.heard(130, is_beat=True)
    assert silence.limit_s == 120
    assert Silence(3).limit_s == 3
    assert Silence(0).limit_s is None


def test_short_heartbeats_do_not_make_the_limit_shorter_than_ten_seconds() -> None:
    silence = Silence("auto")
    for now in (0.0, 0.5, 1.0):
        silence.heard(now, is_beat=True)
    assert silence.limit_s == 10


@pytest.mark.parametrize("advice", [None, "", "x", "0", "-1", "inf", "nan"])
def test_senseless_threshold_is_ignored(advice: str | None) -> None:
    silence = Silence("auto")
    silence.connected(advice)
    assert silence.limit_s == 60


def test_snapshot_may_jump_ahead() -> None:
    cursor = Cursor(f"{SID}.2")
    cursor.attach(SID)
    assert cursor.judge(Event("snapshot", "{}", f"{SID}.9", has_id=True)) is Verdict.NEW
    assert cursor.judge(Event("content_chunk", "{}", f"{SID}.10", has_id=True)) is Verdict.NEW
    assert cursor.judge(Event("content_chunk", "{}", f"{SID}.12", has_id=True)) is Verdict.GAP
    assert cursor.last_event_id == f"{SID}.10"
