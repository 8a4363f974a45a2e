"""Signed notes and checkpoints, against the examples of Go's sumdb and of C2SP."""

from __future__ import annotations

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.audit import note
from gateway.audit.checkpoint import Checkpoint, open_checkpoint
from gateway.audit.note import Signer, Verifier
from gateway.errors import AuditError

TEXT = (
    "If you think cryptography is the answer to your problem,\n"
    "then you don't know what your problem is.\n"
)
GO_KEY = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW"
GO_SEED = base64.b64decode("AYEKFALVFGyNhPJEMzD1QIDr+Y7hfZx09iUvxdXHKDFz")[1:]
GO_NOTE = (
    f"{TEXT}\n— PeterNeumann x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSN"
    "XgKvqfqdngotpRZb6KE6RyyBwJnAM=\n"
)
C2SP_KEY = "example.com/foo+530d903a+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k"
C2SP_NOTE = (
    "This is an example message.\n\n— example.com/foo Uw2QOkn8srV1yJGh2VYRlL1Tnagv1YEq6TfXppz"
    "i2ONncAlTgK7Ztg1ERYNZXsYjOBH3mFXmRKuwHjG1Yu72IneyaQM=\n"
)
ALICE = Signer("alice.example/log", b"a" * 32)
BOB = Signer("bob.example", b"b" * 32)


@pytest.mark.parametrize(
    ("key", "raw"), [(GO_KEY, GO_NOTE), (C2SP_KEY, C2SP_NOTE)], ids=["go", "c2sp"]
)
def test_published_example_verifies(key: str, raw: str) -> None:
    verifier = Verifier.parse(key)
    assert str(verifier) == key
    parsed = note.parse(raw.encode())
    assert parsed.verified_by([verifier]) == [verifier]
    assert str(parsed) == raw


def test_signature_is_the_one_that_go_makes() -> None:
    signer = Signer("PeterNeumann", GO_SEED)
    assert str(signer.verifier) == GO_KEY
    assert str(note.sign(TEXT, [signer])) == GO_NOTE


def test_signatures_of_unknown_keys_are_ignored() -> None:
    signed = note.sign("hello\n", [ALICE, BOB])
    assert signed.verified_by([BOB.verifier]) == [BOB.verifier]
    assert len(signed.verified_by([BOB.verifier, ALICE.verifier])) == 2
    impostor = Signer("bob.example", b"c" * 32)
    both = note.sign("hello\n", [BOB, impostor])
    assert both.verified_by([BOB.verifier]) == [BOB.verifier]


def test_signature_of_another_type_is_ignored() -> None:
    line = note.Signature("witness.example", b"\x01\x02\x03\x04", b"x" * 2420)
    raw = str(note.sign("hello\n", [ALICE])) + str(line)
    assert note.parse(raw).verified_by([ALICE.verifier]) == [ALICE.verifier]


def test_note_that_nobody_known_signed_is_refused() -> None:
    with pytest.raises(AuditError) as caught:
        note.sign("hello\n", [ALICE]).verified_by([BOB.verifier])
    assert caught.value.code == "unsigned"


def test_wrong_signature_of_a_known_key_spoils_the_note() -> None:
    forged = note.Signature(BOB.verifier.name, BOB.verifier.key_id, b"\0" * 64)
    signed = note.Note("hello\n", (*note.sign("hello\n", [ALICE]).signatures, forged))
    assert signed.verified_by([ALICE.verifier])
    with pytest.raises(AuditError) as caught:
        signed.verified_by([ALICE.verifier, BOB.verifier])
    assert caught.value.code == "bad_signature"


def test_text_may_hold_empty_lines() -> None:
    signed = note.sign("one\n\n\ntwo\n", [ALICE])
    assert note.parse(str(signed)) == signed


def test_signing_again_replaces_the_signature() -> None:
    signed = note.sign("hello\n", [ALICE, BOB])
    assert set(signed.signed_by(ALICE).signatures) == set(signed.signatures)
    assert len(signed.signed_by(ALICE).signatures) == 2


@pytest.mark.parametrize(
    "raw",
    [
        "",
        "\n",
        "hello\n",
        "hello\n\n",
        TEXT + "\n",
        GO_NOTE[:-1],
        GO_NOTE + "\n",
        GO_NOTE.replace("— ", "- "),
        GO_NOTE.replace("— ", "—"),
        GO_NOTE.replace("PeterNeumann", "Peter+Neumann"),
        GO_NOTE.replace("PeterNeumann", "Peter\u2003Neumann"),
        GO_NOTE.replace("PeterNeumann ", ""),
        GO_NOTE.replace("PeterNeumann", ""),
        GO_NOTE.replace("M=", "N="),
        GO_NOTE.replace("M=", "M"),
        GO_NOTE.replace("x08go", "x08 go"),
        GO_NOTE.replace("\n", "\r\n"),
        GO_NOTE.replace("If", "I\tf"),
        "a\n\n— a AAAAAA==\n",
        "a\n\n— a !!!!\n",
        "a\n" + "b" * note.MAX_NOTE_BYTES + "\n\n— a AAAAAAA=\n",
        "a\n\n" + "— a AAAAAAA=\n" * (note.MAX_SIGNATURES + 1),
        b"\xff\n\n" + "— a AAAAAAA=\n".encode(),
        "\ud800\n\n— a AAAAAAA=\n",
    ],
)
def test_what_is_no_note_is_refused(raw: str | bytes) -> None:
    with pytest.raises(AuditError) as caught:
        note.parse(raw)
    assert caught.value.code == "bad_note"


@pytest.mark.parametrize("text", ["", "hello", "a\tb\n", "a\x00\n"])
def test_text_that_no_note_can_hold_is_not_signed(text: str) -> None:
    with pytest.raises(AuditError) as caught:
        note.sign(text, [ALICE])
    assert caught.value.code == "bad_note"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "a",
        "a+b",
        GO_KEY.replace("c74f20a3", "c74f20a4"),
        GO_KEY.replace("PeterNeumann", "Peter Neumann"),
        GO_KEY.replace("+ARpc", "+AhpcB"),
        GO_KEY[:-4],
    ],
)
def test_what_is_no_verifier_key_is_refused(text: str) -> None:
    with pytest.raises(AuditError) as caught:
        Verifier.parse(text)
    assert caught.value.code == "bad_key"


@pytest.mark.parametrize(("name", "seed"), [("", b"a" * 32), ("a b", b"a" * 32), ("a", b"a" * 31)])
def test_what_is_no_signing_key_is_refused(name: str, seed: bytes) -> None:
    with pytest.raises(AuditError) as caught:
        Signer(name, seed)
    assert caught.value.code == "bad_key"


@given(st.binary())
def test_any_bytes_are_a_note_or_refused(raw: bytes) -> None:
    try:
        parsed = note.parse(raw)
    except AuditError:
        return
    assert str(parsed).encode() == raw


def test_checkpoint_has_three_lines() -> None:
    checkpoint = Checkpoint("alice.example/log", 20852163, bytes(range(32)))
    lines = checkpoint.text.split("\n")
    assert lines[:2] == ["alice.example/log", "20852163"]
    assert base64.b64decode(lines[2]) == checkpoint.root
    signed = checkpoint.signed_by([ALICE])
    assert open_checkpoint(str(signed), "alice.example/log", [ALICE.verifier]) == checkpoint


def test_checkpoint_of_the_specification_is_read() -> None:
    text = "example.com/behind-the-sofa\n20852163\nCsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n"
    assert Checkpoint.parse(text).size == 20852163


def test_checkpoint_of_another_log_is_refused() -> None:
    signed = Checkpoint("bob.example/log", 1, bytes(32)).signed_by([ALICE])
    with pytest.raises(AuditError) as caught:
        open_checkpoint(str(signed), "alice.example/log", [ALICE.verifier])
    assert caught.value.code == "wrong_log"


ROOT = base64.b64encode(bytes(32)).decode()


@pytest.mark.parametrize(
    "text",
    [
        "",
        "a\n",
        "a\n1\n",
        f"\n1\n{ROOT}\n",
        f"a\n01\n{ROOT}\n",
        f"a\n-1\n{ROOT}\n",
        f"a\n+1\n{ROOT}\n",
        f"a\n\u0661\n{ROOT}\n",
        f"a\n1\n{ROOT}",
        f"a\n1\n{ROOT}\nextension\n",
        f"a\n1\n{ROOT}\n\n",
        "a\n1\nAAAA\n",
        f"a\n1\n{ROOT[:-1]}\n",
        f"a\n1\n {ROOT}\n",
        f"a\n{'9' * 40}\n{ROOT}\n",
    ],
)
def test_what_is_no_checkpoint_is_refused(text: str) -> None:
    with pytest.raises(AuditError) as caught:
        Checkpoint.parse(text)
    assert caught.value.code == "bad_checkpoint"
