"""Tokens: good ones, wrong ones, and those of people who try."""

from __future__ import annotations

import base64
import json
import time
from pathlib import Path

import jwt
import pytest
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from hypothesis import given
from hypothesis import strategies as st

from gateway.errors import SettingsError, Unauthorized
from gateway.tokens.jwks import ALGORITHMS, FileKey, VerificationKey
from gateway.tokens.verifier import CACHED_TOKENS, TokenVerifier
from tests.unit.auth.issuer import (
    ED_KEY,
    KEY_FOR,
    P256_KEY,
    P384_KEY,
    P521_KEY,
    RSA_KEY,
    RSA_OTHER,
    RSA_SHORT,
    Clock,
    PrivateKey,
    forge,
    jwk,
    pem,
    sign,
)


class Keys:
    """Keys that are simply there."""

    def __init__(self, *keys: VerificationKey) -> None:
        self.keys = list(keys)
        self.asked = 0
        self.number = 0

    def generation(self) -> int:
        return self.number

    async def candidates(self, kid: str | None, alg: str) -> list[VerificationKey]:
        self.asked += 1
        return [key for key in self.keys if key.fits(alg)]

    async def close(self) -> None:
        return None


NOW = time.time()
CLAIMS = {"sub": "mallory", "exp": NOW + 3600}


def verifier(
    key: PrivateKey = RSA_KEY, *, audience: str | None = None, issuer: str | None = None
) -> TokenVerifier:
    keys = Keys(VerificationKey(key.public_key()))
    return TokenVerifier(keys, audience=audience, issuer=issuer, clock=Clock(NOW))


async def refusal(checked: TokenVerifier, token: str) -> str:
    with pytest.raises(Unauthorized) as caught:
        await checked.verify(token)
    assert caught.value.message in ("The token isn't valid.", "The token has expired.")
    assert caught.value.status == 401
    return caught.value.code


@pytest.mark.parametrize("alg", ALGORITHMS)
async def test_token_of_every_algorithm_proves_its_subject(alg: str) -> None:
    key = KEY_FOR[alg]
    assert await verifier(key).verify(sign(key, alg)) == "alice"


@pytest.mark.parametrize("alg", ALGORITHMS)
async def test_token_of_another_key_is_refused(alg: str) -> None:
    checked = verifier(RSA_OTHER)
    assert await refusal(checked, sign(KEY_FOR[alg], alg)) == "invalid_token"


async def test_every_candidate_is_tried() -> None:
    keys = Keys(*(VerificationKey(key.public_key()) for key in (RSA_OTHER, RSA_KEY)))
    assert await TokenVerifier(keys).verify(sign(RSA_KEY, "RS256")) == "alice"


@pytest.mark.parametrize("form", ["pem", "der"])
@pytest.mark.parametrize("alg", ["HS256", "hs256", "RS256", "HS384"])
async def test_public_key_used_as_a_shared_secret_is_refused(form: str, alg: str) -> None:
    secret = pem(RSA_KEY)
    if form == "der":
        secret = base64.b64decode(b"".join(secret.splitlines()[1:-1]))
    for typed in ({"alg": alg, "typ": "JWT"}, {"alg": alg}):
        assert await refusal(verifier(), forge(typed, CLAIMS, secret)) == "invalid_token"


@pytest.mark.parametrize(
    "header",
    [
        {"alg": "none"},
        {"alg": "None"},
        {"alg": "NONE"},
        {"alg": ""},
        {"alg": None},
        {"alg": ["RS256"]},
        {"alg": {"RS256": 1}},
        {"alg": "ES256K"},
        {"alg": "RS1"},
        {},
        {"alg": "RS256", "kid": 7},
        {"alg": "RS256", "kid": None},
        {"alg": "RS256", "crit": ["exp"], "exp": 1},
        {"alg": "RS256", "b64": False, "crit": ["b64"]},
        [],
        None,
        "RS256",
        b"\xff",
        b"[" * 10_000,
    ],
)
async def test_forged_header_is_refused(header: object) -> None:
    token = forge(header, CLAIMS)
    for text in (token, f"{token}AA", f"{token}{'A' * 342}"):
        assert await refusal(verifier(), text) == "invalid_token"


async def test_key_that_a_token_brings_along_is_not_used() -> None:
    token = sign(RSA_OTHER, "RS256", headers={"jwk": jwk(RSA_OTHER), "jku": "http://127.0.0.1/"})
    assert await refusal(verifier(), token) == "invalid_token"


@pytest.mark.parametrize("part", [0, 1, 2])
async def test_token_that_was_changed_is_refused(part: int) -> None:
    parts = sign(RSA_KEY, "RS256").split(".")
    middle = len(parts[part]) // 2
    parts[part] = (
        parts[part][:middle]
        + ("A" if parts[part][middle] != "A" else "B")
        + (parts[part][middle + 1 :])
    )
    assert await refusal(verifier(), ".".join(parts)) == "invalid_token"


@pytest.mark.parametrize(
    ("expires_in", "code"),
    [(1, None), (-29, None), (-30, "token_expired"), (-3600, "token_expired")],
)
async def test_expiry_has_thirty_seconds_of_leeway(expires_in: float, code: str | None) -> None:
    token = sign(RSA_KEY, "RS256", exp=NOW + expires_in)
    if code is None:
        assert await verifier().verify(token) == "alice"
    else:
        assert await refusal(verifier(), token) == code


async def test_token_isnt_good_before_its_time() -> None:
    assert await verifier().verify(sign(RSA_KEY, "RS256", nbf=NOW + 29)) == "alice"
    assert await refusal(verifier(), sign(RSA_KEY, "RS256", nbf=NOW + 31)) == "invalid_token"


@pytest.mark.parametrize(
    "value",
    [..., "soon", "9999999999", None, True, -1, [], {}, float("nan"), float("inf"), 10**400],
)
async def test_token_without_a_proper_expiry_is_refused(value: object) -> None:
    assert await refusal(verifier(), sign(RSA_KEY, "RS256", exp=value)) == "invalid_token"


@pytest.mark.parametrize("value", ["soon", True, [], float("nan"), float("inf"), None])
async def test_token_with_an_improper_beginning_is_refused(value: object) -> None:
    key = RSA_KEY
    claims = {"sub": "alice", "exp": NOW + 60, "nbf": value}
    token = jwt.PyJWS().encode(json.dumps(claims).encode(), key, "RS256")
    assert await refusal(verifier(), token) == "invalid_token"


@pytest.mark.parametrize("value", [..., "", "  ", 7, None, ["a"], "a\nb", "a\x00", "x" * 257])
async def test_token_without_a_proper_subject_is_refused(value: object) -> None:
    claims = {"exp": NOW + 60} | ({} if value is ... else {"sub": value})
    token = jwt.PyJWS().encode(json.dumps(claims).encode(), RSA_KEY, "RS256")
    assert await refusal(verifier(), token) == "invalid_token"


@pytest.mark.parametrize("payload", [b"", b"[]", b"null", b"\xff", b"{", b"[" * 10_000])
async def test_signed_nonsense_is_refused(payload: bytes) -> None:
    token = jwt.PyJWS().encode(payload, RSA_KEY, "RS256")
    assert await refusal(verifier(), token) == "invalid_token"


@pytest.mark.parametrize("value", [..., "other", ["other"], [], "", None, 7])
async def test_token_for_somebody_else_is_refused(value: object) -> None:
    token = sign(RSA_KEY, "RS256", aud=value)
    assert await refusal(verifier(audience="us"), token) == "invalid_token"


async def test_token_for_us_among_others_is_taken() -> None:
    for value in ("us", ["other", "us"]):
        token = sign(RSA_KEY, "RS256", aud=value)
        assert await verifier(audience="us").verify(token) == "alice"
        assert await verifier().verify(token) == "alice"


@pytest.mark.parametrize("value", [..., "other", "us/", "", ["us"]])
async def test_token_of_another_issuer_is_refused(value: object) -> None:
    claims = {"sub": "alice", "exp": NOW + 60} | ({} if value is ... else {"iss": value})
    token = jwt.PyJWS().encode(json.dumps(claims).encode(), RSA_KEY, "RS256")
    assert await refusal(verifier(issuer="us"), token) == "invalid_token"


async def test_token_of_the_issuer_is_taken() -> None:
    assert await verifier(issuer="us").verify(sign(RSA_KEY, "RS256", iss="us")) == "alice"


async def test_missing_token_has_its_own_code() -> None:
    with pytest.raises(Unauthorized) as caught:
        await verifier().authenticate(None)
    assert caught.value.code == "missing_credential"


@given(
    st.text(max_size=60)
    | st.from_regex(
        r"[A-Za-z0-9_-]{0,40}\.[A-Za-z0-9_-]{0,40}\.[A-Za-z0-9_-]{0,40}", fullmatch=True
    )
    | st.just("a." * 20_000)
)
async def test_garbage_is_refused(token: str) -> None:
    assert await refusal(verifier(), token) == "invalid_token"


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)
HEADERS = st.fixed_dictionaries(
    {"alg": st.sampled_from(ALGORITHMS) | JSON},
    optional={"kid": JSON, "crit": JSON, "b64": JSON, "typ": JSON, "jwk": JSON, "x5c": JSON},
)


@given(HEADERS, JSON, st.none() | st.binary(max_size=40))
async def test_forged_tokens_are_refused(
    header: object, claims: object, secret: bytes | None
) -> None:
    for key in (RSA_KEY, P256_KEY, ED_KEY):
        assert await refusal(verifier(key), forge(header, claims, secret)) == "invalid_token"


@given(st.dictionaries(st.sampled_from(["sub", "exp", "nbf", "aud", "iss", "iat", "jti"]), JSON))
async def test_whatever_an_issuer_signs_ends_in_a_name_or_a_refusal(
    claims: dict[str, object],
) -> None:
    token = jwt.PyJWS().encode(json.dumps(claims).encode(), ED_KEY, "EdDSA")
    try:
        subject = await verifier(ED_KEY, audience="us", issuer="us").verify(token)
    except Unauthorized as error:
        assert error.code in ("invalid_token", "token_expired")  # noqa: PT017
    else:
        assert subject == claims["sub"]


async def test_proven_token_is_remembered_until_it_expires() -> None:
    keys, clock = Keys(VerificationKey(RSA_KEY.public_key())), Clock(NOW)
    checked = TokenVerifier(keys, clock=clock)
    token = sign(RSA_KEY, "RS256", exp=NOW + 60)
    for _ in range(3):
        assert await checked.verify(token) == "alice"
    assert keys.asked == 1
    clock.now = NOW + 89
    assert await checked.verify(token) == "alice"
    clock.now = NOW + 90
    assert await refusal(checked, token) == "token_expired"


async def test_proven_token_is_proven_again_when_the_keys_have_changed() -> None:
    keys = Keys(VerificationKey(RSA_KEY.public_key()))
    checked = TokenVerifier(keys, clock=Clock(NOW))
    token = sign(RSA_KEY, "RS256")
    assert await checked.verify(token) == "alice"
    keys.keys, keys.number = [VerificationKey(RSA_OTHER.public_key())], 1
    assert await refusal(checked, token) == "invalid_token"


async def test_refused_token_is_not_remembered_and_few_are_kept() -> None:
    checked = verifier(ED_KEY)
    for number in range(CACHED_TOKENS + 5):
        await checked.verify(sign(ED_KEY, "EdDSA", now=NOW, jti=str(number)))
    await refusal(checked, "a.b.c")
    assert len(checked._proven) == CACHED_TOKENS


@pytest.mark.parametrize("key", [RSA_KEY, P256_KEY, P384_KEY, ED_KEY])
async def test_key_file_is_used(tmp_path: Path, key: PrivateKey) -> None:
    alg = next(alg for alg in reversed(ALGORITHMS) if KEY_FOR[alg] is key)
    checked = TokenVerifier(key_from(tmp_path, pem(key)))
    assert await checked.verify(sign(key, alg, "any kid")) == "alice"
    for other in {"RS256", "ES256", "ES384", "EdDSA"} - {alg}:
        if KEY_FOR[other] is not key:
            assert await refusal(checked, sign(KEY_FOR[other], other)) == "invalid_token"
    await checked.close()


def key_from(folder: Path, content: bytes) -> FileKey:
    file = folder / "key.pem"
    file.write_bytes(content)
    return FileKey(file)


@pytest.mark.parametrize(
    "content",
    [b"", b"no key", pem(RSA_SHORT), pem(P521_KEY), pem(RSA_KEY)[:80]],
    ids=["empty", "text", "short", "curve", "cut"],
)
def test_unusable_key_file_stops_the_start(tmp_path: Path, content: bytes) -> None:
    with pytest.raises(SettingsError, match="JWT_PUBLIC_KEY_FILE"):
        key_from(tmp_path, content)


def test_private_key_file_stops_the_start(tmp_path: Path) -> None:
    private = ED_KEY.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    with pytest.raises(SettingsError, match="isn't a PEM public key"):
        key_from(tmp_path, private)


def test_missing_key_file_stops_the_start(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="No such file"):
        FileKey(tmp_path / "none.pem")
