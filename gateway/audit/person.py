"""Somebody who exercises a right, as the operator names them, and how they stand in the log. Pure.

A name with its prefix (`sub:ada`, `user:ada`) is an owner as `gateway.identity` makes them; one
without is tried as both. What looks like an e-mail is also looked for as one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import ip_address

from gateway.audit.draft import clear_value
from gateway.audit.keyfile import Key
from gateway.audit.pseudonyms import subject_pseudonym
from gateway.errors import AuditError

PREFIXES = ("sub", "user")


@dataclass(frozen=True, slots=True)
class Person:
    """
    Args:
        owners: Whom streams and records may belong to.
        email, address: As they are stored.
    """

    owners: tuple[str, ...]
    email: bytes | None = None
    address: bytes | None = None

    @classmethod
    def parse(cls, text: str) -> Person:
        """
        Raises:
            AuditError: `bad_person`: empty, or longer than any name, or not printable.
        """
        name = text.strip()
        prefix, colon, rest = name.partition(":")
        if prefix == "addr":
            return cls._at(rest)
        has_prefix = bool(colon) and prefix in PREFIXES
        bare = rest if has_prefix else name
        try:
            stored = clear_value(bare.lower())
        except ValueError:
            raise AuditError("bad_person", "not the name of a person") from None
        owners = (name,) if has_prefix else tuple(f"{prefix}:{bare}" for prefix in PREFIXES)
        return cls(owners, stored if "@" in bare and not has_prefix else None)

    @classmethod
    def _at(cls, text: str) -> Person:
        try:
            address = str(ip_address(text))
        except ValueError:
            raise AuditError("bad_person", "not an address") from None
        return cls((f"addr:{address}",), address=address.encode())

    def pseudonyms(self, keys: Sequence[Key]) -> tuple[bytes, ...]:
        """What stands for them in records, under each of these keys."""
        return tuple(pseudonym(owner, key) for key in keys for owner in self.owners)


def pseudonym(owner: str, key: Key) -> bytes:
    """What stands for one owner under one key."""
    issuer, _, name = owner.partition(":")
    return subject_pseudonym(key.secret, issuer, name)
