"""Alembic, and the steps as it loads them."""

from __future__ import annotations

from pathlib import Path

from alembic.config import Config
from alembic.migration import MigrationContext, MigrationStep
from alembic.operations import Operations
from alembic.script import ScriptDirectory
from alembic.util import CommandError
from sqlalchemy import Connection

from gateway.errors import SettingsError
from gateway.stream.migrations import VERSION_TABLE


class Steps:
    """Loaded steps. Loading blocks."""

    def __init__(self) -> None:
        config = Config()
        config.set_main_option("script_location", str(Path(__file__).parent).replace("%", "%%"))
        self._scripts = ScriptDirectory.from_config(config)
        self.head = self._scripts.get_current_head()
        list(self._scripts.walk_revisions())

    def apply(self, connection: Connection) -> None:
        """Applies what is missing, in the connection's transaction.

        Raises:
            SettingsError: a newer release has changed the tables.
        """
        context = MigrationContext.configure(
            connection, opts={"version_table": VERSION_TABLE, "fn": self._missing}
        )
        with Operations.context(context):
            context.run_migrations()

    def _missing(
        self, revision: tuple[str, ...], _context: MigrationContext
    ) -> list[MigrationStep]:
        try:
            return list(self._scripts._upgrade_revs(self.head or "base", revision))  # type: ignore[arg-type]  # noqa: SLF001
        except CommandError as error:
            raise SettingsError(
                "The stream store was written by a newer release of this gateway."
            ) from error
