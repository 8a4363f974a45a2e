"""The backend's answer, as a stream sees it: asked for, then read or followed.

`gateway.upstream` gives such answers without knowing of streams; the producer follows them.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from gateway.errors import GatewayError, UpstreamError


class Follower(Protocol):
    """Takes an answer's bytes in the step in which they arrive."""

    def feed(self, chunk: bytes) -> None: ...

    def feed_many(self, chunks: list[bytes], joined: bytes) -> None:
        """The same for several, and these joined; each is one of HTTP's, so that it may be
        something whole."""
        ...

    def feed_end(self, error: UpstreamError | None) -> None:
        """Nothing follows; an error says that something is missing. Called once."""
        ...


class Body(Protocol):
    """The backend's answer, to be read piece by piece."""

    @property
    def status(self) -> int: ...
    @property
    def headers(self) -> Mapping[str, str]: ...

    async def read(self) -> bytes:
        """The next bytes; empty at the end of the body.

        Raises:
            UpstreamError: `upstream_truncated`, the connection broke off.
        """
        ...

    async def finish(self) -> None:
        """Gives the connection back if its answer is over, else closes it."""
        ...

    def close(self) -> None:
        """Closes the connection, so that the backend stops generating. Idempotent."""
        ...


class Answer(Body, Protocol):
    """The backend's answer, to be read or to be followed."""

    def release(self) -> bool:
        """Gives the connection back if its answer is over; False if its end hasn't come yet."""
        ...

    def follow(self, follower: Follower) -> None:
        """Gives the body to `follower` from now on; nobody may `read` any more."""
        ...

    def pause(self) -> None:
        """Stops reading, so that TCP stops the backend; the follower gets nothing meanwhile."""
        ...

    def resume(self) -> None:
        """The counterpart of `pause`; may feed the follower before it returns."""
        ...


@dataclass(slots=True)
class Opening:
    """How the backend took the request.

    Either a stream (`error` and `declined` are None), an error, or `declined`: an answer that is
    not a stream, to be handed on as it is by whoever asked. That one must then close it. The
    stream's `headers` are let go once they have been passed on.
    """

    headers: Mapping[str, str] = field(default_factory=dict)
    error: GatewayError | None = None
    declined: Answer | None = None


Ask = Callable[[], Awaitable[Answer]]
