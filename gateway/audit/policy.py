"""What is kept of whom and for how long, as one value with a hash that stands in every record.

The text of a policy is itself a record (`audit.policy`), so that an auditor sees which rules were
in force when. docs/audit-format.md says what each class is for.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType
from typing import Literal

from gateway.audit.canonical import Object, encode, to_text
from gateway.errors import AuditError

DAY_S = 86_400
#: A record may be this much older than its class's retention before it counts as overdue.
OVERDUE_S = 25 * 3600


class Cls(StrEnum):
    """The classes of events: each has its retention and its personal fields."""

    QUERY = "query"
    AUTH = "auth"
    SECURITY = "security"
    ADMIN = "admin"
    AUDIT = "audit"


Preset = Literal["gdpr-min", "cnil", "pci", "ai-act-high-risk"]

#: Days for each class, and for a raw address.
_PRESETS: dict[Preset, tuple[dict[Cls, int], int]] = {
    "gdpr-min": ({Cls.QUERY: 90, Cls.AUTH: 90, Cls.SECURITY: 90}, 30),
    "cnil": ({Cls.QUERY: 90, Cls.AUTH: 184, Cls.SECURITY: 184}, 184),
    "pci": ({Cls.QUERY: 365, Cls.AUTH: 365, Cls.SECURITY: 365}, 365),
    "ai-act-high-risk": ({Cls.QUERY: 184, Cls.AUTH: 184, Cls.SECURITY: 184}, 30),
}
_PROOF_DAYS = {Cls.ADMIN: 400, Cls.AUDIT: 400}


@dataclass(frozen=True, slots=True)
class Policy:
    """The rules. The defaults are the strictest: `gdpr-min`.

    `ip_v4_bits` and `ip_v6_bits` are what is kept of an address, 24 and 48 being usual.
    `email_classes` may add `query`, where only proven users have an e-mail. `query_scope` is
    `subject`, so that equal questions of two people have different hashes, or `tenant`.

    Raises:
        AuditError: `bad_policy`: a time of zero, a class without one, one that is kept for
            longer than the records that explain its gaps, bits that no address has.
    """

    retention_s: Mapping[Cls, int] = field(
        default_factory=lambda: _retention({Cls.QUERY: 90, Cls.AUTH: 90, Cls.SECURITY: 90})
    )
    ip_retention_s: int = 30 * DAY_S
    ip_v4_bits: int = 32
    ip_v6_bits: int = 128
    email_classes: frozenset[Cls] = frozenset({Cls.AUTH})
    query_scope: Literal["subject", "tenant"] = "subject"

    def __post_init__(self) -> None:
        times = [*self.retention_s.values(), self.ip_retention_s]
        if set(self.retention_s) != set(Cls) or min(times) < 1:
            raise AuditError("bad_policy", "every class is kept for at least a second")
        if max(times) > self.retention_s[Cls.AUDIT]:
            raise AuditError(
                "bad_policy", "what explains a gap is kept as long as what it explains"
            )
        if not 8 <= self.ip_v4_bits <= 32 or not 16 <= self.ip_v6_bits <= 128:
            raise AuditError("bad_policy", "an address has 8 to 32 bits, or 16 to 128")
        if not self.email_classes <= {Cls.AUTH, Cls.QUERY}:
            raise AuditError("bad_policy", "e-mail is kept for authenticated operations only")

    @classmethod
    def preset(cls, name: Preset) -> Policy:
        """
        Raises:
            AuditError: `bad_policy`: there is no such preset.
        """
        if name not in _PRESETS:
            raise AuditError("bad_policy", "there is no such preset")
        days, ip_days = _PRESETS[name]
        return cls(retention_s=_retention(days), ip_retention_s=ip_days * DAY_S)

    def rules(self) -> Object:
        """As they stand in an `audit.policy` record."""
        return {
            "retention_s": {cls.value: self.retention_s[cls] for cls in Cls},
            "ip_retention_s": self.ip_retention_s,
            "ip_v4_bits": self.ip_v4_bits,
            "ip_v6_bits": self.ip_v6_bits,
            "email_query": Cls.QUERY in self.email_classes,
            "query_scope": self.query_scope,
        }

    def id(self) -> str:
        """The SHA-256 of the rules' one spelling: which policy a record was made under."""
        return to_text(hashlib.sha256(encode(self.rules())).digest())

    def retention_of(self, cls: Cls, personal: str | None = None) -> int:
        """Seconds that a record is kept, or a personal field of it."""
        whole = self.retention_s[cls]
        return min(whole, self.ip_retention_s) if personal == "ip" else whole


def _retention(days: Mapping[Cls, int]) -> Mapping[Cls, int]:
    return MappingProxyType({cls: n * DAY_S for cls, n in (dict(days) | _PROOF_DAYS).items()})
