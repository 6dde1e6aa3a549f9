"""What a study is doing right now, read twice a second: ended trials are read once and then remembered."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, func, or_, select

from orchestrator.errors import StudyNotFoundError
from orchestrator.queue.timing import WORKER_SILENT_SECONDS
from orchestrator.reading.history import AnyRow, Attempts, job_columns, last_metrics, read_attempts, trial_of
from orchestrator.reading.views import (
    ENDED,
    StudyView,
    TrialFront,
    TrialState,
    TrialView,
    study_view,
    trial_front,
    trial_state,
)
from orchestrator.storage.database import Database, database_now
from orchestrator.storage.tables import EpochRow, JobRow, StudyRow, WorkerRow

ETA_TRIALS = 50  # the newest ended trials that tell how long a trial takes


@dataclass(frozen=True, slots=True)
class RunningTrial:
    """A trial that a worker has now.

    Args:
        elapsed: seconds on a device so far, all attempts together.
        epoch_seconds: mean time of its epochs, or None before the first has ended.
    """

    number: int
    epoch: int
    epochs: int | None
    epoch_seconds: float | None
    elapsed: float
    attempt: int
    device: str
    host: str
    metrics: dict[str, float]

    @property
    def seconds_left(self) -> float | None:
        """Estimated time to its last epoch."""
        if self.epochs is None or self.epoch_seconds is None:
            return None
        return max(0, self.epochs - self.epoch) * self.epoch_seconds


@dataclass(frozen=True, slots=True)
class StudySnapshot:
    """A study at one moment of the database's clock.

    Args:
        study: the study.
        ended: every ended trial, in the order their ends were seen; grows only at its end.
        running: trials that a worker has now, by number.
        waiting: trials that are asked and wait for a worker.
        front: front of the finished trials.
        best: per objective the best finished trial that keeps the constraints, if any.
        workers: workers alive.
        device_seconds: time on devices so far, all trials together.
        read_at: seconds since 1970.
    """

    study: StudyView
    ended: tuple[TrialView, ...]
    running: tuple[RunningTrial, ...]
    waiting: int
    front: TrialFront
    best: tuple[TrialView | None, ...]
    workers: int
    device_seconds: float
    read_at: float

    def count(self, state: TrialState) -> int:
        """Return how many ended trials are in a state."""
        return sum(trial.state is state for trial in self.ended)

    @property
    def epochs_per_minute(self) -> float:
        """Epochs that all running trials do in a minute, at the pace of their epochs so far."""
        return math.fsum(60.0 / trial.epoch_seconds for trial in self.running if trial.epoch_seconds)

    @property
    def seconds_left(self) -> float | None:
        """Estimated time to the end of the study; None before anything is known of a trial's length."""
        typical = self._trial_seconds()
        unstarted = max(0, self.study.budget - len(self.ended) - len(self.running))
        if unstarted == 0 and not self.running:
            return 0.0
        if typical is None or not (self.running or self.workers):
            return None
        started = (
            trial.seconds_left if trial.seconds_left is not None else max(0.0, typical - trial.elapsed)
            for trial in self.running
        )
        work = math.fsum(started) + unstarted * typical
        longest = max((trial.seconds_left or 0.0 for trial in self.running), default=0.0)
        return max(longest, work / max(1, len(self.running), min(self.workers, unstarted)))

    def _trial_seconds(self) -> float | None:
        known = [trial.seconds for trial in self.ended[-ETA_TRIALS:] if trial.attempts]
        known = known or [
            trial.epochs * trial.epoch_seconds for trial in self.running if trial.epochs and trial.epoch_seconds
        ]
        return math.fsum(known) / len(known) if known else None


class SnapshotReader:
    """Read one study again and again, cheaply.

    Args:
        database: an open database.
        study_id: key of the study.
    """

    def __init__(self, database: Database, study_id: int) -> None:
        self._database = database
        self._study_id = study_id
        self._ended: list[TrialView] = []
        self._open_ids: set[int] = set()
        self._newest_id = 0
        self._front: TrialFront | None = None
        self._best: tuple[TrialView | None, ...] = ()

    def read(self) -> StudySnapshot:
        """Return the study as it is now.

        Raises:
            StudyNotFoundError: the study was deleted.
        """
        with self._database.read() as connection:
            study, now = self._study(connection)
            rows = connection.execute(self._open_or_new()).all()
            ended = [row for row in rows if trial_state(row.state, row.end_reason) in ENDED]
            leased = [row for row in rows if trial_state(row.state, row.end_reason) is TrialState.RUNNING]
            attempts = read_attempts(connection, [row.id for row in rows], study.id, now) if rows else {}
            if ended:
                self._remember(connection, study, ended, attempts)
            running = self._running(connection, study, leased, attempts) if leased else ()
            workers = self._workers(connection, now)
        self._open_ids = {row.id for row in rows} - {row.id for row in ended}
        self._newest_id = max([self._newest_id, *(row.id for row in rows)])
        if ended or self._front is None:
            self._weigh(study)
        assert self._front is not None
        spent = math.fsum(trial.seconds for trial in self._ended)
        spent += math.fsum(attempts[job].seconds for job in self._open_ids if job in attempts)
        return StudySnapshot(
            study=study,
            ended=tuple(self._ended),
            running=running,
            waiting=len(self._open_ids) - len(leased),
            front=self._front,
            best=self._best,
            workers=workers,
            device_seconds=spent,
            read_at=now,
        )

    def _study(self, connection: Connection) -> tuple[StudyView, float]:
        query = select(StudyRow.__table__, database_now().label("now")).where(StudyRow.id == self._study_id)
        row = connection.execute(query).first()
        if row is None:
            raise StudyNotFoundError(f"study number {self._study_id} is no longer in {self._database.masked_url}")
        values = dict(row._mapping)
        now = float(values.pop("now"))
        return study_view(StudyRow(**values), now), now

    def _open_or_new(self) -> Any:
        """Select the jobs that had not ended when last read, and those that were queued since: ids only grow."""
        return (
            select(*job_columns())
            .where(JobRow.study_id == self._study_id)
            .where(or_(JobRow.id > self._newest_id, JobRow.id.in_(self._open_ids)))
            .order_by(JobRow.ended_at, JobRow.id)
        )

    def _remember(
        self, connection: Connection, study: StudyView, rows: Sequence[AnyRow], attempts: dict[int, Attempts]
    ) -> None:
        names = watched_metrics(study)
        metrics = last_metrics(connection, [row.id for row in rows], names)
        epochs = _epochs(connection, [row.id for row in rows])
        for row in rows:
            done, _ = epochs.get(row.id, (0, 0.0))
            self._ended.append(trial_of(study, row, metrics.get(row.id, {}), done, attempts.get(row.id, Attempts())))

    def _running(
        self, connection: Connection, study: StudyView, rows: Sequence[AnyRow], attempts: dict[int, Attempts]
    ) -> tuple[RunningTrial, ...]:
        ids = [row.id for row in rows]
        metrics = last_metrics(connection, ids, watched_metrics(study))
        epochs = _epochs(connection, ids)
        running = []
        for row in rows:
            done, seconds = epochs.get(row.id, (0, 0.0))
            attempt = attempts.get(row.id, Attempts())
            running.append(
                RunningTrial(
                    number=row.trial_number,
                    epoch=done,
                    epochs=row.epochs_planned,
                    epoch_seconds=seconds / done if done else None,
                    elapsed=attempt.seconds,
                    attempt=row.attempt,
                    device=attempt.device,
                    host=attempt.host.split("/")[0],
                    metrics=metrics.get(row.id, {}),
                )
            )
        return tuple(sorted(running, key=lambda trial: trial.number))

    def _workers(self, connection: Connection, now: float) -> int:
        query = select(func.count()).where(
            WorkerRow.ended_at.is_(None),
            WorkerRow.last_beat > now - WORKER_SILENT_SECONDS,
            or_(WorkerRow.study_id == self._study_id, WorkerRow.study_id.is_(None)),
        )
        return int(connection.execute(query).scalar_one())

    def _weigh(self, study: StudyView) -> None:
        finished = [t for t in self._ended if t.state is TrialState.FINISHED and t.values is not None]
        self._front = trial_front(study, finished)
        feasible = [trial for trial in finished if trial.violation <= 0]
        self._best = tuple(best_of(feasible, index, o.direction) for index, o in enumerate(study.objectives))


def best_of(trials: Sequence[TrialView], objective: int, direction: str) -> TrialView | None:
    """Return the trial that is best in one objective; of equal ones the first."""
    sign = -1.0 if direction == "maximize" else 1.0
    return min(trials, key=lambda trial: (sign * (trial.values or ())[objective], trial.number), default=None)


def watched_metrics(study: StudyView) -> list[str]:
    """Return the metrics that objectives and constraints name."""
    return sorted({o.metric for o in study.objectives} | {c.metric for c in study.constraints})


def _epochs(connection: Connection, job_ids: Sequence[int]) -> dict[int, tuple[int, float]]:
    """Return {job: (epochs completed, their seconds)}."""
    query = (
        select(EpochRow.job_id, func.max(EpochRow.epoch), func.sum(EpochRow.seconds))
        .where(EpochRow.job_id.in_(job_ids))
        .group_by(EpochRow.job_id)
    )
    return {job_id: (epoch, seconds) for job_id, epoch, seconds in connection.execute(query)}
