"""Receipts and proofs that convince somebody who has nothing else."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from gateway.audit.bundle import Bundle, Receipt
from gateway.audit.canonical import Json
from gateway.audit.checkpoint import Checkpoint
from gateway.audit.draft import Drafter
from gateway.audit.fields import Vocabulary
from gateway.audit.merkle import frontier_of, tiled
from gateway.audit.note import Signer
from gateway.audit.policy import Policy
from gateway.audit.proofs import inclusion_proof
from gateway.audit.record import Personal, Record, seal
from gateway.errors import AuditError

LOG = "gw.example.org/eu-1/0199c2f0"
SIGNER = Signer(LOG, b"s" * 32)
FIELDS: dict[str, Json] = {"auth": "jwt", "route": "chat"}


def records(count: int) -> list[Record]:
    drafter = Drafter(Policy(), Vocabulary())
    personal = {"subject": bytes(32), "email": "jane@example.org"}
    draft = drafter.draft("auth.login", FIELDS, personal)
    return [seal(draft, LOG, seq, 1_760_000_000_000 + seq) for seq in range(count)]


def bundle(seq: int, count: int) -> Bundle:
    made = records(count)
    leaves = [record.leaf for record in made]
    node = tiled(lambda _, start, end: leaves[start:end])
    note = Checkpoint(LOG, count, frontier_of(leaves).root()).signed_by([SIGNER])
    one = made[seq]
    proof = inclusion_proof(seq, count, node)
    return Bundle(LOG, seq, one.body, one.personal, proof, str(note))


@pytest.mark.parametrize(("seq", "count"), [(0, 1), (0, 7), (6, 7), (100, 130)])
def test_bundle_verifies_after_a_journey_as_json(seq: int, count: int) -> None:
    sent = json.dumps(bundle(seq, count).to_object())
    received = Bundle.from_object(json.loads(sent))
    assert received.verify([SIGNER.verifier]).size == count


def test_bundle_without_an_erased_value_verifies() -> None:
    one = bundle(3, 9)
    assert replace(one, personal=[]).verify([SIGNER.verifier])


def test_forged_bundle_is_refused() -> None:
    one = bundle(3, 9)
    other = bundle(4, 9)
    value = one.personal[0]
    forgeries = {
        "bad_proof": [
            replace(one, proof=one.proof[:-1]),
            replace(one, proof=other.proof),
            replace(one, body=other.body),
            replace(one, body=one.body.replace(b'"jwt"', b'"xyz"')),
            replace(one, seq=4),
        ],
        "bad_commitment": [replace(one, personal=[Personal(value.field, b"else", value.salt)])],
        "wrong_log": [replace(one, log="gw.example.org/eu-1/other")],
        "bad_note": [replace(one, checkpoint="")],
    }
    for code, bundles in forgeries.items():
        for forged in bundles:
            with pytest.raises(AuditError) as caught:
                forged.verify([SIGNER.verifier])
            assert caught.value.code == code
    with pytest.raises(AuditError) as caught:
        one.verify([Signer(LOG, b"x" * 32).verifier])
    assert caught.value.code == "unsigned"


@pytest.mark.parametrize(
    "change",
    [
        {"format": "other"},
        {"seq": "3"},
        {"log": 1},
        {"body": "\ud800"},
        {"proof": ["AA"]},
        {"proof": [1]},
        {"proof": ["=="]},
        {"personal": {"email": {"value": "AA"}}},
        {"personal": {"email": {"value": "AA", "salt": "!"}}},
        {"personal": {"email": {"value": "AA", "salt": "AA", "more": "AA"}}},
        {"checkpoint": None},
    ],
)
def test_what_is_no_bundle_is_refused(change: dict[str, object]) -> None:
    with pytest.raises(AuditError) as caught:
        Bundle.from_object({**bundle(1, 3).to_object(), **change})  # type: ignore[dict-item]
    assert caught.value.code == "bad_bundle"


def test_receipt_is_one_line_that_names_the_record() -> None:
    record = records(3)[2]
    receipt = Receipt.of(record, LOG)
    assert str(receipt).startswith(f"{LOG}/2/")
    assert str(receipt).isascii()
    assert Receipt.parse(str(receipt)) == receipt


@pytest.mark.parametrize(
    "text",
    [
        "",
        "a/1",
        f"{'A' * 43}",
        f"a/01/{'A' * 43}",
        f"a/-1/{'A' * 43}",
        f"a/1/{'A' * 42}",
        f"a/1/{'A' * 42}B",
        f"a b/1/{'A' * 43}",
        f"a/1/{'A' * 43}\n",
        f"a/\u0661/{'A' * 43}",
    ],
)
def test_what_is_no_receipt_is_refused(text: str) -> None:
    with pytest.raises(AuditError) as caught:
        Receipt.parse(text)
    assert caught.value.code == "bad_receipt"
