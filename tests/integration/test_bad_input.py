"""What a client may send wrongly: a 4xx with a stable code, and no call to the backend."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import pytest

from tests.backend import CHAT_STREAM, Exchange, ScriptedBackend, json_response, streaming
from tests.gateway import running_gateway
from tests.raw import RawAnswer, ask_raw

CHAT = "/api/v2/chat-stream"
COMPLETIONS = "/v1/chat/completions"
MESSAGES = "/v1/messages"
JSON = {"Content-Type": "application/json"}
DEEP = b"[" * 100_000
MIB = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Bad:
    """A request and the verdict that it must get."""

    code: str
    body: bytes | None = None
    path: str = CHAT
    status: int = 400
    param: str | None = None
    method: str = "POST"
    headers: Mapping[str, str] = field(default_factory=dict)

    def request(self) -> bytes:
        lines = [f"{self.method} {self.path} HTTP/1.1", "Host: gateway", "Connection: close"]
        headers = {**JSON, **self.headers} if self.body is not None else self.headers
        lines += [f"{name}: {value}" for name, value in headers.items()]
        if self.body is not None and "Transfer-Encoding" not in headers:
            lines.append(f"Content-Length: {len(self.body)}")
        head = "".join(f"{line}\r\n" for line in (*lines, ""))
        return head.encode("latin-1") + (self.body or b"")


def field_of(name: str, value: object, code: str, param: str | None = None) -> Bad:
    body = json.dumps({"query": "hi"} | {name: value}).encode()
    return Bad(code, body, param=param or name)


def query_of(text: str, code: str, param: str | None = None) -> Bad:
    return Bad(code, path=f"{CHAT}?{text}", method="GET", param=param)


def header_of(name: str, value: str, code: str, param: str | None = None, path: str = CHAT) -> Bad:
    body = b'{"query": "hi", "stream": true}'
    return Bad(code, body, path=path, param=param, headers={name: value})


NOT_TEXT = (1, 1.5, True, [], {}, ["hi"], {"a": 1})
NAMES = ("user_email", "user_role", "conversation_id")
#: Controls, and what changes how a line is shown.
FORBIDDEN = ("\r", "\n", "\r\n", "\0", "\x01", "\x1b", "\x7f", "\x85", "\u2028", "\u2029", "\u202e")

QUERIES = (
    Bad("missing_query", b"{}", param="query"),
    Bad("missing_query", b'{"query": null}', param="query"),
    Bad("empty_query", b'{"query": ""}', param="query"),
    Bad("empty_query", b'{"query": " \\t\\n\\u00a0\\u3000"}', param="query"),
    *(field_of("query", value, "invalid_type") for value in NOT_TEXT),
    field_of("query", "a\0b", "invalid_characters"),
    Bad("invalid_json", b'{"query": "\\ud83d"}'),
    Bad("invalid_json", b'{"query": "\\udc00 half"}'),
    query_of("", "missing_query", "query"),
    query_of("q=hi", "missing_query", "query"),
    query_of("query", "empty_query", "query"),
    query_of("query=", "empty_query", "query"),
    query_of("query=%20%09", "empty_query", "query"),
    query_of("query=a%00b", "invalid_characters", "query"),
    query_of("query=a&query=b", "repeated", "query"),
    query_of("query=a&user_email=b&user_email=b", "repeated", "user_email"),
    query_of("query=a&conversation_history=[", "invalid_json", "conversation_history"),
    query_of("query=a&conversation_history=%7B%7D", "invalid_type", "conversation_history"),
    query_of("query=a&conversation_history=1", "invalid_type", "conversation_history"),
)
FIELDS = (
    *(field_of(name, value, "invalid_type") for name in NAMES for value in NOT_TEXT),
    *(field_of(name, "a" * 257, "value_too_long") for name in NAMES),
    *(field_of(name, f"a{c}b", "invalid_characters") for name in NAMES for c in FORBIDDEN),
    *(
        query_of(f"query=a&{name}=a{escaped}b", "invalid_characters", name)
        for name in NAMES
        for escaped in ("%0d", "%0a", "%00", "%0d%0a%0d%0adata:x", "%E2%80%A8")
    ),
    *(
        field_of("conversation_history", value, "invalid_type")
        for value in (1, "text", {}, True, {"role": "user"})
    ),
    *(
        field_of("conversation_history", [value], "invalid_type", "conversation_history[0]")
        for value in (1, "text", [], None, {}, {"role": "user"}, {"content": "a"})
    ),
    *(
        field_of("conversation_history", [{"role": role, "content": "a"}], code, param)
        for role, code in (
            (1, "invalid_type"),
            ("", "invalid_characters"),
            ("a\nb", "invalid_characters"),
        )
        for param in ("conversation_history[0]",)
    ),
    field_of(
        "conversation_history",
        [{"role": "user", "content": "a"}, {"role": "user", "content": "\0"}],
        "invalid_characters",
        "conversation_history[1]",
    ),
    field_of(
        "conversation_history",
        [{"role": "user", "content": "a"}] * 1001,
        "value_too_long",
        "conversation_history",
    ),
)
JSONS = tuple(
    Bad(code, body, path=path)
    for path in (CHAT, COMPLETIONS, "/v1/responses", "/v1/completions")
    for code, body in (
        ("invalid_json", b""),
        ("invalid_json", b"{"),
        ("invalid_json", b'{"query": "hi"'),
        ("invalid_json", b'{"query": "hi"} x'),
        ("invalid_json", b"{'query': 'hi'}"),
        ("invalid_json", b'{"query": NaN}'),
        ("invalid_json", b'{"query": Infinity}'),
        ("invalid_json", b'{"query": "a\nb"}'),
        ("invalid_json", b'{"query": "\xff"}'),
        ("invalid_json", b'\xef\xbb\xbf{"query": "hi"}'),
        ("invalid_json", '{"query": "hi"}'.encode("utf-16")),
        ("invalid_json", DEEP),
        ("invalid_json", b'{"a":' * 10_000),
        ("invalid_json", b"query=hi"),
        ("invalid_type", b"[]"),
        ("invalid_type", b'"query"'),
        ("invalid_type", b"1"),
        ("invalid_type", b"null"),
    )
)
TYPES = tuple(
    Bad("unsupported_media_type", b'{"query": "hi"}', status=415, headers={"Content-Type": value})
    for value in (
        "text/plain",
        "application/x-www-form-urlencoded",
        "multipart/form-data; boundary=x",
        "application/jsonx",
        "text/json",
        "application/xml",
        "nonsense",
        "",
    )
)
ENCODINGS = tuple(
    Bad(
        "unsupported_encoding",
        b"\x1f\x8b",
        path=path,
        status=415,
        headers={"Content-Encoding": value},
    )
    for path in (CHAT, COMPLETIONS)
    for value in ("gzip", "deflate", "br", "zstd", "GZIP", "gzip, identity", "unknown")
)
SIZES = (
    Bad("body_too_large", b"x" * (MIB + 1), status=413),
    Bad("body_too_large", b"x" * 2001, path=COMPLETIONS, status=413),
    *(
        Bad(
            "body_too_large",
            b"%x\r\n%b\r\n0\r\n\r\n" % (size, b"x" * size),
            path=path,
            status=413,
            headers={"Transfer-Encoding": "chunked"},
        )
        for path, size in ((CHAT, MIB + 1), (COMPLETIONS, 2001))
    ),
)
HEADERS = (
    *(
        header_of("X-Performance-Mode", value, "invalid_header", "X-Performance-Mode", path)
        for path in (CHAT, COMPLETIONS)
        for value in ("turbo", "", "REALTIME", "realtime,balanced")
    ),
    *(
        header_of("X-Stream-On-Disconnect", value, "invalid_header", "X-Stream-On-Disconnect", path)
        for path in (CHAT, COMPLETIONS)
        for value in (
            "go",
            "",
            "grace",
            "grace=",
            "grace=-1",
            "grace=1.5",
            "grace=1e9",
            "grace=9999999",
        )
    ),
    header_of("Stream-Ids", "maybe", "invalid_header", "Stream-Ids", COMPLETIONS),
    *(
        header_of(name, value, "invalid_header", name)
        for name in ("X-Connection-Id", "X-User-Id")
        for value in ("a" * 257, "a\tb")
    ),
    *(
        header_of(name, f"a{byte}b", "bad_http")
        for name in ("X-Connection-Id", "X-User-Id", "X-Trace-ID", "Authorization", "X-Other")
        for byte in ("\0", "\r", "\n", "\x01", "\x0b", "\x1f", "\x7f")
    ),
    *(
        header_of(name, f"a{byte}b", "bad_header")
        for name in ("X-Connection-Id", "X-User-Id", "X-Trace-ID", "Authorization")
        for byte in ("\x80", "\xa0", "\xe9", "\xff", "\xc2\x85")
    ),
)
TABLES = {
    "query": QUERIES,
    "field": FIELDS,
    "json": JSONS,
    "type": TYPES,
    "encoding": ENCODINGS,
    "size": SIZES,
    "header": HEADERS,
}


async def verdicts(requests: Iterable[bytes], **settings: object) -> list[RawAnswer]:
    """The gateway's answers. No backend may have been asked, and a good request still works."""
    good = Bad("", b'{"query": "hi"}').request()
    async with (
        ScriptedBackend(streaming(CHAT_STREAM)) as backend,
        running_gateway(backend.url, **settings) as gateway,
    ):
        answers = [await ask_raw(gateway.port, [request]) for request in requests]
        assert backend.exchanges == []
        assert len(gateway.services.hub) == 0
        assert (await ask_raw(gateway.port, [good])).status == 200
        assert gateway.metric("sluice_sessions_created_total") == 1
    return answers


@pytest.mark.parametrize("table", TABLES.values(), ids=TABLES)
async def test_bad_request_gets_its_stable_code_and_no_backend_is_asked(
    table: tuple[Bad, ...],
) -> None:
    settings = {"request_max_bytes": 2000} if table is SIZES else {}
    answers = await verdicts([bad.request() for bad in table], **settings)
    for bad, answer in zip(table, answers, strict=True):
        said = (answer.status, answer.error["code"])
        assert said == (bad.status, bad.code), bad
        assert answer.headers["content-type"].startswith("application/json")
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.count == 1
        if bad.param is not None:
            assert answer.error["param"] == bad.param, bad
        if bad.code != "bad_http":
            assert answer.error["type"] == "invalid_request_error"
        assert answer.error["trace_id"] == answer.headers["x-trace-id"]


async def test_errors_on_the_messages_route_have_anthropics_shape() -> None:
    bad = (
        Bad("invalid_json", b"{", path=MESSAGES),
        Bad("invalid_type", b"[]", path=MESSAGES),
        Bad("unsupported_encoding", b"x", path=MESSAGES, headers={"Content-Encoding": "br"}),
    )
    for answer in await verdicts([one.request() for one in bad]):
        body = json.loads(answer.body)
        assert body["type"] == "error"
        assert body["error"]["type"] == "invalid_request_error"


@pytest.mark.parametrize("method", ["PUT", "PATCH", "DELETE", "HEAD", "OPTIONS"])
async def test_method_that_the_typed_route_does_not_take_is_told_which_it_takes(
    method: str,
) -> None:
    [answer] = await verdicts([Bad("", path=CHAT, method=method).request()])
    assert answer.status == 405
    assert set(answer.headers["allow"].replace(" ", "").split(",")) == {"GET", "POST"}
    if method != "HEAD":
        assert answer.error["code"] == "method_not_allowed"


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS"])
@pytest.mark.parametrize(
    "path",
    [
        *("/livez", "/readyz", "/health", "/healthz", "/health/liveliness", "/health/readiness"),
        *("/metrics", "/playground", "/static/playground.js"),
    ],
)
async def test_public_paths_take_only_get_and_head_and_never_reach_the_backend(
    path: str, method: str
) -> None:
    for passes in (True, False):
        request = Bad("", b"{}", path=path, method=method).request()
        [answer] = await verdicts([request], proxy_passthrough=passes)
        assert answer.status == 405
        assert answer.error["code"] == "method_not_allowed"
        assert answer.headers["allow"] == "GET,HEAD"


@pytest.mark.parametrize("path", [CHAT, COMPLETIONS])
async def test_length_over_the_limit_is_refused_before_a_byte_of_the_body_came(path: str) -> None:
    bad = Bad("", path=path, headers={**JSON, "Content-Length": str(40 * MIB)})
    request = bad.request()
    async with (
        ScriptedBackend(streaming(CHAT_STREAM)) as backend,
        running_gateway(backend.url) as gateway,
    ):
        reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
        writer.write(request)
        head = await reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 413 ")
        assert b"Connection: close" in head
        writer.close()
    assert backend.exchanges == []


@pytest.mark.parametrize("path", [CHAT, COMPLETIONS])
@pytest.mark.parametrize("framing", ["Content-Length: 15", "Transfer-Encoding: chunked"])
async def test_body_that_does_not_come_is_a_408(path: str, framing: str) -> None:
    name, _, value = framing.partition(": ")
    bad = Bad("", path=path, headers={**JSON, name: value})
    async with (
        ScriptedBackend(streaming(CHAT_STREAM)) as backend,
        running_gateway(backend.url, request_body_seconds=0.05) as gateway,
    ):
        reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
        writer.write(bad.request() + b"5")
        head = await reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 408 ")
        assert b"Connection: close" in head
        size = int(RawAnswer(head).headers["content-length"])
        error = json.loads(await reader.readexactly(size))["error"]
        assert error["code"] == "body_timeout"
        writer.close()
    assert backend.exchanges == []


@pytest.mark.parametrize("path", [CHAT, COMPLETIONS])
async def test_body_that_drips_is_a_408_too(path: str) -> None:
    bad = Bad("", path=path, headers={**JSON, "Content-Length": "1000"})
    async with (
        ScriptedBackend(streaming(CHAT_STREAM)) as backend,
        running_gateway(backend.url, request_body_seconds=0.1) as gateway,
    ):
        reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
        writer.write(bad.request())
        answering = asyncio.create_task(reader.readuntil(b"\r\n\r\n"), name="answer")
        while not answering.done():
            writer.write(b" ")
            await asyncio.sleep(0.02)
        assert (await answering).startswith(b"HTTP/1.1 408 ")
        writer.close()
    assert backend.exchanges == []


@pytest.mark.parametrize("path", [CHAT, COMPLETIONS])
async def test_client_that_breaks_off_its_body_costs_nothing(path: str) -> None:
    bad = Bad("", path=path, headers={**JSON, "Content-Length": "1000"})
    async with (
        ScriptedBackend(streaming(CHAT_STREAM)) as backend,
        running_gateway(backend.url, stream_max_per_owner=1) as gateway,
    ):
        for _ in range(20):
            _, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
            writer.write(bad.request() + b'{"query":')
            writer.close()
            await writer.wait_closed()
        good = Bad("", b'{"query": "hi", "stream": true}', path=path).request()
        assert (await ask_raw(gateway.port, [good])).status == 200
    assert len(backend.exchanges) == 1


@pytest.mark.parametrize("body", [b'"text"', b"[1]", b"null", b"{", b"\xed", DEEP])
async def test_graphql_takes_nothing_but_an_object(body: bytes) -> None:
    async with running_gateway("http://127.0.0.1:9") as gateway:
        answer = await ask_raw(gateway.port, [Bad("", body, path="/graphql").request()])
    assert answer.status == 400
    assert json.loads(answer.body)["error"]["code"] in {"invalid_json", "invalid_type"}


async def test_text_of_any_language_and_any_line_end_reaches_the_backend_as_it_is() -> None:
    text = 'line\nnext\r\n\u2028\u0085 "quoted" \\ \U0001f30d \u202e'
    history = [{"role": "user", "content": text}, {"role": "assistant", "content": ""}]
    body = json.dumps({"query": text, "conversation_history": history, "unknown": 1}).encode()
    async with (
        ScriptedBackend(streaming(CHAT_STREAM)) as backend,
        running_gateway(backend.url) as gateway,
    ):
        assert (await ask_raw(gateway.port, [Bad("", body).request()])).status == 200
    asked = json.loads(backend.exchanges[0].body)["messages"]
    assert asked == [*history, {"role": "user", "content": text}]


async def test_what_the_gateway_need_not_understand_is_the_backends_to_judge() -> None:
    async def script(exchange: Exchange) -> None:
        await exchange.send(json_response(b'{"error": "no"}', "422 No"))

    requests = (
        Bad("", b"nonsense", path="/x"),
        Bad("", b"\xff", path="/v1/embeddings"),
        Bad("", b"a=b", path=COMPLETIONS, headers={"Content-Type": "text/plain"}),
    )
    async with (
        ScriptedBackend(script) as backend,
        running_gateway(backend.url) as gateway,
    ):
        for request in requests:
            answer = await ask_raw(gateway.port, [request.request()])
            assert (answer.status, answer.body) == (422, b'{"error": "no"}')
    assert [exchange.body for exchange in backend.exchanges] == [b"nonsense", b"\xff", b"a=b"]
