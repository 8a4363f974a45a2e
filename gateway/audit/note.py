"""Signed notes: a text, and below it signatures by named Ed25519 keys. C2SP signed-note.

Signatures of unknown keys are ignored, so that a new key and witnesses can sign beside the old
one; a wrong signature of a known key spoils the note. Here base64 is the standard one, padded.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from gateway.errors import AuditError

MAX_NOTE_BYTES = 64 * 1024
MAX_SIGNATURES = 64
KEY_ID_BYTES = 4

_ED25519 = b"\1"
_PUBLIC_BYTES = 32
_DASH = "\u2014 "


@dataclass(frozen=True, slots=True)
class Verifier:
    """A public key under its name: what a reader of notes trusts.

    Raises:
        AuditError: `bad_key`: the name or the key can't be one.
    """

    name: str
    public: bytes

    def __post_init__(self) -> None:
        if not _is_name(self.name) or len(self.public) != _PUBLIC_BYTES:
            raise AuditError("bad_key", "not the name or the bytes of a key")

    @property
    def key_id(self) -> bytes:
        """The four bytes that tell keys of one name apart."""
        named = self.name.encode() + b"\n" + _ED25519 + self.public
        return hashlib.sha256(named).digest()[:KEY_ID_BYTES]

    def verify(self, text: str, signature: bytes) -> bool:
        try:
            Ed25519PublicKey.from_public_bytes(self.public).verify(signature, text.encode())
        except (InvalidSignature, ValueError):
            return False
        return True

    def __str__(self) -> str:
        """As people and tools hand it around: `name+id+base64`, Go's sumdb verifier key."""
        return f"{self.name}+{self.key_id.hex()}+{_base64(_ED25519 + self.public)}"

    @classmethod
    def parse(cls, text: str) -> Verifier:
        """
        Raises:
            AuditError: `bad_key`: not what `str` gives, or its id isn't the key's.
        """
        name, _, rest = text.partition("+")
        key_id, _, encoded = rest.partition("+")
        public = _from_base64(encoded)
        if public is None or public[:1] != _ED25519:
            raise AuditError("bad_key", "not an Ed25519 verifier key")
        verifier = cls(name, public[1:])
        if verifier.key_id.hex() != key_id:
            raise AuditError("bad_key", "the key's id isn't that of its bytes")
        return verifier


class Signer:
    """A private key under its name."""

    def __init__(self, name: str, seed: bytes) -> None:
        """
        Raises:
            AuditError: `bad_key`: the name can't be one, or the seed isn't 32 bytes.
        """
        try:
            self._key = Ed25519PrivateKey.from_private_bytes(seed)
        except ValueError:
            raise AuditError("bad_key", "an Ed25519 seed has 32 bytes") from None
        self.verifier = Verifier(name, self._key.public_key().public_bytes_raw())

    def sign(self, text: str) -> Signature:
        return Signature(self.verifier.name, self.verifier.key_id, self._key.sign(text.encode()))


@dataclass(frozen=True, slots=True)
class Signature:
    """One line below a note. What `value` is, the key's type says; Ed25519's has 64 bytes."""

    name: str
    key_id: bytes
    value: bytes

    def __str__(self) -> str:
        return f"{_DASH}{self.name} {_base64(self.key_id + self.value)}\n"


@dataclass(frozen=True, slots=True)
class Note:
    """A text, which ends with a line feed, and who signed it."""

    text: str
    signatures: tuple[Signature, ...]

    def __str__(self) -> str:
        return f"{self.text}\n{''.join(map(str, self.signatures))}"

    def signed_by(self, *signers: Signer) -> Note:
        """With more signatures; one that is there already is replaced."""
        new = [signer.sign(self.text) for signer in signers]
        known = {(one.name, one.key_id) for one in new}
        kept = [one for one in self.signatures if (one.name, one.key_id) not in known]
        return Note(self.text, (*kept, *new))

    def verified_by(self, trusted: Iterable[Verifier]) -> list[Verifier]:
        """The trusted keys that signed it: at least one.

        Raises:
            AuditError: `bad_signature`: that of a trusted key is wrong; `unsigned`: there is none.
        """
        keys = {(one.name, one.key_id): one for one in trusted}
        found: list[Verifier] = []
        for signature in self.signatures:
            key = keys.get((signature.name, signature.key_id))
            if key is None or key in found:
                continue
            if not key.verify(self.text, signature.value):
                raise AuditError("bad_signature", "a trusted key's signature is wrong")
            found.append(key)
        if not found:
            raise AuditError("unsigned", "no trusted key has signed this")
        return found


def sign(text: str, signers: Sequence[Signer]) -> Note:
    """A new note.

    Raises:
        AuditError: `bad_note`: the text can't be one.
    """
    _check_characters(text)
    if not text.endswith("\n"):
        raise AuditError("bad_note", "a note's text ends with a line feed")
    return Note(text, ()).signed_by(*signers)


def parse(raw: str | bytes) -> Note:
    """
    Raises:
        AuditError: `bad_note`: not a signed note, or one that is larger than notes are here.
    """
    if len(raw) > MAX_NOTE_BYTES:
        raise AuditError("bad_note", "too large for a note")
    try:
        whole = raw.decode() if isinstance(raw, bytes) else raw
    except UnicodeDecodeError:
        raise AuditError("bad_note", "a note is UTF-8") from None
    _check_characters(whole)
    text, gap, signed = whole.rpartition("\n\n")
    lines = signed.split("\n")
    if not gap or lines.pop() or not 0 < len(lines) <= MAX_SIGNATURES:
        raise AuditError("bad_note", "a note has signature lines after an empty line")
    return Note(f"{text}\n", tuple(map(_parse_line, lines)))


def _parse_line(line: str) -> Signature:
    name, space, encoded = line.removeprefix(_DASH).partition(" ")
    value = _from_base64(encoded)
    if not line.startswith(_DASH) or not space or not _is_name(name):
        raise AuditError("bad_note", "not a signature line")
    if value is None or len(value) <= KEY_ID_BYTES:
        raise AuditError("bad_note", "not a signature in base64")
    return Signature(name, value[:KEY_ID_BYTES], value[KEY_ID_BYTES:])


def _check_characters(text: str) -> None:
    if any((char < " " and char != "\n") or "\ud800" <= char <= "\udfff" for char in text):
        raise AuditError("bad_note", "a note holds no control characters")


def _is_name(name: str) -> bool:
    return name != "" and "+" not in name and name.isprintable() and len(name.split()) == 1


def _base64(raw: bytes) -> str:
    return base64.b64encode(raw).decode()


def _from_base64(text: str) -> bytes | None:
    """None for what isn't the one spelling of some bytes."""
    try:
        raw = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return None
    return raw if _base64(raw) == text else None
