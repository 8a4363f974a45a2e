"""The short cut to HMAC-SHA-256."""

from __future__ import annotations

import hmac

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.audit.mac import hmac_sha256


@given(st.binary(max_size=64), st.binary(max_size=300))
def test_standard_library_comes_to_the_same(key: bytes, message: bytes) -> None:
    assert hmac_sha256(key, message) == hmac.digest(key, message, "sha256")


def test_published_vector_is_met() -> None:
    """RFC 4231 §4.3."""
    made = hmac_sha256(b"Jefe", b"what do ya want for nothing?")
    assert made.hex() == "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"


def test_key_of_more_than_a_block_is_refused() -> None:
    with pytest.raises(ValueError, match="64"):
        hmac_sha256(bytes(65), b"")
