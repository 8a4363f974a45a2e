"""What can go wrong with a stream, as a client sees it.

StreamError
└─ StreamGapError      events are missing, and asking again didn't bring them
"""

from __future__ import annotations


class StreamError(Exception):
    """The stream can't be had, or not to its end; whatever could be retried has been.

    `code` is stable: the server's own where it gave one, else one of docs/client-python.md.
    `status` is the HTTP status, if there was an answer. `partial` is the text so far, where
    `EventStream.text` was reading.
    """

    def __init__(
        self,
        code: str,
        message: str = "",
        *,
        status: int | None = None,
        retry_after_s: float | None = None,
        partial: str = "",
    ) -> None:
        super().__init__(message or code)
        self.code = code
        self.status = status
        self.retry_after_s = retry_after_s
        self.partial = partial


class StreamGapError(StreamError):
    """Events between `last` and `found` (sequence numbers) never came."""

    def __init__(self, last: int, found: int) -> None:
        super().__init__("gap", f"event {last + 1} is missing: {found} came after {last}")
        self.last = last
        self.found = found


class Dropped(Exception):
    """A connection ended in a way that another may mend; `error` is for when none does.

    It never leaves the client.
    """

    def __init__(self, error: StreamError) -> None:
        super().__init__(str(error))
        self.error = error
