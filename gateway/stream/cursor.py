"""An event's id as a client sends it back: which stream, and how far it has read."""

from __future__ import annotations

import re
from dataclasses import dataclass

from gateway.errors import BadRequest
from gateway.stream.model import StreamId

_CURSOR = re.compile(r"([A-Za-z0-9_-]{16})\.(0|[1-9][0-9]{0,17})")


@dataclass(frozen=True, slots=True)
class Cursor:
    """`seq` is the last event that was received; 0 is before the first."""

    stream_id: StreamId
    seq: int

    @classmethod
    def parse(cls, text: str) -> Cursor:
        """
        Raises:
            BadRequest: `bad_cursor`.
        """
        match = _CURSOR.fullmatch(text)
        if match is None:
            raise BadRequest("This isn't an id of an event from here.", code="bad_cursor")
        return cls(StreamId(match[1]), int(match[2]))
