"""The vocabulary of a stream: ids, states and endings.

One word per ending, the same on the wire, in the log line, in the metric and in the store.
"""

from __future__ import annotations

import base64
import os
from dataclasses import dataclass
from enum import StrEnum
from typing import NewType

StreamId = NewType("StreamId", str)


def new_stream_id() -> StreamId:
    """16 characters of base64url from 96 random bits: names one generation, is never reused.

    Short and free of CORS-unsafe bytes, so that a cross-origin `EventSource` may send it back
    without a preflight (Fetch standard, CORS-safelisted request-header).
    """
    return StreamId(base64.urlsafe_b64encode(os.urandom(12)).decode())


class Status(StrEnum):
    ACTIVE = "ACTIVE"
    COMPLETED = "COMPLETED"
    TERMINATED = "TERMINATED"
    ERROR = "ERROR"


@dataclass(frozen=True, slots=True)
class Ending:
    """How a stream ended, once and for all.

    `message` is for people and holds nothing that was said or asked. `retryable` tells a client
    whether to ask again.
    """

    status: Status
    reason: str
    message: str = ""
    retryable: bool = False

    @property
    def is_error(self) -> bool:
        """Whether readers see an `error` (or the dialect's error block and an abort)."""
        return self.reason in _ERROR_MESSAGES

    def because(self, message: str, *, retryable: bool | None = None) -> Ending:
        """The same ending with the particular cause in its message."""
        keep = self.retryable if retryable is None else retryable
        return Ending(self.status, self.reason, message, keep)


_ERROR_MESSAGES = {
    "server_shutdown": "The server is restarting; ask again in a moment.",
    "timeout": "The stream was idle for too long.",
    "upstream_error": "The backend reported an error.",
    "upstream_truncated": "The backend's answer broke off.",
    "upstream_idle": "The backend stopped sending.",
    "upstream_timeout": "The backend took too long to answer.",
    "upstream_unavailable": "The backend can't be reached.",
    "event_too_large": "The backend sent an event that is too large.",
    "interrupted": "The answer was interrupted.",
}
_NOT_RETRYABLE = {"event_too_large"}

COMPLETED = Ending(Status.COMPLETED, "completed")
INCOMPLETE = Ending(Status.COMPLETED, "incomplete")
USER_REQUESTED = Ending(Status.TERMINATED, "user_requested")
DURATION_CAP = Ending(Status.TERMINATED, "duration_cap")
CLIENT_GONE = Ending(Status.TERMINATED, "client_gone")

#: Ends of the `TERMINATED` kind that no user asked for.
NOT_ASKED_FOR = frozenset({"duration_cap", "client_gone", "server_shutdown", "timeout"})


def error_ending(reason: str) -> Ending:
    """The ending that readers see as an error.

    Raises:
        KeyError: `reason` isn't one of the error endings.
    """
    message = _ERROR_MESSAGES[reason]
    status = Status.TERMINATED if reason in ("server_shutdown", "timeout") else Status.ERROR
    return Ending(status, reason, message, retryable=reason not in _NOT_RETRYABLE)


def user_ending(reason: str | None) -> Ending:
    """The end that a user asked for, with a reason of their own or none.

    A reason that is a word of ours would lie about who ended the stream, so it counts as none.
    """
    if reason is None or reason.lower() in ENDING_REASONS:
        return USER_REQUESTED
    return Ending(Status.TERMINATED, reason)


#: The ends of streams that failed, by their status.
ERROR_REASONS = frozenset(
    reason for reason in _ERROR_MESSAGES if error_ending(reason).status is Status.ERROR
)
ENDING_REASONS = frozenset(
    [e.reason for e in (COMPLETED, INCOMPLETE, USER_REQUESTED, DURATION_CAP, CLIENT_GONE)]
    + list(_ERROR_MESSAGES)
)
