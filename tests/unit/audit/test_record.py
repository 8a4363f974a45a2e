"""What gets into a record, what is kept out, and what erasing leaves."""

from __future__ import annotations

import hashlib
import hmac
import json
from base64 import urlsafe_b64decode
from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.audit.canonical import Json, decode, encode
from gateway.audit.draft import Drafter
from gateway.audit.event import CLEAR, HASHES, OUTCOMES, TYPES
from gateway.audit.fields import Vocabulary
from gateway.audit.policy import DAY_S, Cls, Policy
from gateway.audit.record import (
    MAX_BODY_BYTES,
    Personal,
    check_personal,
    read_body,
    seal,
)
from gateway.errors import AuditError
from gateway.stream.model import ENDING_REASONS

LOG = "gw.example.org/eu-1/0199c2f0"
RID = "0199c2f0-0000-7000-8000-000000000001"
START: dict[str, Json] = {"rid": RID, "auth": "jwt", "route": "chat", "model": "m-large"}
HASH = bytes(range(32))
VOCABULARY = Vocabulary(frozenset({"m-large"}), frozenset({"rag-a"}))
RESERVED = {"v", "log", "seq", "ts", "cls", "type", "nonce", "policy", "commit", "kid"}


def drafter(policy: Policy | None = None) -> Drafter:
    return Drafter(policy or Policy(), VOCABULARY)


def refusal(
    type_: str,
    fields: Mapping[str, Json],
    personal: Mapping[str, str | bytes] | None = None,
    policy: Policy | None = None,
) -> str:
    with pytest.raises(AuditError) as caught:
        drafter(policy).draft(type_, fields, personal)
    return caught.value.code


def test_record_is_what_the_format_says() -> None:
    personal = {"subject": HASH, "query": bytes(32)}
    keys = {"q": "2026-10.01234567", "s": "2026.89abcdef"}
    draft = drafter().draft("query.start", START, personal, keys)
    record = seal(draft, LOG, 184467, 1_760_000_000_123, entropy=lambda n: bytes(range(n)))
    body = json.loads(record.body)
    assert body == {
        "auth": "jwt",
        "cls": "query",
        "commit": body["commit"],
        "kid": keys,
        "log": LOG,
        "model": "m-large",
        "nonce": "AAECAwQFBgcICQoLDA0ODw",
        "policy": Policy().id(),
        "rid": RID,
        "route": "chat",
        "seq": 184467,
        "ts": 1_760_000_000_123,
        "type": "query.start",
        "v": 1,
    }
    assert record.leaf == hashlib.sha256(b"\0" + record.body).digest()
    assert encode(decode(record.body)) == record.body
    for one in record.personal:
        message = b"gw-audit/1 field\0" + one.field.encode() + b"\0" + one.value
        expected = hmac.new(one.salt, message, hashlib.sha256).digest()
        assert urlsafe_b64decode(body["commit"][one.field] + "=") == expected
        assert len(one.salt) == 32
    assert record.subject == HASH
    assert len(record.body) <= 750


def test_two_records_of_one_event_have_nothing_in_common() -> None:
    draft = drafter().draft("query.start", START, {"subject": HASH})
    one, other = seal(draft, LOG, 1, 1), seal(draft, LOG, 1, 1)
    assert one.leaf != other.leaf
    assert decode(one.body)["commit"] != decode(other.body)["commit"]
    assert one.personal[0].salt != other.personal[0].salt


def test_erasing_a_value_leaves_leaf_and_body() -> None:
    draft = drafter().draft("query.start", START, {"subject": HASH, "query": HASH})
    record = seal(draft, LOG, 1, 1)
    body = read_body(record.body, LOG, 1)
    for one in record.personal:
        check_personal(body, one)
    assert b"AAECAwQFBgcICQ" not in record.body


@pytest.mark.parametrize(
    "forged",
    [
        Personal("subject", bytes(32), b"s" * 32),
        Personal("query", HASH, b"s" * 32),
        Personal("subject", HASH, b"s" * 31),
        Personal("subject", HASH, b"s" * 32 + b"\0"),
    ],
)
def test_value_that_was_not_committed_to_is_refused(forged: Personal) -> None:
    draft = drafter().draft("query.start", START, {"subject": HASH})
    record = seal(draft, LOG, 1, 1, entropy=lambda n: b"s" * n)
    with pytest.raises(AuditError) as caught:
        check_personal(decode(record.body), forged)
    assert caught.value.code == "bad_commitment"


@pytest.mark.parametrize(("log", "seq"), [(LOG, 2), ("other", 1)])
def test_body_of_another_place_is_refused(log: str, seq: int) -> None:
    record = seal(drafter().draft("query.start", START), LOG, 1, 1)
    with pytest.raises(AuditError) as caught:
        read_body(record.body, log, seq)
    assert caught.value.code == "bad_record"


@pytest.mark.parametrize(
    "change",
    [{"v": 2}, {"type": "query.begin"}, {"cls": "audit"}, {"ts": "1"}, {"ts": True}, {"commit": 1}],
)
def test_body_of_another_kind_is_refused(change: dict[str, Json]) -> None:
    record = seal(drafter().draft("query.start", START), LOG, 1, 1)
    with pytest.raises(AuditError) as caught:
        read_body(encode(decode(record.body) | change), LOG, 1)
    assert caught.value.code == "bad_record"


@pytest.mark.parametrize(
    ("type_", "fields"),
    [
        ("query.start", {**START, "query": "what is the refund policy"}),
        ("query.start", {**START, "user_agent": "curl"}),
        ("query.start", {**START, "trace_id": "jane@example.org"}),
        ("query.start", {**START, "rid": "jane"}),
        ("query.start", {**START, "rid": None}),
        ("query.start", {**START, "route": 7}),
        ("query.start", {**START, "stream": "jane@example.org"}),
        ("query.start", {**START, "seq": 9}),
        ("query.start", {"auth": "jwt", "route": "chat"}),
        ("query.end", {"rid": RID, "outcome": "completed", "dur_ms": 1.5}),
        ("query.end", {"rid": RID, "outcome": "completed", "dur_ms": -1}),
        ("query.end", {"rid": RID, "outcome": "completed", "dur_ms": True}),
        ("query.end", {"rid": RID, "outcome": "completed", "terminal": 1}),
        ("query.end", {"rid": RID, "outcome": "completed", "status": 1000}),
        ("audit.anchor", {"size": 1, "root": "jane@example.org"}),
        ("log.opened", {"origin": "jane doe"}),
        ("audit.policy", {"rules": {"note": "jane"}}),
        ("audit.policy", {"rules": {"retention_s": {"query": "jane"}}}),
    ],
)
def test_field_that_is_not_on_the_list_is_refused(type_: str, fields: dict[str, Json]) -> None:
    assert refusal(type_, fields) == "field_refused"


def test_unknown_event_is_refused() -> None:
    assert refusal("query.begin", {}) == "unknown_event"


def test_names_that_clients_choose_become_other() -> None:
    fields: dict[str, Json] = {
        **START,
        "model": "jane.doe@example.org",
        "route": "/v1/jane",
        "upstream": "jane",
        "auth": "jane",
    }
    draft = drafter().draft("query.start", fields)
    assert {draft.fields[name] for name in ("model", "route", "upstream", "auth")} == {"other"}
    ended = drafter().draft("query.end", {"rid": RID, "outcome": "jane asked for it"})
    assert ended.fields["outcome"] == "other"


CANARIES = ("jane.doe", "jane@example.org", "4111111111111111", "203.0.113.9", "<b>", "\u202ejane")


@pytest.mark.parametrize("type_", sorted(TYPES))
@pytest.mark.parametrize("canary", CANARIES)
def test_no_field_of_any_event_takes_a_persons_words(type_: str, canary: str) -> None:
    event = TYPES[type_]
    refused: list[str] = []
    one = Drafter(Policy(), VOCABULARY, lambda _, name: refused.append(name))
    every = dict.fromkeys([*event.needed, *event.others, "made_up"], canary)
    draft = one.draft(type_, every)  # type: ignore[arg-type]
    origins = [name for name, value in draft.fields.items() if value == canary]
    assert set(origins) <= {"origin"}, "a log's name is the operator's"
    record = seal(Drafter(Policy(), VOCABULARY, lambda *_: None).draft(type_, {}), LOG, 1, 1)
    assert canary.encode() not in record.body
    assert "made_up" in refused


def test_in_production_what_is_refused_is_left_out_and_told() -> None:
    refused: list[tuple[str, str]] = []
    one = Drafter(Policy(), VOCABULARY, lambda *what: refused.append(what))
    draft = one.draft(
        "query.start",
        {**START, "user_agent": "curl", "stream": "x"},
        {"ip": "203.0.113.9", "subject": b"short"},
        {"q": "jane", "x": "2026.01234567"},
    )
    assert draft.fields.keys() == START.keys()
    assert draft.personal == ()
    expected = ["user_agent", "stream", "ip", "subject"]
    assert refused == [("query.start", name) for name in expected]


def test_email_is_for_authenticated_operations_only() -> None:
    login: dict[str, Json] = {"auth": "jwt", "route": "chat"}
    draft = drafter().draft("auth.login", login, {"email": " Jane@Example.ORG "})
    assert draft.personal == (("email", b"jane@example.org"),)
    assert refusal("auth.login", login | {"auth": "none"}, {"email": "a@b"}) == "field_refused"
    assert refusal("query.start", START, {"email": "a@b"}) == "field_refused"
    wider = Policy(email_classes=frozenset({Cls.AUTH, Cls.QUERY}))
    assert drafter(wider).draft("query.start", START, {"email": "a@b"}).personal
    anonymous = START | {"auth": "none"}
    assert refusal("query.start", anonymous, {"email": "a@b"}, wider) == "field_refused"
    denied: dict[str, Json] = {"reason": "expired", "auth": "jwt"}
    assert refusal("security.auth_failed", denied, {"email": "a@b"}, wider) == "field_refused"


def test_address_is_for_security_events_only() -> None:
    holders = {event.cls for event in TYPES.values() if "ip" in event.personal}
    assert holders == {Cls.SECURITY}
    assert {event.cls for event in TYPES.values() if "query" in event.personal} == {Cls.QUERY}
    assert refusal("auth.login", {"auth": "jwt", "route": "chat"}, {"ip": "::1"}) == "field_refused"


@pytest.mark.parametrize(
    ("bits", "address", "kept"),
    [
        ((32, 128), "203.0.113.9", "203.0.113.9"),
        ((24, 48), "203.0.113.9", "203.0.113.0/24"),
        ((32, 128), "2001:DB8::0001", "2001:db8::1"),
        ((24, 48), "2001:db8:1:2::1", "2001:db8:1::/48"),
        ((32, 128), "fe80::1%eth0", "fe80::1"),
    ],
)
def test_address_is_cut_as_the_policy_says(bits: tuple[int, int], address: str, kept: str) -> None:
    one = drafter(Policy(ip_v4_bits=bits[0], ip_v6_bits=bits[1]))
    draft = one.draft("security.rate_limited", {"reason": "requests"}, {"ip": address})
    assert draft.personal == (("ip", kept.encode()),)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("email", "jane"),
        ("email", ""),
        ("email", "jane@example.org\nx"),
        ("email", "\u202ejane@example.org"),
        ("email", "j" * 300 + "@example.org"),
        ("email", "\ud800@example.org"),
        ("email", b"\xff@"),
        ("subject", "jane"),
        ("subject", b"jane"),
        ("query", b"x"),
    ],
)
def test_personal_value_that_is_malformed_is_refused(name: str, value: str | bytes) -> None:
    assert refusal("auth.login", {"auth": "jwt", "route": "chat"}, {name: value}) == "field_refused"
    assert refusal("security.forbidden", {"reason": "link"}, {"ip": "jane"}) == "field_refused"


def test_body_over_4_kib_is_refused() -> None:
    fields: dict[str, Json] = {"sweep": RID, "swept": "query", "cutoff_ms": 2**52, "count": 1}
    wide: list[Json] = [[2**52 + 3 * n, 2**52 + 3 * n + 1] for n in range(90)]
    draft = drafter().draft("audit.sweep", fields | {"ranges": wide, "field": "session"})
    assert len(seal(draft, "x" * 128, 2**53 - 1, 2**53 - 1).body) <= MAX_BODY_BYTES
    with pytest.raises(AuditError) as caught:
        seal(draft, "x" * 1000, 1, 1)
    assert caught.value.code == "too_large"


@pytest.mark.parametrize(
    "ranges",
    [[], [[1, 1]], [[2, 1]], [[1, 3], [2, 4]], [[1, 2], [2, 3]], [[-1, 2]], [[1]], [1], [["a", 2]]],
)
def test_ranges_that_overlap_or_are_empty_are_refused(ranges: list[Json]) -> None:
    fields: dict[str, Json] = {"sweep": RID, "swept": "query", "cutoff_ms": 1, "count": 1}
    assert refusal("audit.sweep", fields | {"ranges": ranges}) == "field_refused"


def test_no_field_takes_the_place_of_what_every_record_has() -> None:
    for event in TYPES.values():
        assert not RESERVED & (event.needed.keys() | event.others.keys()), event.name
        assert not event.needed.keys() & event.others.keys(), event.name
        assert event.personal <= HASHES | CLEAR, event.name


def test_outcomes_are_the_endings_of_streams_and_three_more() -> None:
    assert {"refused", "audit_failed", "unknown"} == OUTCOMES - ENDING_REASONS
    assert ENDING_REASONS <= OUTCOMES


def test_policy_is_named_by_its_rules() -> None:
    assert Policy().id() == Policy.preset("gdpr-min").id()
    assert Policy().id() != Policy.preset("pci").id()
    assert Policy().id() != Policy(ip_v4_bits=24).id()
    assert drafter().draft("audit.policy", {"rules": Policy().rules()})


def test_policy_keeps_an_address_for_a_shorter_time() -> None:
    assert Policy().retention_of(Cls.SECURITY) == 90 * DAY_S
    assert Policy().retention_of(Cls.SECURITY, "ip") == 30 * DAY_S
    assert Policy().retention_of(Cls.AUDIT) == 400 * DAY_S


@pytest.mark.parametrize(
    "change",
    [
        {"retention_s": {Cls.QUERY: 1}},
        {"retention_s": dict.fromkeys(Cls, 0)},
        {"retention_s": {**dict.fromkeys(Cls, 9), Cls.AUDIT: 8}, "ip_retention_s": 1},
        {"ip_retention_s": 0},
        {"ip_v4_bits": 33},
        {"ip_v6_bits": 8},
        {"email_classes": frozenset({Cls.SECURITY})},
    ],
)
def test_policy_that_makes_no_sense_is_refused(change: dict[str, object]) -> None:
    with pytest.raises(AuditError) as caught:
        Policy(**change)  # type: ignore[arg-type]
    assert caught.value.code == "bad_policy"
    with pytest.raises(AuditError):
        Policy.preset("none")  # type: ignore[arg-type]


def test_name_that_could_not_be_a_models_is_refused() -> None:
    with pytest.raises(AuditError) as caught:
        Vocabulary(models=frozenset({"jane doe"}))
    assert caught.value.code == "bad_name"


@given(st.text(), st.sampled_from(["model", "route", "upstream", "auth", "strict", "stream"]))
def test_whatever_a_client_says_the_body_is_plain_ascii(text: str, field: str) -> None:
    draft = Drafter(Policy(), VOCABULARY, lambda *_: None).draft(
        "query.start", START | {field: text}
    )
    assert seal(draft, LOG, 1, 1).body.isascii()
