"""What happened so far, for tests that ask whether a disconnect reached the backend."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field

#: Paths whose headers are kept; the oldest goes first.
PATHS = 200


@dataclass(slots=True)
class Stats:
    """`left` counts answers whose client went away before the end, streamed or not."""

    requests: int = 0
    active: int = 0
    completed: int = 0
    left: int = 0
    chunks: int = 0
    requests_by_path: dict[str, int] = field(default_factory=dict)
    last_headers: dict[str, dict[str, str]] = field(default_factory=dict)

    def record(self, path: str, headers: dict[str, str]) -> None:
        """One request came in; header names are kept as they were sent."""
        self.requests += 1
        self.last_headers.pop(path, None)
        self.last_headers[path] = headers
        if len(self.last_headers) > PATHS:
            oldest = next(iter(self.last_headers))
            del self.last_headers[oldest], self.requests_by_path[oldest]
        self.requests_by_path[path] = self.requests_by_path.get(path, 0) + 1

    @contextmanager
    def answering(self) -> Iterator[None]:
        """Counts an answer while it is given and how it ended."""
        self.active += 1
        try:
            yield
        except (asyncio.CancelledError, ConnectionError):
            self.left += 1
            raise
        else:
            self.completed += 1
        finally:
            self.active -= 1

    def reset(self) -> None:
        """Forgets all but what is active."""
        active = self.active
        self.__init__()  # type: ignore[misc]
        self.active = active

    def as_json(self) -> dict[str, object]:
        return asdict(self)
