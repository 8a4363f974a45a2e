"""`/v1/*`, byte for byte: what passes, what is dropped, and what the gateway adds, nothing else."""

from __future__ import annotations

import re

import aiohttp
import pytest

from tests.backend import CHAT_STREAM, Exchange, Script, ScriptedBackend, streaming
from tests.framing import LAST_CHUNK, chunked, json_response, response_head, sse_head
from tests.gateway import running_gateway
from tests.wire.answers import Answer, ask, without_ids

_PATH = "/v1/chat/completions"
_ASK = {"model": "m", "stream": True}
_HUGE = b'data: {"x":"' + b"y" * 300_000 + b'"}\n\n'
_DONE = b"data: [DONE]\n\n"

#: What the backend sends, and what of it is for the client.
_BLOCKS = {
    "CRLF": (b"data: {}\r\n\r\ndata: [DONE]\r\n\r\n",) * 2,
    "CR": (b"data: {}\r\rdata: [DONE]\r\r",) * 2,
    "a mixture of line ends": (b"event: x\rdata: {}\r\n\ndata: [DONE]\n\r\n",) * 2,
    "a BOM": (b"\xef\xbb\xbfdata: {}\n\n" + _DONE, b"data: {}\n\n" + _DONE),
    "a second BOM": (
        b"\xef\xbb\xbf" * 2 + b"data: {}\n\ndata: 1\n\n" + _DONE,
        b"data: 1\n\n" + _DONE,
    ),
    "comments": (b": hi\n\n:\ndata: {}\n: in\n\n: ping\n\n" + _DONE, b"data: {}\n\n" + _DONE),
    "ids": (b"id: 7\ndata: {}\nid\nid:8\n\n" + _DONE, b"data: {}\n\n" + _DONE),
    "retry": (b"retry: 1\n\nretry: 2\ndata: {}\n\n" + _DONE, b"data: {}\n\n" + _DONE),
    "an event without data": (b"event: ping\n\n" + _DONE, _DONE),
    "empty data": (b"data\n\ndata:\n\ndata: \n\n" + _DONE,) * 2,
    "unknown fields": (b"foo: bar\ndata: {}\nidea: 1\nretrying: 2\nx\n\n" + _DONE,) * 2,
    "data of several lines": (b'data: {"a":\ndata: 1\ndata:}\n\n' + _DONE,) * 2,
    "no space after the colon": (b"event:x\ndata:{}\n\ndata:[DONE]\n\n",) * 2,
    "several spaces": (b"data:   {}  \n\n" + _DONE,) * 2,
    "a huge line": (_HUGE + _DONE,) * 2,
    "NUL": (b'data: {"a":"\x00"}\n\n' + _DONE,) * 2,
    "bytes that aren't UTF-8": (b"data: \xff\xfe\xc3\n\n" + _DONE,) * 2,
    "Unicode's line ends": ("data: \u2028\u2029\u0085\v\f\n\n".encode() + _DONE,) * 2,
    "what follows the end": (b"data: {}\n\n" + _DONE + b"data: {}\n\n", b"data: {}\n\n" + _DONE),
    "a recorded answer": (CHAT_STREAM,) * 2,
}


@pytest.mark.parametrize(("sent", "expected"), _BLOCKS.values(), ids=_BLOCKS)
async def test_bytes_of_every_block_pass(sent: bytes, expected: bytes) -> None:
    async def script(exchange: Exchange) -> None:
        await exchange.send(sse_head(), chunked(sent), LAST_CHUNK)

    answer = await _answer(script)
    assert answer.is_whole
    assert without_ids(answer.body) == expected
    assert answer.body.count(b"id: ") == len(_line_ends(expected))


def _line_ends(stream: bytes) -> list[bytes]:
    return re.findall(rb"(?>\r\n|\r|\n)(?>\r\n|\r|\n)", stream)


async def test_each_event_has_the_streams_id_and_its_number() -> None:
    answer = await _answer(streaming(CHAT_STREAM))
    sid = (answer.header("X-Stream-Id") or "").encode()
    assert re.fullmatch(rb"[A-Za-z0-9_-]{16}", sid)
    blocks = answer.body.split(b"\n\n")[:-1]
    assert [block.split(b"\n")[0] for block in blocks] == [
        b"id: %b.%d" % (sid, number) for number in range(1, len(blocks) + 1)
    ]


@pytest.mark.parametrize(
    ("headers", "settings"),
    [({"Stream-Ids": "off"}, {}), ({}, {"stream_ids": False})],
    ids=["header", "setting"],
)
async def test_without_ids_the_bytes_are_the_backends_own(
    headers: dict[str, str], settings: dict[str, object]
) -> None:
    answer = await _answer(streaming(CHAT_STREAM), headers, **settings)
    assert answer.body == CHAT_STREAM


async def test_stream_ids_takes_on_or_off() -> None:
    answer = await _answer(streaming(CHAT_STREAM), {"Stream-Ids": "maybe"})
    assert (answer.status, answer.json["error"]["code"]) == (400, "invalid_header")


async def test_request_reaches_the_backend_without_what_is_hop_by_hop_or_ours() -> None:
    headers = {
        "Stream-Ids": "on",
        "Connection": "close, X-Secret-Hop",
        "X-Secret-Hop": "1",
        "Keep-Alive": "timeout=5",
        "Proxy-Authorization": "Basic eA==",
        "TE": "trailers",
        "Accept-Encoding": "gzip, br",
        "X-Stream-On-Disconnect": "cancel",
        "Authorization": "Bearer sk-client",
        "OpenAI-Beta": "x=1",
        "User-Agent": "OpenAI/Python 1",
        "Cookie": "a=b",
    }
    body = b'{ "stream":true, "model" : "m\\u00fc", "x": 1.0 }'
    async with (
        ScriptedBackend(streaming(CHAT_STREAM)) as backend,
        running_gateway(backend.url) as gateway,
    ):
        await ask(gateway.port, _PATH + "?a=%2F&b", body, headers=headers)
        (exchange,) = backend.exchanges
        host = f"127.0.0.1:{backend.port}"

    assert (exchange.method, exchange.target, exchange.body) == ("POST", _PATH + "?a=%2F&b", body)
    got = exchange.headers
    assert got["accept-encoding"] == "identity"
    assert got["host"] == host
    kept = ("authorization", "openai-beta", "user-agent", "cookie")
    assert [got[name] for name in kept] == ["Bearer sk-client", "x=1", "OpenAI/Python 1", "a=b"]
    assert len(got) == len(exchange.raw_headers), "a header came twice"
    ours = {"x-trace-id", "traceparent", "content-length", "content-type"}
    assert set(got) == {"accept-encoding", "host", *kept, *ours}


async def test_stream_keeps_the_backends_headers_but_what_is_hop_by_hop() -> None:
    async def script(exchange: Exchange) -> None:
        head = sse_head(
            "X-Request-Id: req_1",
            "OpenAI-Processing-Ms: 12",
            "Set-Cookie: a=1; Path=/",
            "Set-Cookie: b=2",
            "Connection: keep-alive, X-Hop",
            "X-Hop: 1",
            "Keep-Alive: timeout=5",
            "Proxy-Authenticate: Basic",
            "Access-Control-Allow-Origin: *",
            "X-Stream-Id: forged",
        )
        await exchange.send(head, chunked(CHAT_STREAM), LAST_CHUNK)

    answer = await _answer(script)
    assert without_ids(answer.body) == CHAT_STREAM
    assert answer.header("x-request-id") == "req_1"
    assert answer.header("openai-processing-ms") == "12"
    cookies = [value for name, value in answer.headers if name.lower() == "set-cookie"]
    assert cookies == ["a=1; Path=/", "b=2"]
    for name in ("X-Hop", "Keep-Alive", "Proxy-Authenticate", "Access-Control-Allow-Origin"):
        assert answer.header(name) is None
    assert answer.header("X-Stream-Id") != "forged"
    assert answer.header("Cache-Control") == "no-cache, no-transform"
    assert answer.header("X-Accel-Buffering") == "no"
    assert answer.header("Content-Type") == "text/event-stream; charset=utf-8"
    names = [name.lower() for name, _ in answer.headers if name.lower() != "set-cookie"]
    assert len(names) == len(set(names)), "a header came twice"


_JSON = b'{ "id":"chatcmpl-1",\n"choices":[ ] }\n'


@pytest.mark.parametrize("status", ["200 OK", "400 Bad Request", "429 Slow Down", "500 Oh"])
async def test_answer_that_is_no_stream_passes_as_it_is(status: str) -> None:
    async def script(exchange: Exchange) -> None:
        await exchange.send(json_response(_JSON, status, "Retry-After: 7", "X-Request-Id: r"))

    answer = await _answer(script)
    assert answer.is_whole
    assert answer.raw.startswith(f"HTTP/1.1 {status[:3]} ".encode())
    assert answer.body == _JSON
    assert answer.header("Content-Type") == "application/json"
    assert answer.header("Content-Length") == str(len(_JSON))
    assert (answer.header("Retry-After"), answer.header("X-Request-Id")) == ("7", "r")


async def test_compressed_answer_that_is_no_stream_stays_compressed() -> None:
    squeezed = b"\x1f\x8b\x08\x00not really"

    async def script(exchange: Exchange) -> None:
        await exchange.send(json_response(squeezed, "200 OK", "Content-Encoding: gzip"))

    answer = await _answer(script)
    assert (answer.body, answer.header("Content-Encoding")) == (squeezed, "gzip")


@pytest.mark.parametrize(
    "lines",
    [
        ("Content-Type: text/event-stream", "Content-Encoding: gzip"),
        ("Content-Type: text/event-stream", "Content-Encoding: br"),
        ("Content-Type: text/event-stream; charset=iso-8859-1",),
        ('Content-Type: text/event-stream; x=1; charset="UTF-16"',),
    ],
)
async def test_stream_that_cannot_be_cut_is_refused(lines: tuple[str, ...]) -> None:
    async def script(exchange: Exchange) -> None:
        head = ("HTTP/1.1 200 OK", "Transfer-Encoding: chunked", *lines, "", "")
        await exchange.send("\r\n".join(head).encode(), chunked(CHAT_STREAM), LAST_CHUNK)

    answer = await _answer(script)
    assert (answer.status, answer.json["error"]["code"]) == (502, "upstream_error")


@pytest.mark.parametrize("charset", ["", "; charset=utf-8", '; charset="UTF-8"', ";charset=utf8"])
async def test_media_type_may_be_written_in_any_way(charset: str) -> None:
    async def script(exchange: Exchange) -> None:
        head = response_head(content_type="Text/Event-Stream" + charset)
        await exchange.send(head, chunked(CHAT_STREAM), LAST_CHUNK)

    assert without_ids((await _answer(script)).body) == CHAT_STREAM


@pytest.mark.parametrize("path", [_PATH, "/v1/models", "/anything/else"])
async def test_redirect_passes_and_is_not_followed(path: str) -> None:
    async def script(exchange: Exchange) -> None:
        await exchange.send(json_response(b"", "307 Over There", "Location: /v1/elsewhere"))

    async with ScriptedBackend(script) as backend, running_gateway(backend.url) as gateway:
        answer = await ask(gateway.port, path, _ASK)
        assert (answer.status, answer.header("Location")) == (307, "/v1/elsewhere")
        assert len(backend.exchanges) == 1


@pytest.mark.parametrize("path", [_PATH, "/v1/models", "/anything/else"])
async def test_cookies_pass_and_are_not_kept(path: str) -> None:
    async def script(exchange: Exchange) -> None:
        await exchange.send(json_response(b"{}", "200 OK", "Set-Cookie: a=1", "Set-Cookie: b=2"))

    async with ScriptedBackend(script) as backend, running_gateway(backend.url) as gateway:
        answers = [await ask(gateway.port, path, _ASK) for _ in range(2)]
        for answer in answers:
            cookies = [value for name, value in answer.headers if name.lower() == "set-cookie"]
            assert cookies == ["a=1", "b=2"]
        assert ["cookie" in exchange.headers for exchange in backend.exchanges] == [False, False]


async def test_connection_is_used_again_when_the_answers_body_has_ended() -> None:
    async with (
        ScriptedBackend(streaming(CHAT_STREAM)) as backend,
        running_gateway(backend.url, upstream_preconnect=0) as gateway,
    ):
        for _ in range(3):
            assert without_ids((await ask(gateway.port, _PATH, _ASK)).body) == CHAT_STREAM
        assert (backend.connections, len(backend.exchanges)) == (1, 3)


async def _stall_at_the_end(exchange: Exchange) -> None:
    await exchange.send(sse_head(), chunked(CHAT_STREAM))
    await exchange.stall()


async def _talk_on(exchange: Exchange) -> None:
    await exchange.send(sse_head(), chunked(CHAT_STREAM))
    while True:  # until the connection is closed, which ends the script
        await exchange.send(chunked(b"data: {}\n\n" * 100))


async def _send_more_than_the_length(exchange: Exchange) -> None:
    head = sse_head(framing="length", length=len(CHAT_STREAM))
    await exchange.send(head + CHAT_STREAM + b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")


@pytest.mark.parametrize("script", [_stall_at_the_end, _talk_on, _send_more_than_the_length])
async def test_connection_whose_answer_does_not_end_is_closed(script: Script) -> None:
    async with ScriptedBackend(script) as backend, running_gateway(backend.url) as gateway:
        answer = await ask(gateway.port, _PATH, _ASK)
        assert answer.is_whole
        assert without_ids(answer.body) == CHAT_STREAM
        await backend.wait_until_idle()
        backend.script = streaming(CHAT_STREAM)
        assert without_ids((await ask(gateway.port, _PATH, _ASK)).body) == CHAT_STREAM
        assert backend.connections == 2


async def test_stale_connection_is_asked_anew_but_never_after_a_byte_has_come() -> None:
    head = b"HTTP/1.1 200 OK\r\nA: b\r\n"

    async def breaks_off(exchange: Exchange) -> None:
        await exchange.send(head[:offset])
        await exchange.close()

    async with (
        ScriptedBackend(streaming(CHAT_STREAM)) as backend,
        running_gateway(backend.url, upstream_preconnect=0) as gateway,
    ):
        for offset in range(len(head) + 1):
            backend.script = streaming(CHAT_STREAM)
            await ask(gateway.port, _PATH, _ASK)
            before = len(backend.exchanges)
            backend.script = breaks_off
            answer = await ask(gateway.port, _PATH, _ASK)
            assert (answer.status, answer.json["error"]["code"]) == (502, "upstream_unavailable")
            asked = len(backend.exchanges) - before
            assert (offset, asked) == (offset, 1 if offset else 2)


async def test_plain_answers_pass_bytes_and_status_of_any_method() -> None:
    async def script(exchange: Exchange) -> None:
        await exchange.send(json_response(b"[1]", "207 Multi", "X-Request-Id: r"))

    async with (
        ScriptedBackend(script) as backend,
        running_gateway(backend.url) as gateway,
        aiohttp.ClientSession() as session,
    ):
        for method in ("GET", "PUT", "PATCH", "DELETE", "OPTIONS", "POST"):
            async with session.request(method, gateway.url + "/v1/files/a%2Fb?c=%20") as response:
                assert (response.status, await response.read()) == (207, b"[1]")
                assert response.headers["X-Request-Id"] == "r"
        assert {exchange.target for exchange in backend.exchanges} == {"/v1/files/a%2Fb?c=%20"}


async def _answer(
    script: Script, headers: dict[str, str] | None = None, **settings: object
) -> Answer:
    async with (
        ScriptedBackend(script) as backend,
        running_gateway(backend.url, **settings) as gateway,
    ):
        return await ask(gateway.port, _PATH, _ASK, headers=headers)
