"""Bring our tables to the newest revision; the version table is our own, since Optuna and MLflow share Alembic's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.util import CommandError
from sqlalchemy import Connection

from orchestrator.errors import StorageError
from orchestrator.storage.database import Database, schema_lock
from orchestrator.storage.tables import Base

VERSION_TABLE = "sb_alembic_version"
PACKAGE = Path(__file__).resolve().parent
REVISIONS = PACKAGE.parent / "revisions"


def configuration(connection: Connection) -> Config:
    """Return what Alembic needs to migrate our tables over a connection."""
    config = Config()
    config.set_main_option("script_location", str(PACKAGE))
    config.set_main_option("version_locations", str(REVISIONS))
    config.set_main_option("path_separator", "os")
    config.attributes["connection"] = connection
    return config


def upgrade(database: Database) -> None:
    """Create or migrate our tables; does nothing when they are up to date.

    Args:
        database: an open database; on PostgreSQL an advisory lock keeps two processes from migrating at once.

    Raises:
        StorageError: the tables are of a later version of spikebench.
    """
    with schema_lock(database) as connection:
        try:
            command.upgrade(configuration(connection), "head")
        except CommandError as error:
            raise StorageError(
                f"{database.masked_url}: its tables are newer than this spikebench knows ({error}): install a newer one"
            ) from error


def declared_differences(database: Database) -> list[str]:
    """Return how our tables differ from those declared in `orchestrator.storage.tables`, in a few words each.

    Args:
        database: an open database.
    """

    def ours(name: str | None, kind: str, _: object) -> bool:
        return kind != "table" or name in Base.metadata.tables

    with database.read() as connection:
        context = MigrationContext.configure(connection, opts={"include_name": ours})
        found = compare_metadata(context, Base.metadata)
    return [_in_words(part) for item in found for part in (item if isinstance(item, list) else [item])]


def _in_words(difference: tuple[Any, ...]) -> str:
    """Return Alembic's `("add_column", None, "sb_jobs", Column)` as "add column sb_jobs.threads"."""
    kind, *rest = difference
    names = [part if isinstance(part, str) else getattr(part, "name", None) for part in rest]
    if kind in ("add_index", "remove_index"):
        names.insert(0, rest[0].table.name)
    missing = kind.replace("_", " ").replace("add ", "missing ").replace("remove ", "unknown ")
    return f"{missing} {'.'.join(str(name) for name in names if name)}"
