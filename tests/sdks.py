"""The official SDKs as a test sees them: one call, and what it gave its application.

`ask` calls the SDKs for Python, `Node.ask` those for Node; both give an `Outcome`.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field, replace
from operator import attrgetter
from pathlib import Path
from typing import Any, Literal, Self

import anthropic
import openai
from pydantic import BaseModel

Json = dict[str, object]
Style = Literal["async", "sync"]
Failure = tuple[str, int | None, str]

NODE = Path(__file__).parent / "node"
KEY = "sk-test"
#: What the Python SDKs raise: their own errors, and the transport's where a stream breaks off.
TRANSPORT_ERRORS = ("RemoteProtocolError", "ReadError")


@dataclass(frozen=True, slots=True)
class Call:
    """A method of an SDK, such as `chat.completions.create`, and its arguments."""

    method: str
    body: Mapping[str, object] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    streams: bool = True

    @property
    def is_anthropic(self) -> bool:
        return self.method.startswith("messages.")

    @property
    def is_helper(self) -> bool:
        """Whether it is the SDK's accumulating `stream`, not `create(stream=True)`."""
        return self.method.endswith(".stream")

    @property
    def parameters(self) -> Json:
        how = {"stream": True} if self.streams and not self.is_helper else {}
        return {**self.body, **how}

    @property
    def arguments(self) -> Json:
        return {**self.parameters, "extra_headers": dict(self.headers)}

    def having(self, **headers: str) -> Call:
        """The same with more headers; `_` in their names stands for `-`."""
        more = {name.replace("_", "-"): value for name, value in headers.items()}
        return replace(self, headers={**self.headers, **more})


@dataclass(slots=True)
class Outcome:
    """The events that an application got, or one answer, and the error that it got after them."""

    events: list[object] = field(default_factory=list)
    failure: Failure | None = None
    headers: Mapping[str, str] = field(default_factory=dict, compare=False)

    @property
    def error(self) -> str | None:
        """The name of the error's class."""
        return None if self.failure is None else self.failure[0]


async def ask(url: str, call: Call, style: Style = "async") -> Outcome:
    """Calls a Python SDK and reads its stream to the end."""
    if style == "sync":
        return await asyncio.to_thread(_ask_sync, url, call)
    outcome = Outcome()
    client = (anthropic.AsyncAnthropic if call.is_anthropic else openai.AsyncOpenAI)(
        api_key=KEY, base_url=base_url(url, call), max_retries=0
    )
    async with client:
        try:
            made = attrgetter(call.method)(client)(**call.arguments)
            if not call.streams:
                outcome.events.append(_plain(await made))
                return outcome
            async with made if call.is_helper else await made as stream:
                async for event in stream:
                    outcome.events.append(_plain(event))
        except Exception as error:
            outcome.failure = failure_of(error)
    return outcome


def _ask_sync(url: str, call: Call) -> Outcome:
    outcome = Outcome()
    client = (anthropic.Anthropic if call.is_anthropic else openai.OpenAI)(
        api_key=KEY, base_url=base_url(url, call), max_retries=0
    )
    with client:
        try:
            made = attrgetter(call.method)(client)(**call.arguments)
            if not call.streams:
                outcome.events.append(_plain(made))
                return outcome
            with made as stream:
                outcome.events.extend(_plain(event) for event in stream)
        except Exception as error:
            outcome.failure = failure_of(error)
    return outcome


class Node:
    """The SDKs for Node, in one process from the context's beginning to its end."""

    def __enter__(self) -> Self:
        environ = {"TEST_NODE_MODULES": str(NODE / "node_modules"), **os.environ}
        self._process = subprocess.Popen(
            ["node", str(NODE / "sdks.mjs")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environ,
        )
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.communicate()

    async def ask(self, url: str, calls: Sequence[Call]) -> list[Outcome]:
        """Makes the calls, all at the same time.

        Raises:
            RuntimeError: the process has ended; it has said why.
        """
        return await self.ask_at([(url, call) for call in calls])

    async def ask_at(self, calls: Sequence[tuple[str, Call]]) -> list[Outcome]:
        """The same, each call at an address of its own."""
        wanted = [
            {
                "url": url,
                "sdk": "anthropic" if call.is_anthropic else "openai",
                "method": call.method,
                "body": call.parameters,
                "headers": dict(call.headers),
            }
            for url, call in calls
        ]
        line = json.dumps({"key": KEY, "calls": wanted})
        answers = json.loads(await asyncio.to_thread(self._exchange, line))
        return [_outcome(answer) for answer in answers]

    def _exchange(self, line: str) -> str:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{line}\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        if not answer:
            raise RuntimeError("node has ended")
        return answer


def _outcome(answer: Mapping[str, Any]) -> Outcome:
    failure = answer["failure"]
    return Outcome(answer["events"], tuple(failure) if failure else None, answer["headers"])


def base_url(url: str, call: Call) -> str:
    """OpenAI's SDK wants the version in the base URL, Anthropic's doesn't."""
    return url if call.is_anthropic else f"{url}/v1"


def failure_of(error: Exception) -> Failure:
    """Class, status and message. A transport's error has no message that is the same twice."""
    name = type(error).__name__
    if name in TRANSPORT_ERRORS:
        return name, None, ""
    return name, getattr(error, "status_code", None), str(error)


def _plain(event: object) -> object:
    assert isinstance(event, BaseModel)
    return event.model_dump(warnings=False)


Client = openai.AsyncOpenAI | anthropic.AsyncAnthropic


def client_for(call: Call, url: str) -> Client:
    make = anthropic.AsyncAnthropic if call.is_anthropic else openai.AsyncOpenAI
    return make(api_key=KEY, base_url=base_url(url, call), max_retries=0)


def resource(client: Client, call: Call) -> Any:
    return attrgetter(call.method.rpartition(".")[0])(client)


def raw(client: Client, call: Call) -> AbstractAsyncContextManager[Any]:
    made = resource(client, call).with_streaming_response.create(**call.arguments)
    assert isinstance(made, AbstractAsyncContextManager)
    return made
