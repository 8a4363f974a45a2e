"""HMAC-SHA-256 (RFC 2104) of short messages: what a record is mostly made of, six of them for a
request and its end.

Two plain hashes take a third of the time that `hmac.digest` needs to set its context up. A test
holds the two to each other.
"""

from __future__ import annotations

from hashlib import sha256

MAX_KEY_BYTES = 64  #: a block; longer ones are hashed first, which nobody here needs
_INNER = bytes(byte ^ 0x36 for byte in range(256))
_OUTER = bytes(byte ^ 0x5C for byte in range(256))


def hmac_sha256(key: bytes, message: bytes) -> bytes:
    """
    Raises:
        ValueError: the key is longer than a block.
    """
    if len(key) > MAX_KEY_BYTES:
        raise ValueError("a key of more than 64 bytes")
    block = key.ljust(MAX_KEY_BYTES, b"\0")
    inner = sha256(block.translate(_INNER) + message).digest()
    return sha256(block.translate(_OUTER) + inner).digest()
