"""What a dialect knows: how one family of backends is asked and how its streams speak.

A dialect is stateless and shared; what a single stream needs to remember is in the decoder,
translator or watcher that it hands out.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import Enum
from typing import Protocol

from gateway.errors import GatewayError
from gateway.sse.event import Prompt, Signal, Summary


class Verdict(Enum):
    """What a terminal block says about the stream that it ends."""

    COMPLETE = "complete"
    INCOMPLETE = "incomplete"
    FAILED = "failed"
    #: An error stands where the terminal event should be.
    BROKEN = "broken"


class Decoder(Protocol):
    """Cuts a backend's bytes into whole blocks; linear in its input."""

    def feed(self, chunk: bytes) -> list[bytes]:
        """The blocks that `chunk` completes, each cleaned of what is hop-by-hop.

        Raises:
            UpstreamError: `event_too_large`, a block is over the decoder's bound.
        """
        ...

    @property
    def has_fragment(self) -> bool:
        """Whether bytes of an unfinished block are held; at the end of the input those are lost."""
        ...

    @property
    def is_between_blocks(self) -> bool:
        """Whether `feed` would give a chunk back as it is that is one usual block within the bound:
        nothing before it is unfinished."""
        ...


class Translator(Protocol):
    """Typed route: decodes blocks into signals. One per stream."""

    def feed(self, block: bytes) -> list[Signal]:
        """What `block` says. JSON that doesn't parse is a `Failure`; unknown events say nothing."""
        ...

    def text_of(self, block: bytes) -> str | None:
        """The text of the usual event, which says a piece of the answer and nothing else.

        A shortcut, three times as fast: `feed` would give this one `Text`. None for any other.
        """
        ...


class Watcher(Protocol):
    """Provider route: looks for the end without decoding JSON on the way. One per stream."""

    def see(self, block: bytes) -> Verdict | None:
        """The verdict if `block` is the dialect's terminal event or an error of the backend."""
        ...

    def passes(self, blocks: bytes) -> bool:
        """Whether `see` needn't look at these, joined: it would say nothing and note nothing."""
        ...


class Dialect(Protocol):
    name: str
    #: The path that the typed route asks by default.
    chat_path: str
    #: The media types of its streams, lower case.
    stream_types: frozenset[str]
    #: Which event, at the latest, holds the first token where the provider itself is the backend.
    lead_events: int

    def decoder(self, max_bytes: int) -> Decoder: ...

    def request_body(self, prompt: Prompt) -> bytes:
        """The JSON body that asks `prompt` as a stream."""
        ...

    def request_headers(self, api_key: str | None) -> dict[str, str]:
        """Headers of that request, the credential in the dialect's own place."""
        ...

    def translator(self) -> Translator: ...

    def watcher(self) -> Watcher: ...

    def error_block(self, error: GatewayError, trace_id: str, blocks: Iterable[bytes]) -> bytes:
        """The block that tells this dialect's SDKs of an error inside a stream.

        `blocks` are the latest ones sent, for dialects that number their events.
        """
        ...

    def stop_blocks(self, blocks: Iterable[bytes], output_tokens: int) -> list[bytes]:
        """What ends a stream in good order that a user has stopped, in this dialect's own way.

        `blocks` are those sent so far, to go on with their ids; the count is an estimate.
        """
        ...

    def error_body(self, error: GatewayError, trace_id: str) -> dict[str, object]:
        """The JSON answer for an error before the stream."""
        ...

    def summarise(self, blocks: Iterable[bytes]) -> Summary:
        """Text, usage and finish of a whole or partial stream; for use after its end."""
        ...
