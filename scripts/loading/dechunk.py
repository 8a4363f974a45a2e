"""The body of a response out of its bytes: chunked, of a known length, or until the close.

Trusts the server: this measures, it doesn't defend.
"""

from __future__ import annotations


class Chunked:
    """Takes the chunk headers out."""

    def __init__(self) -> None:
        self.is_complete = False
        self._rest = b""
        #: Bytes of the current chunk that are still to come, its CRLF included.
        self._left = 0

    def feed(self, data: bytes) -> bytes:
        """What `data` adds to the body."""
        if self._rest:
            data, self._rest = self._rest + data, b""
        pieces = []
        at, end = 0, len(data)
        while at < end:
            if not self._left:
                line = data.find(b"\r\n", at)
                if line < 0:
                    self._rest = data[at:]
                    break
                size = int(data[at:line].partition(b";")[0], 16)
                if not size:
                    self._ending(data[line:])
                    if not self.is_complete:
                        self._rest = data[at:]
                    break
                at = line + 2
                self._left = size + 2
            take = min(self._left, end - at)
            self._left -= take
            # The chunk's own CRLF is not the body's; it may arrive apart from the chunk.
            body = min(take, max(0, take + self._left - 2))
            pieces.append(data[at : at + body])
            at += take
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def _ending(self, trailer: bytes) -> None:
        self.is_complete = trailer.startswith(b"\r\n\r\n") or (
            trailer.endswith(b"\r\n\r\n") and len(trailer) > 4
        )


class Sized:
    """A body of known length; without one it lasts until the close."""

    def __init__(self, length: int | None) -> None:
        self._left = length
        self.is_complete = length == 0

    def feed(self, data: bytes) -> bytes:
        if self._left is not None:
            self._left -= len(data)
            self.is_complete = self._left <= 0
        return data


def body_of(head: bytes) -> Chunked | Sized:
    """For a response head in lower case."""
    if b"\r\ntransfer-encoding: chunked" in head:
        return Chunked()
    _, found, rest = head.partition(b"\r\ncontent-length:")
    return Sized(int(rest.partition(b"\r\n")[0]) if found else None)
