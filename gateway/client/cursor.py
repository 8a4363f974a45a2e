"""Where a client stands in a stream: drops what it has already, notices what is missing."""

from __future__ import annotations

from enum import Enum

from gateway.client.errors import StreamGapError
from gateway.sse.parser import Event


class Verdict(Enum):
    NEW = "new"
    DUPLICATE = "duplicate"
    GAP = "gap"


class Cursor:
    """Reads numbers only from ids of the form `<stream id>.<number>` of a stream that named itself
    by `X-Stream-Id`: in anybody else's ids a dot and digits mean nothing.
    """

    def __init__(self, last_event_id: str) -> None:
        self.last_event_id = last_event_id
        self.stream_id: str | None = None
        self._seq: int | None = None
        self._gap_after: int | None = None

    def attach(self, stream_id: str | None) -> None:
        """A response of this stream begins."""
        if stream_id is not None and stream_id != self.stream_id:
            self.stream_id = stream_id
            self._seq = self._number(self.last_event_id)

    def judge(self, event: Event) -> Verdict:
        """What `event` is, and moves on if it is new.

        Raises:
            StreamGapError: the same gap came twice.
        """
        seq = self._number(event.id) if event.has_id else None
        if seq is None:
            if event.has_id:
                self.last_event_id = event.id
            return Verdict.NEW
        if self._seq is not None and event.type != "snapshot":
            if seq <= self._seq:
                return Verdict.DUPLICATE
            if seq > self._seq + 1:
                self._note_gap(self._seq, seq)
                return Verdict.GAP
        self._seq = seq
        self.last_event_id = event.id
        return Verdict.NEW

    def _number(self, event_id: str) -> int | None:
        stream_id, _, digits = event_id.rpartition(".")
        is_ours = stream_id == self.stream_id and digits.isascii() and digits.isdigit()
        return int(digits) if is_ours and len(digits) <= 18 else None

    def _note_gap(self, last: int, found: int) -> None:
        if self._gap_after == last:
            raise StreamGapError(last, found)
        self._gap_after = last
