"""The steps of the audit tables."""

from __future__ import annotations

from pathlib import Path

from gateway.database.migrations import Migrations

MIGRATIONS = Migrations(Path(__file__).parent, "audit_schema_version", "audit log")
