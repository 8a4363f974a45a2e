"""Proof of who asks: the credential of a request, and the three ways to check it.

The subject it ends in becomes an owner in `gateway.identity`. Keys come from `gateway.keys` (API
keys) and `gateway.jwks` (signatures).
"""

from __future__ import annotations

import asyncio
import hashlib
import re
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping
from typing import Protocol

import jwt

from gateway.errors import Unauthorized
from gateway.identity import clean_value
from gateway.jwks import ALGORITHMS, FileKey, KeySource, RemoteKeys, VerificationKey
from gateway.keys import KeyRing, pepper_path
from gateway.settings import Settings

LEEWAY_S = 30
MAX_CREDENTIAL_CHARS = 16 * 1024
CACHED_TOKENS = 4096

#: Later than this is no date but an attempt on the arithmetic.
_MAX_TIME = 2**53

_BEARER = re.compile(r"(?i:bearer)[ \t]+([\x21-\x7e]+)[ \t]*")
_VISIBLE = re.compile(r"[\x21-\x7e]+")
_TOKEN = re.compile(r"[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+")


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


class ApiKeyAuthenticator:
    """The subject is the owner of the key."""

    def __init__(self, ring: KeyRing) -> None:
        self._ring = ring

    async def authenticate(self, credential: str | None) -> str:
        presented = _require(credential)
        if self._ring.claim_refresh():
            await asyncio.to_thread(self._ring.refresh)
        owner = self._ring.verify(presented)
        if owner is None:
            raise Unauthorized("The API key isn't valid.", code="invalid_api_key")
        return owner

    async def close(self) -> None:
        return None


class TokenVerifier:
    """Checks JSON Web Tokens (RFC 7519, with the advice of RFC 8725): signed by a known key pair,
    within their time, for us, and with a subject, which is the result.

    A token that was proven is remembered until it expires or the keys change. `clock` gives seconds
    since the epoch.
    """

    def __init__(
        self,
        keys: KeySource,
        *,
        audience: str | None = None,
        issuer: str | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._keys = keys
        self._audience = audience
        self._issuer = issuer
        self._clock = clock
        self._proven: OrderedDict[bytes, tuple[str, float, int]] = OrderedDict()

    async def authenticate(self, credential: str | None) -> str:
        return await self.verify(_require(credential))

    async def verify(self, token: str) -> str:
        """The token's subject.

        Raises:
            Unauthorized: `token_expired` or `invalid_token`.
            Unavailable: `auth_unavailable`.
        """
        digest = hashlib.sha256(token.encode(errors="replace")).digest()
        if (subject := self._recall(digest)) is not None:
            return subject
        claims = await self._proven_claims(token)
        expires_at = _check_times(claims, self._clock())
        subject = clean_value(_text(claims.get("sub")))
        if subject is None:
            raise _invalid()
        self._remember(digest, subject, expires_at)
        return subject

    async def close(self) -> None:
        await self._keys.close()

    async def _proven_claims(self, token: str) -> Mapping[str, object]:
        kid, alg = _read_header(token)
        for key in await self._keys.candidates(kid, alg):
            if (claims := self._decode(token, key, alg)) is not None:
                return claims
        raise _invalid()

    def _decode(self, token: str, key: VerificationKey, alg: str) -> Mapping[str, object] | None:
        """`alg` comes from the token, but is one that this key may be used with."""
        try:
            return jwt.decode(
                token,
                key.key,
                algorithms=[alg],
                audience=self._audience,
                issuer=self._issuer,
                options={
                    "require": ["exp", "sub"],
                    "verify_aud": self._audience is not None,
                    "verify_iss": self._issuer is not None,
                    # Times are checked by `_check_times`, against our clock.
                    "verify_exp": False,
                    "verify_nbf": False,
                    "verify_iat": False,
                },
            )
        except (jwt.PyJWTError, ValueError, TypeError):
            return None

    def _recall(self, digest: bytes) -> str | None:
        subject, expires_at, generation = self._proven.get(digest, ("", 0.0, -1))
        if generation != self._keys.generation() or self._clock() >= expires_at:
            self._proven.pop(digest, None)
            return None
        self._proven.move_to_end(digest)
        return subject

    def _remember(self, digest: bytes, subject: str, expires_at: float) -> None:
        self._proven[digest] = (subject, expires_at, self._keys.generation())
        if len(self._proven) > CACHED_TOKENS:
            self._proven.popitem(last=False)


def authenticator_for(
    settings: Settings, fetch_jwks: Callable[[], Awaitable[bytes]]
) -> Authenticator:
    """The authenticator that `AUTH_MODE` names. Reads files; `fetch_jwks` gives the document at
    `JWT_JWKS_URL` and raises when it can't.

    Raises:
        SettingsError: a file can't be used.
    """
    if settings.auth_mode == "api_key" and settings.api_keys_file is not None:
        return ApiKeyAuthenticator(
            KeyRing.load(settings.api_keys_file, pepper_path(settings.data_dir))
        )
    if settings.auth_mode == "jwt":
        file = settings.jwt_public_key_file
        keys: KeySource = FileKey(file) if file is not None else RemoteKeys(fetch_jwks)
        return TokenVerifier(keys, audience=settings.jwt_audience, issuer=settings.jwt_issuer)
    return NoAuthentication()


def _require(credential: str | None) -> str:
    if credential is None:
        raise Unauthorized(
            "A credential is needed: `Authorization: Bearer` or `x-api-key`.",
            code="missing_credential",
        )
    return credential


def _read_header(token: str) -> tuple[str | None, str]:
    """Key id and algorithm as the token claims them."""
    if len(token) > MAX_CREDENTIAL_CHARS or not _TOKEN.fullmatch(token):
        raise _invalid()
    try:
        header = jwt.get_unverified_header(token)
    except (jwt.PyJWTError, ValueError, TypeError, RecursionError):
        raise _invalid() from None
    alg, kid = header.get("alg"), header.get("kid")
    if alg not in ALGORITHMS or not isinstance(kid, str | None):
        raise _invalid()
    return kid, str(alg)


def _check_times(claims: Mapping[str, object], now: float) -> float:
    """When the token stops being good, in seconds since the epoch, leeway included."""
    expires_at = _time(claims["exp"]) + LEEWAY_S
    if now >= expires_at:
        raise Unauthorized("The token has expired.", code="token_expired")
    if now < _time(claims.get("nbf", 0)) - LEEWAY_S:
        raise _invalid()
    return expires_at


def _time(value: object) -> float:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not is_number or not 0 <= value < _MAX_TIME:  # type: ignore[operator]
        raise _invalid()  # also for NaN, which no comparison holds for
    return float(value)  # type: ignore[arg-type]


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None


def _invalid() -> Unauthorized:
    return Unauthorized("The token isn't valid.", code="invalid_token")
