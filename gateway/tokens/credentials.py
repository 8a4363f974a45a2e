"""What a client presents, and the authenticators that need no cryptography of signatures.

The subject they give becomes an owner in `gateway.identity`.
"""

from __future__ import annotations

import asyncio
import hmac
import re
from typing import Protocol

from gateway.errors import NotFound, Unauthorized

MAX_CREDENTIAL_CHARS = 16 * 1024

_BEARER = re.compile(r"(?i:bearer)[ \t]+([\x21-\x7e]+)[ \t]*")
_VISIBLE = re.compile(r"[\x21-\x7e]+")


def credential_of(authorization: str | None, x_api_key: str | None) -> str | None:
    """What the client presents: the Bearer token of `Authorization` (RFC 6750), else `x-api-key`.

    Raises:
        Unauthorized: `invalid_authorization`, a header is there but can't be read.
    """
    if authorization:
        match = _BEARER.fullmatch(authorization)
        credential = match[1] if match else ""
    elif x_api_key:
        credential = x_api_key.strip(" \t")
    else:
        return None
    if len(credential) > MAX_CREDENTIAL_CHARS or not _VISIBLE.fullmatch(credential):
        raise Unauthorized("The credential can't be read.", code="invalid_authorization")
    return credential


def require(credential: str | None) -> str:
    """
    Raises:
        Unauthorized: `missing_credential`.
    """
    if credential is None:
        raise Unauthorized(
            "A credential is needed: `Authorization: Bearer` or `x-api-key`.",
            code="missing_credential",
        )
    return credential


class Authenticator(Protocol):
    """One way to prove who asks."""

    async def authenticate(self, credential: str | None) -> str | None:
        """The subject; None only where nobody has to prove anything.

        Raises:
            Unauthorized: `missing_credential`, or that the credential proves nothing.
            Unavailable: `auth_unavailable`, nothing is at hand to check it with.
        """
        ...

    async def close(self) -> None: ...


class NoAuthentication:
    """Everybody may; nobody has a name."""

    async def authenticate(self, credential: str | None) -> str | None:
        return None

    async def close(self) -> None:
        return None


class Keys(Protocol):
    """What is needed of `gateway.keys.KeyRing`."""

    def claim_refresh(self) -> bool: ...

    def refresh(self) -> None: ...

    def verify(self, presented: str) -> str | None: ...


class ApiKeyAuthenticator:
    """The subject is the owner of the key. Once a second a request waits for a look at the file."""

    def __init__(self, keys: Keys) -> None:
        self._keys = keys

    async def authenticate(self, credential: str | None) -> str:
        presented = require(credential)
        if self._keys.claim_refresh():
            await asyncio.to_thread(self._keys.refresh)
        owner = self._keys.verify(presented)
        if owner is None:
            raise Unauthorized("The API key isn't valid.", code="invalid_api_key")
        return owner

    async def close(self) -> None:
        return None


class AdminToken:
    """The one secret of the operators: no subject comes of it. None lets nobody in."""

    def __init__(self, secret: str | None) -> None:
        self._secret = secret.encode() if secret is not None else None

    @property
    def is_set(self) -> bool:
        return self._secret is not None

    def check(self, credential: str | None) -> None:
        """
        Raises:
            NotFound: no token is set, so there is nothing to administer.
            Unauthorized: `missing_credential` or `invalid_admin_token`.
        """
        if self._secret is None:
            raise NotFound("There is nothing at this path.")
        if not hmac.compare_digest(require(credential).encode(), self._secret):
            raise Unauthorized("The admin token isn't valid.", code="invalid_admin_token")
