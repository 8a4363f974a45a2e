"""The typed route's wire: the gateway's own events, the same whatever backend speaks."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Sequence

import orjson

from gateway.sse.decoder import encode_event
from gateway.sse.dialects.base import Dialect
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
from gateway.stream.model import COMPLETED, INCOMPLETE, Ending, StreamId, error_ending
from gateway.stream.wires.base import Beat, estimate_tokens

RETRY_MS = 2000
#: For those whom a restart has cut off: time to start anew, and not all at once.
RESTART_RETRY_MS = (2000, 6000)


class TypedWire:
    """`start`, `content_chunk`, `heartbeat`, `complete`, `error`, each with the trace id."""

    opening = b""
    is_verbatim = False

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
        self.usual_text = self._usual.text_of
        self._stream_id = stream_id
        self._trace_id = trace_id
        self._text_parts = _chunk_parts(trace_id)
        self._refusal_parts = _chunk_parts(trace_id, is_refusal=True)
        self._conversation_id = conversation_id
        self._max_duration_s = max_duration_s
        self._text: list[bytes] = []  # a piece for each chunk
        self._counted = self._counted_bytes = 0  # of these pieces
        self._usage = Usage()
        self._sources: list[object] = []
        self._tool_calls: dict[int, dict[str, str]] = {}
        self._finish: Finish | None = None
        self.ending: Ending | None = None

    @property
    def lead_events(self) -> int:
        return 2  # `start` and the first `content_chunk`

    @property
    def total_chunks(self) -> int:
        return len(self._text)

    @property
    def total_tokens(self) -> int:
        counted = self._usage.output_tokens
        return estimate_tokens(self._count_bytes()) if counted is None else counted

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
            if (raw := self.usual_text(block)) is not None:
                events.append(self.spell(raw))
                continue
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

    def spell(self, text: bytes) -> bytes:
        head, tail = self._text_parts
        event = b'%b"%b","index":%d%b' % (head, text, len(self._text), tail)
        self._text.append(text)
        return event

    def usual(self, chunk: bytes) -> Sequence[bytes] | None:
        texts = self._usual.texts_of(chunk)
        return None if texts is None else self._spell_all(texts)

    def usual_blocks(self, blocks: Sequence[bytes], joined: bytes) -> Sequence[bytes] | None:
        texts = self._usual.texts_of_each(blocks, joined)
        return None if texts is None else self._spell_all(texts)

    def _spell_all(self, texts: list[bytes]) -> Sequence[bytes]:
        head, tail = self._text_parts
        first = len(self._text)
        self._text += texts
        return [
            b'%b"%b","index":%d%b' % (head, text, index, tail)
            for index, text in enumerate(texts, first)
        ]

    def finish(self, ending: Ending, duration_s: float, recent: list[bytes]) -> list[bytes]:
        if ending.is_error:
            return [error_event(ending, self._trace_id, is_partial=self.total_chunks > 0)]
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
        event = b'%b%b,"index":%d%b' % (head, orjson.dumps(content), len(self._text), tail)
        self._text.append(content.encode())
        return event

    def _count_bytes(self) -> int:
        self._counted_bytes += sum(map(len, self._text[self._counted :]))
        self._counted = len(self._text)
        return self._counted_bytes

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


def error_event(ending: Ending, trace_id: str, *, is_partial: bool) -> bytes:
    """The typed event that tells of an end that isn't a proper one."""
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


def _event(name: str, data: object) -> bytes:
    return encode_event(name, orjson.dumps(data))


def _chunk_parts(trace_id: str, *, is_refusal: bool = False) -> tuple[bytes, bytes]:
    """What stands before a chunk's content and behind its index."""
    data: dict[str, object] = {"content": 0, "index": 0, "trace_id": trace_id}
    if is_refusal:
        data["refusal"] = True
    head, _, tail = _event("content_chunk", data).partition(b'0,"index":0')
    return head, tail
