"""What the events of known streams mean to a client."""

from __future__ import annotations

from gateway.client.errors import StreamError
from gateway.sse.parser import Event

_TERMINAL = frozenset(
    {
        *("complete", "error", "message_stop"),
        *("response.completed", "response.incomplete", "response.failed", "response.cancelled"),
    }
)
_HEARTBEATS = frozenset({"heartbeat", "ping"})


def is_terminal(event: Event) -> bool:
    """Whether nothing follows: the ends of Sluice's, OpenAI's and Anthropic's streams."""
    if event.type == "message":
        return event.data == "[DONE]" or event.data.startswith('{"error"')
    return event.type in _TERMINAL


def is_heartbeat(event: Event) -> bool:
    """Whether an event says only that the connection lives."""
    return event.type in _HEARTBEATS and not event.has_id


class Answer:
    """The text of a typed stream, gathered event by event."""

    def __init__(self) -> None:
        self._pieces: list[str] = []
        self._error: StreamError | None = None

    @property
    def text(self) -> str:
        return "".join(self._pieces)

    def add(self, event: Event) -> None:
        """Takes `content_chunk`, `snapshot` (in place of what came before) and `error`.

        Raises:
            ValueError: the data of one of these isn't JSON.
        """
        match event.type:
            case "content_chunk":
                self._pieces.append(_string(event, "content"))
            case "snapshot":
                self._pieces = [_string(event, "text")]
            case "error":
                code = _string(event, "code") or "error"
                self._error = StreamError(code, _string(event, "message"))

    def raise_error(self) -> None:
        """
        Raises:
            StreamError: the stream ended with an error; `partial` is the text before it.
        """
        if self._error is not None:
            self._error.partial = self.text
            raise self._error


def _string(event: Event, key: str) -> str:
    data = event.json()
    value = data.get(key) if isinstance(data, dict) else None
    return value if isinstance(value, str) else ""
