"""What a log commits to when it signs: its name, its size and the root. C2SP tlog-checkpoint."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from gateway.audit import note
from gateway.audit.merkle import HASH_BYTES
from gateway.audit.note import Note, Signer, Verifier
from gateway.errors import AuditError

_SIZE = re.compile(r"0|[1-9][0-9]{0,15}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """The head of one log. There are no extension lines, since no monitor could audit them."""

    origin: str
    size: int
    root: bytes

    @property
    def text(self) -> str:
        """What is signed."""
        return f"{self.origin}\n{self.size}\n{base64.b64encode(self.root).decode()}\n"

    def signed_by(self, signers: Sequence[Signer]) -> Note:
        return note.sign(self.text, signers)

    @classmethod
    def parse(cls, text: str) -> Checkpoint:
        """
        Raises:
            AuditError: `bad_checkpoint`: a note's text, but not a checkpoint's.
        """
        origin, size, root, *rest = [*text.split("\n"), "", "", ""]
        try:
            checkpoint = cls(origin, _parse_size(size), base64.b64decode(root, validate=True))
        except (binascii.Error, ValueError):
            raise AuditError("bad_checkpoint", "not a checkpoint") from None
        if any(rest) or not origin or len(checkpoint.root) != HASH_BYTES or checkpoint.text != text:
            raise AuditError("bad_checkpoint", "not a checkpoint")
        return checkpoint


def open_checkpoint(raw: str | bytes, origin: str, trusted: Iterable[Verifier]) -> Checkpoint:
    """The checkpoint of the log `origin` that a trusted key has signed.

    Raises:
        AuditError: `bad_note`, `bad_checkpoint`, `bad_signature`, `unsigned`; `wrong_log`: it is
            another log's.
    """
    signed = note.parse(raw)
    signed.verified_by(trusted)
    checkpoint = Checkpoint.parse(signed.text)
    if checkpoint.origin != origin:
        raise AuditError("wrong_log", "the checkpoint is another log's")
    return checkpoint


def _parse_size(text: str) -> int:
    if not _SIZE.fullmatch(text):
        raise ValueError(text)
    return int(text)
