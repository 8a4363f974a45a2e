"""How a log is kept, and who is told its figures."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol


class Meter(Protocol):
    """Is told figures."""

    def audit_committed(self, classes: Mapping[str, int], took_s: float) -> None: ...

    def audit_lost(self, count: int) -> None: ...

    def audit_signed(self, now_s: float) -> None: ...


@dataclass(frozen=True, slots=True)
class Manner:
    """How the log is kept.

    Args:
        folder: For the ballast and the spool.
        kind: `gateway`, or `command`: a log that is begun and closed within one command, beside
            the gateway's. It neither goes on with a log that a crash left nor abandons one, and
            the spool isn't its business.
        patience_s: After so long a commit counts as failed for who waits.
    """

    origin: str
    instance: str
    folder: Path
    checkpoint_s: float = 60
    patience_s: float = 2
    ballast_bytes: int = 0
    kind: Literal["gateway", "command"] = "gateway"
