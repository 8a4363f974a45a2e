"""Answers that come all at once, larger than what is fed and written at once: whole, in order, and
gone on with from anywhere, in clear and over TLS."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest

from tests.backend import ScriptedBackend, streaming
from tests.certificates import make_certificate
from tests.client import events, said
from tests.gateway import Gateway, running_gateway

EVENTS = 5000
WORDS = [f"{number} " for number in range(EVENTS)]
BODY = b"".join(
    b'data: {"choices":[{"index":0,"delta":{"content":"%b"}}]}\n\n' % word.encode()
    for word in WORDS
)
ANSWER = BODY + b"data: [DONE]\n\n"
TYPED = "/api/v2/chat-stream?query=hello"
CHAT = "/v1/chat/completions"
QUESTION: dict[str, object] = {"stream": True, "messages": []}
FINISH = {"X-Stream-On-Disconnect": "finish"}
EVENT_STREAM = {"Accept": "text/event-stream"}


@pytest.fixture(params=["plain", "tls"])
async def gateway(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Gateway]:
    tls: dict[str, object] = {}
    if request.param == "tls":
        tls = {"tls_cert": make_certificate(tmp_path), "tls_key": tmp_path / "key.pem"}
    async with (
        ScriptedBackend(streaming(ANSWER)) as backend,
        running_gateway(backend.url, heartbeat_interval="0", **tls) as running,
    ):
        yield running


@pytest.fixture
async def client(gateway: Gateway, tmp_path: Path) -> AsyncIterator[aiohttp.ClientSession]:
    is_tls = gateway.url.startswith("https")
    trusted = ssl.create_default_context(cafile=tmp_path / "certificate.pem") if is_tls else True
    connector = aiohttp.TCPConnector(ssl=trusted)
    async with aiohttp.ClientSession(gateway.url, connector=connector) as session:
        yield session


@pytest.mark.parametrize("is_typed", [True, False], ids=["typed", "provider"])
async def test_large_answer_that_comes_at_once_is_whole_and_goes_on_from_anywhere(
    client: aiohttp.ClientSession, is_typed: bool
) -> None:
    asking = (
        client.get(TYPED, headers=FINISH)
        if is_typed
        else client.post(CHAT, json=QUESTION, headers=FINISH)
    )
    async with asking as response:
        whole = await response.read()
        url = response.headers["Location"]
    stream = events(whole)
    if is_typed:
        assert said(stream) == "".join(WORDS)
    else:
        assert b"".join(b"data: %b\n\n" % event.data.encode() for event in stream) == ANSWER
    frames = [frame + b"\n\n" for frame in whole.split(b"\n\n")[:-1]]
    sid = url.rpartition("/")[2]
    for after in (0, 1, 9, 10, 63, 64, 999, 1000, 2500, EVENTS, len(frames) - 1):
        cursor = {**EVENT_STREAM, "Last-Event-ID": f"{sid}.{after}"}
        async with client.get(url, headers=cursor) as response:
            assert await response.read() == b"".join(frames[after:])
