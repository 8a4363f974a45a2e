"""A log that was dropped leaves nothing: its last leaves may go though no tile stands for them.

Of no other log may tiles and checkpoints go.
"""

from __future__ import annotations

from alembic import op

revision = "0002"
down_revision = "0001"

_TILE = "SELECT 1 FROM audit_tile t WHERE t.log = OLD.log AND t.level = 8 AND t.idx = OLD.seq / 256"
_DROPPED = "SELECT 1 FROM audit_log l WHERE l.id = OLD.log AND l.state = 'dropped'"


_TREE = ("audit_tile", "audit_checkpoint")


def upgrade() -> None:
    kept = f"{_TILE} UNION ALL {_DROPPED}"
    if op.get_bind().dialect.name == "sqlite":
        op.execute("DROP TRIGGER audit_pruned_delete")
        op.execute(
            "CREATE TRIGGER audit_pruned_delete BEFORE DELETE ON audit_pruned "
            f"WHEN NOT EXISTS ({kept}) BEGIN SELECT RAISE(ABORT, 'keep the hash first'); END"
        )
        for table in _TREE:
            op.execute(
                f"CREATE TRIGGER {table}_delete BEFORE DELETE ON {table} "
                f"WHEN NOT EXISTS ({_DROPPED}) "
                "BEGIN SELECT RAISE(ABORT, 'drop the log first'); END"
            )
    else:
        op.execute(
            "CREATE OR REPLACE FUNCTION audit_pruned_keep() RETURNS trigger LANGUAGE plpgsql AS "
            f"$$ BEGIN IF NOT EXISTS ({kept}) THEN "
            "RAISE EXCEPTION 'keep the hash first' USING ERRCODE = '23514'; "
            "END IF; RETURN OLD; END $$"
        )
        op.execute(
            "CREATE FUNCTION audit_tree_keep() RETURNS trigger LANGUAGE plpgsql AS "
            f"$$ BEGIN IF NOT EXISTS ({_DROPPED}) THEN "
            "RAISE EXCEPTION 'drop the log first' USING ERRCODE = '23514'; "
            "END IF; RETURN OLD; END $$"
        )
        for table in _TREE:
            op.execute(
                f"CREATE TRIGGER {table}_delete BEFORE DELETE ON {table} "
                "FOR EACH ROW EXECUTE FUNCTION audit_tree_keep()"
            )
