"""The right to control a study: one process at a time, handed on when its holder dies."""

from __future__ import annotations

import os
import time
import uuid

import psutil
from sqlalchemy import Connection, select, update

from orchestrator.errors import StudyBusyError
from orchestrator.machine.identity import host_identity, is_dead
from orchestrator.queue.timing import beat_seconds, lease_seconds
from orchestrator.storage.database import Database, database_now
from orchestrator.storage.tables import StudyRow


class ControllerLease:
    """Hold a study for this process.

    Args:
        database: an open database.
        study_id: the study.
    """

    def __init__(self, database: Database, study_id: int) -> None:
        self._database = database
        self._study_id = study_id
        started = psutil.Process().create_time()
        self._me = f"{host_identity()} {os.getpid()} {started:.2f} {uuid.uuid4().hex[:8]}"
        self._renew_at = 0.0

    def acquire(self) -> None:
        """Take the lease if it is free, run out, or held by a process of this host that is dead.

        Raises:
            StudyBusyError: another controller holds it.
        """
        holder = self._database.write(self._take)
        if holder is not None:
            host, pid, *_ = holder.rsplit(" ", 3)
            raise StudyBusyError(
                f"the study is being run by another controller (process {pid} on {host.split('/')[0]}). "
                "Watch it with `spikebench status`, or help it with `spikebench worker`. "
                f"If that host has died, its hold ends {lease_seconds():g} s after its last sign of life."
            )
        self._renew_at = time.monotonic() + beat_seconds()

    def renew(self) -> None:
        """Keep the lease; does nothing when it was renewed a moment ago.

        Raises:
            StudyBusyError: another controller has taken it meanwhile.
        """
        if time.monotonic() < self._renew_at:
            return
        kept = self._database.write(
            lambda connection: (
                connection.execute(
                    update(StudyRow)
                    .where(StudyRow.id == self._study_id, StudyRow.controller == self._me)
                    .values(controller_lease_until=database_now() + lease_seconds())
                ).rowcount
            )
        )
        if kept == 0:
            raise StudyBusyError("another controller has taken the study over while this one could not be reached")
        self._renew_at = time.monotonic() + beat_seconds()

    def release(self) -> None:
        """Give the lease back."""
        self._database.write(
            lambda connection: connection.execute(
                update(StudyRow)
                .where(StudyRow.id == self._study_id, StudyRow.controller == self._me)
                .values(controller=None, controller_lease_until=0.0)
            ),
            patience=5.0,
        )

    def _take(self, connection: Connection) -> str | None:
        """Take the lease and return None, or return who holds it."""
        query = select(StudyRow.controller, StudyRow.controller_lease_until > database_now()).where(
            StudyRow.id == self._study_id
        )
        holder, alive = connection.execute(query.with_for_update()).one()
        if holder is not None and alive and not _holder_is_dead(holder):
            return str(holder)
        connection.execute(
            update(StudyRow)
            .where(StudyRow.id == self._study_id)
            .values(controller=self._me, controller_lease_until=database_now() + lease_seconds())
        )
        return None


def has_controller(database: Database, study: StudyRow) -> bool:
    """Tell whether a controller that may be alive holds a study."""
    with database.read() as connection:
        alive = study.controller_lease_until > database.now(connection)
    return study.controller is not None and alive and not _holder_is_dead(study.controller)


def _holder_is_dead(holder: str) -> bool:
    host, pid, started, _ = holder.rsplit(" ", 3)
    return is_dead(host, int(pid), float(started))
