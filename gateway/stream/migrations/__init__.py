"""The steps of the stream tables."""

from __future__ import annotations

from pathlib import Path

from gateway.database.migrations import Migrations

MIGRATIONS = Migrations(Path(__file__).parent, "stream_schema_version", "stream store")
