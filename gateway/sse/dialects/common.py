"""What the dialects share: the event stream, its translator, OpenAI's form of errors, the summary.

A dialect module adds what is its own: the request, the signals of one event, and the watcher.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping

import orjson

from gateway.errors import GatewayError
from gateway.sse.decoder import SseDecoder, block_data, block_event, encode_event
from gateway.sse.dialects import fields
from gateway.sse.dialects.base import Decoder, Translator
from gateway.sse.event import (
    Failure,
    Finish,
    Prompt,
    Signal,
    Summary,
    Text,
    ToolCall,
    Usage,
)

#: Code of a failure that is the gateway's finding, not the backend's word.
MALFORMED = "malformed_event"
_EVENT_LINE = re.compile(rb"event: ?([^\r\n]*)")


class JsonTranslator:
    """A translator of blocks whose data is one JSON object each."""

    def feed(self, block: bytes) -> list[Signal]:
        try:
            return list(self.translate(block_event(block), block_data(block)))
        except fields.Malformed as error:
            return [Failure(str(error), MALFORMED)]

    def text_of(self, block: bytes) -> str | None:
        return None

    def translate(self, event: bytes, data: bytes) -> Iterator[Signal]:
        """The signals of one block, from its `event` and its `data`.

        Raises:
            Malformed: the data can't be read.
        """
        raise NotImplementedError


class EventStreamDialect:
    """A dialect on `text/event-stream` with OpenAI's credential and errors."""

    stream_types = frozenset({"text/event-stream"})
    lead_events = 1

    def decoder(self, max_bytes: int) -> Decoder:
        return SseDecoder(max_bytes)

    def translator(self) -> Translator:
        raise NotImplementedError

    def request_headers(self, api_key: str | None) -> dict[str, str]:
        headers = {"Content-Type": "application/json", "Accept": "text/event-stream"}
        if api_key:
            headers["Authorization"] = f"Bearer {api_key}"
        return headers

    def error_block(self, error: GatewayError, trace_id: str, blocks: Iterable[bytes]) -> bytes:
        return encode_event(None, orjson.dumps(self.error_body(error, trace_id)))

    def stop_blocks(self, blocks: Iterable[bytes], output_tokens: int) -> list[bytes]:
        """Nothing, for a dialect that no provider route speaks."""
        return []

    def error_body(self, error: GatewayError, trace_id: str) -> dict[str, object]:
        return {
            "error": {
                "message": error.message,
                "type": error.type,
                "code": error.code,
                "param": error.param,
                "trace_id": trace_id,
            }
        }

    def summarise(self, blocks: Iterable[bytes]) -> Summary:
        """Blocks that can't be read count for nothing; `chunks` are the pieces of text."""
        summing = _Summing()
        translator = self.translator()
        for block in blocks:
            for signal in translator.feed(_as_utf8(block)):
                summing.add(signal)
        return summing.summary()


class _Summing:
    def __init__(self) -> None:
        self._texts: list[str] = []
        self._usage: Usage | None = None
        self._finish: Finish | None = None
        self._calls: dict[int, _Call] = {}

    def add(self, signal: Signal) -> None:
        match signal:
            case Text():
                self._texts.append(signal.content)
            case ToolCall():
                self._calls.setdefault(signal.index, _Call()).add(signal)
            case Usage():
                self._usage = self._usage.merged(signal) if self._usage else signal
            case Finish():
                self._finish = signal
            case _:
                pass

    def summary(self) -> Summary:
        calls = [self._calls[index].as_json() for index in sorted(self._calls)]
        return Summary(
            "".join(self._texts), self._usage, self._finish, len(self._texts), tool_calls=calls
        )


class _Call:
    def __init__(self) -> None:
        self._id = ""
        self._name = ""
        self._arguments: list[str] = []

    def add(self, piece: ToolCall) -> None:
        self._id = piece.id or self._id
        self._name = piece.name or self._name
        self._arguments.append(piece.arguments)

    def as_json(self) -> dict[str, object]:
        return {"id": self._id, "name": self._name, "arguments": "".join(self._arguments)}


def messages(prompt: Prompt) -> list[dict[str, str]]:
    """The conversation so far and the query, as most dialects write them."""
    earlier = [{"role": turn.role, "content": turn.content} for turn in prompt.history]
    return [*earlier, {"role": "user", "content": prompt.query}]


def body(request: Mapping[str, object]) -> bytes:
    """The JSON of `request`, without what is None."""
    return orjson.dumps({name: value for name, value in request.items() if value is not None})


def is_error(block: bytes) -> bool:
    """Whether an SDK takes `block` for an error: by its event, or a top-level `error` in its data.

    For use on blocks that contain `error`. Data is decoded only where that key, with its quotes,
    is somewhere in it: within a JSON string a quote is always escaped.
    """
    if block_event(block) == b"error":
        return True
    return b'"error"' in block and bool(fields.mapping(_load(block)).get("error"))


def first_event(block: bytes) -> bytes | None:
    """The event's name if the block begins with it, as a block that has one usually does."""
    line = _EVENT_LINE.match(block)
    return line[1] if line else None


def plain_object(block: bytes) -> dict[str, object] | None:
    """The data of a block that is one line of JSON, or an event's name and one; else None."""
    start = block.find(b"data: {") + 6
    is_plain = start == 6 or (start > 6 and block.startswith(b"event: ") and block[start - 7] == 10)
    if not is_plain or b"\r" in block or block.find(b"\n", start) != len(block) - 2:
        return None
    try:
        value = orjson.loads(block[start:])
    except orjson.JSONDecodeError:
        return None
    return value if type(value) is dict else None


def data_type(block: bytes) -> str:
    """The `type` in the block's data; empty where there is none."""
    return fields.text(fields.mapping(_load(block)).get("type"))


def signals_of(translator: Translator, blocks: Iterable[bytes]) -> Iterator[Signal]:
    for block in blocks:
        yield from translator.feed(block)


def is_incomplete(translator: Translator, blocks: Iterable[bytes]) -> bool:
    """Whether one of the last `blocks` says that the model stopped early."""
    signals = signals_of(translator, blocks)
    return any(isinstance(signal, Finish) and not signal.complete for signal in signals)


def _load(block: bytes) -> object:
    try:
        return fields.load(block_data(block))
    except fields.Malformed:
        return None


def _as_utf8(block: bytes) -> bytes:
    return block.decode("utf-8", "replace").encode()
