"""The audit log's keys: files of 32 random bytes that can be destroyed, since nothing derives them.

Kinds: `query`, a new one each month; `subject`, each year; `sign`, the seed of the Ed25519 key that
signs checkpoints. A key's id ends in a hash of it, so that two machines' keys of one month differ
in name too. Everything here blocks but `current` of a key that was read before.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import secrets
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal, get_args

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from gateway.audit.keyfile import Key, Wrapping, parse_key, sync_folder, write_key
from gateway.audit.note import Signer
from gateway.errors import AuditError

Kind = Literal["query", "subject", "sign"]
KEY_BYTES = 32
#: After the last record that needs it has expired, a key lives on for so long.
GRACE_MS = 7 * 86_400_000

_KINDS = get_args(Kind)


@dataclass(frozen=True, slots=True)
class KeyInfo:
    """What may be shown of a key. `is_private`: nobody but the file's owner can read it."""

    kind: str
    id: str
    created_ms: int
    is_wrapped: bool
    is_private: bool


class Keys:
    """The keys of one folder. Several processes may share it."""

    def __init__(self, folder: Path, wrapping: Wrapping | None = None) -> None:
        self._folder = folder
        self._wrapping = wrapping or Wrapping()
        self._read: dict[tuple[str, str], Key] = {}

    def current(self, kind: Kind, now_ms: int) -> Key:
        """The newest key of the epoch that `now_ms` is in; made if there is none.

        Raises:
            AuditError: `bad_key_file`, `needs_kek`.
            OSError: the folder can't be read or written.
        """
        epoch = epoch_of(kind, now_ms)
        known = self._read.get((kind, epoch))
        if known is not None:
            return known
        with self._writing():
            keys = [key for key in self.all(kind) if epoch_in(key.id) == epoch]
            key = keys[0] if keys else self._make(kind, epoch, now_ms)
        self._read[kind, epoch] = key
        return key

    def all(self, kind: Kind) -> list[Key]:
        """Every key of a kind that isn't destroyed, the newest first: what find, export and erase
        have to try.

        Raises:
            AuditError: `bad_key_file`, `needs_kek`.
        """
        keys = [self._open(path) for path in self._files(kind)]
        return sorted(keys, key=lambda key: (key.created_ms, key.id), reverse=True)

    def get(self, kind: Kind, key_id: str) -> Key:
        """
        Raises:
            AuditError: `no_key`: it never was, or is destroyed; `bad_key_file`, `needs_kek`.
        """
        return self._open(self._path(kind, key_id))

    def rotate(self, kind: Kind, now_ms: int) -> Key:
        """A new key, which is the current one from now on; the old one can still be read."""
        epoch = epoch_of(kind, now_ms)
        with self._writing():
            newest = max([now_ms - 1, *(key.created_ms for key in self.all(kind))])
            key = self._make(kind, epoch, newest + 1)
        self._read[kind, epoch] = key
        return key

    def destroy(self, kind: str, key_id: str) -> None:
        """Overwrites the file and removes it; what was hashed with it is nobody's from then on.

        On flash and copy-on-write disks old blocks may stay: encrypt the disk, or wrap the keys.

        Raises:
            AuditError: `no_key`.
        """
        with self._writing():
            doomed = self._path(kind, key_id)
            gone = doomed.with_name(f".{doomed.name}.destroyed")
            doomed.replace(gone)
            sync_folder(self._folder)
            _wipe(gone)
        self.reload()

    def infos(self) -> list[KeyInfo]:
        """What there is to say of every key, oldest first, without any secret."""
        return sorted(
            (
                KeyInfo(
                    key.kind,
                    key.id,
                    key.created_ms,
                    key.is_wrapped,
                    is_private=not path.stat().st_mode & 0o077,
                )
                for kind in _KINDS
                for path in self._files(kind)
                for key in [parse_key(path)]
            ),
            key=lambda info: (info.created_ms, info.kind, info.id),
        )

    def reload(self) -> None:
        """Forgets what was read: another process has rotated or destroyed."""
        self._read.clear()

    def signer(self, log: str, now_ms: int) -> Signer:
        """What signs the checkpoints of `log` now."""
        return Signer(log, self.current("sign", now_ms).secret)

    def signers(self, log: str) -> list[Signer]:
        """All that still may, the newest first: at a rotation old and new sign one checkpoint."""
        return [Signer(log, key.secret) for key in self.all("sign")]

    def _make(self, kind: Kind, epoch: str, created_ms: int) -> Key:
        secret = secrets.token_bytes(KEY_BYTES)
        key = Key(kind, _key_id(kind, epoch, secret), created_ms, secret)
        write_key(self._folder / f"{kind}-{key.id}.key", key, self._wrapping)
        return key

    def _open(self, path: Path) -> Key:
        key = parse_key(path, self._wrapping)
        if key.id != _key_id(key.kind, epoch_in(key.id), key.secret):
            raise AuditError("bad_key_file", f"{path.name}: not the key of this name")
        return key

    def _files(self, kind: str) -> Sequence[Path]:
        return sorted(self._folder.glob(f"{kind}-*.key"))

    def _path(self, kind: str, key_id: str) -> Path:
        path = self._folder / f"{kind}-{key_id}.key"
        if path not in self._files(kind):
            raise AuditError("no_key", "there is no such key, or it has been destroyed")
        return path

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """Alone with the folder, and what a crash has left in it removed."""
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        with (self._folder / "lock").open("a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            for left in self._folder.glob(".*.key.*"):
                _wipe(left)
            yield


def epoch_of(kind: Kind, now_ms: int) -> str:
    """The month or year, in UTC, whose key hashes now; a signing key has none."""
    form = {"query": "%Y-%m", "subject": "%Y", "sign": ""}[kind]
    return datetime.fromtimestamp(now_ms / 1000, UTC).strftime(form)


def epoch_in(key_id: str) -> str:
    return key_id.rpartition(".")[0]


def destroyable_from(key_id: str, retention_s: int) -> int:
    """Milliseconds since 1970 from which no record can need this key any more.

    `retention_s` is the longest of the classes that hold its hashes.

    Raises:
        AuditError: `no_epoch`: signing keys don't end by the calendar.
    """
    year, _, month = epoch_in(key_id).partition("-")
    if not year:
        raise AuditError("no_epoch", "this key has no epoch")
    if month:
        next_year, next_month = divmod(int(year) * 12 + int(month), 12)
    else:
        next_year, next_month = int(year) + 1, 0
    end = datetime(next_year, next_month + 1, 1, tzinfo=UTC)
    return int(end.timestamp()) * 1000 + retention_s * 1000 + GRACE_MS


def _key_id(kind: str, epoch: str, secret: bytes) -> str:
    named = secret
    if kind == "sign":
        named = Ed25519PrivateKey.from_private_bytes(secret).public_key().public_bytes_raw()
    suffix = hashlib.sha256(b"gw-audit/1 key\0" + named).hexdigest()[:8]
    return f"{epoch}.{suffix}" if epoch else suffix


def _wipe(path: Path) -> None:
    with path.open("r+b") as file:
        length = os.fstat(file.fileno()).st_size
        file.write(secrets.token_bytes(length))
        file.flush()
        os.fsync(file.fileno())
    path.unlink()
    sync_folder(path.parent)
