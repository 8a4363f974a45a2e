"""The types of settings: what a value must look like, in words for whoever has to mend it."""

from __future__ import annotations

import re
from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, SecretStr
from pydantic_settings import NoDecode


def _split(value: object) -> object:
    if isinstance(value, str):
        return tuple(part.strip() for part in value.split(",") if part.strip())
    return value


def _check_url(value: str) -> str:
    parts = urlsplit(value)
    try:
        port_is_valid = parts.port is None or parts.port > 0
    except ValueError:
        port_is_valid = False
    if parts.scheme not in ("http", "https") or not parts.hostname or not port_is_valid:
        raise ValueError("must be an http:// or https:// URL with a host")
    if parts.username or parts.password or parts.query or parts.fragment:
        raise ValueError("must have no user, password, query or fragment")
    return value.rstrip("/")


def _check_origin(value: str) -> str:
    parts = urlsplit(value)
    if parts.scheme not in ("http", "https") or not parts.netloc or parts.path or parts.query:
        raise ValueError(f"{value!r} isn't an origin such as https://app.example.com")
    return value


def _check_route(value: str) -> str:
    if not value.startswith("/") or "?" in value or "{" in value:
        raise ValueError(f"{value!r} isn't a path such as /api/stream")
    return value


def _check_rate(value: str) -> str:
    if value and value != "0":
        import limits  # not before somebody limits: it imports its stores

        try:
            limits.parse(value)
        except ValueError:
            raise ValueError("must look like 20/minute or 1000/hour, or be 0") from None
    return "" if value == "0" else value


def _check_audit_name(value: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._/-]{0,79}", value):
        raise ValueError("must be 1 to 80 letters, digits and ._/-")
    return value


def _check_token(value: SecretStr) -> SecretStr:
    if not re.fullmatch(r"[\x21-\x7e]{16,}", value.get_secret_value()):
        raise ValueError(
            "must be 16 or more visible ASCII characters, such as openssl rand -hex 24"
        )
    return value


Url = Annotated[str, AfterValidator(_check_url)]
Names = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_split)]
Origins = Annotated[
    tuple[Annotated[str, AfterValidator(_check_origin)], ...], NoDecode, BeforeValidator(_split)
]
Network = Annotated[IPv4Network | IPv6Network, BeforeValidator(ip_network)]
Networks = Annotated[tuple[Network, ...], NoDecode, BeforeValidator(_split)]
Route = Annotated[str, AfterValidator(_check_route)]
Routes = Annotated[tuple[Route, ...], NoDecode, BeforeValidator(_split)]
Rate = Annotated[str, AfterValidator(_check_rate)]
AuditName = Annotated[str, AfterValidator(_check_audit_name)]
Token = Annotated[SecretStr, AfterValidator(_check_token)]
