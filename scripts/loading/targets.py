"""What is asked, and how its events look: one entry for each dialect of an endpoint."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from urllib.parse import quote, urlsplit

#: Puts the time of emission into an event's text: `stamp=text` of both backends.
STAMP = re.compile(rb"@(\d{9,20})")


@dataclass(frozen=True, slots=True)
class Dialect:
    """`mark` is in every event that counts and `terminal` only in the last, each within a line.

    An event whose mark reads `empty` says nothing and doesn't count.
    """

    path: str
    mark: bytes
    terminal: bytes
    method: str = "POST"
    empty: bytes = b""
    headers: tuple[tuple[str, str], ...] = ()


DIALECTS = {
    "openai": Dialect(
        "/v1/chat/completions", b'"content":"', b"data: [DONE]", empty=b'"content":""'
    ),
    "anthropic": Dialect(
        "/v1/messages",
        b"event: content_block_delta",
        b"event: message_stop",
        headers=(("anthropic-version", "2023-06-01"),),
    ),
    "typed": Dialect(
        "/api/v2/chat-stream", b"event: content_chunk", b"event: complete", method="GET"
    ),
}


@dataclass(frozen=True, slots=True)
class Target:
    """An endpoint. The question may hold the backend's options: `[mock: tokens=20 stamp=text]`."""

    url: str
    dialect: str = "openai"
    path: str = ""
    model: str = "load"
    headers: dict[str, str] = field(default_factory=dict)
    mark: bytes = b""

    @property
    def host(self) -> str:
        return urlsplit(self.url).hostname or "127.0.0.1"

    @property
    def port(self) -> int:
        parts = urlsplit(self.url)
        return parts.port or (443 if parts.scheme == "https" else 80)

    @property
    def speaks(self) -> Dialect:
        return DIALECTS[self.dialect]

    @property
    def event_mark(self) -> bytes:
        return self.mark or self.speaks.mark

    @property
    def empty_mark(self) -> bytes:
        return b"" if self.mark else self.speaks.empty

    def request(self, question: str, last_event_id: str = "") -> bytes:
        """A whole HTTP/1.1 request; with `last_event_id`, one that resumes."""
        dialect = self.speaks
        path = urlsplit(self.url).path.rstrip("/") + (self.path or dialect.path)
        headers = {
            "Host": f"{self.host}:{self.port}",
            "Accept": "text/event-stream",
            **dict(dialect.headers),
            **self.headers,
        }
        if last_event_id:
            headers["Last-Event-ID"] = last_event_id
        body = b""
        if dialect.method == "GET":
            path += f"?query={quote(question)}"
        else:
            body = self._body(question)
            headers |= {"Content-Type": "application/json", "Content-Length": str(len(body))}
        lines = [f"{dialect.method} {path} HTTP/1.1", *(f"{k}: {v}" for k, v in headers.items())]
        return "\r\n".join([*lines, "", ""]).encode() + body

    def _body(self, question: str) -> bytes:
        body: dict[str, object] = {
            "model": self.model,
            "stream": True,
            "messages": [{"role": "user", "content": question}],
        }
        if self.dialect == "anthropic":
            body["max_tokens"] = 1_000_000
        return json.dumps(body).encode()
