"""Records and segments as rows of the tables, sealed where they hold what was said, and back."""

from __future__ import annotations

import secrets
from collections.abc import Mapping

from gateway.stream.cipher import Cipher
from gateway.stream.compressor import Compressor
from gateway.stream.model import ENDING_REASONS, Status, StreamId, error_ending
from gateway.stream.store import Progress, Segment, StreamRecord

Row = Mapping[str, object]
COUNTS = ("total_chunks", "total_tokens", "input_tokens", "estimated", "last_seq")
END = ("status", "reason", "message", "retryable", "ended_at_ms", "expires_at_ms", "ended_by")


class Rows:
    """Makes rows, and records of rows. `token` tells this store's writes from another's."""

    def __init__(self, cipher: Cipher, instance: str) -> None:
        self._cipher = cipher
        self._compressor = Compressor()
        self.instance = instance
        self.token = secrets.token_hex(8)

    def begun(self, record: StreamRecord) -> dict[str, object]:
        """A stream that has begun, whatever has become of it since."""
        return {
            "id": record.id,
            "owner": clean(record.owner),
            "trace_id": clean(record.trace_id),
            "route": clean(record.route),
            "conversation_id": clean(record.conversation_id),
            "idempotency_key": clean(record.idempotency_key),
            "fingerprint": record.fingerprint,
            "with_ids": record.with_ids,
            "created_at_ms": record.created_at_ms,
            "instance": self.instance,
            "status": Status.ACTIVE.value,
            "reason": None,
            "message": self.sealed_message(record.id, ""),
            "retryable": False,
            "ended_at_ms": None,
            "expires_at_ms": None,
            "ended_by": None,
            "total_chunks": 0,
            "total_tokens": None,
            "input_tokens": None,
            "estimated": False,
            "last_seq": 0,
        }

    def counts(self, record: StreamRecord | Progress) -> dict[str, object]:
        """How far it is."""
        return {
            "id": record.id,
            "total_chunks": record.total_chunks,
            "total_tokens": record.total_tokens,
            "input_tokens": record.input_tokens,
            "estimated": record.estimated,
            "last_seq": record.last_seq,
        }

    def ending(self, record: StreamRecord) -> dict[str, object]:
        """Its end, and that it was told by this store."""
        return {
            "id": record.id,
            "status": record.status.value,
            "reason": stored_reason(record.reason),
            "message": self.sealed_message(record.id, record.message),
            "retryable": record.retryable,
            "ended_at_ms": record.ended_at_ms,
            "expires_at_ms": record.expires_at_ms,
            "ended_by": self.token,
        }

    def interruption(self, stream_id: str, now_ms: int, ttl_ms: int) -> dict[str, object]:
        """The end of a stream whose process died."""
        ending = error_ending("interrupted")
        return {
            "id": stream_id,
            "status": ending.status.value,
            "reason": stored_reason(ending.reason),
            "message": self.sealed_message(stream_id, ending.message),
            "retryable": ending.retryable,
            "ended_at_ms": now_ms,
            "expires_at_ms": now_ms + ttl_ms,
            "ended_by": self.token,
        }

    def record(self, row: Row) -> StreamRecord:
        """The counterpart of `begun`, `counts` and `ending` together."""
        reason = row["reason"]
        if isinstance(reason, str) and reason.lower() in ENDING_REASONS:
            reason = reason.lower()
        sealed = row["message"]
        assert isinstance(sealed, bytes)  # noqa: S101 - the column's type
        message = self._cipher.open(sealed, f"{row['id']}.message").decode()
        values = {**row, "status": Status(str(row["status"])), "reason": reason, "message": message}
        return StreamRecord(**values)  # type: ignore[arg-type]

    def segment_row(self, segment: Segment) -> dict[str, object]:
        """Events, compressed and sealed for their place."""
        place = f"{segment.stream_id}.{segment.first}"
        data = self._cipher.seal(self._compressor.compress(segment.pack()), place)
        return {
            "stream_id": segment.stream_id,
            "first": segment.first,
            "last": segment.last,
            "size": len(data),
            "data": data,
        }

    def segment(self, stream_id: StreamId, row: Row) -> Segment:
        """The counterpart of `segment_row`.

        Raises:
            StoreError: it is damaged, or can't be opened.
        """
        first, data = row["first"], row["data"]
        assert isinstance(first, int)  # noqa: S101 - the columns' types
        assert isinstance(data, bytes)  # noqa: S101
        packed = self._compressor.decompress(self._cipher.open(data, f"{stream_id}.{first}"))
        return Segment.unpack(stream_id, first, packed)

    def sealed_message(self, stream_id: str, message: str) -> bytes:
        """An end's message."""
        return self._cipher.seal(message.encode("utf-8", "replace"), f"{stream_id}.message")


def clean(text: str | None) -> str | None:
    """Text as both databases can hold it: no NUL, no half of a surrogate pair."""
    if text is None or (text.isascii() and "\0" not in text):
        return text
    return text.encode("utf-8", "replace").decode().replace("\0", "\ufffd")


def stored_reason(reason: str | None) -> str | None:
    """The endings' words in capitals; a user's own words as they are."""
    return reason.upper() if reason in ENDING_REASONS else clean(reason)
