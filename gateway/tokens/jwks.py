"""The keys that tokens are checked with: one from a file, or the issuer's published set (RFC 7517).

Checks keys; tokens are `gateway.tokens.verifier`'s part. Opens no connection: the set comes from a
callable that the application hands in.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import orjson
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_pem_public_key,
)
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm

from gateway.errors import SettingsError, Unavailable
from gateway.tasks import TaskOwner

#: Signatures by a key pair only: with HS* or none, whoever knows the public key could sign.
ALGORITHMS = (
    "RS256",
    "RS384",
    "RS512",
    "PS256",
    "PS384",
    "PS512",
    "ES256",
    "ES384",
    "EdDSA",
)
MIN_RSA_BITS = 2048
MAX_SET_BYTES = 1024 * 1024

TTL_S = 300.0
MAX_STALE_S = 24 * 3600.0
FETCH_INTERVAL_S = 10.0
FETCH_TIMEOUT_S = 5.0

PublicKey = RSAPublicKey | EllipticCurvePublicKey | Ed25519PublicKey

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class VerificationKey:
    """A public key, and the only algorithm it is meant for, if its issuer says so."""

    key: PublicKey
    kid: str | None = None
    alg: str | None = None

    def fits(self, alg: str) -> bool:
        """Whether a signature by `alg` may be checked with this key."""
        return self.alg in (None, alg) and alg in _algorithms_of(self.key)

    def fingerprint(self) -> tuple[str | None, str | None, bytes]:
        raw = self.key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        return self.kid, self.alg, raw


class KeySource(Protocol):
    """Where verification keys come from."""

    def generation(self) -> int:
        """Changes when the keys do: what an older generation has proven must be proven again."""
        ...

    async def candidates(self, kid: str | None, alg: str) -> list[VerificationKey]:
        """The keys that a token with this header may have been signed with; none if unknown.

        Raises:
            Unavailable: `auth_unavailable`, there are no keys to tell by.
        """
        ...

    async def close(self) -> None: ...


class FileKey:
    """One public key from a PEM file. A token's `kid` doesn't matter."""

    def __init__(self, file: Path) -> None:
        """
        Raises:
            SettingsError: no usable public key is in the file.
        """
        try:
            key = load_pem_public_key(file.read_bytes())
        except OSError as error:
            raise SettingsError(f"JWT_PUBLIC_KEY_FILE: {file}: {error.strerror}") from error
        except (ValueError, UnsupportedAlgorithm):
            raise SettingsError(f"JWT_PUBLIC_KEY_FILE: {file} isn't a PEM public key") from None
        if not isinstance(key, PublicKey) or not _algorithms_of(key):
            raise SettingsError(
                f"JWT_PUBLIC_KEY_FILE: {file} must be RSA of 2048 bits or more, P-256, P-384 or "
                "Ed25519"
            )
        self._key = VerificationKey(key)

    def generation(self) -> int:
        return 0

    async def candidates(self, kid: str | None, alg: str) -> list[VerificationKey]:
        return [self._key] if self._key.fits(alg) else []

    async def close(self) -> None:
        return None


class RemoteKeys:
    """The issuer's key set, fetched when it is first needed and again every 300 s.

    While the issuer can't be reached, the known keys go on for up to a day. A `kid` nobody knows
    asks the issuer at once, but never more often than every 10 s, whatever clients send. One fetch
    runs at a time and belongs to no request, so a client that leaves doesn't break it off.
    """

    def __init__(
        self, fetch: Callable[[], Awaitable[bytes]], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._fetch = fetch
        self._clock = clock
        self._tasks = TaskOwner()
        self._flight: asyncio.Task[None] | None = None
        self._keys: list[VerificationKey] = []
        self._generation = 0
        self._fetched_at = 0.0
        self._tried_at: float | None = None

    def generation(self) -> int:
        """Also starts a fetch that is due. Needs a running loop."""
        age_s = self._clock() - self._fetched_at
        if self._keys and age_s > MAX_STALE_S:
            self._replace([])
        if self._keys and age_s > TTL_S:
            self._start_fetch()
        return self._generation

    async def candidates(self, kid: str | None, alg: str) -> list[VerificationKey]:
        self.generation()
        if not self._keys or (kid is not None and not self._knows(kid)):
            await self._fetched()
        if not self._keys:
            raise Unavailable(
                "Tokens can't be checked at the moment.",
                code="auth_unavailable",
                retry_after_s=max(1.0, self._next_try_s()),
            )
        return [key for key in self._keys if kid in (None, key.kid) and key.fits(alg)]

    async def close(self) -> None:
        await self._tasks.cancel()

    def _knows(self, kid: str) -> bool:
        return any(key.kid == kid for key in self._keys)

    def _next_try_s(self) -> float:
        if self._tried_at is None:
            return 0.0
        return max(0.0, self._tried_at + FETCH_INTERVAL_S - self._clock())

    def _start_fetch(self) -> asyncio.Task[None] | None:
        if self._flight is None and self._next_try_s() == 0:
            self._tried_at = self._clock()
            self._flight = self._tasks.spawn(self._fetch_once(), name="auth.jwks")
        return self._flight

    async def _fetched(self) -> None:
        if flight := self._start_fetch():
            await asyncio.wait([flight])

    async def _fetch_once(self) -> None:
        try:
            async with asyncio.timeout(FETCH_TIMEOUT_S):
                keys = parse_key_set(await self._fetch())
        except Exception as error:  # whatever the client raises: the known keys go on
            logger.warning("auth.jwks_failed", extra={"error": type(error).__name__})
        else:
            self._fetched_at = self._clock()
            self._replace(keys)
        finally:
            self._flight = None

    def _replace(self, keys: list[VerificationKey]) -> None:
        old = {key.fingerprint() for key in self._keys}
        if old != {key.fingerprint() for key in keys}:
            self._generation += 1
        self._keys = keys


def parse_key_set(raw: bytes) -> list[VerificationKey]:
    """The usable keys of a JWK set: public, for signatures, of a known kind and enough strength.

    Raises:
        ValueError: it is no JWK set, or nothing in it can be used.
    """
    if len(raw) > MAX_SET_BYTES:
        raise ValueError("the key set is too large")
    document = orjson.loads(raw)
    entries = document.get("keys") if isinstance(document, dict) else None
    listed = entries if isinstance(entries, list) else []
    keys = [key for entry in listed if (key := _parse_key(entry)) is not None]
    if not keys:
        raise ValueError("not a JWK set, or one without a usable key")
    return keys


def _parse_key(entry: object) -> VerificationKey | None:
    if not isinstance(entry, dict) or not _is_for_signatures(entry):
        return None
    reader = _READERS.get(str(entry.get("kty")))
    kid, alg = entry.get("kid"), entry.get("alg")
    if reader is None or not isinstance(kid, str | None) or not isinstance(alg, str | None):
        return None
    try:
        key = reader(entry)
    except Exception:  # PyJWT lets many kinds through; one bad key mustn't cost the others
        return None
    if not isinstance(key, PublicKey) or (alg or ALGORITHMS[0]) not in ALGORITHMS:
        return None
    return VerificationKey(key, kid, alg) if _algorithms_of(key) else None


def _is_for_signatures(entry: dict[str, object]) -> bool:
    operations = entry.get("key_ops", ["verify"])
    is_verifying = isinstance(operations, list) and "verify" in operations
    return entry.get("use", "sig") == "sig" and is_verifying and "d" not in entry


_READERS: dict[str, Callable[[dict[str, object]], object]] = {
    "RSA": RSAAlgorithm.from_jwk,
    "EC": ECAlgorithm.from_jwk,
    "OKP": OKPAlgorithm.from_jwk,
}


def _algorithms_of(key: PublicKey) -> tuple[str, ...]:
    """None for an RSA key that is too short, and for other curves."""
    if isinstance(key, RSAPublicKey):
        return ALGORITHMS[:6] if key.key_size >= MIN_RSA_BITS else ()
    if isinstance(key, EllipticCurvePublicKey):
        return {"secp256r1": ("ES256",), "secp384r1": ("ES384",)}.get(key.curve.name, ())
    return ("EdDSA",)
