"""What a client presents."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.errors import Unauthorized
from gateway.tokens import NoAuthentication, credential_of


@pytest.mark.parametrize(
    ("authorization", "x_api_key", "credential"),
    [
        (None, None, None),
        ("", "", None),
        ("Bearer abc", None, "abc"),
        ("bearer abc", None, "abc"),
        ("BEARER  abc ", None, "abc"),
        ("Bearer\tabc", None, "abc"),
        (None, "abc", "abc"),
        (None, " abc ", "abc"),
        ("Bearer abc", "other", "abc"),
        ("Bearer a.b-c_d~e+f/g==", None, "a.b-c_d~e+f/g=="),
    ],
)
def test_credential(
    authorization: str | None, x_api_key: str | None, credential: str | None
) -> None:
    assert credential_of(authorization, x_api_key) == credential


@pytest.mark.parametrize(
    ("authorization", "x_api_key"),
    [
        ("Bearer", None),
        ("Bearer ", None),
        ("Bearerabc", None),
        ("Bearer a b", None),
        ("Bearer a, Bearer b", None),
        ("Basic YWJj", None),
        ("Basic YWJj", "abc"),
        (" Bearer abc", None),
        ("Bearer ä", None),
        ("Bearer a\x00", None),
        ("abc", None),
        (f"Bearer {'a' * 16385}", None),
        (None, "a b"),
        (None, " "),
        (None, "ä"),
        (None, "a" * 16385),
    ],
)
def test_malformed_header_is_refused(authorization: str | None, x_api_key: str | None) -> None:
    with pytest.raises(Unauthorized) as caught:
        credential_of(authorization, x_api_key)
    assert caught.value.code == "invalid_authorization"
    assert caught.value.message == "The credential can't be read."


@given(st.none() | st.text(), st.none() | st.text())
def test_credential_is_visible_ascii_or_refused(
    authorization: str | None, x_api_key: str | None
) -> None:
    try:
        credential = credential_of(authorization, x_api_key)
    except Unauthorized:
        return
    assert credential is None or (credential.isascii() and credential.isprintable())


async def test_without_authentication_nobody_has_a_name() -> None:
    nobody = NoAuthentication()
    assert await nobody.authenticate("anything") is None
    assert await nobody.authenticate(None) is None
    await nobody.close()
