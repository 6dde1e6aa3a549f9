"""Bring our tables to the newest revision; the version table is our own, since Optuna and MLflow share Alembic's."""

from __future__ import annotations

from pathlib import Path

from alembic import command
from alembic.config import Config

from orchestrator.database import Database, schema_lock

VERSION_TABLE = "sb_alembic_version"
PACKAGE = Path(__file__).resolve().parent


def upgrade(database: Database) -> None:
    """Create or migrate our tables; does nothing when they are up to date.

    Args:
        database: an open database; on PostgreSQL an advisory lock keeps two processes from migrating at once.
    """
    config = Config()
    config.set_main_option("script_location", str(PACKAGE))
    config.set_main_option("version_locations", str(PACKAGE.parent / "revisions"))
    config.set_main_option("path_separator", "os")
    with schema_lock(database) as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "head")
