"""Whose request it is: addresses behind proxies, names that can't collide."""

from __future__ import annotations

from ipaddress import ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.identity import (
    Identity,
    clean_value,
    client_address,
    identify,
    is_trusted,
    rollout_key,
)

TRUSTED = tuple(ip_network(text) for text in ("10.0.0.0/8", "fd00::/8", "192.0.2.1/32"))
PROXY = "10.0.0.1"


@pytest.mark.parametrize(
    ("peer", "forwarded_for", "address"),
    [
        ("203.0.113.9", [], "203.0.113.9"),
        ("203.0.113.9", ["198.51.100.1"], "203.0.113.9"),
        (PROXY, [], PROXY),
        (PROXY, ["198.51.100.1"], "198.51.100.1"),
        (PROXY, ["1.1.1.1, 198.51.100.1"], "198.51.100.1"),
        (PROXY, ["1.1.1.1", "198.51.100.1"], "198.51.100.1"),
        (PROXY, ["198.51.100.1, 10.9.9.9,192.0.2.1"], "198.51.100.1"),
        (PROXY, ["198.51.100.1", "10.9.9.9"], "198.51.100.1"),
        (PROXY, ["10.1.1.1, 10.2.2.2"], "10.1.1.1"),
        (PROXY, ["198.51.100.1, unknown"], PROXY),
        (PROXY, ["198.51.100.1, nonsense, 10.2.2.2"], "10.2.2.2"),
        (PROXY, ["198.51.100.1, , 10.2.2.2"], "10.2.2.2"),
        (PROXY, ["198.51.100.1,"], PROXY),
        (PROXY, [""], PROXY),
        (PROXY, ["\t198.51.100.1 "], "198.51.100.1"),
        (PROXY, ["198.51.100.1:4711"], "198.51.100.1"),
        (PROXY, ["198.51.100.1:"], PROXY),
        (PROXY, ["198.51.100.1:99999"], PROXY),
        (PROXY, ["198.51.100.1:http"], PROXY),
        (PROXY, ["198.51.100.01"], PROXY),
        (PROXY, ["3232235777"], PROXY),
        (PROXY, ["[2001:db8::1]:443"], "2001:db8::1"),
        (PROXY, ["[2001:db8::1]"], "2001:db8::1"),
        (PROXY, ["2001:DB8:0::1"], "2001:db8::1"),
        (PROXY, ["[2001:db8::1"], PROXY),
        (PROXY, ["[2001:db8::1]443"], PROXY),
        (PROXY, ["[198.51.100.1]:80"], PROXY),
        (PROXY, ["fe80::1%eth0"], PROXY),
        (PROXY, ["::ffff:198.51.100.1"], "198.51.100.1"),
        (PROXY, ["198.51.100.1, ::ffff:10.0.0.7"], "198.51.100.1"),
        ("::ffff:10.0.0.1", ["198.51.100.1"], "198.51.100.1"),
        ("::ffff:203.0.113.9", ["198.51.100.1"], "203.0.113.9"),
        ("fd00::1", ["198.51.100.1"], "198.51.100.1"),
        ("fe80::1%eth0", [], "fe80::1"),
        (None, [], "local"),
        ("", [], "local"),
        (None, ["1.1.1.1, 198.51.100.1"], "198.51.100.1"),
        (None, ["nonsense"], "local"),
        ("nonsense", ["198.51.100.1"], "unknown"),
    ],
)
def test_client_address(peer: str | None, forwarded_for: list[str], address: str) -> None:
    assert client_address(peer, forwarded_for, TRUSTED) == address


def test_nobody_is_believed_where_no_proxy_is_trusted() -> None:
    assert client_address(PROXY, ["198.51.100.1"], ()) == PROXY


ADDRESSES = st.ip_addresses().map(str)
ENTRIES = st.text("0123456789abcdef.:[]%, \t-x", max_size=30) | ADDRESSES | st.text(max_size=20)


@given(st.none() | ADDRESSES | st.text(max_size=20), st.lists(ENTRIES, max_size=8))
def test_whatever_is_forwarded_the_result_is_an_address(
    peer: str | None, forwarded_for: list[str]
) -> None:
    address = client_address(peer, forwarded_for, TRUSTED)
    assert address in ("local", "unknown") or str(ip_address(address)) == address


@given(st.lists(ENTRIES, max_size=5), st.ip_addresses(v=4, network="198.51.100.0/24"))
def test_what_a_client_forges_changes_nothing(forged: list[str], client: object) -> None:
    lines = [*forged, f"{client}, 10.2.2.2"]
    assert client_address(PROXY, lines, TRUSTED) == str(client)


@pytest.mark.parametrize(
    ("peer", "expected"),
    [
        (None, True),
        ("", True),
        (PROXY, True),
        ("::ffff:10.0.0.1", True),
        ("8.8.8.8", False),
        ("x", False),
    ],
)
def test_trusted_peers(peer: str | None, expected: bool) -> None:
    assert is_trusted(peer, TRUSTED) is expected


def who(
    subject: str | None = None, user_id: str | None = None, peer: str | None = "8.8.8.8"
) -> Identity:
    address = client_address(peer, [], TRUSTED)
    return identify(subject=subject, user_id=user_id, peer=peer, address=address, trusted=TRUSTED)


def test_subject_comes_before_user_id_and_address() -> None:
    assert who("alice", "bob", PROXY) == Identity("sub:alice", "alice", "subject", PROXY)


def test_user_id_counts_from_a_trusted_peer_only() -> None:
    assert who(user_id="bob", peer=PROXY).owner == "user:bob"
    assert who(user_id="bob").owner == "addr:8.8.8.8"
    assert who(user_id="bob", peer=None).owner == "user:bob"


@pytest.mark.parametrize("bad", ["", " ", "a\nb", "a\x00", "x" * 257, "a\u202eb", "\udcff", "\x85"])
def test_user_id_that_isnt_a_name_is_no_user_id(bad: str) -> None:
    assert clean_value(bad) is None
    assert who(user_id=bad, peer=PROXY).kind == "address"


def test_names_with_spaces_and_of_other_scripts_are_names() -> None:
    assert clean_value(" Zoë Müller ") == "Zoë Müller"
    assert clean_value("x" * 256) == "x" * 256


@pytest.mark.parametrize("forged", ["sub:alice", "addr:8.8.8.8", "alice", "8.8.8.8"])
def test_user_id_never_becomes_somebody_else(forged: str) -> None:
    owners = {who(subject="alice").owner, who().owner}
    assert who(user_id=forged, peer=PROXY).owner not in owners


def test_ipv6_household_is_counted_as_one() -> None:
    keys = {
        identify(subject=None, user_id=None, peer=a, address=a, trusted=()).limit_key
        for a in ("2001:db8::1", "2001:db8::ffff:2", "2001:db8:0:1::1")
    }
    assert keys == {"addr:2001:db8::/64", "addr:2001:db8:0:1::/64"}


def test_others_are_counted_by_their_owner() -> None:
    for identity in (who(), who(subject="a:b"), who(user_id="a:b", peer="fd00::1"), who(peer=None)):
        assert identity.limit_key == identity.owner


def test_rollout_takes_unproven_words_but_proven_ones_first() -> None:
    assert rollout_key(who(subject="alice"), "bob", "c@example.com") == "sub:alice"
    assert rollout_key(who(user_id="eve", peer=PROXY), "bob", None) == "user:eve"
    assert rollout_key(who(), "bob", "c@example.com") == "user:bob"
    assert rollout_key(who(), "b\nb", "C@Example.com") == "mail:c@example.com"
    assert rollout_key(who(), None, None) == "addr:8.8.8.8"


def test_user_stays_in_the_rollout_whichever_way_they_came() -> None:
    assert rollout_key(who(), "bob", None) == rollout_key(
        who(user_id="bob", peer=PROXY), "bob", None
    )
