"""A real issuer of tokens: key pairs, a server for its key set, and the tools of a forger."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import time
from collections.abc import Mapping

import jwt
from aiohttp import ClientSession, web
from aiohttp.test_utils import TestServer
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm

PrivateKey = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey

RSA_KEY = rsa.generate_private_key(65537, 2048)
RSA_OTHER = rsa.generate_private_key(65537, 2048)
RSA_SHORT = rsa.generate_private_key(65537, 1024)
P256_KEY = ec.generate_private_key(ec.SECP256R1())
P384_KEY = ec.generate_private_key(ec.SECP384R1())
P521_KEY = ec.generate_private_key(ec.SECP521R1())
ED_KEY = ed25519.Ed25519PrivateKey.generate()

KEY_FOR = {
    **dict.fromkeys(("RS256", "RS384", "RS512", "PS256", "PS384", "PS512"), RSA_KEY),
    "ES256": P256_KEY,
    "ES384": P384_KEY,
    "EdDSA": ED_KEY,
}


class Clock:
    def __init__(self, now: float = 0.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


def jwk(key: PrivateKey, kid: str | None = None, **extra: object) -> dict[str, object]:
    """The public half as an issuer would publish it; `kid=None` leaves the id out."""
    kinds = (
        (rsa.RSAPrivateKey, RSAAlgorithm),
        (ec.EllipticCurvePrivateKey, ECAlgorithm),
        (ed25519.Ed25519PrivateKey, OKPAlgorithm),
    )
    writer = next(algorithm for kind, algorithm in kinds if isinstance(key, kind))
    entry: dict[str, object] = writer.to_jwk(key.public_key(), as_dict=True)
    entry.pop("key_ops", None)
    return entry | ({} if kid is None else {"kid": kid}) | extra


def pem(key: PrivateKey) -> bytes:
    return key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def sign(
    key: PrivateKey,
    alg: str,
    kid: str | None = None,
    *,
    now: float | None = None,
    headers: Mapping[str, object] | None = None,
    **claims: object,
) -> str:
    """A good token, but for the `claims` that say otherwise; `...` leaves a claim out."""
    at = time.time() if now is None else now
    all_claims = {"sub": "alice", "exp": at + 60} | claims
    kept = {name: value for name, value in all_claims.items() if value is not ...}
    header = dict(headers or {}) | ({} if kid is None else {"kid": kid})
    return jwt.encode(kept, key, algorithm=alg, headers=header)


def forge(header: object, claims: object, secret: bytes | None = None) -> str:
    """A token as an attacker writes it: any header, unsigned or signed with any bytes."""
    text = f"{_encoded(header)}.{_encoded(claims)}"
    if secret is None:
        return f"{text}."
    signature = hmac.new(secret, text.encode(), hashlib.sha256).digest()
    return f"{text}.{base64.urlsafe_b64encode(signature).rstrip(b'=').decode()}"


def _encoded(value: object) -> str:
    raw = value if isinstance(value, bytes) else json.dumps(value).encode()
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


class Issuer:
    """Serves a key set. `stop` makes it unreachable: its port refuses."""

    def __init__(self, *keys: dict[str, object]) -> None:
        self.body: bytes = json.dumps({"keys": keys}).encode()
        self.fetches = 0
        app = web.Application()
        app.router.add_get("/jwks", self._serve)
        self._server = TestServer(app)
        self._session: ClientSession | None = None

    def publish(self, *keys: dict[str, object]) -> None:
        self.body = json.dumps({"keys": keys}).encode()

    async def start(self) -> None:
        await self._server.start_server()
        self._session = ClientSession()

    async def stop(self) -> None:
        await self._server.close()

    async def close(self) -> None:
        await self.stop()
        if self._session:
            await self._session.close()

    async def fetch(self) -> bytes:
        """What the application hands in."""
        assert self._session is not None
        async with self._session.get(self._server.make_url("/jwks")) as response:
            response.raise_for_status()
            return await response.read()

    async def _serve(self, _request: web.Request) -> web.Response:
        self.fetches += 1
        return web.Response(body=self.body)
