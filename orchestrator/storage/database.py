"""One way to the SQL database: hardened SQLite by default, PostgreSQL for more than one host."""

from __future__ import annotations

import logging
import os
import random
import re
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import psutil
from sqlalchemy import Connection, Engine, Float, create_engine, event, select, text
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, InterfaceError, OperationalError
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.functions import GenericFunction

from configs.problems import mask_credentials
from orchestrator.errors import StorageError, WrongStorageError

DEFAULT_URL = "sqlite:///runs/spikebench.db"
URL_VARIABLE = "SPIKEBENCH_STORAGE"
NETWORK_FILE_SYSTEMS = {
    "nfs",
    "nfs4",
    "cifs",
    "smb3",
    "smbfs",
    "lustre",
    "beegfs",
    "fuse.sshfs",
    "glusterfs",
    "ceph",
    "gpfs",
}
# A network that swallows packets would otherwise hold a connection for a quarter of an hour (libpq).
PATIENCE_WITH_SERVER = {
    "connect_timeout": 10,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 30_000,  # milliseconds
}
SCHEMA_LOCK = 0x5B1CEBE4C  # key of the advisory lock under which tables are created

T = TypeVar("T")
_log = logging.getLogger(__name__)


class database_now(GenericFunction[float]):  # noqa: N801 - named as the SQL function it stands for
    """Seconds since 1970 by the database's clock, so that hosts with wrong clocks agree on leases."""

    type = Float()
    inherit_cache = True


@compiles(database_now, "sqlite")
def _now_sqlite(*_: Any, **__: Any) -> str:
    return "((julianday('now') - 2440587.5) * 86400.0)"


@compiles(database_now, "postgresql")
def _now_postgresql(*_: Any, **__: Any) -> str:
    return "extract(epoch from clock_timestamp())::float8"


@dataclass(frozen=True, slots=True)
class Database:
    """An open database.

    Args:
        engine: the SQLAlchemy engine; belongs to the process that opened it.
        url: the full URL, with its password: give it to processes, never to people.
    """

    engine: Engine
    url: str = field(repr=False)

    @property
    def masked_url(self) -> str:
        """The URL as people may see it."""
        return mask(self.url)

    @property
    def is_sqlite(self) -> bool:
        """Whether this is a file of this machine."""
        return self.engine.dialect.name == "sqlite"

    @contextmanager
    def begin(self) -> Iterator[Connection]:
        """Open a transaction that writes; on SQLite it takes the write lock at once."""
        with self.engine.begin() as connection:
            yield connection

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """Open a connection that only reads; on SQLite it is one transaction and never waits for a writer.

        On PostgreSQL each statement is a transaction of its own, which spares two round trips: at the isolation level
        used, each would see what is newest anyway.
        """
        options: dict[str, Any] = {"spikebench_read": True}
        if not self.is_sqlite:
            options["isolation_level"] = "AUTOCOMMIT"
        with self.engine.connect().execution_options(**options) as connection:
            yield connection

    def write(self, action: Callable[[Connection], T], patience: float = 60.0) -> T:
        """Run a whole transaction, again with growing pauses while the database is away or busy.

        Args:
            action: does everything of the transaction; must be safe to run again from its start.
            patience: seconds to keep trying; 0 tries once.

        Returns:
            What the action returned.

        Raises:
            StorageError: the database did not come back in time.
        """
        deadline = time.monotonic() + patience
        pause = 0.05
        while True:
            try:
                with self.begin() as connection:
                    return action(connection)
            except (OperationalError, InterfaceError, DBAPIError) as error:
                if not is_transient(error):
                    raise
                if time.monotonic() + pause > deadline:
                    raise StorageError(
                        f"cannot write to {self.masked_url}: {first_line(error)}. "
                        "Check that the database runs, is writable and has disk space, then run the same command again."
                    ) from error
            time.sleep(pause * (0.5 + random.random()))
            pause = min(pause * 2, 2.0)

    def now(self, connection: Connection) -> float:
        """Return the database's time in seconds since 1970."""
        return float(connection.execute(select(database_now())).scalar_one())


def storage_url(given: str | None = None) -> str:
    """Return the database URL: the one given, else `SPIKEBENCH_STORAGE`, else the SQLite file under `runs/`.

    Args:
        given: a URL of the command line; `${VARIABLE}` in it keeps a password off it, else there is a warning.

    Raises:
        WrongStorageError: a variable in the URL is not set.
    """
    url = given or os.environ.get(URL_VARIABLE) or DEFAULT_URL
    if given is not None and mask_credentials(given) != given:
        _log.warning(
            "every user of this machine can read the password on this command line: set %s, or write '${VARIABLE}' "
            "in single quotes for it",
            URL_VARIABLE,
        )

    def value_of(match: re.Match[str]) -> str:
        if match[1] not in os.environ:
            raise WrongStorageError(
                f"the storage URL uses ${{{match[1]}}}, which is not set: export {match[1]}=... first"
            )
        return os.environ[match[1]]

    return re.sub(r"\$\{(\w+)\}", value_of, url)


def mask(url: str) -> str:
    """Return a URL with its password hidden."""
    try:
        return mask_credentials(make_url(url).render_as_string(hide_password=True))
    except ArgumentError:
        return re.sub(r"(^|://)[^@/]*@", r"\1***@", url)


def first_line(error: BaseException) -> str:
    """Return the first line of an error, without SQL and parameters, which may hold secrets."""
    origin = getattr(error, "orig", None) or error
    return mask_credentials((str(origin).strip().splitlines() or [type(origin).__name__])[0])


def is_transient(error: DBAPIError) -> bool:
    """Tell whether trying the transaction again can help."""
    if error.connection_invalidated or isinstance(error, InterfaceError):
        return True
    state = getattr(error.orig, "sqlstate", None)
    if state is not None:  # PostgreSQL: connection, serialisation, deadlock, resources, shutdown
        return state[:2] in {"08", "40", "53", "57"}
    words = str(error.orig).lower()
    return isinstance(error, OperationalError) and not any(
        final in words
        for final in ("no such table", "no such column", "readonly", "unable to open", "malformed", "not a database")
    )


def open_database(url: str, *, create: bool = False, tables: bool = True) -> Database:
    """Open the database and, if asked, create what is missing in it.

    Args:
        url: `sqlite:///path` or `postgresql+psycopg://user:password@host/name`.
        create: make the folder of an SQLite file and every table; without it a missing SQLite file is an error.
        tables: False leaves the tables as they are, also with `create`.

    Raises:
        WrongStorageError: the URL is of another kind, or names a file that is missing or on a network file system.
        StorageError: the database cannot be reached, opened or written.
    """
    parsed = _parse(url)
    if parsed.get_backend_name() == "sqlite":
        _check_file(parsed, create)
    engine = make_engine(parsed)
    database = Database(engine, parsed.render_as_string(hide_password=False))
    try:
        if create and tables:
            from orchestrator.migrations.upgrade import upgrade  # noqa: PLC0415 - Alembic is only loaded by the one who creates

            upgrade(database)
        else:
            with database.read() as connection:
                connection.execute(text("SELECT 1"))
    except (DBAPIError, OSError) as error:
        engine.dispose()
        raise StorageError(_unreachable(parsed, error)) from error
    return database


def make_engine(parsed: URL) -> Engine:
    """Return an engine with the settings each kind of database needs under many processes."""
    if parsed.get_backend_name() == "sqlite":
        engine = create_engine(parsed, connect_args={"timeout": 60})
        harden_sqlite(engine)
        return engine
    return create_engine(
        parsed, pool_pre_ping=True, pool_size=2, max_overflow=2, pool_recycle=1800, connect_args=PATIENCE_WITH_SERVER
    )


def harden_sqlite(engine: Engine) -> None:
    """Make SQLite safe for many processes: WAL, and every writing transaction takes its lock at the start.

    Without `BEGIN IMMEDIATE` two processes can both read a queued row and both take it; see the SQLite documentation on
    transactions and "database is locked".
    """

    @event.listens_for(engine, "connect")
    def _configure(connection: Any, _: object) -> None:
        connection.isolation_level = None  # the driver must not open transactions of its own
        for pragma in ("journal_mode=WAL", "synchronous=NORMAL", "foreign_keys=ON", "busy_timeout=60000"):
            connection.execute(f"PRAGMA {pragma}")

    @event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        reading = connection.get_execution_options().get("spikebench_read", False)
        connection.exec_driver_sql("BEGIN" if reading else "BEGIN IMMEDIATE")


@contextmanager
def schema_lock(database: Database) -> Iterator[Connection]:
    """Hold the right to create tables; two processes that start at once do not race."""
    with database.engine.begin() as connection:
        if not database.is_sqlite:  # on SQLite the transaction itself is the lock
            connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": SCHEMA_LOCK})
        yield connection


def _parse(url: str) -> URL:
    try:
        parsed = make_url(url)
    except ArgumentError as error:
        raise WrongStorageError(
            f"'{mask(url)}' is not a database URL: expected sqlite:///runs/spikebench.db or "
            "postgresql+psycopg://user:password@host:5432/name"
        ) from error
    backend = parsed.get_backend_name()
    if backend == "postgresql":
        return parsed.set(drivername="postgresql+psycopg")
    if backend != "sqlite":
        raise WrongStorageError(
            f"'{mask(url)}': expected a sqlite or postgresql+psycopg URL, got '{parsed.drivername}'"
        )
    return parsed


def _check_file(parsed: URL, create: bool) -> None:
    if parsed.database in (None, "", ":memory:"):
        raise WrongStorageError(
            "an in-memory SQLite database cannot be shared by processes: give a file, sqlite:///runs/name.db"
        )
    if parsed.host:
        raise WrongStorageError(
            f"'{mask(str(parsed))}' names the machine {parsed.host}, but SQLite is a file of this machine: "
            f"write sqlite:///{parsed.database} for a local path, or use a PostgreSQL server. {postgresql_commands()}"
        )
    path = Path(str(parsed.database))
    if not create and not path.exists():
        raise WrongStorageError(
            f"no database at {path.resolve()}: run a search first, or give --storage / set {URL_VARIABLE}"
        )
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StorageError(f"cannot create the folder {path.parent.resolve()}: {error.strerror}") from error
    if create and not os.access(path if path.exists() else path.parent, os.W_OK):
        raise StorageError(f"cannot write {path.resolve()}: make it writable or give another --storage")
    if (kind := file_system_of(path)) in NETWORK_FILE_SYSTEMS:
        raise WrongStorageError(
            f"{path.resolve()} is on a network file system ({kind}), where SQLite loses data. "
            f"Use a local path, or a PostgreSQL server. {postgresql_commands()}"
        )


def postgresql_commands() -> str:
    """Return the commands that start a PostgreSQL server here and make every machine use it."""
    return (
        "Start one, with a password of your choice in POSTGRES_PASSWORD:\n"
        "  docker run -d --name spikebench-db -p 5432:5432 -v spikebench-db:/var/lib/postgresql/data "
        "-e POSTGRES_PASSWORD postgres:17\n"
        "and name it on every machine that searches or works:\n"
        f"  export {URL_VARIABLE}='postgresql+psycopg://postgres:${{POSTGRES_PASSWORD}}"
        f"@{socket.gethostname()}:5432/postgres'"
    )


def file_system_of(path: Path) -> str:
    """Return the kind of file system that holds a path ("ext4", "nfs4", ...), or "" when unknown."""
    target = path.resolve()
    best = ("", "")
    for part in psutil.disk_partitions(all=True):
        mount = part.mountpoint
        if target.is_relative_to(mount) and len(mount) >= len(best[0]):
            best = (mount, part.fstype)
    return best[1]


def _unreachable(parsed: URL, error: BaseException) -> str:
    shown = parsed.render_as_string(hide_password=True)
    of_file = parsed.get_backend_name() == "sqlite"
    what = "that the file is an SQLite database which you may write" if of_file else "host, port, name and password"
    return f"cannot open {shown}: {first_line(error)}. Check {what}; `spikebench doctor` tests it."
