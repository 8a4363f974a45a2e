"""API keys: a file that `sluice keys` writes and the running gateway reads.

One JSON object a line: id, keyed hash, owner and times, never a key itself. The hash's own key is
in another file (`pepper_path`), so that the list alone, leaked, can't even be tried against.
Everything here that touches a file blocks, `KeyRing.verify` doesn't.
"""

from __future__ import annotations

import fcntl
import hashlib
import hmac
import json
import logging
import os
import re
import secrets
import string
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from gateway.errors import SettingsError

#: How old the view of the file may be: a revoked key works for no longer than this.
REFRESH_S = 1.0
PEPPER_BYTES = 32
MAX_OWNER_CHARS = 256

_ID_CHARS = 12
_SECRET_CHARS = 40  # of 62 letters and digits: 238 bits
_KEY = re.compile(rf"sk-sluice-([a-z0-9]{{{_ID_CHARS}}})-[A-Za-z0-9]{{{_SECRET_CHARS}}}")
_ID = re.compile(rf"[a-z0-9]{{{_ID_CHARS}}}")
_HASH = re.compile(r"[0-9a-f]{64}")
_MAX_PRESENTED_CHARS = 256

logger = logging.getLogger(__name__)

_Stamp = tuple[int, int, int] | None


@dataclass(frozen=True, slots=True)
class ApiKey:
    """One line of the file. Times are ISO 8601 in UTC."""

    id: str
    hash: str
    owner: str
    created_at: str
    revoked_at: str | None = None


def pepper_path(data_dir: Path) -> Path:
    """Where the secret lives that the hashes are keyed with."""
    return data_dir / "keys" / "api_keys.pepper"


class KeyRing:
    """The keys of one file. A missing file is an empty ring, and a deleted one becomes one."""

    def __init__(
        self, file: Path, pepper_file: Path, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._file = file.resolve()  # replacing a link would cut it off from what it points to
        self._pepper_file = pepper_file
        self._clock = clock
        self._keys: dict[str, ApiKey] = {}
        self._pepper = secrets.token_bytes(PEPPER_BYTES)
        self._stamp: _Stamp = None
        self._looked_at = clock()

    @classmethod
    def load(
        cls, file: Path, pepper_file: Path, clock: Callable[[], float] = time.monotonic
    ) -> KeyRing:
        """
        Raises:
            SettingsError: the file or its secret can't be used; names the line.
        """
        ring = cls(file, pepper_file, clock)
        ring._read()
        return ring

    def verify(self, presented: str) -> str | None:
        """The owner of a key that is known and not revoked. Takes the same time for every other."""
        match = _KEY.fullmatch(presented)
        entry = self._keys.get(match[1]) if match else None
        expected = entry.hash if entry else _NO_HASH
        is_equal = hmac.compare_digest(self._hash(presented), expected)
        if entry is None or entry.revoked_at is not None or not is_equal:
            return None
        return entry.owner

    def claim_refresh(self) -> bool:
        """Whether it is time to `refresh`; true for one caller a second, who then has to do it."""
        now = self._clock()
        if now - self._looked_at < REFRESH_S:
            return False
        self._looked_at = now
        return True

    def refresh(self) -> None:
        """Reads the file again if it has been replaced or changed. One that can't be read leaves
        the known keys as they are, and is logged once."""
        if _stamp_of(self._file) == self._stamp:
            return
        try:
            self._read()
        except (SettingsError, OSError) as error:
            self._stamp = _stamp_of(self._file)
            logger.error("keys.unreadable", extra={"error": str(error)})  # noqa: TRY400

    def entries(self) -> list[ApiKey]:
        """All keys, oldest first, with those that are revoked."""
        return sorted(self._keys.values(), key=lambda entry: entry.created_at)

    def add(self, owner: str) -> str:
        """Makes a key and stores its hash. The key itself is returned this once and never again.

        Raises:
            ValueError: `owner` is empty, too long or not printable.
            SettingsError: the file can't be used.
        """
        if not _is_owner(owner):
            raise ValueError("an owner is 1 to 256 printable characters")
        with self._writing():
            key_id = _random_text(_ID_CHARS, string.ascii_lowercase + string.digits)
            secret = _random_text(_SECRET_CHARS, string.ascii_letters + string.digits)
            key = f"sk-sluice-{key_id}-{secret}"
            self._keys[key_id] = ApiKey(key_id, self._hash(key), owner, _now())
        return key

    def revoke(self, key_id: str) -> bool:
        """Ends a key for good; false if there is none of this id. A second time changes nothing.

        Raises:
            SettingsError: the file can't be used.
        """
        with self._writing():
            entry = self._keys.get(key_id)
            if entry is not None and entry.revoked_at is None:
                self._keys[key_id] = replace(entry, revoked_at=_now())
        return entry is not None

    def _hash(self, key: str) -> str:
        text = key[:_MAX_PRESENTED_CHARS].encode(errors="replace")
        return hmac.new(self._pepper, text, hashlib.sha256).hexdigest()

    def _read(self) -> None:
        stamp = _stamp_of(self._file)
        keys = _parse(self._file) if stamp else {}
        self._read_pepper(is_needed=bool(keys))
        self._keys, self._stamp = keys, stamp

    def _read_pepper(self, *, is_needed: bool) -> None:
        try:
            pepper = self._pepper_file.read_bytes()
        except FileNotFoundError:
            if is_needed:
                raise SettingsError(
                    f"{self._pepper_file} is missing: without it no API key can be checked"
                ) from None
            return
        except OSError as error:
            raise SettingsError(f"{self._pepper_file}: {error.strerror}") from error
        if len(pepper) != PEPPER_BYTES:
            raise SettingsError(f"{self._pepper_file} must hold {PEPPER_BYTES} bytes")
        self._pepper = pepper

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """The newest state of the file, alone with it; what is changed is written at the end."""
        self._file.parent.mkdir(parents=True, exist_ok=True)
        with Path(f"{self._file}.lock").open("a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            self._read()
            if not self._pepper_file.exists():
                self._pepper_file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
                _write_atomically(self._pepper_file, self._pepper)
            yield
            lines = [json.dumps(asdict(entry)) + "\n" for entry in self.entries()]
            _write_atomically(self._file, "".join(lines).encode())
            self._stamp = _stamp_of(self._file)


_NO_HASH = "0" * 64


def _parse(file: Path) -> dict[str, ApiKey]:
    try:
        lines = file.read_text(encoding="utf-8").split("\n")
    except UnicodeDecodeError:
        raise SettingsError(f"{file} isn't UTF-8 text") from None
    except OSError as error:
        raise SettingsError(f"{file}: {error.strerror}") from error
    keys: dict[str, ApiKey] = {}
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            entry = _parse_line(line)
        except (ValueError, TypeError, RecursionError):
            raise SettingsError(f"{file}, line {number}: not an API key entry") from None
        if entry.id in keys:
            raise SettingsError(f"{file}, line {number}: the id {entry.id} is there twice")
        keys[entry.id] = entry
    return keys


def _parse_line(line: str) -> ApiKey:
    entry = ApiKey(**json.loads(line))
    values = [entry.id, entry.hash, entry.owner, entry.created_at]
    if entry.revoked_at is not None:
        values.append(entry.revoked_at)
    if not all(isinstance(value, str) for value in values):
        raise TypeError("a field isn't text")
    is_valid = _ID.fullmatch(entry.id) and _HASH.fullmatch(entry.hash)
    if not is_valid or not _is_owner(entry.owner):
        raise ValueError("a field is malformed")
    return entry


def _is_owner(text: str) -> bool:
    return 0 < len(text) <= MAX_OWNER_CHARS and text == text.strip() and text.isprintable()


def _write_atomically(file: Path, content: bytes) -> None:
    """Readers see the old file or the new one, also after a loss of power. Mode 0600."""
    draft = file.with_name(f".{file.name}.{secrets.token_hex(8)}")
    try:
        with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as out:
            out.write(content)
            out.flush()
            os.fsync(out.fileno())
        draft.replace(file)
    finally:
        draft.unlink(missing_ok=True)
    directory = os.open(file.parent, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def _stamp_of(file: Path) -> _Stamp:
    try:
        status = file.stat()
    except OSError:
        return None
    return status.st_mtime_ns, status.st_ino, status.st_size


def _random_text(length: int, alphabet: str) -> str:
    return "".join(secrets.choice(alphabet) for _ in range(length))


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="microseconds")
