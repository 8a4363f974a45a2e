"""Encryption at rest: what can be opened, by which keys, and where."""

from __future__ import annotations

import base64
import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.errors import SettingsError
from gateway.stream.cipher import Cipher
from gateway.stream.store import StoreError

OLD, NEW = bytes(range(32)), bytes(range(32, 64))


@given(st.binary(), st.sampled_from([(), (OLD,), (NEW, OLD)]))
def test_what_is_sealed_opens_at_its_place(plain: bytes, keys: tuple[bytes, ...]) -> None:
    cipher = Cipher(keys)
    assert cipher.open(cipher.seal(plain, "a.1"), "a.1") == plain


def test_sealed_value_names_its_key_and_holds_no_plaintext() -> None:
    sealed = Cipher([NEW, OLD]).seal(b"canary", "a.1")
    assert sealed[1:9] == hashlib.sha256(NEW).hexdigest()[:8].encode()
    assert b"canary" not in sealed
    assert len(sealed) == 1 + 8 + 12 + len(b"canary") + 16


def test_same_value_is_sealed_differently_each_time() -> None:
    cipher = Cipher([NEW])
    assert cipher.seal(b"x", "a.1") != cipher.seal(b"x", "a.1")


def test_after_rotation_old_values_open_and_new_ones_use_the_new_key() -> None:
    before, after = Cipher([OLD]), Cipher([NEW, OLD])
    assert after.open(before.seal(b"x", "a.1"), "a.1") == b"x"
    assert Cipher([NEW]).open(after.seal(b"y", "a.1"), "a.1") == b"y"


def test_what_was_stored_before_there_was_a_key_opens() -> None:
    assert Cipher([NEW]).open(Cipher().seal(b"x", "a.1"), "a.1") == b"x"


@pytest.mark.parametrize("position", range(1 + 8 + 12 + 1 + 16))
def test_value_with_one_altered_byte_is_refused(position: int) -> None:
    cipher = Cipher([NEW])
    sealed = bytearray(cipher.seal(b"x", "a.1"))
    sealed[position] ^= 0x80
    with pytest.raises(StoreError) as caught:
        cipher.open(bytes(sealed), "a.1")
    assert not caught.value.is_transient


def test_value_from_another_place_is_refused() -> None:
    cipher = Cipher([NEW])
    with pytest.raises(StoreError, match="altered"):
        cipher.open(cipher.seal(b"x", "a.1"), "a.2")


@pytest.mark.parametrize("cipher", [Cipher(), Cipher([OLD])])
def test_value_of_an_unknown_key_is_refused(cipher: Cipher) -> None:
    with pytest.raises(StoreError, match="key that isn't set") as caught:
        cipher.open(Cipher([NEW]).seal(b"x", "a.1"), "a.1")
    assert not caught.value.is_transient


@pytest.mark.parametrize("sealed", [b"", b"\1", b"\1short", b"\2x"])
def test_value_that_is_none_is_refused(sealed: bytes) -> None:
    with pytest.raises(StoreError):
        Cipher([NEW]).open(sealed, "a.1")


@pytest.mark.parametrize(
    "text",
    [
        base64.b64encode(b"\xff" * 32).decode(),
        base64.urlsafe_b64encode(b"\xff" * 32).decode(),
        base64.b64encode(b"\xff" * 32).decode().rstrip("="),
        (b"\xff" * 32).hex(),
        (b"\xff" * 32).hex().upper(),
    ],
)
def test_key_may_be_base64_or_hex(text: str) -> None:
    sealed = Cipher([b"\xff" * 32]).seal(b"x", "a.1")
    assert Cipher.from_setting(f" {OLD.hex()} , {text},").open(sealed, "a.1") == b"x"


@pytest.mark.parametrize("text", [None, "", " , "])
def test_without_a_key_nothing_is_encrypted(text: str | None) -> None:
    assert not Cipher.from_setting(text).is_on


@pytest.mark.parametrize("text", ["secret-word", "00" * 31, "zz" * 32, OLD.hex() + ",x", "é" * 32])
def test_bad_key_stops_the_start_and_is_not_quoted(text: str) -> None:
    with pytest.raises(SettingsError, match="PARTIAL_ENCRYPTION_KEY") as caught:
        Cipher.from_setting(text)
    assert text not in str(caught.value)
