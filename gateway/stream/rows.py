"""Records and segments as rows of the tables, sealed where they hold what was said, and back."""

from __future__ import annotations

import secrets
from collections.abc import Mapping

from gateway.stream.cipher import Cipher
from gateway.stream.model import ENDING_REASONS, Status, StreamId
from gateway.stream.store import Segment, StreamRecord

Row = Mapping[str, object]
COUNTS = ("total_chunks", "total_tokens", "input_tokens", "estimated", "last_seq")


class Rows:
    """Makes rows, and records of rows. `token` tells this store's writes from another's."""

    def __init__(self, cipher: Cipher, instance: str) -> None:
        self._cipher = cipher
        self.instance = instance
        self.token = secrets.token_hex(8)

    def new_row(self, record: StreamRecord) -> dict[str, object]:
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
            "status": Status.ACTIVE.value,
            "reason": None,
            "message": self.sealed_message(record.id, ""),
            "retryable": False,
            "created_at_ms": record.created_at_ms,
            "total_chunks": 0,
            "estimated": False,
            "last_seq": 0,
            "instance": self.instance,
        }

    def counts(self, record: StreamRecord) -> dict[str, object]:
        """The parameters of a change of the counts."""
        counts = {f"new_{name}": getattr(record, name) for name in COUNTS}
        return {"stream": record.id, **counts}

    def ending(self, record: StreamRecord) -> dict[str, object]:
        """The parameters of an end."""
        return {
            "new_status": record.status.value,
            "new_reason": stored_reason(record.reason),
            "new_message": self.sealed_message(record.id, record.message),
            "new_retryable": record.retryable,
            "new_ended_at_ms": record.ended_at_ms,
            "new_expires_at_ms": record.expires_at_ms,
            "new_ended_by": self.token,
        }

    def record(self, row: Row) -> StreamRecord:
        """The counterpart of `new_row`, `counts` and `ending` together."""
        reason = row["reason"]
        if isinstance(reason, str) and reason.lower() in ENDING_REASONS:
            reason = reason.lower()
        sealed = row["message"]
        assert isinstance(sealed, bytes)  # noqa: S101 - the column's type
        message = self._cipher.open(sealed, f"{row['id']}.message").decode()
        values = {**row, "status": Status(str(row["status"])), "reason": reason, "message": message}
        return StreamRecord(**values)  # type: ignore[arg-type]

    def segment_row(self, segment: Segment) -> dict[str, object]:
        """Events, sealed for their place."""
        place = f"{segment.stream_id}.{segment.first}"
        data = self._cipher.seal(segment.pack(), place)
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
        return Segment.unpack(stream_id, first, self._cipher.open(data, f"{stream_id}.{first}"))

    def sealed_message(self, stream_id: str, message: str) -> bytes:
        """An end's message."""
        return self._cipher.seal(message.encode("utf-8", "replace"), f"{stream_id}.message")


def clean(text: str | None) -> str | None:
    """Text as both databases can hold it: no NUL, no half of a surrogate pair."""
    if text is None:
        return None
    return text.encode("utf-8", "replace").decode().replace("\0", "\ufffd")


def stored_reason(reason: str | None) -> str | None:
    """The endings' words in capitals; a user's own words as they are."""
    return reason.upper() if reason in ENDING_REASONS else clean(reason)
