"""The official SDKs as a test sees them: one call, and what it gave its application.

`ask` calls the SDKs for Python, `ask_node` those for Node; both give an `Outcome`. `Tap` keeps the
bytes that went over the wire meanwhile.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from operator import attrgetter
from pathlib import Path
from typing import Any, Literal

import anthropic
import openai
from pydantic import BaseModel

from tests.faults import Direction, FaultProxy

Json = dict[str, object]
Style = Literal["async", "sync"]
Failure = tuple[str, int | None, str]

NODE = Path(__file__).parent / "node"
NODE_SECONDS = 30
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


async def ask_node(url: str, calls: Sequence[Call]) -> list[Outcome]:
    """Makes the calls with the SDKs for Node, all at the same time, in one process."""
    wanted = [
        {
            "sdk": "anthropic" if call.is_anthropic else "openai",
            "method": call.method,
            "body": call.parameters,
            "headers": dict(call.headers),
        }
        for call in calls
    ]
    answers = await run_node("sdks.mjs", {"url": url, "key": KEY, "calls": wanted})
    assert isinstance(answers, list)
    return [_outcome(answer) for answer in answers]


def _outcome(answer: Mapping[str, Any]) -> Outcome:
    failure = answer["failure"]
    return Outcome(answer["events"], tuple(failure) if failure else None, answer["headers"])


async def run_node(script: str, given: Json) -> object:
    """Gives `given` to a script of tests/node as JSON and takes the JSON that it prints.

    Raises:
        RuntimeError: with what the script said, if it failed.
    """
    environ = {"TEST_NODE_MODULES": str(NODE / "node_modules"), **os.environ}
    process = await asyncio.create_subprocess_exec(
        "node",
        str(NODE / script),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=environ,
    )
    try:
        async with asyncio.timeout(NODE_SECONDS):
            output, complaint = await process.communicate(json.dumps(given).encode())
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if process.returncode:
        raise RuntimeError(complaint.decode())
    return json.loads(output)


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


#: A heartbeat as the gateway sends it: a comment line without a blank one, in a chunk of its own.
HEARTBEAT = b"\r\n2\r\n:\n\r\n"


class Tap(FaultProxy):
    """Keeps what the target sent, each connection for itself."""

    def __init__(self, target: int) -> None:
        super().__init__(target)
        self._recorder = _Recorder()
        self.down = self._recorder

    @property
    def received(self) -> list[bytes]:
        return [bytes(data) for data in self._recorder.data.values()]

    def heartbeats(self) -> list[tuple[int, int]]:
        """Of each connection, how many came before its first event and how many after that."""
        return [_count_heartbeats(data) for data in self.received]


def _count_heartbeats(data: bytes) -> tuple[int, int]:
    before, _, after = data.partition(b"data: ")
    return before.count(HEARTBEAT), after.count(HEARTBEAT)


@dataclass(eq=False)
class _Recorder(Direction):
    data: dict[asyncio.StreamWriter, bytearray] = field(default_factory=dict)

    async def _pass(self, data: bytes, writer: asyncio.StreamWriter) -> None:
        self.data.setdefault(writer, bytearray()).extend(data)
        await super()._pass(data, writer)
