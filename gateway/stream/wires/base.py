"""How a stream looks to its readers: the typed events, or a provider's own bytes.

A wire turns a backend's blocks into the events of the log, notices the end, and knows how a
heartbeat and an ending are written. It does no I/O and keeps no clock.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

from gateway.sse.event import Summary, Usage
from gateway.stream.model import Ending

_BYTES_PER_TOKEN = 4  # of English text with today's tokenizers, within some 20 %


@dataclass(frozen=True, slots=True)
class Beat:
    """What a heartbeat tells besides the counts; times in seconds."""

    timestamp: float
    uptime_s: float
    remaining_s: float | None
    count: int


class Wire(Protocol):
    """One stream's; `typed`, `provider` and `stored` hold the kinds of it."""

    ending: Ending | None  #: set once the backend's terminal event or its error was seen
    is_verbatim: bool  #: whether a block becomes an event as it is
    opening: bytes  #: the backend's first block, kept when the log drops it; empty if not needed

    @property
    def lead_events(self) -> int:
        """How many events, the first token's with them, no update mode holds back."""
        ...

    @property
    def total_chunks(self) -> int: ...
    @property
    def total_tokens(self) -> int: ...
    @property
    def usage(self) -> Usage:
        """What is known on the way; empty where nothing is decoded."""
        ...

    def begin(self) -> bytes | None:
        """The event that opens the stream, before the backend has said anything."""
        ...

    def feed(self, blocks: list[bytes]) -> Sequence[bytes]:
        """The events that `blocks` become, up to the ending, which may be set afterwards."""
        ...

    @property
    def usual_text(self) -> Callable[[bytes], bytes | None]:
        """Gives the text of a block that is like others before but for its text; None for any
        other. A shortcut, together with `spell`: `feed` would give the same event."""
        ...

    def spell(self, text: bytes) -> bytes:
        """The event of a usual block with this text; not for where `is_verbatim`."""
        ...

    def usual(self, chunk: bytes) -> Sequence[bytes] | None:
        """The events of several such blocks; None if there is one of another kind."""
        ...

    def usual_blocks(self, blocks: Sequence[bytes], joined: bytes) -> Sequence[bytes] | None:
        """The same where each is by itself, or may be: None if there is one that isn't whole."""
        ...

    def finish(self, ending: Ending, duration_s: float, recent: list[bytes]) -> list[bytes]:
        """The last events; `recent` are those still in the log, if the end isn't among them."""
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
