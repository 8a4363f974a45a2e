"""The provider routes' wire: the backend's own bytes, unchanged."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from gateway.errors import UpstreamError
from gateway.sse.dialects.base import Dialect, Verdict
from gateway.sse.event import Summary, Usage
from gateway.sse.usual import UsualEvent
from gateway.stream.model import COMPLETED, INCOMPLETE, NOT_ASKED_FOR, Ending, Status, error_ending
from gateway.stream.wires.base import Beat, estimate_tokens

_ENDINGS = {
    Verdict.COMPLETE: COMPLETED,
    Verdict.INCOMPLETE: INCOMPLETE,
    Verdict.FAILED: error_ending("upstream_error"),
    Verdict.BROKEN: error_ending("upstream_error"),
}

#: The finish, the usage and the terminal block.
_LAST_BLOCKS = 3


class ProviderWire:
    """The bytes of a provider's stream as they are, with nothing between but a comment line."""

    is_verbatim = True

    def __init__(self, dialect: Dialect, *, trace_id: str) -> None:
        self._dialect = dialect
        watcher = dialect.watcher()
        self._passes, self._see = watcher.passes, watcher.see
        self._usual = UsualEvent(dialect.translator().text_of)
        self.usual_text = self._usual.text_of
        self._trace_id = trace_id
        self._verdict: Verdict | None = None
        self.ending: Ending | None = None
        self._read = 0  # blocks that weren't usual
        self.opening = b""

    @property
    def lead_events(self) -> int:
        return self._dialect.lead_events

    @property
    def total_chunks(self) -> int:
        return self._read + self._usual.count

    @property
    def total_tokens(self) -> int:
        return 0  # not known on the way: nothing is decoded

    @property
    def usage(self) -> Usage:
        return Usage()

    def begin(self) -> bytes | None:
        return None

    def feed(self, blocks: list[bytes]) -> Sequence[bytes]:
        if not self._read:
            self.opening = blocks[0]
        if len(blocks) == 1 and self.usual_text(blocks[0]) is not None:
            return blocks
        if self._passes(blocks[0] if len(blocks) == 1 else b"".join(blocks)):
            if self._read:  # the first block is a beginning, or all of a short answer comes at once
                self._usual.learn(blocks[-1])
            self._read += len(blocks)
            return blocks
        # Where a whole answer comes at once, only its end is of interest.
        quiet = max(0, len(blocks) - _LAST_BLOCKS)
        if quiet and not self._passes(b"".join(blocks[:quiet])):
            quiet = 0
        for count, block in enumerate(blocks[quiet:], quiet + 1):
            if (verdict := self._see(block)) is not None:
                self._verdict, self.ending = verdict, _ENDINGS[verdict]
                blocks = blocks[:count]
                break
        self._read += len(blocks)
        return blocks

    def spell(self, text: bytes) -> bytes:
        raise RuntimeError("a block is an event as it is")

    def usual(self, chunk: bytes) -> Sequence[bytes] | None:
        if (texts := self._usual.texts_of(chunk)) is None:
            return None
        head, tail = self._usual.head, self._usual.tail
        return [head + text + tail for text in texts]

    def usual_blocks(self, blocks: Sequence[bytes], joined: bytes) -> Sequence[bytes] | None:
        return None if self._usual.texts_of_each(blocks, joined) is None else blocks

    def finish(self, ending: Ending, duration_s: float, recent: list[bytes]) -> list[bytes]:
        if self._verdict is not None:
            return []
        if _is_stop(ending):
            # The first block names the answer, whatever of it the log has dropped since.
            return self._dialect.stop_blocks([self.opening, *recent], self._count_tokens(recent))
        return [error_block(ending, self._trace_id, self._dialect, recent)]

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


def error_block(ending: Ending, trace_id: str, dialect: Dialect, recent: list[bytes]) -> bytes:
    """The dialect's event that tells of an end that isn't a proper one."""
    error = UpstreamError(
        ending.message or "The stream reached its duration cap.",
        code=ending.reason,
        retryable=ending.retryable,
    )
    return dialect.error_block(error, trace_id, recent)


def _is_stop(ending: Ending) -> bool:
    """Whether somebody asked for this end, which then is a proper one."""
    return ending.status is Status.TERMINATED and ending.reason not in NOT_ASKED_FOR
