"""One key in one file: a line of JSON, the secret plain or encrypted by a key-encrypting key.

Mode 0600. Written beside and renamed, so that a crash leaves the whole key or none.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import os
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from gateway.errors import AuditError

_KEK_BYTES = 32
_NONCE_BYTES = 12
_FORMAT = "sluice-audit-key/1"


@dataclass(frozen=True, slots=True)
class Key:
    """`secret` is 32 bytes, or empty where only the rest was asked for."""

    kind: str
    id: str
    created_ms: int
    secret: bytes = field(repr=False)
    is_wrapped: bool = False


class Wrapping:
    """Key-encrypting keys: the first one wraps, any unwraps; without one keys lie there plain."""

    def __init__(self, keks: Sequence[bytes] = ()) -> None:
        """
        Raises:
            AuditError: `bad_kek`: one hasn't 32 bytes.
        """
        if any(len(kek) != _KEK_BYTES for kek in keks):
            raise AuditError("bad_kek", "a key-encrypting key has 32 bytes")
        self._keks = {_kek_id(kek): AESGCM(kek) for kek in keks}
        self._wrapping = _kek_id(keks[0]) if keks else None

    @classmethod
    def from_text(cls, text: str) -> Wrapping:
        """Keys of 32 bytes in base64 or hex, separated by commas or white space.

        Raises:
            AuditError: `bad_kek`.
        """
        return cls([_parse_kek(part) for part in text.replace(",", " ").split()])

    def wrap(self, secret: bytes, place: str) -> dict[str, str]:
        """The members of the file that hold the secret."""
        if self._wrapping is None:
            return {"key": _base64(secret)}
        nonce = secrets.token_bytes(_NONCE_BYTES)
        sealed = self._keks[self._wrapping].encrypt(nonce, secret, place.encode())
        return {"kek": self._wrapping, "key": _base64(nonce + sealed)}

    def unwrap(self, members: dict[str, str], place: str) -> bytes:
        """
        Raises:
            AuditError: `needs_kek`: none of these wrapped it.
            ValueError: the secret is damaged.
        """
        stored = base64.b64decode(members["key"], validate=True)
        if "kek" not in members:
            return stored
        kek = self._keks.get(members["kek"])
        if kek is None:
            raise AuditError("needs_kek", "a key is wrapped by a key that isn't here")
        try:
            return kek.decrypt(stored[:_NONCE_BYTES], stored[_NONCE_BYTES:], place.encode())
        except InvalidTag:
            raise ValueError("altered") from None


def write_key(path: Path, key: Key, wrapping: Wrapping) -> None:
    """Durable when it returns.

    Raises:
        OSError: and then there is no file of this name.
    """
    members: dict[str, str | int] = {"format": _FORMAT, "kind": key.kind, "id": key.id}
    members |= {"created_ms": key.created_ms, **wrapping.wrap(key.secret, _place(key))}
    draft = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    try:
        with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as out:
            out.write(json.dumps(members).encode() + b"\n")
            out.flush()
            os.fsync(out.fileno())
        draft.rename(path)
    finally:
        draft.unlink(missing_ok=True)
    sync_folder(path.parent)


def parse_key(path: Path, wrapping: Wrapping | None = None) -> Key:
    """Without `wrapping` the secret is left out.

    Raises:
        AuditError: `bad_key_file`, and `needs_kek`.
    """
    try:
        members = json.loads(path.read_bytes())
        key = Key(members["kind"], members["id"], members["created_ms"], b"", "kek" in members)
        secret = wrapping.unwrap(members, _place(key)) if wrapping else b""
        named = (f"{key.kind}-{key.id}.key", int, _FORMAT)
        if (path.name, type(key.created_ms), members["format"]) != named:
            raise ValueError
    except FileNotFoundError:
        raise AuditError("no_key", "there is no such key, or it has been destroyed") from None
    except (ValueError, KeyError, TypeError, RecursionError):
        raise AuditError("bad_key_file", f"{path.name}: not a key file") from None
    if wrapping and len(secret) != _KEK_BYTES:
        raise AuditError("bad_key_file", f"{path.name}: a key has 32 bytes")
    return Key(key.kind, key.id, key.created_ms, secret, key.is_wrapped)


def sync_folder(folder: Path) -> None:
    """Makes the names in a folder durable."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _place(key: Key) -> str:
    return f"{_FORMAT} {key.kind} {key.id}"


def _parse_kek(text: str) -> bytes:
    try:
        if len(text) == 2 * _KEK_BYTES:
            return bytes.fromhex(text)
        padded = text + "=" * (-len(text) % 4)
        return base64.b64decode(padded.replace("-", "+").replace("_", "/"), validate=True)
    except (ValueError, binascii.Error):
        raise AuditError("bad_kek", "a key-encrypting key is 32 bytes in base64 or hex") from None


def _kek_id(kek: bytes) -> str:
    return hashlib.sha256(b"gw-audit/1 kek\0" + kek).hexdigest()[:8]


def _base64(raw: bytes) -> str:
    return base64.b64encode(raw).decode()
