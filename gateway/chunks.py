"""HTTP/1.1's chunks (RFC 9112, section 7.1): the line in front of one.

Each event comes and goes in a chunk, and formatting its size takes longer than looking it up.
"""

from __future__ import annotations

#: The size lines of small chunks, as they are usually written; the index is the size.
SIZE_LINES = tuple(b"%x\r\n" % size for size in range(4096))
