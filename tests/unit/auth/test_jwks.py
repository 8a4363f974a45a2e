"""The issuer's key set: rotation, outages, and keys that must not be used."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.errors import Unauthorized, Unavailable
from gateway.tokens.jwks import RemoteKeys, parse_key_set
from gateway.tokens.verifier import TokenVerifier
from tests.unit.auth.issuer import (
    ED_KEY,
    P256_KEY,
    P384_KEY,
    P521_KEY,
    RSA_KEY,
    RSA_OTHER,
    RSA_SHORT,
    Clock,
    Issuer,
    jwk,
    sign,
)


@pytest.fixture
def clock() -> Clock:
    return Clock(1000.0)


@pytest.fixture
async def issuer() -> AsyncIterator[Issuer]:
    issuer = Issuer(jwk(RSA_KEY, "one"))
    await issuer.start()
    yield issuer
    await issuer.close()


@pytest.fixture
async def checked(issuer: Issuer, clock: Clock) -> AsyncIterator[TokenVerifier]:
    """Its tokens' clock is the real one; `clock` is the key set's."""
    checked = TokenVerifier(RemoteKeys(issuer.fetch, clock))
    yield checked
    await checked.close()


async def code_of(checked: TokenVerifier, token: str) -> str:
    with pytest.raises((Unauthorized, Unavailable)) as caught:
        await checked.verify(token)
    return caught.value.code


async def test_keys_are_fetched_when_first_needed_and_then_kept(
    checked: TokenVerifier, issuer: Issuer, clock: Clock
) -> None:
    assert issuer.fetches == 0
    for number in range(5):
        assert await checked.verify(sign(RSA_KEY, "RS256", "one", jti=str(number))) == "alice"
        clock.now += 60
    assert issuer.fetches == 1


async def test_requests_at_the_start_share_one_fetch(
    checked: TokenVerifier, issuer: Issuer
) -> None:
    tokens = [sign(RSA_KEY, "RS256", "one", jti=str(number)) for number in range(20)]
    assert set(await asyncio.gather(*map(checked.verify, tokens))) == {"alice"}
    assert issuer.fetches == 1


async def test_key_of_a_rotation_is_found_at_once(
    checked: TokenVerifier, issuer: Issuer, clock: Clock
) -> None:
    await checked.verify(sign(RSA_KEY, "RS256", "one"))
    issuer.publish(jwk(RSA_KEY, "one"), jwk(P256_KEY, "two"))
    clock.now += 10
    assert await checked.verify(sign(P256_KEY, "ES256", "two")) == "alice"
    assert issuer.fetches == 2


async def test_unknown_key_ids_ask_the_issuer_every_ten_seconds_at_most(
    checked: TokenVerifier, issuer: Issuer, clock: Clock
) -> None:
    await checked.verify(sign(RSA_KEY, "RS256", "one"))
    for number in range(40):
        assert await code_of(checked, sign(RSA_OTHER, "RS256", f"x{number}")) == "invalid_token"
        clock.now += 0.5
    assert issuer.fetches == 2


async def test_known_key_id_with_a_wrong_algorithm_doesnt_ask_the_issuer(
    checked: TokenVerifier, issuer: Issuer, clock: Clock
) -> None:
    await checked.verify(sign(RSA_KEY, "RS256", "one"))
    clock.now += 60
    assert await code_of(checked, sign(P256_KEY, "ES256", "one")) == "invalid_token"
    assert issuer.fetches == 1


async def settled() -> None:
    """Until the fetch in the background has ended."""
    await asyncio.wait([task for task in asyncio.all_tasks() if task.get_name() == "auth.jwks"])


async def test_withdrawn_key_ends_its_tokens_also_those_that_were_proven(
    checked: TokenVerifier, issuer: Issuer, clock: Clock
) -> None:
    token = sign(RSA_KEY, "RS256", "one")
    await checked.verify(token)
    issuer.publish(jwk(P256_KEY, "two"))
    clock.now += 301
    assert await checked.verify(token) == "alice"  # nobody waits for the fetch
    await settled()
    assert issuer.fetches == 2
    assert await code_of(checked, token) == "invalid_token"


async def test_proven_tokens_stay_proven_when_the_same_keys_are_fetched_again(
    issuer: Issuer, clock: Clock
) -> None:
    keys = RemoteKeys(issuer.fetch, clock)
    await keys.candidates("one", "RS256")
    before = keys.generation()
    clock.now += 301
    keys.generation()
    await settled()
    assert issuer.fetches == 2
    assert keys.generation() == before
    await keys.close()


async def test_known_keys_go_on_for_a_day_while_the_issuer_is_away(
    checked: TokenVerifier, issuer: Issuer, clock: Clock
) -> None:
    token = sign(RSA_KEY, "RS256", "one")
    await checked.verify(token)
    await issuer.stop()
    for number in range(20):
        clock.now += 4000
        fresh = sign(RSA_KEY, "RS256", "one", jti=str(number))
        assert await checked.verify(fresh) == "alice"
        await settled()
    clock.now = 1000 + 24 * 3600 + 1
    assert await code_of(checked, token) == "auth_unavailable"


async def test_issuer_that_was_never_reached_is_our_trouble_not_the_clients(
    checked: TokenVerifier, issuer: Issuer, clock: Clock
) -> None:
    await issuer.stop()
    with pytest.raises(Unavailable) as caught:
        await checked.verify(sign(RSA_KEY, "RS256", "one"))
    assert caught.value.code == "auth_unavailable"
    assert caught.value.retry_after_s == 10
    clock.now += 4
    with pytest.raises(Unavailable) as caught:
        await checked.verify(sign(RSA_KEY, "RS256", "one"))
    assert caught.value.retry_after_s == 6


@pytest.mark.parametrize("body", [b"", b"<html>", b"{}", b'{"keys": []}', b"[]", b" " * 1_100_000])
async def test_answer_that_is_no_key_set_leaves_the_known_keys(
    checked: TokenVerifier, issuer: Issuer, clock: Clock, body: bytes
) -> None:
    await checked.verify(sign(RSA_KEY, "RS256", "one"))
    issuer.body = body
    clock.now += 20
    assert await code_of(checked, sign(RSA_OTHER, "RS256", "two")) == "invalid_token"
    assert issuer.fetches == 2
    assert await checked.verify(sign(RSA_KEY, "RS256", "one", jti="2")) == "alice"


async def test_client_that_leaves_doesnt_break_off_the_fetch(
    checked: TokenVerifier, issuer: Issuer
) -> None:
    token = sign(RSA_KEY, "RS256", "one")
    leaving = asyncio.create_task(checked.verify(token))
    staying = asyncio.create_task(checked.verify(token))
    await asyncio.sleep(0)
    leaving.cancel()
    assert await staying == "alice"
    assert leaving.cancelled()
    assert issuer.fetches == 1


async def test_close_ends_a_fetch_that_hangs(clock: Clock) -> None:
    reached = asyncio.Event()

    async def hang() -> bytes:
        reached.set()
        return await asyncio.get_running_loop().create_future()

    checked = TokenVerifier(RemoteKeys(hang, clock))
    waiting = asyncio.create_task(checked.verify(sign(RSA_KEY, "RS256", "one")))
    await reached.wait()
    await checked.close()
    with pytest.raises(Unavailable):
        await waiting


async def test_token_without_a_key_id_is_tried_with_every_fitting_key(
    checked: TokenVerifier, issuer: Issuer
) -> None:
    issuer.publish(jwk(RSA_OTHER, "a"), jwk(P256_KEY), jwk(RSA_KEY, "one"))
    assert await checked.verify(sign(RSA_KEY, "RS256")) == "alice"
    assert await checked.verify(sign(P256_KEY, "ES256")) == "alice"


@pytest.mark.parametrize(
    "entry",
    [
        jwk(RSA_KEY, "k", use="enc"),
        jwk(RSA_KEY, "k", key_ops=["sign"]),
        jwk(RSA_KEY, "k", key_ops="verify"),
        jwk(RSA_KEY, "k", alg="HS256"),
        jwk(RSA_KEY, "k", alg="RSA-OAEP"),
        jwk(RSA_KEY, "k", alg=7),
        jwk(RSA_KEY, "k", kty="EC"),
        jwk(RSA_KEY, "k", kty=["RSA"]),
        jwk(RSA_KEY, "k", n="AQAB"),
        jwk(RSA_KEY, "k", n=7),
        jwk(RSA_KEY, "k", d="AQAB"),
        {**jwk(RSA_KEY), "kid": 7},
        jwk(RSA_SHORT, "k"),
        jwk(P521_KEY, "k"),
        jwk(P256_KEY, "k", crv="P-384"),
        jwk(ED_KEY, "k", x="AQAB"),
        {"kty": "oct", "k": "c2VjcmV0", "kid": "k", "alg": "HS256"},
        {"kty": "RSA"},
        {},
        [],
        "key",
    ],
)
def test_key_that_must_not_be_used_is_passed_over(entry: object) -> None:
    good = jwk(P384_KEY, "good")
    assert [key.kid for key in parse_key_set(json.dumps({"keys": [entry, good]}).encode())] == [
        "good"
    ]
    with pytest.raises(ValueError, match="usable key"):
        parse_key_set(json.dumps({"keys": [entry]}).encode())


def test_key_is_used_with_its_own_algorithm_only() -> None:
    entries = [
        jwk(RSA_KEY, "any"),
        jwk(RSA_KEY, "own", alg="PS256", use="sig", key_ops=["verify"]),
        jwk(P256_KEY, "p256"),
        jwk(P384_KEY, "p384"),
        jwk(ED_KEY, "ed"),
    ]
    keys = {key.kid: key for key in parse_key_set(json.dumps({"keys": entries}).encode())}
    fits = {
        kid: {
            alg for alg in ("RS256", "PS256", "ES256", "ES384", "EdDSA", "HS256") if key.fits(alg)
        }
        for kid, key in keys.items()
    }
    assert fits == {
        "any": {"RS256", "PS256"},
        "own": {"PS256"},
        "p256": {"ES256"},
        "p384": {"ES384"},
        "ed": {"EdDSA"},
    }


@given(
    st.binary(max_size=200)
    | st.builds(
        lambda keys: json.dumps({"keys": keys}).encode(),
        st.lists(
            st.dictionaries(
                st.sampled_from(["kty", "crv", "n", "e", "x", "y", "d", "kid", "alg", "use"]),
                st.sampled_from(["RSA", "EC", "OKP", "oct", "P-256", "Ed25519", "AQAB", "sig"])
                | st.text(max_size=8)
                | st.integers()
                | st.none()
                | st.lists(st.none(), max_size=1),
            ),
            max_size=4,
        ),
    )
)
def test_whatever_the_issuer_answers_nothing_but_a_value_error_comes_of_it(raw: bytes) -> None:
    try:
        keys = parse_key_set(raw)
    except ValueError:
        return
    assert keys
