"""JSON Web Tokens: from the text of a token to the subject that it proves.

The keys to check with come from `gateway.tokens.jwks`.
"""

from __future__ import annotations

import hashlib
import re
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping

import jwt

from gateway.errors import Unauthorized
from gateway.tokens.credentials import MAX_CREDENTIAL_CHARS, require
from gateway.tokens.jwks import ALGORITHMS, KeySource, VerificationKey

LEEWAY_S = 30
MAX_SUBJECT_CHARS = 256
CACHED_TOKENS = 4096

#: Later than this is no date but an attempt on the arithmetic.
_MAX_TIME = 2**53

_TOKEN = re.compile(r"[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+")


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
        return await self.verify(require(credential))

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
        subject = _check_subject(claims["sub"])
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


def _check_subject(value: object) -> str:
    """It goes into log lines and records, so what can't be printed is no name."""
    is_name = isinstance(value, str) and 0 < len(value) <= MAX_SUBJECT_CHARS
    if not is_name or not str(value).strip() or not str(value).isprintable():
        raise _invalid()
    return str(value)


def _invalid() -> Unauthorized:
    return Unauthorized("The token isn't valid.", code="invalid_token")
