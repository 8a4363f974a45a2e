"""Every state of a stream, stopped by every interface, twice, at once and by a stranger.

Whoever stops it, however often, there is one end: the same on the wire, as JSON, in the store, in
the log line and in the metric; and the backend's connection is closed.
"""

from __future__ import annotations

import asyncio
import logging
import shutil
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import aiohttp
import pytest
import pytest_asyncio

from tests.backend import ScriptedBackend
from tests.client import events
from tests.gateway import Gateway, running_gateway
from tests.integration.stage import CHAT, MESSAGES, RESPONSES, Stage, deaf_listener
from tests.integration.stops import (
    ENDED,
    ROUTES,
    RUNNING,
    TYPED,
    UNNAMED,
    WAYS,
    WITH_REASON,
    House,
    Keys,
    Stopped,
    Visit,
    visiting,
    ways_of,
)
from tests.servers import new_database

pytestmark = pytest.mark.asyncio(loop_scope="module")
AT_ONCE = 10


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=["sqlite", "postgresql"])
async def house(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[House]:
    keys = Keys.made_in(tmp_path_factory.mktemp("keys"))
    settings: dict[str, object] = {**keys.settings, "commit_delay_ms": 0}
    elsewhere = tmp_path_factory.mktemp("deaf") / "data"
    shutil.copytree(keys.folder, elsewhere)
    deaf_settings = {**settings, "data_dir": elsewhere}
    if request.param == "postgresql":
        postgres_url = request.getfixturevalue("postgres_url")
        settings["database_url"] = await new_database(postgres_url)
        deaf_settings["database_url"] = await new_database(postgres_url)
    stage = Stage()
    async with AsyncExitStack() as stack:
        enter = stack.enter_async_context
        backend = await enter(ScriptedBackend(stage, sndbuf=16 * 1024))
        listener = await enter(deaf_listener())
        gateway = await enter(running_gateway(backend.url, **settings))
        port = listener.getsockname()[1]
        deaf = await enter(running_gateway(f"http://127.0.0.1:{port}", **deaf_settings))
        client = await enter(aiohttp.ClientSession())
        yield House(stage, gateway, deaf, port, client, keys.anna, keys.bert)


EVERY_RUNNING = [
    pytest.param(route, state, way, id=f"{route.rsplit('/', 1)[1]}-{state}-{way}")
    for route in ROUTES
    for state in RUNNING
    for way in ways_of(route, state)
]
EVERY_ENDED = [
    pytest.param(route, state, id=f"{route.rsplit('/', 1)[1]}-{state}")
    for route in ROUTES
    for state in ENDED
]
EVERY_STATE = [
    pytest.param(route, state, id=f"{route.rsplit('/', 1)[1]}-{state}")
    for route in ROUTES
    for state in RUNNING
]


@pytest.mark.parametrize(("route", "state", "way"), EVERY_RUNNING)
async def test_stop_ends_it_once_and_a_stranger_never_does(
    house: House, route: str, state: str, way: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger="sluice")
    async with visiting(house, route, state) as visit:
        before = ends(visit.gateway)
        assert (await WAYS[way](visit, visit.foreign, "theft")).status == 404
        assert visit.live.is_active
        first = await WAYS[way](visit, visit.own, "enough")
        again = await WAYS[way](visit, visit.own, "too_late")
        check_answers(visit, [first, again])
        reason = "enough" if way in WITH_REASON else "user_requested"
        await check_ended(visit, reason, before, caplog)


@pytest.mark.parametrize(("route", "state"), EVERY_STATE)
async def test_ten_stops_at_once_by_all_ways_are_one(
    house: House, route: str, state: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger="sluice")
    async with visiting(house, route, state) as visit:
        before = ends(visit.gateway)
        names = (ways_of(route, state) * AT_ONCE)[:AT_ONCE]
        reasons = [f"reason_{number}" for number in range(AT_ONCE)]
        stops = [
            stop
            for name, reason in zip(names, reasons, strict=True)
            for stop in (
                WAYS[name](visit, visit.foreign, "theft"),
                WAYS[name](visit, visit.own, reason),
            )
        ]
        answers = await asyncio.gather(*stops)
        assert [answer.status for answer in answers[::2]] == [404] * AT_ONCE
        check_answers(visit, answers[1::2])
        reason = str((await visit.told())["reason"])
        assert reason in {"user_requested", *reasons}
        await check_ended(visit, reason, before, caplog)


@pytest.mark.parametrize(("route", "state"), EVERY_ENDED)
async def test_stop_after_the_end_changes_nothing(
    house: House, route: str, state: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger="sluice")
    async with visiting(house, route, state) as visit:
        told, replayed, before = await visit.told(), await visit.replay(), ends(visit.gateway)
        for name in ways_of(route, state):
            assert (await WAYS[name](visit, visit.foreign, "theft")).status == 404
            for _ in range(2):
                check_answers(visit, [await WAYS[name](visit, visit.own, "too_late")])
        assert told["status"] == ("COMPLETED" if state == "completed" else "ERROR")
        assert await visit.told() == told
        assert await visit.replay() == replayed
        assert ends(visit.gateway) == before
        assert reasons_logged(visit, caplog) == [told["reason"]]
        await check_stored(visit, str(told["reason"]))


def check_answers(visit: Visit, answers: list[Stopped]) -> None:
    """Every answer is a success and has the same text."""
    assert {answer.status for answer in answers} == {200}
    texts = {answer.text for answer in answers} - {None}
    assert len(texts) <= 1
    if visit.state != "paused":
        assert texts <= {visit.said}


async def check_ended(
    visit: Visit, reason: str, before: Counter[str], caplog: pytest.LogCaptureFixture
) -> None:
    await visit.check_backend_closed()
    is_ours = reason == "user_requested"
    assert ends(visit.gateway) - before == {reason if is_ours else "custom": 1}
    assert reasons_logged(visit, caplog) == [reason]
    told = await visit.told()
    assert (told["status"], told["reason"], told["error"]) == ("TERMINATED", reason, None)
    if visit.state != "paused":
        assert told["text"] == visit.said
    await check_stored(visit, reason)
    await check_readers(visit, reason)


async def check_readers(visit: Visit, reason: str) -> None:
    """The asker and one who comes later see the same, with one honest end."""
    if visit.state != "detached":
        heard = await visit.read_rest()
        check_end(visit.route, heard, reason)
        check_beginning(visit, heard)
    if visit.state != "paused":
        replayed = await visit.replay()
        check_end(visit.route, replayed, reason)
        if visit.state != "detached":
            assert without_beats(replayed) == without_beats(heard)


def check_end(route: str, body: bytes, reason: str) -> None:
    if route == TYPED:
        last = [event for event in events(body) if event.name in ("complete", "error")]
        assert [(event.name, event.json["reason"]) for event in last] == [("complete", reason)]
        return
    mark = {
        CHAT: b"data: [DONE]\n\n",
        MESSAGES: b"event: message_stop\n",
        RESPONSES: b"event: response.incomplete\n",
    }[route]
    assert body.count(mark) == 1
    assert mark in body.split(b"\n\n")[-2] + b"\n\n"
    assert b'"error":{' not in body


def check_beginning(visit: Visit, body: bytes) -> None:
    """There is one, and the end belongs to it, also when the log has dropped it since."""
    if visit.route == MESSAGES:
        assert body.count(b"event: message_start\n") == 1
        assert body.count(b"event: content_block_start\n") == body.count(
            b"event: content_block_stop"
        )
    if visit.route == RESPONSES and visit.state not in UNNAMED:
        assert f'"id":"resp_{visit.marker}"'.encode() in body.split(b"\n\n")[-2]
    if visit.route == CHAT and visit.state not in UNNAMED:
        assert b'"id":"c1"' in body.split(b"\n\n")[-3]


async def check_stored(visit: Visit, reason: str) -> None:
    services = visit.gateway.services
    assert await services.keeper.flush(5)
    record = await services.store.load(visit.sid)
    assert record is not None
    assert (record.status, record.reason) == (visit.live.status, reason)
    assert record.last_seq == visit.live.log.last
    if visit.state != "paused":
        frames = [f for s in await services.store.segments(visit.sid, 0) for f in s.after(0)]
        assert frames == visit.live.log.events()


def ends(gateway: Gateway) -> Counter[str]:
    """The metric's counts of endings, by reason."""
    name = 'sluice_streams_total{reason="'
    lines = gateway.services.metrics.render().decode().splitlines()
    found = (line.removeprefix(name).split('"} ') for line in lines if line.startswith(name))
    return Counter({reason: int(float(count)) for reason, count in found})


def reasons_logged(visit: Visit, caplog: pytest.LogCaptureFixture) -> list[object]:
    lines = [vars(record) for record in caplog.records if record.getMessage() == "stream.ended"]
    return [line["reason"] for line in lines if line["stream_id"] == visit.sid]


def without_beats(body: bytes) -> list[bytes]:
    return [block for block in body.split(b"\n\n") if b"event: heartbeat" not in block]
