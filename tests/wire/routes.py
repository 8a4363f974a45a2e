"""Every route that streams, each with the smallest recorded answer that still says something.

Small, since `test_cuts` breaks each of them off after every byte, in every way.
"""

from __future__ import annotations

from dataclasses import dataclass

from tests.framing import LAST_CHUNK, Framing, chunked, response_head

SAID = "Grüß 👋🏽"
_SSE = "text/event-stream"
_TYPED_PATH = "/api/v2/chat-stream"


@dataclass(frozen=True, slots=True)
class Recording:
    """What a backend of one dialect answers, block by block; the last block is the terminal one."""

    dialect: str
    blocks: tuple[bytes, ...]
    content_type: str = _SSE

    def answer(self, framing: Framing) -> tuple[bytes, bytes]:
        """The head and the body as they come over the wire, each block a chunk of its own."""
        stream = b"".join(self.blocks)
        head = response_head(content_type=self.content_type, framing=framing, length=len(stream))
        if framing != "chunked":
            return head, stream
        return head, b"".join(map(chunked, self.blocks)) + LAST_CHUNK


@dataclass(frozen=True, slots=True)
class Route:
    """A path of the gateway in front of a backend that answers with `recording`."""

    path: str
    recording: Recording

    def __str__(self) -> str:
        return f"{'typed' if self.is_typed else 'provider'}-{self.recording.dialect}"

    @property
    def is_typed(self) -> bool:
        return self.path == _TYPED_PATH

    def question(self, text: str) -> dict[str, object]:
        """The body of a request; `text` gets through to the backend."""
        return {"query": text} if self.is_typed else {"model": text, "stream": True}


def _text(template: str) -> tuple[bytes, ...]:
    return tuple(f"{block}\n\n".encode() for block in template.strip("\n").split("\n\n"))


CHAT = Recording(
    "openai",
    _text("""
data: {"choices":[{"index":0,"delta":{"content":"Grüß"}}]}

data: {"choices":[{"index":0,"delta":{"content":" 👋🏽"},"finish_reason":"stop"}]}

data: [DONE]
"""),
)
RESPONSES = Recording(
    "openai-responses",
    _text("""
event: response.output_text.delta
data: {"type":"response.output_text.delta","delta":"Grüß"}

event: response.output_text.delta
data: {"type":"response.output_text.delta","delta":" 👋🏽"}

event: response.completed
data: {"type":"response.completed","response":{"status":"completed"}}
"""),
)
ANTHROPIC = Recording(
    "anthropic",
    _text("""
event: content_block_delta
data: {"type":"content_block_delta","delta":{"text":"Grüß"}}

event: content_block_delta
data: {"type":"content_block_delta","delta":{"text":" 👋🏽"}}

event: message_stop
data: {"type":"message_stop"}
"""),
)
RAG = Recording(
    "rag",
    _text("""
data: {"content":"Grüß"}

data: {"content":" 👋🏽"}

event: complete
data: {"sources":[{"title":"Łódź"}]}
"""),
)
OLLAMA = Recording(
    "ollama",
    (
        '{"message":{"content":"Grüß"},"done":false}\n'.encode(),
        '{"message":{"content":" 👋🏽"},"done":false}\n'.encode(),
        b'{"message":{"content":""},"done":true,"done_reason":"stop"}\n',
    ),
    "application/x-ndjson",
)

TYPED = tuple(Route(_TYPED_PATH, each) for each in (CHAT, RESPONSES, ANTHROPIC, RAG, OLLAMA))
PROVIDER = (
    Route("/v1/chat/completions", CHAT),
    Route("/v1/responses", RESPONSES),
    Route("/v1/messages", ANTHROPIC),
)
ROUTES = TYPED + PROVIDER
