"""Keyed hashes in the place of people and of what they asked.

A plain hash of a question is undone by trying questions. These need a key of 32 random bytes, which
is destroyed when its records have expired (`gateway.audit.keys`). Whoever holds the key can still
try: to the operator they are personal data. docs/audit-format.md repeats the formulas.
"""

from __future__ import annotations

import hmac
import unicodedata

from gateway.audit.canonical import to_text
from gateway.errors import AuditError

_TAG = b"gw-audit/1 "


def subject_pseudonym(key: bytes, issuer: str, subject: str) -> bytes:
    """Who: the same person has the same one until the key's year is over.

    Raises:
        AuditError: `bad_scope`: the issuer holds NUL.
    """
    return _keyed_hash(key, b"subject", issuer, subject)


def query_hash(key: bytes, scope: str, text: str | bytes) -> bytes:
    """What was asked. Text is hashed in NFC; bytes, such as a whole body, as they are.

    `scope` is `subject_scope` or `tenant_scope`: only within one do equal questions look equal.

    Raises:
        AuditError: `bad_scope`: it holds NUL.
    """
    return _keyed_hash(key, b"query", scope, text)


def session_hash(key: bytes, scope: str, conversation: str) -> bytes:
    """Which conversation, whose id is the client's own text. With the query's key and scope.

    Raises:
        AuditError: `bad_scope`: it holds NUL.
    """
    return _keyed_hash(key, b"session", scope, conversation)


def subject_scope(pseudonym: bytes) -> str:
    """No link between two people who ask the same. Found again by trying each stored pseudonym."""
    return f"subject:{to_text(pseudonym)}"


def tenant_scope(tenant: str = "") -> str:
    """For those who aren't signed in, and for deployments that want to link."""
    return f"tenant:{tenant}"


def is_equal(one: bytes, other: bytes) -> bool:
    """In a time that doesn't tell where they differ."""
    return hmac.compare_digest(one, other)


def _keyed_hash(key: bytes, kind: bytes, scope: str, text: str | bytes) -> bytes:
    if "\0" in scope:
        raise AuditError("bad_scope", "a scope can't hold NUL, which ends it")
    message = b"%b%b\0%b\0%b" % (_TAG, kind, _utf8(scope), _bytes_of(text))
    return hmac.digest(key, message, "sha256")


def _bytes_of(text: str | bytes) -> bytes:
    if isinstance(text, bytes):
        return text
    return _utf8(text if text.isascii() else unicodedata.normalize("NFC", text))


def _utf8(text: str) -> bytes:
    return text.encode(errors="surrogatepass")  # half a surrogate pair is still somebody's question
