"""Capability links: what lets somebody without a credential read or stop one stream for a time.

A link's token is `SCOPE.EXPIRY.SIGNATURE`, signed with HMAC-SHA256 over the stream's id, the scope
and the expiry. Nothing is stored for a link, so it can't be taken back. Whatever process has the
same key file takes the same links.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import os
import re
import secrets
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Literal, cast

from gateway.errors import Forbidden, SettingsError

Scope = Literal["read", "stop"]
SCOPES: tuple[Scope, ...] = ("read", "stop")

_KEY_BYTES = 32
_TOKEN = re.compile(r"(read|stop)\.([1-9][0-9]{0,11})\.([A-Za-z0-9_-]{43})")


def link_key_path(data_dir: Path) -> Path:
    """Where the key lives that links are signed with."""
    return data_dir / "keys" / "links.key"


class Links:
    """Signs and checks links. `clock` gives seconds since the epoch."""

    def __init__(self, key: bytes, clock: Callable[[], float] = time.time) -> None:
        self._key = key
        self._clock = clock

    @classmethod
    def load(cls, file: Path) -> Links:
        """With the key in `file`, which is made if it isn't there.

        Raises:
            SettingsError: it can't be read or made, or holds something else.
        """
        try:
            key = file.read_bytes() if file.exists() else _make_key(file)
        except OSError as error:
            raise SettingsError(f"{file}: {error.strerror}") from error
        if len(key) != _KEY_BYTES:
            raise SettingsError(f"{file} must hold {_KEY_BYTES} bytes")
        return cls(key)

    def sign(self, stream_id: str, scope: Scope, ttl_s: int) -> tuple[str, int]:
        """A token, and when it expires in whole seconds since the epoch."""
        expires_at = int(self._clock()) + ttl_s
        return f"{scope}.{expires_at}.{self._signature(stream_id, scope, expires_at)}", expires_at

    def check(self, token: str, stream_id: str, scope: Scope) -> None:
        """Lets pass who holds a link of this scope to this stream; `stop` includes `read`.

        Raises:
            Forbidden: `invalid_link`, `link_expired` or `link_scope`. The last two are told only
                to who holds a link that was good.
        """
        match = _TOKEN.fullmatch(token)
        granted = cast("Scope", match[1] if match else "read")
        expires_at = int(match[2]) if match else 0
        signature = match[3] if match else ""
        if not hmac.compare_digest(signature, self._signature(stream_id, granted, expires_at)):
            raise Forbidden("This link isn't valid for this stream.", code="invalid_link")
        if self._clock() >= expires_at:
            raise Forbidden("This link has expired.", code="link_expired")
        if scope == "stop" and granted != "stop":
            raise Forbidden("This link is for reading only.", code="link_scope")

    def _signature(self, stream_id: str, scope: Scope, expires_at: int) -> str:
        signed = f"sluice link 1\0{stream_id}\0{scope}\0{expires_at}"
        digest = hmac.digest(self._key, signed.encode(errors="replace"), hashlib.sha256)
        return base64.urlsafe_b64encode(digest).decode().rstrip("=")


def _make_key(file: Path) -> bytes:
    """Two processes may do so at once: the first one's key is both's."""
    file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    draft = file.with_name(f".{file.name}.{secrets.token_hex(8)}")
    try:
        with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as out:
            out.write(secrets.token_bytes(_KEY_BYTES))
            out.flush()
            os.fsync(out.fileno())
        with suppress(FileExistsError):
            os.link(draft, file)
    finally:
        draft.unlink(missing_ok=True)
    return file.read_bytes()
