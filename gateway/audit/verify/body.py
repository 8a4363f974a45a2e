"""One record's body and personal values, looked at alone. Called for each record: it is quick."""

from __future__ import annotations

import hmac
import re
from binascii import b2a_base64
from collections.abc import Mapping

from gateway.audit.canonical import Object, decode
from gateway.audit.event import TYPES
from gateway.audit.record import MAX_BODY_BYTES, SALT_BYTES, VERSION
from gateway.audit.verify.findings import Bad
from gateway.errors import AuditError

_NONCE = re.compile(r"[A-Za-z0-9_-]{21}[AQgw]", re.ASCII)
_URL = bytes.maketrans(b"+/", b"-_")
_CLASS = {name: event.cls.value for name, event in TYPES.items()}


def read(raw: bytes) -> Object:
    """The body, if it is one of this version.

    Raises:
        Bad: `not_canonical`, `malformed`.
    """
    try:
        body = decode(raw)
    except AuditError:
        raise Bad("not_canonical") from None
    if (
        body.get("v") != VERSION
        or len(raw) > MAX_BODY_BYTES
        or type(body.get("ts")) is not int
        or not isinstance(body.get("commit"), dict)
        or not _NONCE.fullmatch(str(body.get("nonce")))
        or _CLASS.get(str(body.get("type")), "") != body.get("cls")
    ):
        raise Bad("malformed")
    return body


def is_committed(commit: Mapping[str, object], name: str, salt: bytes, value: bytes) -> bool:
    """Whether the body's commitments have one to this value."""
    if len(salt) != SALT_BYTES:
        return False
    made = hmac.digest(salt, b"gw-audit/1 field\0%b\0%b" % (name.encode(), value), "sha256")
    return commit.get(name) == b2a_base64(made, newline=False)[:-1].translate(_URL).decode()
