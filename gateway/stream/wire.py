"""How a stream looks to its readers: the typed events, or a provider's own bytes.

A wire turns a backend's blocks into the events of the log, notices the end, and knows how a
heartbeat and an ending are written. It does no I/O and keeps no clock.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Protocol

import orjson

from gateway.errors import UpstreamError
from gateway.sse.decoder import encode_event
from gateway.sse.dialects.base import Dialect, Verdict
from gateway.sse.event import (
    End,
    Failure,
    Finish,
    Signal,
    Sources,
    Summary,
    Text,
    Thread,
    ToolCall,
    Usage,
)
from gateway.sse.usual import UsualEvent
from gateway.stream.model import (
    COMPLETED,
    INCOMPLETE,
    NOT_ASKED_FOR,
    Ending,
    Status,
    StreamId,
    error_ending,
)

RETRY_MS = 2000
#: For those whom a restart has cut off: time to start anew, and not all at once.
RESTART_RETRY_MS = (2000, 6000)
_BYTES_PER_TOKEN = 4  # of English text with today's tokenizers, within some 20 %


@dataclass(frozen=True, slots=True)
class Beat:
    """What a heartbeat tells besides the counts; times in seconds."""

    timestamp: float
    uptime_s: float
    remaining_s: float | None
    count: int


class Wire(Protocol):
    ending: Ending | None  #: set once the backend's terminal event or its error was seen
    total_chunks: int
    opening: bytes  #: the backend's first block, kept when the log drops it; empty if not needed

    @property
    def lead_events(self) -> int:
        """How many events, the first token's with them, no update mode holds back."""
        ...

    @property
    def total_tokens(self) -> int: ...
    @property
    def usage(self) -> Usage:
        """What is known on the way; empty where nothing is decoded."""
        ...

    def begin(self) -> bytes | None:
        """The event that opens the stream, before the backend has said anything."""
        ...

    def feed(self, blocks: list[bytes]) -> list[bytes]:
        """The events that `blocks` become, up to the ending, which may be set afterwards."""
        ...

    def usual(self, block: bytes) -> bytes | None:
        """The event that a block becomes which is like others before but for its text; None for any
        other. A shortcut: `feed` would give the same."""
        ...

    def finish(self, ending: Ending, duration_s: float, recent: list[bytes]) -> list[bytes]:
        """The last events; `recent` are those still in the log."""
        ...

    def heartbeat(self, beat: Beat) -> bytes:
        """What keeps a silent connection alive: no event of the log, without an id."""
        ...

    def summary(self, events: Iterable[bytes]) -> Summary:
        """What has been said so far; `events` are those still in the log."""
        ...

    def snapshot(self) -> bytes | None:
        """The event that stands for all that was said so far; None if there can't be one."""
        ...

    def ends_cleanly(self, ending: Ending) -> bool:
        """Whether the response may be closed in good order, or must be broken off."""
        ...


def estimate_tokens(size_bytes: int) -> int:
    """A count of tokens for text of `size_bytes`, where the backend gives none."""
    return -(-size_bytes // _BYTES_PER_TOKEN)


class TypedWire:
    """`start`, `content_chunk`, `heartbeat`, `complete`, `error`, each with the trace id."""

    opening = b""

    def __init__(
        self,
        dialect: Dialect,
        *,
        stream_id: StreamId,
        trace_id: str,
        conversation_id: str | None,
        max_duration_s: float,
        on_thread: Callable[[Thread], None] | None = None,
    ) -> None:
        self._on_thread = on_thread
        self._translator = dialect.translator()
        self._usual = UsualEvent(self._translator.text_of)
        self._stream_id = stream_id
        self._trace_id = trace_id
        self._text_parts = _chunk_parts(trace_id)
        self._refusal_parts = _chunk_parts(trace_id, is_refusal=True)
        self._conversation_id = conversation_id
        self._max_duration_s = max_duration_s
        self._text: list[bytes] = []
        self._text_bytes = 0
        self._usage = Usage()
        self._sources: list[object] = []
        self._tool_calls: dict[int, dict[str, str]] = {}
        self._finish: Finish | None = None
        self.ending: Ending | None = None
        self.total_chunks = 0

    @property
    def lead_events(self) -> int:
        return 2  # `start` and the first `content_chunk`

    @property
    def total_tokens(self) -> int:
        counted = self._usage.output_tokens
        return estimate_tokens(self._text_bytes) if counted is None else counted

    @property
    def usage(self) -> Usage:
        is_estimated = self._usage.output_tokens is None or self._usage.estimated
        return Usage(self._usage.input_tokens, self.total_tokens, is_estimated)

    def begin(self) -> bytes | None:
        data = {
            "stream_id": self._stream_id,
            "trace_id": self._trace_id,
            "conversation_id": self._conversation_id,
            "max_duration": self._max_duration_s or None,
        }
        return b"retry: %d\n%b" % (RETRY_MS, _event("start", data))

    def feed(self, blocks: list[bytes]) -> list[bytes]:
        events: list[bytes] = []
        for block in blocks:
            if (text := self._translator.text_of(block)) is not None:
                events.append(self._chunk(text, self._text_parts))
                self._usual.learn(block)
                continue
            for signal in self._translator.feed(block):
                if type(signal) is Text:
                    parts = self._refusal_parts if signal.refusal else self._text_parts
                    events.append(self._chunk(signal.content, parts))
                else:
                    self._note(signal)
                if self.ending is not None:
                    return events
        return events

    def usual(self, block: bytes) -> bytes | None:
        if (text := self._usual.text_of(block)) is None:
            return None
        head, tail = self._text_parts
        event = b'%b"%b","index":%d%b' % (head, text, self.total_chunks, tail)
        self.total_chunks += 1
        self._text.append(text)
        self._text_bytes += len(text)
        return event

    def finish(self, ending: Ending, duration_s: float, recent: list[bytes]) -> list[bytes]:
        if ending.is_error:
            return [_error_event(ending, self._trace_id, is_partial=self.total_chunks > 0)]
        data: dict[str, object] = {
            "reason": ending.reason,
            "duration": round(duration_s, 3),
            "total_chunks": self.total_chunks,
            "total_tokens": self.total_tokens,
            "usage": self._usage_json(),
            "trace_id": self._trace_id,
        }
        if self._finish is not None:
            data["finish_reason"] = self._finish.reason
        if self._sources:
            data["sources"] = self._sources
        if self._tool_calls:
            data["tool_calls"] = [self._tool_calls[index] for index in sorted(self._tool_calls)]
        return [_event("complete", data)]

    def heartbeat(self, beat: Beat) -> bytes:
        data = {
            "stream_id": self._stream_id,
            "trace_id": self._trace_id,
            "timestamp": round(beat.timestamp, 3),
            "uptime_seconds": round(beat.uptime_s, 3),
            "total_chunks": self.total_chunks,
            "total_tokens": self.total_tokens,
            "heartbeat_count": beat.count,
            "remaining_seconds": None if beat.remaining_s is None else round(beat.remaining_s, 3),
            "max_duration": self._max_duration_s or None,
        }
        return _event("heartbeat", data)

    def summary(self, events: Iterable[bytes]) -> Summary:
        return Summary(self._said(), self.usage, self._finish, self.total_chunks)

    def snapshot(self) -> bytes | None:
        data = {
            "text": self._said(),
            "total_chunks": self.total_chunks,
            "reason": "trimmed",
            "trace_id": self._trace_id,
        }
        return _event("snapshot", data)

    def ends_cleanly(self, ending: Ending) -> bool:
        return True  # the last event says how it ended

    def _chunk(self, content: str, parts: tuple[bytes, bytes]) -> bytes:
        # Spliced: a dictionary, its JSON and the checks of `encode_event` cost four times as much.
        head, tail = parts
        event = b'%b%b,"index":%d%b' % (head, orjson.dumps(content), self.total_chunks, tail)
        self.total_chunks += 1
        text = content.encode()
        self._text.append(text)
        self._text_bytes += len(text)
        return event

    def _said(self) -> str:
        return b"".join(self._text).decode()

    def _note(self, signal: Signal) -> None:
        match signal:
            case Usage():
                self._usage = self._usage.merged(signal)
            case Sources():
                self._sources.extend(signal.items)
            case Thread() if self._on_thread is not None:
                self._on_thread(signal)
            case ToolCall():
                self._add_tool_call(signal)
            case Finish():
                self._finish = signal
            case Failure():
                self.ending = error_ending("upstream_error").because(signal.message)
            case End():
                is_whole = self._finish is None or self._finish.complete
                self.ending = COMPLETED if is_whole else INCOMPLETE

    def _add_tool_call(self, piece: ToolCall) -> None:
        call = self._tool_calls.setdefault(piece.index, {"id": "", "name": "", "arguments": ""})
        call["id"] = piece.id or call["id"]
        call["name"] = piece.name or call["name"]
        call["arguments"] += piece.arguments

    def _usage_json(self) -> dict[str, object]:
        usage: dict[str, object] = {
            "input_tokens": self._usage.input_tokens,
            "output_tokens": self.total_tokens,
            "total_tokens": (self._usage.input_tokens or 0) + self.total_tokens,
        }
        if self.usage.estimated:
            usage["estimated"] = True
        return usage


class ProviderWire:
    """The bytes of a provider's stream as they are, with nothing between but a comment line."""

    def __init__(self, dialect: Dialect, *, trace_id: str) -> None:
        self._dialect = dialect
        watcher = dialect.watcher()
        self._passes, self._see = watcher.passes, watcher.see
        self._usual = UsualEvent(dialect.translator().text_of)
        self._trace_id = trace_id
        self._verdict: Verdict | None = None
        self.ending: Ending | None = None
        self.total_chunks = 0
        self.opening = b""

    @property
    def lead_events(self) -> int:
        return self._dialect.lead_events

    @property
    def total_tokens(self) -> int:
        return 0  # not known on the way: nothing is decoded

    @property
    def usage(self) -> Usage:
        return Usage()

    def begin(self) -> bytes | None:
        return None

    def feed(self, blocks: list[bytes]) -> list[bytes]:
        if not self.total_chunks:
            self.opening = blocks[0]
        if self._passes(blocks[0] if len(blocks) == 1 else b"".join(blocks)):
            self.total_chunks += len(blocks)
            if len(blocks) == 1:
                self._usual.learn(blocks[0])
            return blocks
        for count, block in enumerate(blocks, 1):
            if (verdict := self._see(block)) is not None:
                self._verdict, self.ending = verdict, _ENDINGS[verdict]
                blocks = blocks[:count]
                break
        self.total_chunks += len(blocks)
        return blocks

    def usual(self, block: bytes) -> bytes | None:
        if self._usual.text_of(block) is None:
            return None
        self.total_chunks += 1
        return block

    def finish(self, ending: Ending, duration_s: float, recent: list[bytes]) -> list[bytes]:
        if self._verdict is not None:
            return []
        if _is_stop(ending):
            # The first block names the answer, whatever of it the log has dropped since.
            return self._dialect.stop_blocks([self.opening, *recent], self._count_tokens(recent))
        return [encode_error(ending, self._trace_id, self._dialect, recent)]

    def _count_tokens(self, events: list[bytes]) -> int:
        summary = self.summary(events)
        if summary.usage is not None and summary.usage.output_tokens is not None:
            return summary.usage.output_tokens
        return estimate_tokens(len(summary.text.encode("utf-8", "replace")))

    def heartbeat(self, beat: Beat) -> bytes:
        # No blank line: with ids, openai-python would decode the empty event that it makes of it.
        return b":\n"

    def ends_cleanly(self, ending: Ending) -> bool:
        # The SDKs take a clean end for success, whatever is missing.
        if self._verdict is None:
            return _is_stop(ending)
        return self._verdict is not Verdict.BROKEN

    def summary(self, events: Iterable[bytes]) -> Summary:
        return self._dialect.summarise(events)

    def snapshot(self) -> bytes | None:
        return None  # a provider's event can't say "replace what you have"


def encode_error(
    ending: Ending, trace_id: str, dialect: Dialect | None, recent: list[bytes]
) -> bytes:
    """The event that tells of an end that isn't a proper one; no dialect is the typed route."""
    if dialect is None:
        return _error_event(ending, trace_id, is_partial=len(recent) > 1)
    error = UpstreamError(
        ending.message or "The stream reached its duration cap.",
        code=ending.reason,
        retryable=ending.retryable,
    )
    return dialect.error_block(error, trace_id, recent)


def _error_event(ending: Ending, trace_id: str, *, is_partial: bool) -> bytes:
    data = {
        "code": ending.reason,
        "message": ending.message,
        "retryable": ending.retryable,
        "partial": is_partial,
        "trace_id": trace_id,
    }
    if ending.reason == "server_shutdown":
        retry_ms = random.randint(*RESTART_RETRY_MS)  # noqa: S311
        return b"retry: %d\n%b" % (retry_ms, _event("error", data))
    return _event("error", data)


def _is_stop(ending: Ending) -> bool:
    """Whether somebody asked for this end, which then is a proper one."""
    return ending.status is Status.TERMINATED and ending.reason not in NOT_ASKED_FOR


_ENDINGS = {
    Verdict.COMPLETE: COMPLETED,
    Verdict.INCOMPLETE: INCOMPLETE,
    Verdict.FAILED: error_ending("upstream_error"),
    Verdict.BROKEN: error_ending("upstream_error"),
}


def _event(name: str, data: object) -> bytes:
    return encode_event(name, orjson.dumps(data))


def _chunk_parts(trace_id: str, *, is_refusal: bool = False) -> tuple[bytes, bytes]:
    """What stands before a chunk's content and behind its index."""
    data: dict[str, object] = {"content": 0, "index": 0, "trace_id": trace_id}
    if is_refusal:
        data["refusal"] = True
    head, _, tail = _event("content_chunk", data).partition(b'0,"index":0')
    return head, tail
