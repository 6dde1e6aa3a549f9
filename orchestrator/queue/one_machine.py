"""An SQLite file is for the processes of one machine; a second one that has joined unnoticed is refused."""

from __future__ import annotations

from sqlalchemy import select

from orchestrator.errors import StorageError
from orchestrator.machine.identity import host_identity
from orchestrator.queue.timing import WORKER_SILENT_SECONDS
from orchestrator.storage.database import Database, postgresql_commands
from orchestrator.storage.tables import WorkerRow


def refuse_other_machines(database: Database) -> None:
    """Raise if the database is an SQLite file and a worker of another machine is at work in it.

    Some shared folders (virtual machines, overlays) do not look like a network, so the kind of file system cannot tell.
    The kernel's boot id can: containers of one machine share it. After a reboot only the name is the same.

    Args:
        database: an open database.

    Raises:
        StorageError: another machine uses the file; the message says how to start and use a PostgreSQL server.
    """
    if not database.is_sqlite:
        return
    name, _, boot = host_identity().rpartition("/")
    query = select(WorkerRow.host).where(
        WorkerRow.ended_at.is_(None), ~WorkerRow.host.endswith(f"/{boot}"), ~WorkerRow.host.startswith(f"{name}/")
    )
    with database.read() as connection:
        now = database.now(connection)
        other = connection.execute(query.where(WorkerRow.last_beat > now - WORKER_SILENT_SECONDS)).scalars().first()
    if other is not None:
        raise StorageError(
            f"{database.masked_url} is in use by another machine ({other.partition('/')[0]}), "
            f"and SQLite loses data when two share a file. {postgresql_commands()}"
        )
