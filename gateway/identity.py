"""Who asks, as far as the connection and its headers tell: pure functions.

Proving a subject is `gateway.tokens`' part. What an identity may do is decided where it is done.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import (
    IPv4Address,
    IPv4Network,
    IPv6Address,
    IPv6Network,
    ip_address,
    ip_network,
)
from typing import Literal

MAX_VALUE_CHARS = 256

#: The address of a client on a Unix socket.
LOCAL = "local"

Network = IPv4Network | IPv6Network


@dataclass(frozen=True, slots=True)
class Identity:
    """The one a request is counted for and a stream belongs to.

    `owner` begins with `sub:`, `user:` or `addr:`, so that nobody becomes somebody else by choosing
    a user id that looks like a subject or an address. `subject` is set only when it was proven.
    """

    owner: str
    subject: str | None
    kind: Literal["subject", "user", "address"]
    address: str

    @property
    def limit_key(self) -> str:
        """What requests are counted by: the owner, but a whole /64 for an IPv6 address, since one
        household has 2^64 of them to choose from."""
        if self.kind != "address" or ":" not in self.address:
            return self.owner
        return f"addr:{ip_network((self.address, 64), strict=False)}"


def clean_value(value: str | None) -> str | None:
    """A name from outside without the white space around it; None unless it is 1 to 256 printable
    characters (no controls, no invisible marks, no broken UTF-8)."""
    text = value.strip(" \t") if value else ""
    if not text or len(text) > MAX_VALUE_CHARS or not text.isprintable():
        return None
    return text


def is_trusted(peer: str | None, trusted: Sequence[Network]) -> bool:
    """Whether the peer's word about its client is believed.

    A peer without an address is on a Unix socket, where the file's permissions have let it in.
    """
    if not peer:
        return True
    address = _parse_peer(peer)
    return address is not None and _is_in(address, trusted)


def client_address(
    peer: str | None, forwarded_for: Sequence[str], trusted: Sequence[Network]
) -> str:
    """The client's address: the right-most of `X-Forwarded-For` that isn't a trusted proxy.

    What stands to its left may be forged and isn't read; nor is anything beyond a malformed entry,
    or anything at all from a peer that isn't trusted. `forwarded_for` holds the header's lines in
    their order. An IPv4 address mapped into IPv6 is told as IPv4.
    """
    found = _parse_peer(peer) if peer else None
    if peer and (found is None or not _is_in(found, trusted)):
        return str(found) if found else "unknown"
    for entry in reversed([entry for line in forwarded_for for entry in line.split(",")]):
        address = _parse_entry(entry.strip(" \t"))
        if address is None:
            break
        found = address
        if not _is_in(address, trusted):
            break
    return str(found) if found else LOCAL


def identify(
    *,
    subject: str | None,
    user_id: str | None,
    peer: str | None,
    address: str,
    trusted: Sequence[Network],
) -> Identity:
    """The authenticated subject, else `X-User-Id` from a trusted peer, else the address."""
    if subject is not None:
        return Identity(f"sub:{subject}", subject, "subject", address)
    user = clean_value(user_id)
    if user is not None and is_trusted(peer, trusted):
        return Identity(f"user:{user}", None, "user", address)
    return Identity(f"addr:{address}", None, "address", address)


def rollout_key(identity: Identity, user_id: str | None, user_email: str | None) -> str:
    """What a gradual rollout goes by. Unlike the owner it may rest on unproven words: who lies
    about them only changes which features they see."""
    if identity.kind != "address":
        return identity.owner
    if user := clean_value(user_id):
        return f"user:{user}"
    if email := clean_value(user_email):
        return f"mail:{email.lower()}"
    return identity.owner


def _parse_peer(peer: str) -> IPv4Address | IPv6Address | None:
    return _parse_address(peer.partition("%")[0])  # a link-local peer carries its interface


def _parse_entry(entry: str) -> IPv4Address | IPv6Address | None:
    """An address, also in the forms that proxies write: `192.0.2.1:443`, `[2001:db8::1]:443`."""
    if entry.startswith("["):
        host, bracket, port = entry[1:].partition("]")
        is_valid = bracket and ":" in host and (not port or _is_port(port))
        return _parse_address(host) if is_valid else None
    if entry.count(":") == 1:
        host, _, port = entry.partition(":")
        return _parse_address(host) if _is_port(f":{port}") else None
    return _parse_address(entry)


def _is_port(text: str) -> bool:
    digits = text[1:]
    is_number = text.startswith(":") and digits.isascii() and digits.isdigit()
    return is_number and len(digits) <= 5 and int(digits) <= 65535


@lru_cache(maxsize=4096)
def _parse_address(text: str) -> IPv4Address | IPv6Address | None:
    if "%" in text:
        return None  # a zone has no meaning on another machine
    try:
        address = ip_address(text)
    except ValueError:
        return None
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped
    return address


def _is_in(address: IPv4Address | IPv6Address, networks: Sequence[Network]) -> bool:
    return any(address in network for network in networks)
