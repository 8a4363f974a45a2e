"""A record: a body that is hashed into the tree, and personal values that only it commits to.

`seal` gives a draft (`gateway.audit.draft`) its place in a log; that is the writer's part, since
only it knows the number. Deleting a personal value with its salt leaves body, leaf and tree as they
are, and no way to test a guess.
"""

from __future__ import annotations

import hmac
import os
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

from gateway.audit.canonical import Object, decode, encode, from_text, to_text
from gateway.audit.draft import Draft
from gateway.audit.event import TYPES
from gateway.audit.merkle import leaf_hash
from gateway.audit.policy import Cls
from gateway.errors import AuditError

VERSION = 1
NONCE_BYTES = 16
SALT_BYTES = 32
MAX_BODY_BYTES = 4096

_FIELD_TAG = b"gw-audit/1 field\0"
_SUBJECTS = frozenset({"subject", "target"})

Entropy = Callable[[int], bytes]


class Personal(NamedTuple):
    """A value that the body commits to. Stored apart, so that it can be erased alone."""

    field: str
    value: bytes
    salt: bytes


class Record(NamedTuple):
    """One entry of a log. `body` is stored as it is: nobody encodes it a second time."""

    seq: int
    ts: int
    cls: Cls
    type: str
    body: bytes
    leaf: bytes
    personal: tuple[Personal, ...]

    @property
    def subject(self) -> bytes | None:
        """The pseudonym that the personal values are found by: of who did it, or of whom an export
        or a hold was about. No event has both."""
        for one in self.personal:
            if one.field in _SUBJECTS:
                return one.value
        return None


def seal(
    draft: Draft,
    log: str,
    seq: int,
    ts: int,
    *,
    start: int | None = None,
    entropy: Entropy = os.urandom,
) -> Record:
    """The draft as entry `seq` of `log`, at `ts` milliseconds since 1970, which never go back
    within a log. Ids and salts are new, so two records of one event have nothing in common.

    Args:
        start: Of an end: the number of the request's start record, where that is known.

    Raises:
        AuditError: `too_large`: a body has at most 4 KiB.
    """
    random = entropy(NONCE_BYTES + SALT_BYTES * len(draft.personal))
    personal = tuple(_salted(draft.personal, random))
    value: Object = {
        **draft.fields,
        "v": VERSION,
        "log": log,
        "seq": seq,
        "ts": ts,
        "cls": draft.cls.value,
        "type": draft.type,
        "policy": draft.policy,
        "nonce": to_text(random[:NONCE_BYTES]),
        "commit": {one.field: to_text(commitment(one)) for one in personal},
    }
    if start is not None:
        value["start"] = start
    body = encode(value)
    if len(body) > MAX_BODY_BYTES:
        raise AuditError("too_large", "a body has at most 4 KiB")
    return Record(seq, ts, draft.cls, draft.type, body, leaf_hash(body), personal)


def commitment(personal: Personal) -> bytes:
    """What the body holds in a value's place. 256 random bits of salt keep it from being tried."""
    field, value, salt = personal
    return hmac.digest(salt, b"%b%b\0%b" % (_FIELD_TAG, field.encode(), value), "sha256")


def _salted(values: Iterable[tuple[str, bytes]], random: bytes) -> Iterator[Personal]:
    at = NONCE_BYTES
    for name, value in values:
        yield Personal(name, value, random[at : at + SALT_BYTES])
        at += SALT_BYTES


def read_body(body: bytes, log: str, seq: int) -> Object:
    """The body of entry `seq` of `log`, as far as it can be told without the tree.

    Raises:
        AuditError: `not_canonical`; `bad_record`: it isn't a record of this version, or belongs to
            another place.
    """
    value = decode(body)
    event = TYPES.get(str(value.get("type")))
    if value.get("v") != VERSION or event is None or value.get("cls") != event.cls:
        raise AuditError("bad_record", "not a record of a known kind")
    if value.get("log") != log or value.get("seq") != seq or type(value.get("ts")) is not int:
        raise AuditError("bad_record", "the record belongs to another place")
    if not isinstance(value.get("commit"), dict):
        raise AuditError("bad_record", "the record has no commitments")
    return value


def check_personal(body: Object, personal: Personal) -> None:
    """
    Raises:
        AuditError: `bad_commitment`: the body doesn't commit to this value.
    """
    committed = body.get("commit")
    text = committed.get(personal.field) if isinstance(committed, dict) else None
    is_committed = (
        isinstance(text, str)
        and len(personal.salt) == SALT_BYTES
        and hmac.compare_digest(from_text(text), commitment(personal))
    )
    if not is_committed:
        raise AuditError("bad_commitment", "the record doesn't commit to this value")
