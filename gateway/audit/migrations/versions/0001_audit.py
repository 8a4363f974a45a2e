"""Logs with their records, trees, checkpoints, and what was erased or is held.

The triggers keep mistakes from being silent, not an administrator from tampering, who can drop
them: that is what checkpoints outside are for.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None

_NO_CHANGE = ("audit_record", "audit_tile", "audit_checkpoint", "audit_pruned", "audit_tombstone")
#: A body goes only once its leaf's hash is kept, a leaf's hash only once its tile's is.
_KEPT = {
    "audit_record": "SELECT 1 FROM audit_pruned p WHERE p.log = OLD.log AND p.seq = OLD.seq",
    "audit_pruned": "SELECT 1 FROM audit_tile t WHERE t.log = OLD.log AND t.level = 8 "
    "AND t.idx = OLD.seq / 256",
}


def upgrade() -> None:
    _make_logs()
    _make_tree()
    _make_rights()
    guard = _guard_sqlite if op.get_bind().dialect.name == "sqlite" else _guard_postgres
    guard()


def _make_logs() -> None:
    op.create_table(
        "audit_log",
        sa.Column("id", sa.Integer, primary_key=True, autoincrement=True),
        sa.Column("origin", sa.Text, nullable=False, unique=True),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("instance", sa.Text, nullable=False),
        sa.Column("opened_ms", sa.BigInteger, nullable=False),
        sa.Column("seen_ms", sa.BigInteger, nullable=False),
        sa.Column("size", sa.BigInteger, nullable=False),
        sa.Column("last_ts", sa.BigInteger, nullable=False),
        sa.Column("frontier", sa.LargeBinary, nullable=False),
    )
    _table(
        "audit_record",
        _key("seq"),
        sa.Column("ts", sa.BigInteger, nullable=False),
        sa.Column("cls", sa.Text, nullable=False),
        sa.Column("type", sa.Text, nullable=False),
        sa.Column("body", sa.LargeBinary, nullable=False),
    )
    op.create_index("audit_record_class", "audit_record", ["log", "cls", "seq"])
    _table(
        "audit_personal",
        _key("seq"),
        sa.Column("field", sa.Text, primary_key=True),
        sa.Column("subject", sa.LargeBinary),
        sa.Column("salt", sa.LargeBinary, nullable=False),
        sa.Column("value", sa.LargeBinary, nullable=False),
    )
    op.create_index("audit_personal_subject", "audit_personal", ["subject"])
    _table(
        "audit_open",
        _key("seq"),
        sa.Column("rid", sa.Text, nullable=False),
        sa.Column("ts", sa.BigInteger, nullable=False),
    )


def _make_tree() -> None:
    _table("audit_pruned", _key("seq"), sa.Column("leaf", sa.LargeBinary, nullable=False))
    _table(
        "audit_tile",
        _key("level"),
        _key("idx"),
        sa.Column("hash", sa.LargeBinary, nullable=False),
    )
    _table(
        "audit_checkpoint",
        _key("size"),
        _key("ts"),
        sa.Column("note", sa.Text, nullable=False),
    )


def _make_rights() -> None:
    _table(
        "audit_tombstone",
        _key("seq"),
        sa.Column("field", sa.Text, primary_key=True),
        sa.Column("day", sa.Integer, nullable=False),
    )
    op.create_index("audit_tombstone_day", "audit_tombstone", ["log", "day"])
    op.create_table(
        "audit_hold",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("scope", sa.Text, nullable=False),
        sa.Column("subjects", sa.LargeBinary),
        sa.Column("rid", sa.Text),
        sa.Column("from_ms", sa.BigInteger),
        sa.Column("to_ms", sa.BigInteger),
        sa.Column("made_ms", sa.BigInteger, nullable=False),
        sa.Column("until_ms", sa.BigInteger, nullable=False),
        sa.Column("released_ms", sa.BigInteger),
    )
    op.create_table(
        "audit_policy",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("rules", sa.LargeBinary, nullable=False),
        sa.Column("first_ms", sa.BigInteger, nullable=False),
    )


def _table(name: str, *columns: sa.Column[object]) -> None:
    """One that belongs to a log, and is read in the order of its key."""
    op.create_table(
        name,
        sa.Column("log", sa.Integer, sa.ForeignKey("audit_log.id"), primary_key=True),
        *columns,
        sqlite_with_rowid=False,
    )


def _key(name: str) -> sa.Column[object]:
    return sa.Column(name, sa.BigInteger, primary_key=True, autoincrement=False)


def _guard_sqlite() -> None:
    for table in _NO_CHANGE:
        op.execute(
            f"CREATE TRIGGER {table}_update BEFORE UPDATE ON {table} "
            "BEGIN SELECT RAISE(ABORT, 'audit rows never change'); END"
        )
    for table, kept in _KEPT.items():
        op.execute(
            f"CREATE TRIGGER {table}_delete BEFORE DELETE ON {table} WHEN NOT EXISTS ({kept}) "
            "BEGIN SELECT RAISE(ABORT, 'keep the hash first'); END"
        )


def _guard_postgres() -> None:
    op.execute(
        "CREATE FUNCTION audit_refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN "
        "RAISE EXCEPTION 'audit rows never change' USING ERRCODE = '23514'; END $$"
    )
    for table in _NO_CHANGE:
        op.execute(
            f"CREATE TRIGGER {table}_update BEFORE UPDATE ON {table} "
            "FOR EACH ROW EXECUTE FUNCTION audit_refuse()"
        )
        op.execute(
            f"CREATE TRIGGER {table}_truncate BEFORE TRUNCATE ON {table} "
            "FOR EACH STATEMENT EXECUTE FUNCTION audit_refuse()"
        )
    for table, kept in _KEPT.items():
        op.execute(
            f"CREATE FUNCTION {table}_keep() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN "
            f"IF NOT EXISTS ({kept}) THEN "
            "RAISE EXCEPTION 'keep the hash first' USING ERRCODE = '23514'; "
            "END IF; RETURN OLD; END $$"
        )
        op.execute(
            f"CREATE TRIGGER {table}_delete BEFORE DELETE ON {table} "
            f"FOR EACH ROW EXECUTE FUNCTION {table}_keep()"
        )
