"""Requests whose framing is at fault: one verdict, however the bytes arrive, and no backend."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass

import aiohttp
import pytest

from tests.backend import Exchange, ScriptedBackend, json_response
from tests.gateway import Gateway, running_gateway
from tests.raw import RawAnswer, ask_raw, bytewise, splits, whole
from tests.wire.hostile import (
    BODY,
    CHUNK,
    CHUNKED,
    HOST,
    LARGE,
    LINE,
    POST,
    SMUGGLED,
    TABLE,
    Hostile,
    smuggling,
)

GOOD = LINE + HOST + b"Connection: close\r\n\r\n"
ANSWER = b'{"good": true}'


async def answer_well(exchange: Exchange) -> None:
    await exchange.send(json_response(ANSWER))


@dataclass(frozen=True, slots=True)
class Place:
    """A gateway and the backend behind it, which must only ever see good requests."""

    gateway: Gateway
    backend: ScriptedBackend

    async def ask(self, packets: Iterable[bytes]) -> RawAnswer:
        return await ask_raw(self.gateway.port, packets)

    async def assert_untouched(self) -> None:
        """No request has reached the backend, and a good one still does."""
        assert [exchange.head for exchange in self.backend.exchanges] == []
        assert (await self.ask(whole(GOOD))).body == ANSWER
        assert [exchange.target for exchange in self.backend.exchanges] == ["/x"]


@asynccontextmanager
async def place() -> AsyncIterator[Place]:
    async with ScriptedBackend(answer_well) as backend, running_gateway(backend.url) as gateway:
        yield Place(gateway, backend)


def assert_verdict(answer: RawAnswer, hostile: Hostile) -> None:
    """Exactly one JSON answer, after which the gateway has closed."""
    assert answer.status == hostile.status
    assert answer.count == 1
    error = answer.error
    assert error["code"] in hostile.codes
    assert error["trace_id"] == answer.headers["x-trace-id"]
    assert answer.headers["content-type"].startswith("application/json")


@pytest.mark.parametrize("hostile", TABLE, ids=lambda hostile: hostile.name)
async def test_hostile_request_gets_its_one_verdict_however_its_bytes_arrive(
    hostile: Hostile,
) -> None:
    async with place() as here:
        assert_verdict(await here.ask(whole(hostile.request)), hostile)
        assert_verdict(await here.ask(bytewise(hostile.request)), hostile)
        for packets in splits(hostile.request):
            assert_verdict(await here.ask(packets), hostile)
        await here.assert_untouched()


@pytest.mark.parametrize("hostile", LARGE, ids=lambda hostile: hostile.name)
async def test_request_over_a_limit_of_size_is_refused_whole_and_in_packets(
    hostile: Hostile,
) -> None:
    async with place() as here:
        assert_verdict(await here.ask(whole(hostile.request)), hostile)
        for index in range(500, len(hostile.request), 1999):
            packets = (hostile.request[:index], hostile.request[index:])
            assert_verdict(await here.ask(packets), hostile)
        await here.assert_untouched()


async def test_two_framings_in_every_order_and_spelling_smuggle_nothing() -> None:
    attacks = list(smuggling())
    assert len(attacks) >= 300
    async with place() as here:
        for attack in attacks:
            for packets in (whole(attack), bytewise(attack)):
                answer = await here.ask(packets)
                assert (answer.status, answer.count) == (400, 1), attack
        await here.assert_untouched()


async def test_refused_answer_never_quotes_what_was_sent() -> None:
    canary = b"canary-7f3a"
    async with place() as here:
        for hostile in TABLE:
            request = hostile.request.replace(b"/x", b"/" + canary).replace(b"X: a", canary)
            assert canary not in (await here.ask(whole(request))).data


async def test_method_that_is_never_served_is_told_the_served_ones() -> None:
    async with place() as here:
        answer = await here.ask(whole(b"TRACE /x HTTP/1.1\r\n" + HOST + b"\r\n"))
    assert answer.headers["allow"] == "DELETE,GET,HEAD,OPTIONS,PATCH,POST,PUT"


@pytest.mark.parametrize("line", [b"GET  /x HTTP/1.1", b"GET /x  HTTP/1.1", b"\r\nGET /x HTTP/1.1"])
async def test_spaces_that_the_parser_forgives_are_gone_when_the_backend_is_asked(
    line: bytes,
) -> None:
    async with place() as here:
        request = line + b"\r\n" + HOST + b"Connection: close\r\n\r\n"
        assert (await here.ask(whole(request))).body == ANSWER
    [exchange] = here.backend.exchanges
    assert exchange.head.startswith(b"GET /x HTTP/1.1\r\n")


@pytest.mark.parametrize(
    "request_bytes",
    [
        POST + b"Content-Length: 00000000000000000007\r\n\r\n" + BODY,
        CHUNKED + b"00000000000000007\r\n" + BODY + b"\r\n0\r\n\r\n",
        CHUNKED + b"7;name=value\r\n" + BODY + b"\r\n0\r\n\r\n",
        CHUNKED + CHUNK + b"0\r\nX-Trailer: b\r\n\r\n",
        POST + b"Transfer-Encoding: CHUNKED\r\n\r\n" + CHUNK + b"0\r\n\r\n",
        POST + b"Content-Length: 7\r\nExpect: 100-continue\r\n\r\n" + BODY,
    ],
    ids=["zeros in the length", "zeros in a size", "extension", "trailer", "capitals", "expect"],
)
async def test_unusual_but_valid_framing_reaches_the_backend_as_a_plain_length(
    request_bytes: bytes,
) -> None:
    closing = request_bytes.replace(b"\r\n", b"\r\nConnection: close\r\n", 1)
    async with place() as here:
        for packets in (whole(closing), bytewise(closing)):
            answer = await here.ask(packets)
            assert answer.data.endswith(ANSWER)
    for exchange in here.backend.exchanges:
        assert exchange.body == BODY
        assert exchange.headers["content-length"] == "7"
        assert not {"transfer-encoding", "expect", "trailer", "x-trailer"} & set(exchange.headers)


async def test_offer_of_another_protocol_than_websocket_is_ignored() -> None:
    offer = (
        b"Connection: close, Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMA\r\n"
    )
    async with place() as here:
        answer = await here.ask(whole(LINE + HOST + offer + b"\r\n"))
    assert (answer.status, answer.body) == (200, ANSWER)
    assert not {"upgrade", "http2-settings"} & set(here.backend.exchanges[0].headers)


@pytest.mark.parametrize(
    "path", ["/x", "/v1/realtime", "/api/v2/chat-stream?query=x", "/livez", "/v1/responses"]
)
async def test_websocket_is_refused_on_every_path_and_no_byte_behind_it_is_read(path: str) -> None:
    upgrade = (
        b"Connection: keep-alive, Upgrade\r\nUpgrade: WebSocket\r\nSec-WebSocket-Version: 13\r\n"
    )
    line = f"GET {path} HTTP/1.1\r\n".encode()
    async with place() as here:
        answer = await here.ask((line + HOST + upgrade + b"\r\n", SMUGGLED, b"\x81\x00"))
        assert answer.status == 501
        assert answer.count == 1
        assert answer.error["code"] == "upgrade_not_supported"
        await here.assert_untouched()


async def test_pipelined_requests_are_answered_each_once_in_their_order() -> None:
    async def echo(exchange: Exchange) -> None:
        await exchange.send(json_response(exchange.target.encode()))

    requests = [b"GET /%d HTTP/1.1\r\n" % number + HOST + b"\r\n" for number in range(20)]
    pipeline = b"".join(requests) + GOOD
    async with ScriptedBackend(echo) as backend, running_gateway(backend.url) as gateway:
        answer = await ask_raw(gateway.port, whole(pipeline))
    bodies = [part.partition(b"\r\n\r\n")[2] for part in answer.data.split(b"HTTP/1.1 200 OK")[1:]]
    assert bodies == [b"/%d" % number for number in range(20)] + [b"/x"]


async def test_bad_framing_behind_a_good_request_is_refused_after_its_answer() -> None:
    good = LINE + HOST + b"\r\n"
    async with place() as here:
        answer = await here.ask(
            (good, b"GET /y HTTP/1.1\r\nHost: gateway\nX: y\r\n\r\n" + SMUGGLED)
        )
    assert answer.data.count(ANSWER) == 1
    assert answer.data.count(b'"bad_http"') == 1
    assert [exchange.target for exchange in here.backend.exchanges] == ["/x"]


async def test_proxied_body_in_which_the_chunks_go_wrong_is_broken_off_at_the_backend() -> None:
    upload = b"PUT /files/1 HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: chunked\r\n\r\n" + CHUNK
    async with place() as here:
        answer = await here.ask((upload, b"zz\r\n", SMUGGLED))
        assert answer.status == 400
        assert answer.count == 1
        assert answer.error["code"] == "body_incomplete"
        await here.backend.wait_until_idle()
        await here.assert_untouched()


REUSE = b"HTTP/1.1 200 OK\r\nContent-Length: 13\r\n\r\nfrom-attacker"
JSON = b"Content-Type: application/json\r\n"


async def test_interim_answers_are_swallowed_and_the_real_one_passes() -> None:
    async def flood(exchange: Exchange) -> None:
        await exchange.send(b"HTTP/1.1 102 Processing\r\n\r\n" * 1000 + json_response(ANSWER))

    async with ScriptedBackend(flood) as backend, running_gateway(backend.url) as gateway:
        answer = await ask_raw(gateway.port, whole(GOOD))
    assert (answer.status, answer.body, answer.count) == (200, ANSWER, 1)


HEAD = b"HTTP/1.1 200 OK\r\n" + JSON
ATTACKS = {
    "cl and te": HEAD + b"Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + REUSE,
    "two lengths": HEAD + b"Content-Length: 2\r\nContent-Length: 3\r\n\r\n{}" + REUSE,
    "list of lengths": HEAD + b"Content-Length: 2, 3\r\n\r\n{}" + REUSE,
    "negative length": HEAD + b"Content-Length: -1\r\n\r\n" + REUSE,
    "204 with a body": b"HTTP/1.1 204 No Content\r\nContent-Length: 2\r\n\r\n{}" + REUSE,
    "304 with a body": b"HTTP/1.1 304 Not Modified\r\nContent-Length: 2\r\n\r\n{}" + REUSE,
    "two answers": json_response(b"{}") + REUSE,
    "chunk size not hexadecimal": HEAD + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n{}" + REUSE,
    "chunk longer than its size": HEAD + b"Transfer-Encoding: chunked\r\n\r\n1\r\n{}0\r\n" + REUSE,
    "nul in a header": HEAD + b"X: a\0b\r\nContent-Length: 2\r\n\r\n{}" + REUSE,
    "cr in a header": HEAD + b"X: a\rSet-Cookie: b\r\nContent-Length: 2\r\n\r\n{}" + REUSE,
    "bad status": b"HTTP/1.1 2x0 OK\r\n\r\n" + REUSE,
    "status of four digits": b"HTTP/1.1 2000 OK\r\n\r\n" + REUSE,
    "preface of HTTP/2": b"\0\0\x12\x04\0\0\0\0\0" + REUSE,
    "unasked switch of protocols": b"HTTP/1.1 101 Switching\r\nUpgrade: x\r\n\r\n" + REUSE,
    "trailing length": HEAD
    + b"Transfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\nContent-Length: 9\r\n\r\n",
    "huge head": HEAD + b"".join(b"X-%d: y\r\n" % n for n in range(40_000)) + b"\r\n" + REUSE,
}


@pytest.mark.parametrize("attack", ATTACKS.values(), ids=ATTACKS)
async def test_hostile_answer_is_refused_or_cut_and_never_mixed_into_the_next(
    attack: bytes,
) -> None:
    async def script(exchange: Exchange) -> None:
        is_attack = exchange.target == "/attack"
        await exchange.send(attack if is_attack else json_response(ANSWER))

    attacked = b"GET /attack HTTP/1.1\r\n" + HOST + b"Connection: close\r\n\r\n"
    async with ScriptedBackend(script) as backend, running_gateway(backend.url) as gateway:
        for _ in range(3):
            answer = await ask_raw(gateway.port, whole(attacked))
            assert b"from-attacker" not in answer.data
            assert answer.data.count(b"HTTP/1.1 ") == 1
            assert answer.status == 502 or answer.body == b"{}"
            assert (await ask_raw(gateway.port, whole(GOOD))).body == ANSWER


async def test_answer_whose_chunks_go_wrong_later_is_broken_off_and_its_connection_closed() -> None:
    gate = asyncio.Event()

    async def script(exchange: Exchange) -> None:
        await exchange.send(HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + CHUNK)
        await gate.wait()
        await exchange.send(b"zz\r\n" + REUSE)

    async with ScriptedBackend(script) as backend, running_gateway(backend.url) as gateway:
        async with aiohttp.ClientSession() as session, session.get(f"{gateway.url}/x") as response:
            assert await response.content.readany() == BODY
            gate.set()
            with pytest.raises(aiohttp.ClientPayloadError):
                await response.read()
        await backend.wait_until_idle()
