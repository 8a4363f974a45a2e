"""A proxy that keeps the bytes on the wire, and finds the gateway's heartbeats among them."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from types import TracebackType
from weakref import WeakKeyDictionary

from tests.faults import Direction, FaultProxy

#: A heartbeat as the gateway sends it: a comment line without a blank one, in a chunk of its own.
HEARTBEAT = b"\r\n2\r\n:\n\r\n"


class Tap(FaultProxy):
    """Keeps what the target sent, each connection for itself."""

    def __init__(self, target: int) -> None:
        super().__init__(target)
        self._recorder = _Recorder()
        self.down = self._recorder

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.cut_all()  # also what was accepted so late that nobody has looked at it
        await super().__aexit__(kind, error, trace)

    @property
    def received(self) -> list[bytes]:
        return [bytes(data) for data in self._recorder.data]

    def heartbeats(self) -> list[tuple[int, int]]:
        """Of each connection, how many came before its first event and how many after that."""
        return [_count_heartbeats(data) for data in self.received]


def _count_heartbeats(data: bytes) -> tuple[int, int]:
    before, _, after = data.partition(b"data: ")
    return before.count(HEARTBEAT), after.count(HEARTBEAT)


@dataclass(eq=False)
class _Recorder(Direction):
    data: list[bytearray] = field(default_factory=list)
    #: Weak, since a writer must not outlive its loop.
    _of: WeakKeyDictionary[asyncio.StreamWriter, bytearray] = field(
        default_factory=WeakKeyDictionary
    )

    async def _pass(self, data: bytes, writer: asyncio.StreamWriter) -> None:
        if writer not in self._of:
            self._of[writer] = bytearray()
            self.data.append(self._of[writer])
        self._of[writer] += data
        await super()._pass(data, writer)
