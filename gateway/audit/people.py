"""The keys of this moment, in memory: pseudonyms and signatures without touching a file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from gateway.audit.keyfile import Key
from gateway.audit.keys import Keys
from gateway.audit.note import Signer
from gateway.audit.pseudonyms import (
    query_hash,
    session_hash,
    subject_pseudonym,
    subject_scope,
    tenant_scope,
)


class Hashes(NamedTuple):
    """What stands in a record for a person and what they said, and the ids of the keys."""

    personal: Mapping[str, bytes]
    keys: Mapping[str, str]


class Pseudonymiser:
    """Hashes with the keys that `refresh` has read last."""

    def __init__(self, keys: Keys, *, links_people: bool = False) -> None:
        """`links_people`: equal questions of two people get equal hashes."""
        self.keys = keys
        self._links_people = links_people
        self._query: Key | None = None
        self._subject: Key | None = None
        self.sign_keys: Sequence[Key] = ()  #: those that may sign, the current one first

    def refresh(self, now_ms: int) -> list[tuple[str, str]]:
        """Reads the keys of now, and makes those that aren't there: kind and id of each new one.
        Blocks.

        Raises:
            AuditError: a key file is damaged, or wrapped by a key that isn't here.
            OSError: the folder can't be read or written.
        """
        before = {(one.kind, one.id) for one in self.keys.infos()}
        self.keys.reload()
        self._query = self.keys.current("query", now_ms)
        self._subject = self.keys.current("subject", now_ms)
        sign = self.keys.current("sign", now_ms)
        self.sign_keys = self.keys.all("sign")
        current = [(one.kind, one.id) for one in (self._query, self._subject, sign)]
        return [one for one in current if one not in before]

    def signer(self, log: str) -> Signer:
        """What signs the checkpoints of `log`."""
        return Signer(log, _need(next(iter(self.sign_keys), None)).secret)

    def hashes(
        self, owner: str | None, question: str | bytes | None, conversation: str | None
    ) -> Hashes:
        """`owner` is None for who isn't signed in: then nothing says who it was."""
        query, subject = _need(self._query), _need(self._subject)
        personal: dict[str, bytes] = {}
        scope = tenant_scope()
        if owner is not None:
            issuer, _, name = owner.partition(":")
            personal["subject"] = subject_pseudonym(subject.secret, issuer, name)
            if not self._links_people:
                scope = subject_scope(personal["subject"])
        if question is not None:
            personal["query"] = query_hash(query.secret, scope, question)
        if conversation is not None:
            personal["session"] = session_hash(query.secret, scope, conversation)
        keys = {"s": subject.id} if owner is not None else {}
        if len(personal) > len(keys):
            keys["q"] = query.id
        return Hashes(personal, keys)


def _need(key: Key | None) -> Key:
    if key is None:
        raise RuntimeError("the keys haven't been read")
    return key
