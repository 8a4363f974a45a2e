"""What a verifier reads of one log, wherever it is kept: `stored` and `exported` give it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple, Protocol

from gateway.audit.canonical import Object
from gateway.audit.export import Tombstone
from gateway.audit.verify.findings import Findings


class Entry(NamedTuple):
    """One record as it is kept.

    Args:
        body: None where only `leaf` is left.
        personal: Salt and value by their field.
        columns: Time, class and type as they stand beside the body, where they do.
        is_spoilt: There is something of this number, but it can't be read.
    """

    seq: int
    body: bytes | None
    leaf: bytes
    personal: Mapping[str, tuple[bytes, bytes]]
    hold: str | None = None
    columns: tuple[int, str, str] | None = None
    is_spoilt: bool = False


class Source(Protocol):
    """One log. Each iterator may be asked for once; `explanations` comes first."""

    @property
    def origin(self) -> str: ...

    @property
    def size(self) -> int: ...

    @property
    def made_ms(self) -> int:
        """The time that ages are counted to."""
        ...

    def explanations(self, findings: Findings) -> Iterator[tuple[int, Object]]:
        """Number and body of what the log says about itself. Tells of what can't be read."""
        ...

    def notes(self) -> Iterator[str]:
        """Checkpoints, by their size."""
        ...

    def tombstones(self) -> Iterator[Tombstone]:
        """By number and field."""
        ...

    def tiles(self) -> Mapping[int, bytes]: ...

    def entries(self, findings: Findings) -> Iterator[Entry]:
        """In the order of their numbers, if nobody has tampered."""
        ...
