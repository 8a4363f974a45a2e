"""The entry that a controller's record of processing needs (GDPR 30), from the active settings."""

from __future__ import annotations

from collections.abc import Iterator

from gateway.audit.access import PURPOSES
from gateway.audit.assembly import policy_of
from gateway.audit.policy import DAY_S, Cls, Policy
from gateway.errors import AuditError, SettingsError
from gateway.settings import Settings


def processing(settings: Settings) -> dict[str, str | list[str]]:
    """Headings and what stands under them. What only the controller knows is left to fill in.

    Raises:
        SettingsError: the rules can't be what the settings say.
    """
    try:
        policy = policy_of(settings)
    except AuditError as error:
        raise SettingsError(str(error)) from error
    return {
        "Processing": "Audit log of an LLM gateway (Sluice)",
        "Controller, representative, data protection officer": "(fill in)",
        "Purposes": [f"{cls.value}: {PURPOSES[cls]}" for cls in Cls],
        "Legal basis": "(fill in; usually 6(1)(c) or 6(1)(f), with 32)",
        "Data subjects": "People who ask through the gateway; operators of the gateway",
        "Categories of data": list(_data(policy)),
        "Recipients": list(_recipients(settings)),
        "Transfers to third countries": "None by the gateway itself; (fill in for the above)",
        "Erasure": list(_times(policy)),
        "Security measures": list(_measures(settings)),
    }


def _data(policy: Policy) -> Iterator[str]:
    yield "Pseudonym of the person (keyed hash, a key a year)"
    yield f"Keyed hash of question and conversation (a key a month, by {policy.query_scope})"
    where = " and ".join(sorted(cls.value for cls in policy.email_classes))
    yield f"E-mail, of authenticated people, in records of class {where}"
    bits = f"{policy.ip_v4_bits} bits of IPv4, {policy.ip_v6_bits} of IPv6"
    yield f"Address, in records of violations only: {bits}"
    yield "Time, route, model, size and outcome of a request; no question and no answer"


def _recipients(settings: Settings) -> Iterator[str]:
    yield "Operators with access to the database or the commands; auditors"
    yield f"Log shipper: {settings.audit_lines} on standard output, nothing personal"
    if settings.audit_checkpoint_file or settings.audit_checkpoint_command:
        yield "Whoever keeps checkpoints: hashes of the whole log, nothing personal"


def _times(policy: Policy) -> Iterator[str]:
    for cls in Cls:
        yield f"{cls.value}: {policy.retention_of(cls) / DAY_S:g} days"
    yield f"Addresses: {policy.ip_retention_s / DAY_S:g} days"
    yield "Keys: seven days after the last record that they were used for"


def _measures(settings: Settings) -> Iterator[str]:
    yield "Tamper evidence: Merkle tree, signed checkpoints, two verifiers"
    yield "Values apart from the tree, each with a salt of its own: erasure leaves no link"
    is_wrapped = settings.audit_key_encryption_key is not None
    yield f"Keys apart from the records, {'encrypted' if is_wrapped else 'NOT encrypted'} on disk"
    yield f"Recording: {settings.audit_mode}" + (
        "" if settings.audit_mode in ("off", "async") else " (no answer without a record)"
    )
