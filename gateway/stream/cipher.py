"""Encryption at rest of what was said: AES-256-GCM, keys that rotate.

What is sealed begins with a byte that says how: 0, as it is; 1, encrypted, followed by the id of
the key, the nonce and the ciphertext with its tag. The place where a value is stored is
authenticated with it, so that values can't be exchanged.

Without a key nothing is encrypted. What was stored before a key was set stays readable, so the
cipher guards against reading, and against altering what is encrypted; it can't tell that somebody
with write access has put an unencrypted value in its place.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import os
from collections.abc import Sequence

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from gateway.errors import SettingsError
from gateway.stream.store import StoreError

_PLAIN = b"\0"
_ENCRYPTED = b"\1"
_KEY_BYTES = 32
_KEY_ID_BYTES = 8
# Random, so one key is good for 2^32 values (NIST SP 800-38D §8.3).
_NONCE_BYTES = 12


class Cipher:
    """Seals with the first key, opens with any; without keys it leaves everything as it is."""

    def __init__(self, keys: Sequence[bytes] = ()) -> None:
        self._keys = {key_id(key): AESGCM(key) for key in keys}
        self._sealing = key_id(keys[0]) if keys else None

    @classmethod
    def from_setting(cls, text: str | None) -> Cipher:
        """From `PARTIAL_ENCRYPTION_KEY`: keys of 32 bytes in base64 or hex, comma-separated.

        Raises:
            SettingsError: one of them isn't.
        """
        parts = [part.strip() for part in (text or "").split(",")]
        return cls([_parse_key(part) for part in parts if part])

    @property
    def is_on(self) -> bool:
        return self._sealing is not None

    def seal(self, plain: bytes, place: str) -> bytes:
        """`plain` as it may be stored at `place`."""
        if self._sealing is None:
            return _PLAIN + plain
        nonce = os.urandom(_NONCE_BYTES)
        header = _ENCRYPTED + self._sealing
        secret = self._keys[self._sealing].encrypt(nonce, plain, header + place.encode())
        return header + nonce + secret

    def open(self, sealed: bytes, place: str) -> bytes:
        """What was sealed for `place`.

        Raises:
            StoreError: not transient: altered, moved, or sealed with a key that isn't here.
        """
        if sealed[:1] == _PLAIN:
            return sealed[1:]
        if sealed[:1] != _ENCRYPTED:
            raise StoreError("A stored value is damaged.", is_transient=False)
        start = 1 + _KEY_ID_BYTES
        key = self._keys.get(sealed[1:start])
        if key is None:
            raise StoreError("A stored value needs a key that isn't set.", is_transient=False)
        nonce, secret = sealed[start : start + _NONCE_BYTES], sealed[start + _NONCE_BYTES :]
        try:
            return key.decrypt(nonce, secret, sealed[:start] + place.encode())
        except (InvalidTag, ValueError):
            raise StoreError("A stored value was altered.", is_transient=False) from None


def key_id(key: bytes) -> bytes:
    """What names a key: the first 8 hex digits of its SHA-256."""
    return hashlib.sha256(key).hexdigest()[:_KEY_ID_BYTES].encode()


def _parse_key(text: str) -> bytes:
    key = b""
    try:
        if len(text) == 2 * _KEY_BYTES:
            key = bytes.fromhex(text)
        else:
            padded = text + "=" * (-len(text) % 4)
            key = base64.b64decode(
                padded, altchars=b"-_" if "-" in text or "_" in text else None, validate=True
            )
    except (ValueError, binascii.Error):
        pass
    if len(key) != _KEY_BYTES:
        raise SettingsError(
            "PARTIAL_ENCRYPTION_KEY: each key must be 32 bytes in base64 or hex; "
            "`openssl rand -base64 32` makes one"
        )
    return key
