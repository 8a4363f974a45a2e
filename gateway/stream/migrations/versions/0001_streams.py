"""Streams and their segments."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    op.create_table(
        "stream_sessions",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("owner", sa.Text, nullable=False),
        sa.Column("trace_id", sa.Text, nullable=False),
        sa.Column("route", sa.Text, nullable=False),
        sa.Column("conversation_id", sa.Text),
        sa.Column("idempotency_key", sa.Text),
        sa.Column("fingerprint", sa.LargeBinary, nullable=False),
        sa.Column("with_ids", sa.Boolean, nullable=False),
        sa.Column("status", sa.Text, nullable=False),
        sa.Column("reason", sa.Text),
        sa.Column("message", sa.LargeBinary, nullable=False),
        sa.Column("retryable", sa.Boolean, nullable=False),
        sa.Column("created_at_ms", sa.BigInteger, nullable=False),
        sa.Column("ended_at_ms", sa.BigInteger),
        sa.Column("expires_at_ms", sa.BigInteger),
        sa.Column("total_chunks", sa.BigInteger, nullable=False),
        sa.Column("total_tokens", sa.BigInteger),
        sa.Column("input_tokens", sa.BigInteger),
        sa.Column("estimated", sa.Boolean, nullable=False),
        sa.Column("last_seq", sa.BigInteger, nullable=False),
        sa.Column("instance", sa.Text, nullable=False),
        sa.Column("ended_by", sa.Text),
    )
    op.create_index(
        "stream_sessions_conversation",
        "stream_sessions",
        ["conversation_id", "created_at_ms"],
        sqlite_where=sa.text("conversation_id IS NOT NULL"),
        postgresql_where=sa.text("conversation_id IS NOT NULL"),
    )
    op.create_index(
        "stream_sessions_idempotency",
        "stream_sessions",
        ["owner", "idempotency_key"],
    )
    op.create_index(
        "stream_sessions_active",
        "stream_sessions",
        ["instance"],
        sqlite_where=sa.text("status = 'ACTIVE'"),
        postgresql_where=sa.text("status = 'ACTIVE'"),
    )
    op.create_index("stream_sessions_expiry", "stream_sessions", ["expires_at_ms"])
    op.create_table(
        "stream_segments",
        sa.Column(
            "stream_id",
            sa.Text,
            sa.ForeignKey("stream_sessions.id", ondelete="CASCADE"),
            primary_key=True,
        ),
        sa.Column("first", sa.BigInteger, primary_key=True),
        sa.Column("last", sa.BigInteger, nullable=False),
        sa.Column("size", sa.BigInteger, nullable=False),
        sa.Column("data", sa.LargeBinary, nullable=False),
    )
