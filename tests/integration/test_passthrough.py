"""Paths that aren't the gateway's own: unchanged, streamed both ways, never held in memory."""

from __future__ import annotations

import asyncio
import gzip
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import aiohttp
import pytest

from tests.backend import Exchange, ScriptedBackend, json_response, response_head
from tests.gateway import running_gateway
from tests.raw import ask_raw

METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "PROPFIND", "REPORT")
TARGETS = (
    "/a%2Fb",
    "/a%2fb",
    "//double",
    "/a//b/",
    "/..%2f..%2fetc",
    "/a/../b",
    "/a/./b",
    "/%2e%2e/x",
    "/a;b=c",
    "/a;b?c;d",
    "/caf%C3%A9",
    "/%E2%82%AC",
    "/%zz",
    "/100%",
    "/a+b%20c",
    "/a%00b",
    "/a%0d%0aSet-Cookie:%20x",
    "/~user/!$&'()*+,=:@",
    "/x?a=1&a=2",
    "/x?a=%2F&b=+&c",
    "/x?q=a%26b%3Dc",
    "/x??",
    "/x?a=?b",
    "/x?%F0%9F%8C%8D",
    "/x?url=http://evil.example/",
    '/x?{"a":[1]}|^`',
    "/api/v2/other",
    "/api/v2/chat-stream/more",
    "/API/v2/chat-stream",
    "/v1",
    "/healthy",
)
#: aiohttp's buffers in both directions, the kernel's between two sockets, and room to breathe.
MOST_HELD_BYTES = 12 * 1024 * 1024


async def answer_ok(exchange: Exchange) -> None:
    await exchange.send(json_response(b'{"ok": true}'))


@pytest.mark.parametrize("target", TARGETS)
async def test_path_and_query_reach_the_backend_byte_for_byte(target: str) -> None:
    request = f"GET {target} HTTP/1.1\r\nHost: gateway\r\nConnection: close\r\n\r\n".encode()
    async with ScriptedBackend(answer_ok) as backend, running_gateway(backend.url) as gateway:
        answer = await ask_raw(gateway.port, [request])
    assert answer.status == 200
    assert [exchange.target for exchange in backend.exchanges] == [target]


@pytest.mark.parametrize("method", METHODS)
async def test_every_method_passes_with_its_status_and_headers(method: str) -> None:
    async def script(exchange: Exchange) -> None:
        body = b"" if exchange.method == "HEAD" else b"made"
        lines = ("X-Custom: kept", "Set-Cookie: a=1", "Set-Cookie: b=2")
        head = response_head("201 Made", *lines, content_type="x/y", framing="length", length=4)
        await exchange.send(head + body)

    async with (
        ScriptedBackend(script) as backend,
        running_gateway(backend.url) as gateway,
        aiohttp.ClientSession() as session,
        session.request(method, f"{gateway.url}/things") as response,
    ):
        body = await response.read()
    assert (response.status, body) == (201, b"" if method == "HEAD" else b"made")
    assert response.headers["X-Custom"] == "kept"
    assert response.headers["Content-Length"] == "4"
    assert response.headers["Content-Type"] == "x/y"
    assert response.headers.getall("Set-Cookie") == ["a=1", "b=2"]
    assert [exchange.method for exchange in backend.exchanges] == [method]


@pytest.mark.parametrize("status", ["204 No Content", "304 Not Modified"])
async def test_answer_without_a_body_stays_one(status: str) -> None:
    async def script(exchange: Exchange) -> None:
        await exchange.send(f"HTTP/1.1 {status}\r\nETag: x\r\n\r\n".encode())

    request = b"GET /x HTTP/1.1\r\nHost: gateway\r\n\r\n"
    last = request.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")
    async with ScriptedBackend(script) as backend, running_gateway(backend.url) as gateway:
        answer = await ask_raw(gateway.port, [request, last])
    first, second = answer.data.split(b"\r\n\r\n")[:2]
    assert answer.data == first + b"\r\n\r\n" + second + b"\r\n\r\n"
    for head in (first, second):
        assert head.startswith(b"HTTP/1.1 " + status.encode())
        assert b"\r\nEtag: x\r\n" in head
        assert b"Transfer-Encoding" not in head


async def test_redirect_is_the_clients_to_follow() -> None:
    async def script(exchange: Exchange) -> None:
        await exchange.send(json_response(b"", "307 Elsewhere", "Location: http://evil.example/"))

    async with (
        ScriptedBackend(script) as backend,
        running_gateway(backend.url) as gateway,
        aiohttp.ClientSession() as session,
        session.get(f"{gateway.url}/x", allow_redirects=False) as response,
    ):
        assert response.status == 307
        assert response.headers["Location"] == "http://evil.example/"
    assert len(backend.exchanges) == 1


async def test_compressed_bodies_pass_as_they_are_in_both_directions() -> None:
    packed = gzip.compress(b"content " * 1000)

    async def script(exchange: Exchange) -> None:
        await exchange.send(json_response(exchange.body, "200 OK", "Content-Encoding: gzip"))

    async with (
        ScriptedBackend(script) as backend,
        running_gateway(backend.url) as gateway,
        aiohttp.ClientSession(auto_decompress=False) as session,
        session.put(
            f"{gateway.url}/x", data=packed, headers={"Content-Encoding": "gzip"}
        ) as response,
    ):
        assert await response.read() == packed
        assert response.headers["Content-Encoding"] == "gzip"
    [exchange] = backend.exchanges
    assert exchange.body == packed
    assert exchange.headers["content-encoding"] == "gzip"
    assert exchange.headers["content-length"] == str(len(packed))


async def test_trailers_of_an_answer_are_ignored_and_its_end_is_seen() -> None:
    async def script(exchange: Exchange) -> None:
        await exchange.send(response_head() + b"2\r\n{}\r\n0\r\nX-Trailer: late\r\n\r\n")

    request = b"GET /x HTTP/1.1\r\nHost: gateway\r\nConnection: close\r\n\r\n"
    async with ScriptedBackend(script) as backend, running_gateway(backend.url) as gateway:
        answer = await ask_raw(gateway.port, [request])
    assert answer.body == b"2\r\n{}\r\n0\r\n\r\n"
    assert b"X-Trailer" not in answer.data


async def test_hop_by_hop_headers_and_those_that_connection_names_stay_behind() -> None:
    async def script(exchange: Exchange) -> None:
        lines = ("Connection: X-Secret", "X-Secret: 1", "Keep-Alive: timeout=5", "X-Open: 1")
        await exchange.send(json_response(b"{}", "200 OK", *lines))

    request = (
        b"GET /x HTTP/1.1\r\nHost: gateway\r\nConnection: close, X-Private\r\nX-Private: 1\r\n"
        b"TE: trailers\r\nProxy-Authorization: Basic x\r\nKeep-Alive: 1\r\nX-Kept: 1\r\n"
        b"X-Kept: 2\r\nCookie: a=1\r\nAccept-Encoding: br\r\nLast-Event-ID: 7\r\n\r\n"
    )
    async with ScriptedBackend(script) as backend, running_gateway(backend.url) as gateway:
        answer = await ask_raw(gateway.port, [request])
        host = f"127.0.0.1:{backend.port}"
    assert "x-secret" not in answer.headers
    assert "keep-alive" not in answer.headers
    assert answer.headers["x-open"] == "1"
    [exchange] = backend.exchanges
    names = [name.lower() for name, _ in exchange.raw_headers]
    gone = ("x-private", "te", "proxy-authorization", "keep-alive", "last-event-id", "connection")
    assert not set(gone) & set(names)
    assert names.count("x-kept") == 2
    assert exchange.headers["cookie"] == "a=1"
    assert exchange.headers["accept-encoding"] == "identity"
    assert exchange.headers["host"] == host


@pytest.mark.parametrize("path", ["/v1/models", "/v1/embeddings", "/v1/files"])
async def test_what_is_no_generation_passes_on_v1_too(path: str) -> None:
    form = aiohttp.FormData({"purpose": "batch"})
    form.add_field("file", b"\0\1\2" * 1000, filename="data.bin", content_type="a/b")
    method = "GET" if path.endswith("models") else "POST"
    data = form if path.endswith("files") else None

    async with (
        ScriptedBackend(answer_ok) as backend,
        running_gateway(backend.url) as gateway,
        aiohttp.ClientSession() as session,
        session.request(method, f"{gateway.url}{path}", data=data) as response,
    ):
        assert await response.json() == {"ok": True}
        assert "RateLimit" not in response.headers
    [exchange] = backend.exchanges
    assert (exchange.method, exchange.target) == (method, path)
    if data is not None:
        assert exchange.headers["content-type"].startswith("multipart/form-data; boundary=")
        assert b"\0\1\2" * 1000 in exchange.body


async def test_without_passthrough_only_the_gateways_own_paths_and_v1_are_served() -> None:
    async with (
        ScriptedBackend(answer_ok) as backend,
        running_gateway(backend.url, proxy_passthrough=False) as gateway,
        aiohttp.ClientSession() as session,
    ):
        async with session.get(f"{gateway.url}/x") as response:
            assert response.status == 404
            error = (await response.json())["error"]
            assert error["code"] == "not_found"
            assert error["trace_id"] == response.headers["X-Trace-ID"]
        async with session.get(f"{gateway.url}/v1/models") as response:
            assert response.status == 200
        async with session.get(f"{gateway.url}/livez") as response:
            assert response.status == 200
    assert [exchange.target for exchange in backend.exchanges] == ["/v1/models"]


class PiecemealBackend:
    """One connection whose request is read, and answer written, by the test itself."""

    def __init__(self) -> None:
        self._arrived: asyncio.Queue[tuple[asyncio.StreamReader, asyncio.StreamWriter]]
        self._arrived = asyncio.Queue()

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[str]:
        server = await asyncio.start_server(
            lambda *streams: self._arrived.put_nowait(streams), "127.0.0.1", 0, limit=1 << 15
        )
        async with server:
            yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"

    async def request(self) -> tuple[bytes, asyncio.StreamReader, asyncio.StreamWriter]:
        """The head of the request, and the streams behind it."""
        reader, writer = await self._arrived.get()
        return await reader.readuntil(b"\r\n\r\n"), reader, writer


@pytest.mark.parametrize("path", ["/upload", "/v1/files"])
async def test_upload_reaches_the_backend_while_its_second_half_is_still_to_come(path: str) -> None:
    backend = PiecemealBackend()
    second_half = asyncio.Event()

    async def halves() -> AsyncIterator[bytes]:
        yield b"first"
        await second_half.wait()
        yield b"second"

    async with (
        backend.serving() as url,
        running_gateway(url) as gateway,
        aiohttp.ClientSession() as session,
        asyncio.TaskGroup() as tasks,
    ):
        asking = tasks.create_task(_post(session, f"{gateway.url}{path}", halves()))
        _, reader, writer = await backend.request()
        assert await reader.readexactly(10) == b"5\r\nfirst\r\n"
        second_half.set()
        assert await reader.readexactly(16) == b"6\r\nsecond\r\n0\r\n\r\n"
        writer.write(json_response(b"done"))
        assert await asking == b"done"
        writer.close()


async def _post(session: aiohttp.ClientSession, url: str, data: AsyncIterator[bytes]) -> bytes:
    async with session.post(url, data=data) as response:
        return await response.read()


async def test_upload_waits_for_a_backend_that_does_not_read_and_then_arrives_whole() -> None:
    piece, count = b"x" * 65_536, 1024
    sent = 0
    backend = PiecemealBackend()

    async def pieces() -> AsyncIterator[bytes]:
        nonlocal sent
        for _ in range(count):
            yield piece
            sent += len(piece)

    async with (
        backend.serving() as url,
        running_gateway(url) as gateway,
        aiohttp.ClientSession() as session,
        asyncio.TaskGroup() as tasks,
    ):
        asking = tasks.create_task(_post(session, f"{gateway.url}/upload", pieces()))
        _, reader, writer = await backend.request()
        await _until_still(lambda: sent)
        assert sent < MOST_HELD_BYTES
        assert await _read_chunks(reader) == count * len(piece)
        writer.write(json_response(b"done"))
        assert await asking == b"done"
        writer.close()


async def test_download_waits_for_a_client_that_does_not_read_and_then_arrives_whole() -> None:
    piece, count = b"x" * 65_536, 1024
    taken = 0

    async def script(exchange: Exchange) -> None:
        nonlocal taken
        await exchange.send(response_head(framing="length", length=count * len(piece)))
        for _ in range(count):
            await exchange.send(piece)
            taken += len(piece)

    async with (
        ScriptedBackend(script) as backend,
        running_gateway(backend.url) as gateway,
        aiohttp.ClientSession(read_bufsize=1 << 16) as session,
        session.get(f"{gateway.url}/download") as response,
    ):
        await _until_still(lambda: taken)
        assert taken < MOST_HELD_BYTES
        assert len(await response.read()) == count * len(piece)


async def _read_chunks(reader: asyncio.StreamReader) -> int:
    """The size of a chunked body."""
    total = 0
    while size := int(await reader.readuntil(b"\r\n"), 16):
        await reader.readexactly(size + 2)
        total += size
    return total


async def _until_still(count: Callable[[], int]) -> None:
    """Until a counter that has moved doesn't any more."""
    before, unchanged = 0, 0
    while unchanged < 5:
        await asyncio.sleep(0.02)
        unchanged = unchanged + 1 if count() == before and before else 0
        before = count()


async def test_download_reaches_the_client_while_the_backend_has_more_to_say() -> None:
    more = asyncio.Event()

    async def script(exchange: Exchange) -> None:
        await exchange.send(response_head(framing="length", length=11) + b"first")
        await more.wait()
        await exchange.send(b"second")

    async with (
        ScriptedBackend(script) as backend,
        running_gateway(backend.url) as gateway,
        aiohttp.ClientSession() as session,
        session.get(f"{gateway.url}/download") as response,
    ):
        assert await response.content.readany() == b"first"
        more.set()
        assert await response.content.read() == b"second"


async def test_client_that_breaks_off_its_upload_breaks_it_off_at_the_backend_too() -> None:
    backend = PiecemealBackend()
    async with backend.serving() as url, running_gateway(url) as gateway:
        _, client = await asyncio.open_connection("127.0.0.1", gateway.port)
        client.write(b"PUT /x HTTP/1.1\r\nHost: gateway\r\nContent-Length: 10\r\n\r\nhalf")
        _, reader, writer = await backend.request()
        assert await reader.readexactly(4) == b"half"
        client.close()
        assert await reader.read() == b""
        writer.close()


async def test_backend_that_is_away_is_a_502_with_the_trace_id() -> None:
    async with (
        running_gateway("http://127.0.0.1:9") as gateway,
        aiohttp.ClientSession() as session,
        session.get(f"{gateway.url}/x") as response,
    ):
        assert response.status == 502
        error = (await response.json())["error"]
    assert error["code"] == "upstream_unavailable"
    assert error["trace_id"] == response.headers["X-Trace-ID"]
    assert gateway.metric("sluice_upstream_errors_total", kind="upstream_unavailable") == 1
