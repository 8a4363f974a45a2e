"""The audit log's tables, as `gateway.audit.migrations` makes them."""

from __future__ import annotations

import sqlalchemy as sa

metadata = sa.MetaData()


def _key(name: str) -> sa.Column[int]:
    return sa.Column(name, sa.BigInteger, primary_key=True, autoincrement=False)


def _log() -> sa.Column[int]:
    return sa.Column("log", sa.Integer, primary_key=True, autoincrement=False)


#: `kind` is `catalogue`, `gateway` or `command`; `state` `open`, `closed`, `abandoned`, `dropped`.
logs = sa.Table(
    "audit_log",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True),
    *(sa.Column(name, sa.Text) for name in ("origin", "kind", "state", "instance")),
    *(sa.Column(name, sa.BigInteger) for name in ("opened_ms", "seen_ms", "size", "last_ts")),
    sa.Column("frontier", sa.LargeBinary),
)
records = sa.Table(
    "audit_record",
    metadata,
    _log(),
    _key("seq"),
    sa.Column("ts", sa.BigInteger),
    sa.Column("cls", sa.Text),
    sa.Column("type", sa.Text),
    sa.Column("body", sa.LargeBinary),
)
#: `subject` is the pseudonym of the record, on each of its values, to find them by.
personal = sa.Table(
    "audit_personal",
    metadata,
    _log(),
    _key("seq"),
    sa.Column("field", sa.Text, primary_key=True),
    *(sa.Column(name, sa.LargeBinary) for name in ("subject", "salt", "value")),
)
#: Start records that have no end yet.
unended = sa.Table(
    "audit_open",
    metadata,
    _log(),
    _key("seq"),
    sa.Column("rid", sa.Text),
    sa.Column("ts", sa.BigInteger),
)
#: The leaf of a record whose body is gone, until its block is nothing but a tile.
pruned = sa.Table("audit_pruned", metadata, _log(), _key("seq"), sa.Column("leaf", sa.LargeBinary))
tiles = sa.Table(
    "audit_tile", metadata, _log(), _key("level"), _key("idx"), sa.Column("hash", sa.LargeBinary)
)
checkpoints = sa.Table(
    "audit_checkpoint", metadata, _log(), _key("size"), _key("ts"), sa.Column("note", sa.Text)
)
tombstones = sa.Table(
    "audit_tombstone",
    metadata,
    _log(),
    _key("seq"),
    sa.Column("field", sa.Text, primary_key=True),
    sa.Column("day", sa.Integer),
)
#: `subjects` are pseudonyms of 32 bytes, one after the other: one for each living key.
holds = sa.Table(
    "audit_hold",
    metadata,
    *(sa.Column(name, sa.Text) for name in ("id", "scope", "rid")),
    sa.Column("subjects", sa.LargeBinary),
    *(sa.Column(name, sa.BigInteger) for name in ("from_ms", "to_ms", "made_ms", "until_ms")),
    sa.Column("released_ms", sa.BigInteger),
)
policies = sa.Table(
    "audit_policy",
    metadata,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("rules", sa.LargeBinary),
    sa.Column("first_ms", sa.BigInteger),
)
