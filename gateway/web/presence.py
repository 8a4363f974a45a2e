"""Notices a client that leaves while nothing is read from its connection.

The event loop doesn't look at a connection whose reading is paused, so it sees neither its FIN nor
its reset. An upload faster than the backend takes it, or requests sent ahead of their answers,
would then keep the backend at work for nobody.
"""

from __future__ import annotations

import asyncio
import select
import socket

#: Not on every system; without it only a reset is noticed.
_HAS_LEFT = getattr(select, "POLLRDHUP", 0) | select.POLLHUP | select.POLLERR


class PresenceWatch:
    """Knows the connections of the requests that are being answered."""

    def __init__(self) -> None:
        self.transports: set[asyncio.Transport] = set()

    def tick(self) -> None:
        """Aborts those whose client has left; one system call for all whose reading is paused."""
        paused = {_fileno(each): each for each in self.transports if not each.is_reading()}
        paused.pop(-1, None)
        if not paused:
            return
        poll = select.poll()
        for fileno in paused:
            poll.register(fileno, _HAS_LEFT)
        for fileno, _ in poll.poll(0):
            paused[fileno].abort()


def _fileno(transport: asyncio.Transport) -> int:
    sock: socket.socket | None = transport.get_extra_info("socket")
    return -1 if sock is None else sock.fileno()
