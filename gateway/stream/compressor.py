"""Compression of what is stored: RFC 8878 (Zstandard), at its fastest.

Fifty events of a stream differ in a word each, so they become a twentieth of their size. Pages of
a database cost more to write than this costs, and whoever shares a processor with the thread that
writes them waits for it (docs/load.md).
"""

from __future__ import annotations

from collections.abc import Sequence

import zstandard

from gateway.stream.store import damaged

_LEVEL = -1
#: Less than this isn't worth it.
_LEAST_BYTES = 512
#: From here on the allocator asks the kernel for each.
_LARGE_BYTES = 128 * 1024
#: What a segment begins with that isn't compressed is a count of events: never this many.
_MAGIC = zstandard.FRAME_HEADER
#: No segment is so large: a log holds less, and a segment is a part of one.
_MOST_BYTES = 1 << 30


class Compressor:
    """Compresses values, and gives values back whether they were compressed or not.

    For one thread at a time.
    """

    def __init__(self) -> None:
        self._compressor = zstandard.ZstdCompressor(level=_LEVEL)
        self._decompressor = zstandard.ZstdDecompressor()

    def compress(self, pieces: Sequence[bytes]) -> bytes:
        """What they make joined, compressed if it is large enough.

        Large ones aren't joined first: fresh memory for a megabyte takes three times as long as
        compressing it.
        """
        size = sum(map(len, pieces))
        if size < _LEAST_BYTES:
            return b"".join(pieces)
        if size < _LARGE_BYTES:
            return self._compressor.compress(b"".join(pieces))
        compressing = self._compressor.compressobj(size=size)
        return b"".join([*map(compressing.compress, pieces), compressing.flush()])

    def decompress(self, stored: bytes) -> bytes:
        """What was compressed, or left alone.

        Raises:
            StoreError: not transient: it is damaged.
        """
        if not stored.startswith(_MAGIC):
            return stored
        try:
            if zstandard.frame_content_size(stored) > _MOST_BYTES:
                raise damaged()
            return self._decompressor.decompress(stored)
        except zstandard.ZstdError:
            raise damaged() from None
