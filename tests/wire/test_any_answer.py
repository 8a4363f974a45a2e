"""Whatever a backend sends, in whatever pieces, and however it ends: a response that ends in good
order has the stream's last event, and every other has told of an error before it breaks off."""

from __future__ import annotations

import asyncio
import random
import re
from dataclasses import dataclass

import pytest

from tests.backend import LAST_CHUNK, Exchange, ScriptedBackend, chunked, sse_head
from tests.client import BrokenOffError, connected
from tests.gateway import running_gateway
from tests.wire.routes import PROVIDER, TYPED, Route

ANSWERS = 150
MOST = 4000
WORD = b'data: {"choices":[{"index":0,"delta":{"content":"%b"}}]}\n\n'
STOP = b'data: {"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\n'
DONE = b"data: [DONE]\n\n"
ERROR = b'data: {"error":{"message":"overloaded","code":"busy"}}\n\n'
_EVENT = re.compile(rb"(?s).+?\n\n|.+")


@dataclass(frozen=True, slots=True)
class Told:
    """An answer: what is sent, one write after the other with pauses between them."""

    writes: list[bytes]
    is_by_event: bool
    pause_s: float
    is_whole: bool

    @classmethod
    def drawn(cls, chance: random.Random) -> Told:
        parts = [_part(chance) for _ in range(chance.randrange(8))]
        parts.append(chance.choice([DONE, DONE, ERROR, b""]))
        whole = b"".join(parts)
        edges = sorted(chance.randrange(len(whole) + 1) for _ in range(chance.randrange(9)))
        cut = [whole[a:b] for a, b in zip([0, *edges], [*edges, len(whole)], strict=True)]
        return cls(
            writes=[write for write in chance.choice([parts, [whole], cut]) if write],
            is_by_event=chance.random() < 0.3,
            pause_s=chance.choice([0, 0, 0.002, 0.01]),
            is_whole=chance.random() < 0.7,
        )

    async def tell(self, exchange: Exchange) -> None:
        await exchange.send(sse_head())
        for write in self.writes:
            pieces = _EVENT.findall(write) if self.is_by_event else [write]
            await exchange.send(*map(chunked, pieces))
            await asyncio.sleep(self.pause_s)
        if self.is_whole:
            await exchange.send(LAST_CHUNK)
        else:
            await exchange.close()


def _part(chance: random.Random) -> bytes:
    some = chance.choice([1, 3, 16, 64, 100, 300])
    return chance.choice(
        [
            WORD % (b"w" * some),
            b"".join(WORD % b"%d" % number for number in range(some)),
            WORD % b"z" * some + (WORD % b"torn")[: chance.randrange(1, 30)],
            WORD % "\u00e9\u2028".encode(),
            (WORD % b"q").replace(b"\n", b"\r\n"),
            b": a comment\n\n",
            STOP,
            b"data: " + b"x" * chance.choice([MOST - 1000, MOST + 1000, 2 * MOST]),
            b"data: " + b"x" * 2 * MOST + b"\n\n",
        ]
    )


@pytest.mark.parametrize("route", [TYPED[0], PROVIDER[0]], ids=str)
async def test_response_in_good_order_has_the_last_event_and_any_other_an_error(
    route: Route,
) -> None:
    told = Told([], is_by_event=False, pause_s=0, is_whole=True)

    async def tell(exchange: Exchange) -> None:
        await told.tell(exchange)

    async with (
        ScriptedBackend(tell) as backend,
        running_gateway(backend.url, event_max_bytes=MOST, heartbeat_interval="0") as gateway,
    ):
        for seed in range(ANSWERS):
            told = Told.drawn(random.Random(seed))
            async with connected(gateway.port) as client:
                await client.ask(route.path, route.question("?"))
                await client.head()
                try:
                    body, is_clean = await client.body(), True
                except BrokenOffError as error:
                    body, is_clean = error.got, False
            numbers = [int(number) for number in re.findall(rb"(?m)^id: .+\.(\d+)$", body)]
            assert numbers == list(range(1, len(numbers) + 1)), seed
            if route.is_typed:
                last = body.rpartition(b"\nevent: ")[2]
                assert (is_clean, last[:5] in (b"compl", b"error")) == (True, True), (seed, body)
            elif is_clean:
                assert body.endswith(DONE), (seed, body)
            else:
                assert b'"error":' in body.rpartition(b"\ndata: ")[2], (seed, body)
