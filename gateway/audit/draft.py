"""From what is known to what is recorded: the one place where personal data is let in or left out.

Pure, and done where something happens; the writer seals the draft later (`gateway.audit.record`).
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Mapping
from functools import lru_cache
from ipaddress import ip_address, ip_network
from typing import NamedTuple

from gateway.audit.canonical import Json, Object
from gateway.audit.event import HASHES, TYPES, EventType
from gateway.audit.fields import KEY_ID, Vocabulary
from gateway.audit.policy import Cls, Policy
from gateway.errors import AuditError

HASH_BYTES = 32
MAX_CLEAR_BYTES = 256

#: Told the type and the field of what was left out; never the value.
Refused = Callable[[str, str], None]


class Draft(NamedTuple):
    """What happened, checked and without a place yet. A tuple, as is all that each record makes
    anew: a frozen dataclass takes four times as long to make."""

    type: str
    cls: Cls
    policy: str
    fields: Object
    personal: tuple[tuple[str, bytes], ...]


class Drafter:
    """Checks what is reported against the allow-list of its event.

    Without `refused` a field that isn't allowed raises; with it, as in production, the field is
    left out, told, and the record is made all the same.
    """

    def __init__(
        self, policy: Policy, vocabulary: Vocabulary, refused: Refused | None = None
    ) -> None:
        self.policy = policy
        self._policy_id = policy.id()
        self._vocabulary = vocabulary
        self._refused = refused

    def draft(
        self,
        type_: str,
        fields: Mapping[str, Json],
        personal: Mapping[str, str | bytes] | None = None,
        keys: Mapping[str, str] | None = None,
    ) -> Draft:
        """
        Args:
            personal: hashes as 32 bytes, `email`, `ip` and the operator's words as text.
            keys: the ids of the keys that made the hashes: `q` and `s`.

        Raises:
            AuditError: `unknown_event`; without `refused` also `field_refused`.
        """
        event = TYPES.get(type_)
        if event is None:
            raise AuditError("unknown_event", "there is no such event")
        accepted = self._fields(event, fields)
        kept = self._personal(event, accepted, personal or {})
        if kept and keys:
            accepted["kid"] = self._key_ids(type_, keys)
        return Draft(type_, event.cls, self._policy_id, accepted, kept)

    def _fields(self, event: EventType, fields: Mapping[str, Json]) -> Object:
        accepted: Object = {}
        rules, vocabulary = event.rules, self._vocabulary
        for name, value in fields.items():
            try:
                accepted[name] = rules[name].accept(value, vocabulary)
            except (KeyError, ValueError):
                self._refuse(event.name, name)
        for name in event.needed:
            if name not in fields:
                self._refuse(event.name, name)
        return accepted

    def _personal(
        self, event: EventType, fields: Object, personal: Mapping[str, str | bytes]
    ) -> tuple[tuple[str, bytes], ...]:
        kept = []
        for name, value in sorted(personal.items()):
            try:
                if name not in event.personal:
                    raise ValueError
                if name == "email" and not self._may_hold_email(event, fields):
                    raise ValueError
                kept.append((name, self._value(name, value)))
            except ValueError:
                self._refuse(event.name, name)
        return tuple(kept)

    def _may_hold_email(self, event: EventType, fields: Object) -> bool:
        """Only for authenticated operations, and in the classes that the policy says."""
        return event.cls in self.policy.email_classes and fields.get("auth", "none") != "none"

    def _value(self, name: str, value: str | bytes) -> bytes:
        if name in HASHES:
            if not isinstance(value, bytes) or len(value) != HASH_BYTES:
                raise ValueError
            return value
        text = value.decode() if isinstance(value, bytes) else value
        if name == "ip":
            return _truncated(text, self.policy).encode()
        if name == "email" and "@" not in text:
            raise ValueError
        return clear_value(text.lower() if name == "email" else text)

    def _key_ids(self, type_: str, keys: Mapping[str, str]) -> Object:
        accepted: Object = {}
        for name, key_id in keys.items():
            if name in ("q", "s") and _is_key_id(key_id):
                accepted[name] = key_id
            else:
                self._refuse(type_, "kid")
        return accepted

    def _refuse(self, type_: str, name: str) -> None:
        if self._refused is None:
            raise AuditError("field_refused", f"{type_} can't hold this as its {name}")
        self._refused(type_, name)


@lru_cache(maxsize=16)  # the same ones for a month
def _is_key_id(text: str) -> bool:
    return KEY_ID.pattern.fullmatch(text) is not None


def _truncated(text: str, policy: Policy) -> str:
    address = ip_address(text.partition("%")[0])
    bits = policy.ip_v4_bits if address.version == 4 else policy.ip_v6_bits
    if bits == address.max_prefixlen:
        return str(address)
    return str(ip_network((address, bits), strict=False))


def clear_value(text: str) -> bytes:
    """Text as it is stored; raises ValueError where it can't be."""
    raw = unicodedata.normalize("NFC", text.strip()).encode()  # ValueError for half a pair
    if not raw or len(raw) > MAX_CLEAR_BYTES or not text.strip().isprintable():
        raise ValueError
    return raw
