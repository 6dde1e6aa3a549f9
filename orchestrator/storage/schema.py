"""Which tables a database has: whose, of which revision, and whether they are the ones this version works with."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator

from optuna.storages import RDBStorage
from optuna.storages._rdb import models
from sqlalchemy import Connection, inspect, select, text
from sqlalchemy.exc import DBAPIError

from orchestrator.errors import NoTablesError, StorageError
from orchestrator.findings import Finding, Health
from orchestrator.migrations.upgrade import REVISIONS, VERSION_TABLE, declared_differences, upgrade
from orchestrator.storage.database import Database, first_line, open_database, storage_url
from orchestrator.storage.study import optuna_storage

NEWEST = max(path.stem.split("_")[1] for path in REVISIONS.glob("rev_*.py"))
WAL, FOREIGN_KEYS = "wal", 1
CLOCK_TOLERANCE_SECONDS = 60.0


def open_ready(storage: str | None) -> Database:
    """Open a database for work with the studies in it.

    Args:
        storage: its URL as given on a command line; None takes the environment's or the default one.

    Raises:
        NoTablesError: it has no tables yet.
        StorageError: it cannot be opened, or has tables of another version.
    """
    database = open_database(storage_url(storage))
    try:
        require_tables(database)
    except StorageError:
        database.engine.dispose()
        raise
    return database


def require_tables(database: Database) -> None:
    """Raise unless a database has the tables that this version works with.

    Raises:
        NoTablesError: it has none yet.
        StorageError: it has those of another version.
    """
    found = revision(database)
    if found is None:
        raise NoTablesError(
            f"{database.masked_url} has no tables of spikebench yet: "
            "start a search, or make them with `spikebench db init`"
        )
    if found != NEWEST:
        raise StorageError(f"{database.masked_url}: {_other_revision(found)}")


def _other_revision(found: str) -> str:
    if found < NEWEST:
        return f"its tables are of revision {found}, expected {NEWEST}: migrate them with `spikebench db upgrade`"
    return f"its tables are of revision {found}, newer than this spikebench knows ({NEWEST}): install a newer one"


def revision(database: Database) -> str | None:
    """Return the revision of our tables; None where there are none."""
    with database.read() as connection:
        if not inspect(connection).has_table(VERSION_TABLE):
            return None
        return str(connection.execute(text(f"SELECT version_num FROM {VERSION_TABLE}")).scalar_one())


def create_or_upgrade(database: Database) -> None:
    """Bring our tables and Optuna's to the newest revision, making them where they are missing.

    Args:
        database: an open database. Each set is made under an advisory lock, so that two processes do not race.

    Raises:
        StorageError: the tables are newer than this version, or Optuna cannot use the database.
    """
    upgrade(database)
    with database.read() as connection:
        optuna_is_there = inspect(connection).has_table(models.VersionInfoModel.__tablename__)
    if optuna_is_there:
        storage = RDBStorage(database.url, skip_compatibility_check=True)
        if storage.get_current_version() != storage.get_head_version():
            storage.upgrade()
    else:
        storage = optuna_storage(database)
    storage.remove_session()
    storage.engine.dispose()


def examine(database: Database) -> list[Finding]:
    """Look at everything a study needs of its database.

    Args:
        database: an open database; that it could be opened is the first finding.
    """
    findings: list[Finding] = []
    for topic, check in {
        "server": _server,
        "hardening": _hardening,
        "tables": _tables,
        "columns": _columns,
        "Optuna": _optuna,
        "clock": _clock,
    }.items():
        try:
            findings.extend(Finding(topic, *found) for found in check(database))
        except (DBAPIError, StorageError) as error:
            findings.append(Finding(topic, Health.WRONG, first_line(error)))
    return [Finding("database", Health.OK, database.masked_url), *findings]


Found = tuple[Health, str] | tuple[Health, str, str]


def _server(database: Database) -> Iterator[Found]:
    with database.read() as connection:
        if database.is_sqlite:
            yield Health.OK, f"SQLite {sqlite3.sqlite_version}"
        else:
            yield Health.OK, "PostgreSQL " + str(connection.execute(text("SHOW server_version")).scalar_one())
    try:
        database.write(lambda connection: connection.execute(select(1)), patience=0.0)
    except StorageError as error:
        yield Health.WRONG, "cannot be written", str(error)


def _hardening(database: Database) -> Iterator[Found]:
    """Read back what `harden_sqlite` asks for: a file system may refuse a write-ahead log."""
    if not database.is_sqlite:
        yield Health.OK, "connections are tested before each use; advisory locks and SKIP LOCKED"
        return
    with database.read() as connection:
        journal, keys, patience = (
            _pragma(connection, name) for name in ("journal_mode", "foreign_keys", "busy_timeout")
        )
    if journal != WAL or keys != FOREIGN_KEYS:
        advice = "put the file on a local disk that allows shared memory, or use PostgreSQL"
        yield Health.WRONG, f"journal_mode {journal}, foreign_keys {keys}; expected wal and 1", advice
        return
    yield Health.OK, f"write-ahead log, foreign keys, BEGIN IMMEDIATE, waits {int(str(patience)) // 1000} s for a lock"


def _pragma(connection: Connection, name: str) -> object:
    return connection.exec_driver_sql(f"PRAGMA {name}").scalar_one()


def _tables(database: Database) -> Iterator[Found]:
    found = revision(database)
    if found is None:
        yield Health.WRONG, "none of spikebench", "make them with `spikebench db init`"
    elif found != NEWEST:
        yield Health.WRONG, f"revision {found}", _other_revision(found)
    else:
        yield Health.OK, f"revision {found}, the newest"


def _columns(database: Database) -> Iterator[Found]:
    if revision(database) != NEWEST:
        return
    differences = declared_differences(database)
    if differences:
        yield Health.WRONG, "; ".join(differences), "restore a backup: somebody has changed the tables by hand"
    else:
        yield Health.OK, "every table, column and index as declared"


def _optuna(database: Database) -> Iterator[Found]:
    with database.read() as connection:
        if not inspect(connection).has_table(models.VersionInfoModel.__tablename__):
            yield Health.WRONG, "no tables of Optuna", "make them with `spikebench db init`"
            return
    try:
        storage = optuna_storage(database)
    except StorageError as error:
        yield Health.WRONG, str(error), "migrate them with `spikebench db upgrade`"
        return
    yield Health.OK, f"tables of version {storage.get_current_version()}"
    storage.remove_session()
    storage.engine.dispose()


def _clock(database: Database) -> Iterator[Found]:
    with database.read() as connection:
        apart = database.now(connection) - time.time()
    shown = f"{abs(apart):.1f} s {'ahead of' if apart > 0 else 'behind'} this machine's"
    note = abs(apart) > CLOCK_TOLERANCE_SECONDS
    yield Health.NOTE if note else Health.OK, shown, "leases use the database's clock: no harm" if note else ""
