"""The same calls to the demo backend and to a gateway in front of it, which is tapped.

With a seed, the demo backend answers the same request with the same bytes.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from scripts.mock.behaviour import Behaviour
from scripts.mock.server import serving
from tests.gateway import running_gateway
from tests.sdks import Call, Node, Outcome, ask
from tests.tap import Tap

QUICK = "first=0 pace=0 jitter=0 tokens=8 seed=7"


def chat(question: str = "What is SSE?", *, method: str = "create", **body: object) -> Call:
    messages = [{"role": "user", "content": question}]
    return Call(f"chat.completions.{method}", {"model": "m", "messages": messages, **body})


def completions(prompt: str = "What is SSE?", **body: object) -> Call:
    return Call("completions.create", {"model": "m", "prompt": prompt, **body})


def responses(question: str = "What is SSE?", *, method: str = "create", **body: object) -> Call:
    return Call(f"responses.{method}", {"model": "m", "input": question, **body})


def messages(question: str = "What is SSE?", *, method: str = "create", **body: object) -> Call:
    turns = [{"role": "user", "content": question}]
    return Call(f"messages.{method}", {"model": "m", "max_tokens": 99, "messages": turns, **body})


KINDS = {
    "chat": chat(),
    "completions": completions(),
    "responses": responses(),
    "messages": messages(),
}


@asynccontextmanager
async def both(options: str, **settings: object) -> AsyncIterator[tuple[str, Tap]]:
    """The demo backend's address, and a tapped gateway in front of it."""
    async with (
        serving(Behaviour().having(options)) as backend,
        running_gateway(backend, **settings) as gateway,
        Tap(gateway.port) as tap,
    ):
        yield backend, tap


async def ask_all(node: Node, url: str, calls: Sequence[Call]) -> list[Outcome]:
    """By the SDKs for Python and for Node, all at the same time."""
    return (await ask_everywhere(node, [url], calls))[0]


async def ask_everywhere(
    node: Node, urls: Sequence[str], calls: Sequence[Call]
) -> list[list[Outcome]]:
    """The same at several addresses: for each, the calls by Python and then those by Node."""
    pairs = [(url, call) for url in urls for call in calls]
    by_python, by_node = await asyncio.gather(
        asyncio.gather(*(ask(url, call) for url, call in pairs)), node.ask_at(pairs)
    )
    size = len(calls)
    return [by_python[i : i + size] + by_node[i : i + size] for i in range(0, len(pairs), size)]
