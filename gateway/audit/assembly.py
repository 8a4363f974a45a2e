"""Puts the parts of the audit log together from the settings."""

from __future__ import annotations

import shlex
from pathlib import Path
from types import MappingProxyType
from typing import Protocol

from pydantic import SecretStr

from gateway.audit.anchors import Anchors, Places
from gateway.audit.draft import Drafter
from gateway.audit.fields import Vocabulary
from gateway.audit.journal import Journal
from gateway.audit.keyfile import Wrapping
from gateway.audit.keys import Keys
from gateway.audit.log import AuditLog
from gateway.audit.manner import Manner, Meter
from gateway.audit.people import Pseudonymiser
from gateway.audit.policy import DAY_S, Cls, Policy
from gateway.audit.recorder import Recorder
from gateway.audit.store import AuditStore, make_store
from gateway.errors import AuditError, SettingsError
from gateway.settings import Settings

KEYS_FOLDER = "audit-keys"
ERASURES = "erasures.jsonl"


class Figures(Meter, Protocol):
    """Is told everything that is counted."""

    def audit_refused(self) -> None: ...

    def audit_suppressed(self, count: int) -> None: ...

    def audit_field_refused(self, event: str, field: str) -> None: ...


def policy_of(settings: Settings) -> Policy:
    """The rules that are in force.

    Raises:
        AuditError: `bad_policy`.
    """
    base = Policy.preset(settings.audit_preset) if settings.audit_preset else Policy()
    retention = dict(base.retention_s)
    ip_s = base.ip_retention_s
    if settings.audit_preset is None:
        kept_s = max(1, round(settings.audit_retention_days * DAY_S))
        retention |= dict.fromkeys((Cls.QUERY, Cls.AUTH, Cls.SECURITY), kept_s)
        ip_s = max(1, round(min(settings.audit_ip_retention_days * DAY_S, kept_s)))
    longest = max(retention.values())
    retention[Cls.AUDIT] = max(retention[Cls.AUDIT], longest)
    emails = {Cls.AUTH, Cls.QUERY} if settings.audit_query_email else {Cls.AUTH}
    return Policy(
        retention_s=MappingProxyType(retention),
        ip_retention_s=ip_s,
        ip_v4_bits=24 if settings.audit_truncate_ip else 32,
        ip_v6_bits=48 if settings.audit_truncate_ip else 128,
        email_classes=frozenset(emails),
        query_scope=settings.audit_query_scope,
    )


def journal_of(settings: Settings) -> Journal:
    """The erasure journal. Nothing is read yet."""
    return Journal(settings.audit_erasures_file or _keys_folder(settings) / ERASURES)


def keys_of(settings: Settings) -> Keys:
    """
    Raises:
        AuditError: `bad_kek`.
    """
    wrapping = Wrapping.from_text(_secret(settings.audit_key_encryption_key) or "")
    return Keys(_keys_folder(settings), wrapping)


def store_of(settings: Settings) -> AuditStore:
    """
    Raises:
        SettingsError: `DATABASE_URL` isn't one.
    """
    return make_store(_secret(settings.database_url), settings.data_dir)


def make_recorder(settings: Settings, figures: Figures, instance: str) -> Recorder:
    """What the gateway reports to. Nothing is opened yet.

    Raises:
        SettingsError: the log can't be kept as the settings say.
    """
    manner = Manner(
        settings.audit_origin,
        instance,
        settings.data_dir,
        settings.audit_checkpoint_seconds,
        settings.audit_commit_seconds,
        0 if settings.database_url is not None else settings.audit_ballast_bytes,
    )
    log = make_log(settings, figures, manner)
    return Recorder(log, settings.audit_mode, figures.audit_refused, figures.audit_suppressed)


def make_log(settings: Settings, figures: Figures, manner: Manner) -> AuditLog:
    """A log, of a gateway or of a command. Nothing is opened yet.

    Raises:
        SettingsError: the log can't be kept as the settings say.
    """
    try:
        policy = policy_of(settings)
        vocabulary = Vocabulary(models=_models(settings))
        keys = keys_of(settings)
    except AuditError as error:
        raise SettingsError(f"AUDIT_MODE: {error}") from error
    return AuditLog(
        store_of(settings),
        Drafter(policy, vocabulary, figures.audit_field_refused),
        Pseudonymiser(keys, links_people=policy.query_scope == "tenant"),
        Anchors(_places(settings, is_command=manner.kind == "command")),
        figures,
        manner,
    )


def _keys_folder(settings: Settings) -> Path:
    return settings.audit_keys_dir or settings.data_dir / KEYS_FOLDER


def _models(settings: Settings) -> frozenset[str]:
    own = (settings.upstream_model,) if settings.upstream_model else ()
    return frozenset((*settings.audit_models, *own))


def _places(settings: Settings, *, is_command: bool) -> Places:
    """The standard output of a command is for what it was asked for."""
    return Places(
        prints_checkpoints=settings.audit_lines != "off" and not is_command,
        prints_records=settings.audit_lines == "records" and not is_command,
        file=settings.audit_checkpoint_file,
        command=tuple(shlex.split(settings.audit_checkpoint_command or "")),
    )


def _secret(value: SecretStr | None) -> str | None:
    return value.get_secret_value() if value is not None else None
