"""How a process of a comparison is started."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path


class NotInstalled(Exception):
    """A peer isn't there; the text says how to get it."""


@dataclass(frozen=True, slots=True)
class Start:
    """A command, what its environment has beside ours, and where it runs."""

    command: list[str]
    environment: dict[str, str] = field(default_factory=dict)
    cwd: Path | None = None
