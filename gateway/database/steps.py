"""Alembic, and the steps as it loads them."""

from __future__ import annotations

from alembic.config import Config
from alembic.migration import MigrationContext, MigrationStep
from alembic.operations import Operations
from alembic.script import ScriptDirectory
from alembic.util import CommandError
from sqlalchemy import Connection

from gateway.database.migrations import Migrations
from gateway.errors import SettingsError


class Steps:
    """Loaded steps. Loading blocks."""

    def __init__(self, migrations: Migrations) -> None:
        self._migrations = migrations
        config = Config()
        config.set_main_option("script_location", str(migrations.folder).replace("%", "%%"))
        self._scripts = ScriptDirectory.from_config(config)
        self.head = self._scripts.get_current_head()
        list(self._scripts.walk_revisions())

    def apply(self, connection: Connection) -> None:
        """Applies what is missing, in the connection's transaction.

        Raises:
            SettingsError: a newer release has changed the tables.
        """
        options = {"version_table": self._migrations.version_table, "fn": self._missing}
        context = MigrationContext.configure(connection, opts=options)
        with Operations.context(context):
            context.run_migrations()

    def _missing(
        self, revision: tuple[str, ...], _context: MigrationContext
    ) -> list[MigrationStep]:
        try:
            return list(self._scripts._upgrade_revs(self.head or "base", revision))  # type: ignore[arg-type]  # noqa: SLF001
        except CommandError as error:
            raise SettingsError(
                f"The {self._migrations.store} was written by a newer release of this gateway."
            ) from error
