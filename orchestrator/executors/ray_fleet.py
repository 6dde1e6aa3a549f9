"""The carriers that a study has on a Ray cluster, and whether it needs more; the job table says so."""

from __future__ import annotations

import contextlib
import threading
import time
from dataclasses import dataclass, field

from sqlalchemy import Connection, func, select
from sqlalchemy.exc import DBAPIError

from orchestrator.errors import StorageError
from orchestrator.queue.jobs import end_workers, return_lost
from orchestrator.queue.timing import lease_seconds
from orchestrator.storage.database import Database
from orchestrator.storage.tables import JobRow, JobState, StudyRow, StudyState, WorkerRow

LOOK_SECONDS = 0.25  # how long what was read of the job table is believed
IDLE_SECONDS = 60.0  # after so long without a job a carrier gives its share of the cluster back
MOST_FAILED_STARTS = 3  # carriers in a row that could not start


@dataclass(slots=True)
class Member:
    """A carrier of the fleet.

    Args:
        worker: key in `sb_workers`; None before it has said so.
        starts: it has been given its resources.
        idle_since: when it was first seen without a job; None while it has one.
    """

    worker: str | None = None
    starts: bool = False
    idle_since: float | None = field(default_factory=time.monotonic)


@dataclass(frozen=True, slots=True)
class Work:
    """What the job table says of a study.

    Args:
        pending: jobs that wait.
        busy: workers that have a job.
        used: the budget is used and nothing is open.
    """

    pending: int
    busy: frozenset[str]
    used: bool


class Fleet:
    """Decides how many carriers there are; the job table says what there is to do.

    Args:
        database: an open database.
        study_id: the study.
        places: most carriers at once.
    """

    def __init__(self, database: Database, study_id: int, places: int) -> None:
        self._database = database
        self._study_id = study_id
        self.places = places
        self.leaving = threading.Event()
        self.trouble = ""  # why no carrier can start
        self._members: dict[str, Member] = {}  # by the id of their Tune trials
        self._gone: set[str] = set()  # workers whose carriers were told to end and may not have
        self._work = Work(0, frozenset(), False)
        self._look_at = 0.0
        self._failed_starts = 0

    def wants_another(self) -> bool:
        """Tell whether more jobs wait than there are carriers without one."""
        if self.ending or len(self._members) >= self.places:
            return False
        busy = self._look().busy
        return self._work.pending > sum(member.worker not in busy for member in self._members.values())

    @property
    def ending(self) -> bool:
        """Whether every carrier shall give its trial back and end."""
        return self.leaving.is_set() or bool(self.trouble) or self._look().used

    def over(self) -> bool:
        """Tell whether every carrier that shall end has ended."""
        return self.ending and not any(member.starts for member in self._members.values()) and not self._leavers()

    def joins(self, trial: str) -> None:
        """Count a carrier that was asked for."""
        self._members[trial] = Member()

    def starts(self, trial: str) -> None:
        """Note that a carrier has its resources."""
        if trial in self._members:
            self._members[trial].starts = True

    def hears(self, trial: str, worker: str) -> bool:
        """Take a sign of life of a carrier.

        Args:
            trial: id of its Tune trial.
            worker: key in `sb_workers`.

        Returns:
            Whether it shall go on.
        """
        member = self._members[trial]
        if member.worker is None:
            self._failed_starts = 0
        member.worker = worker
        if worker in self._look().busy:
            member.idle_since = None
        elif member.idle_since is None:
            member.idle_since = time.monotonic()
        rests = member.idle_since is not None and time.monotonic() > member.idle_since + IDLE_SECONDS
        return not self.ending and not rests

    def ends(self, trial: str) -> None:
        """Take a carrier that was told to end out of the fleet; it may still write a checkpoint."""
        member = self._members.pop(trial, None)
        if member is not None and member.worker is not None:
            self._gone.add(member.worker)

    def dies(self, trial: str, why: str) -> None:
        """Take a carrier that Ray has found dead out of the fleet and give its job back at once.

        Args:
            trial: id of its Tune trial.
            why: one line for people.
        """
        member = self._members.pop(trial, None)
        if member is None:
            return
        if member.worker is None:
            self.refuses(why)
            return
        lost = [member.worker]

        def bury(connection: Connection) -> None:
            end_workers(connection, lost)
            return_lost(connection, lost, self._study_id, expired=False)

        try:
            self._database.write(bury, patience=0.0)
        except StorageError:  # it is away; the leases run out
            self._gone.update(lost)

    def refuses(self, why: str) -> None:
        """Count a carrier that could not start; several in a row end the study."""
        self._failed_starts += 1
        if self._failed_starts >= MOST_FAILED_STARTS:
            self.trouble = why

    def _leavers(self) -> bool:
        """Tell whether a worker that was told to end has not written that it has."""
        if not self._gone:
            return False
        query = select(func.count()).where(WorkerRow.id.in_(self._gone), WorkerRow.ended_at.is_(None))
        try:
            with self._database.read() as connection:
                silent = self._database.now(connection) - lease_seconds()
                return bool(connection.execute(query.where(WorkerRow.last_beat > silent)).scalar_one())
        except (StorageError, DBAPIError):
            return True

    def _look(self) -> Work:
        """Read the job table, unless that was a moment ago or it is away."""
        if time.monotonic() >= self._look_at:
            with contextlib.suppress(StorageError, DBAPIError):
                self._work = self._read()
            self._look_at = time.monotonic() + LOOK_SECONDS
        return self._work

    def _read(self) -> Work:
        of_study = JobRow.study_id == self._study_id
        study = select(StudyRow.state, StudyRow.budget_trials).where(StudyRow.id == self._study_id)
        counts = select(func.count(), func.count().filter(JobRow.told.is_(False))).where(of_study)
        pending = select(func.count()).where(of_study, JobRow.state == JobState.PENDING)
        owners = select(JobRow.owner).where(of_study, JobRow.state == JobState.LEASED)
        with self._database.read() as connection:
            state, budget = connection.execute(study).one()
            asked, open_ = connection.execute(counts).one()
            waiting = int(connection.execute(pending).scalar_one()) if state == StudyState.RUNNING else 0
            busy = frozenset(owner for owner in connection.execute(owners).scalars() if owner)
        return Work(waiting, busy, asked >= budget and open_ == 0)
