"""The wire of a stream that the archive has read back from the store."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import orjson

from gateway.sse.decoder import block_data
from gateway.sse.dialects.base import Dialect
from gateway.sse.event import Summary, Usage
from gateway.stream.model import Ending
from gateway.stream.store import StreamRecord
from gateway.stream.wires.base import Beat
from gateway.stream.wires.provider import error_block
from gateway.stream.wires.typed import error_event

_CHUNK = b"\nevent: content_chunk\n"


class StoredWire:
    """The wire of a stream that has ended: it writes nothing more but the end of a crash."""

    opening = b""
    is_verbatim = False

    def __init__(self, record: StreamRecord, dialect: Dialect | None) -> None:
        self._record = record
        self._dialect = dialect  # None on the typed route
        self.ending: Ending | None = None
        self.total_chunks = record.total_chunks
        self.lead_events = 0

    @property
    def total_tokens(self) -> int:
        return self._record.total_tokens or 0

    @property
    def usage(self) -> Usage:
        record = self._record
        return Usage(record.input_tokens, record.total_tokens, record.estimated)

    def begin(self) -> bytes | None:
        return None

    def feed(self, blocks: list[bytes]) -> list[bytes]:
        raise RuntimeError("the stream has ended")

    def usual_text(self, block: bytes) -> bytes | None:
        return None

    def spell(self, text: bytes) -> bytes:
        raise RuntimeError("the stream has ended")

    def usual(self, chunk: bytes) -> Sequence[bytes] | None:
        return None

    def usual_blocks(self, blocks: Sequence[bytes], joined: bytes) -> Sequence[bytes] | None:
        return None

    def finish(self, ending: Ending, duration_s: float, recent: list[bytes]) -> list[bytes]:
        if self._dialect is None:
            return [error_event(ending, self._record.trace_id, is_partial=len(recent) > 1)]
        return [error_block(ending, self._record.trace_id, self._dialect, recent)]

    def heartbeat(self, beat: Beat) -> bytes:
        return b":\n"

    def summary(self, events: Iterable[bytes]) -> Summary:
        if self._dialect is not None:
            return self._dialect.summarise(events)
        return Summary(_typed_text(events), self.usage, chunks=self.total_chunks)

    def snapshot(self) -> bytes | None:
        return None  # everything is in the log, or nothing is known of the rest

    def ends_cleanly(self, ending: Ending) -> bool:
        return self._dialect is None or not (ending.is_error or ending.reason == "duration_cap")


def _typed_text(events: Iterable[bytes]) -> str:
    chunks = (orjson.loads(block_data(event)) for event in events if _CHUNK in event)
    return "".join(chunk["content"] for chunk in chunks)
