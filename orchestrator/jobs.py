"""The job table: who works on which trial, and what they report; every write carries the attempt as a fencing token."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, ScalarSelect, case, delete, func, insert, select, update
from sqlalchemy.dialects import postgresql, sqlite

from orchestrator.database import Database, database_now
from orchestrator.errors import LeaseLostError
from orchestrator.provenance import Provenance
from orchestrator.tables import (
    AttemptRow,
    CheckpointRow,
    EndReason,
    EnvironmentRow,
    EpochRow,
    JobRow,
    JobState,
    MetricRow,
    StudyRow,
    StudyState,
    WorkerRow,
)
from trainers.protocol import EpochReport, SavedCheckpoint, Verdict

LEASE_SECONDS = 60.0
RETRIES = {
    EndReason.OOM: 2,
    EndReason.CRASH: 2,
    EndReason.HANG: 2,
}  # other failures repeat themselves: they end the trial


@dataclass(frozen=True, slots=True)
class WorkerIdentity:
    """Who asks for work.

    Args:
        id: unique for the life of the process.
        host: host name with boot id, so that a process id means something.
        pid: process id of the worker.
        process_started: start time of that process; tells a re-used process id from the same process.
        device: "cpu" or "cuda:N".
        threads: CPU threads a trial of this worker gets.
    """

    id: str
    host: str
    pid: int
    process_started: float
    device: str
    threads: int


@dataclass(frozen=True, slots=True)
class Claim:
    """A job that this worker now holds."""

    job_id: int
    attempt: int
    study_id: int
    trial_number: int
    config: dict[str, Any]
    trainer: str
    threads: int
    run_dir: Path


@dataclass(frozen=True, slots=True)
class AttemptStart:
    """What an attempt runs on.

    Args:
        pid: process id of the trial process.
        log_path: file with everything it prints.
        resumed_epoch: epochs that the checkpoint it went on from had completed; 0 for a fresh start.
        neuron_backend: kernel the neurons run on.
        provenance: code, packages and device.
    """

    pid: int
    log_path: Path
    resumed_epoch: int
    neuron_backend: str
    provenance: Provenance


def register_worker(connection: Connection, worker: WorkerIdentity, study_id: int | None) -> None:
    """Write that a worker lives."""
    connection.execute(
        insert(WorkerRow).values(
            id=worker.id,
            study_id=study_id,
            host=worker.host,
            pid=worker.pid,
            process_started=worker.process_started,
            device=worker.device,
            threads=worker.threads,
            started_at=database_now(),
            last_beat=database_now(),
        )
    )


def end_workers(connection: Connection, worker_ids: Sequence[str]) -> None:
    """Write that workers have left or are dead."""
    connection.execute(
        update(WorkerRow).where(WorkerRow.id.in_(worker_ids)).values(ended_at=database_now(), job_id=None)
    )


def beat(connection: Connection, worker_id: str) -> None:
    """Write that a worker without work is alive."""
    connection.execute(update(WorkerRow).where(WorkerRow.id == worker_id).values(last_beat=database_now(), job_id=None))


def claim(connection: Connection, worker: WorkerIdentity, study_id: int | None = None) -> Claim | None:
    """Take the next pending job of a study that runs, or None.

    One statement finds and takes it, so no two workers ever hold the same job: PostgreSQL skips rows that another has
    locked, SQLite has the writer's lock for the whole transaction.

    Args:
        connection: a writing transaction.
        worker: who takes it.
        study_id: only jobs of this study; None takes any.
    """
    running = select(StudyRow.id).where(StudyRow.state == StudyState.RUNNING)
    pending = select(JobRow.id).where(JobRow.state == JobState.PENDING, JobRow.study_id.in_(running))
    if study_id is not None:
        pending = pending.where(JobRow.study_id == study_id)
    pending = pending.order_by(JobRow.priority, JobRow.id).limit(1)
    if connection.dialect.name == "postgresql":
        pending = pending.with_for_update(skip_locked=True)
    row = connection.execute(
        update(JobRow)
        .where(JobRow.id == pending.scalar_subquery())
        .values(
            state=JobState.LEASED,
            owner=worker.id,
            attempt=JobRow.attempt + 1,
            lease_until=database_now() + LEASE_SECONDS,
            threads=case((JobRow.threads == 0, worker.threads), else_=JobRow.threads),
            started_at=func.coalesce(JobRow.started_at, database_now()),
            verdict=Verdict.CONTINUE,
            verdict_reason=None,
        )
        .returning(
            JobRow.id,
            JobRow.attempt,
            JobRow.study_id,
            JobRow.trial_number,
            JobRow.config,
            JobRow.trainer,
            JobRow.threads,
            JobRow.run_dir,
        )
    ).first()
    if row is None:
        return None
    connection.execute(
        insert(AttemptRow).values(
            job_id=row.id,
            attempt=row.attempt,
            worker=worker.id,
            host=worker.host,
            device=worker.device,
            started_at=database_now(),
        )
    )
    connection.execute(
        update(WorkerRow).where(WorkerRow.id == worker.id).values(job_id=row.id, last_beat=database_now())
    )
    return Claim(
        row.id, row.attempt, row.study_id, row.trial_number, row.config, row.trainer, row.threads, Path(row.run_dir)
    )


def hold(connection: Connection, held: Claim) -> tuple[Verdict, str | None]:
    """Renew the lease and return what is wanted of the trial.

    Raises:
        LeaseLostError: the job was given to another worker; nothing was written.
    """
    row = connection.execute(
        update(JobRow)
        .where(JobRow.id == held.job_id, JobRow.attempt == held.attempt, JobRow.state == JobState.LEASED)
        .values(lease_until=database_now() + LEASE_SECONDS)
        .returning(JobRow.verdict, JobRow.verdict_reason, JobRow.owner, _study_state())
    ).first()
    if row is None:
        raise LeaseLostError(
            f"trial {held.trial_number}, attempt {held.attempt}: the lease ran out and another worker has the trial"
        )
    connection.execute(update(WorkerRow).where(WorkerRow.id == row.owner).values(last_beat=database_now()))
    return _wanted(row.verdict, row[3]), row.verdict_reason


def goes_on(connection: Connection, held: Claim) -> bool:
    """Tell, by a read alone, whether a trial shall go on as before; where not, `hold` says what is wanted."""
    query = select(JobRow.verdict, _study_state()).where(
        JobRow.id == held.job_id, JobRow.attempt == held.attempt, JobRow.state == JobState.LEASED
    )
    row = connection.execute(query).first()
    return row is not None and _wanted(row[0], row[1]) is Verdict.CONTINUE


def _study_state() -> ScalarSelect[str]:
    return select(StudyRow.state).where(StudyRow.id == JobRow.study_id).scalar_subquery()


def _wanted(verdict: str, study_state: str) -> Verdict:
    """Put a trial's own verdict and its study's state together: trials of a study that rests are given back."""
    if verdict == Verdict.CONTINUE and study_state in (StudyState.PAUSED, StudyState.STOPPED):
        return Verdict.PREEMPT
    return Verdict(verdict)


def record_start(connection: Connection, held: Claim, start: AttemptStart) -> None:
    """Write what an attempt runs on and where it went on from."""
    dialect = postgresql if connection.dialect.name == "postgresql" else sqlite
    surroundings = start.provenance
    connection.execute(
        dialect.insert(EnvironmentRow)
        .values(id=surroundings.digest, **surroundings.columns())
        .on_conflict_do_nothing(index_elements=["id"])
    )
    connection.execute(
        update(AttemptRow)
        .where(AttemptRow.job_id == held.job_id, AttemptRow.attempt == held.attempt)
        .values(
            pid=start.pid,
            log_path=str(start.log_path),
            resumed_epoch=start.resumed_epoch,
            neuron_backend=start.neuron_backend,
            environment_id=surroundings.digest,
        )
    )


def record_epochs(connection: Connection, held: Claim, reports: Sequence[EpochReport]) -> None:
    """Write epochs; one that is there already is overwritten, so a continued trial leaves neither gap nor double."""
    if not reports:
        return
    dialect = postgresql if connection.dialect.name == "postgresql" else sqlite
    epochs = dialect.insert(EpochRow).values(
        [
            {
                "job_id": held.job_id,
                "epoch": report.epoch,
                "attempt": held.attempt,
                "seconds": report.seconds,
                "reported_at": database_now(),
            }
            for report in reports
        ]
    )
    connection.execute(epochs.on_conflict_do_nothing(index_elements=["job_id", "epoch"]))
    metrics = dialect.insert(MetricRow)
    connection.execute(
        metrics.on_conflict_do_update(
            index_elements=["job_id", "epoch", "name"], set_={"value": metrics.excluded.value}
        ),
        [
            {"job_id": held.job_id, "epoch": report.epoch, "name": name, "value": value}
            for report in reports
            for name, value in report.metrics.items()
        ],
    )


def record_checkpoint(connection: Connection, held: Claim, saved: SavedCheckpoint) -> None:
    """Write that a checkpoint is safe on disk."""
    connection.execute(
        insert(CheckpointRow).values(
            job_id=held.job_id,
            attempt=held.attempt,
            epoch=saved.epoch,
            step=saved.step,
            path=str(saved.path),
            sha256=saved.sha256,
            size=saved.size,
            created_at=database_now(),
        )
    )


def forget_checkpoints(connection: Connection, job_id: int, kept: Sequence[Path]) -> None:
    """Drop the rows of checkpoints whose files are no longer kept."""
    connection.execute(
        delete(CheckpointRow).where(
            CheckpointRow.job_id == job_id, CheckpointRow.path.not_in([str(path) for path in kept])
        )
    )


def finish(connection: Connection, held: Claim, reason: EndReason, detail: str = "") -> JobState:
    """End an attempt and put the job where its reason belongs.

    Args:
        connection: a writing transaction.
        held: the claim that ends.
        reason: why it ended.
        detail: text for people: the last line of a traceback, the log's path.

    Returns:
        PENDING (goes on later under its number), DONE or FAILED.

    Raises:
        LeaseLostError: another worker has the job; nothing was written.
    """
    hold(connection, held)
    failures = connection.execute(select(JobRow.failures).where(JobRow.id == held.job_id)).scalar_one()
    failed = reason in RETRIES or reason in (EndReason.ERROR, EndReason.NAN)
    state = next_state(reason, failures)
    connection.execute(
        update(JobRow)
        .where(JobRow.id == held.job_id, JobRow.attempt == held.attempt)
        .values(
            state=state,
            failures=failures + int(failed),
            owner=None,
            lease_until=0.0,
            end_reason=None if state == JobState.PENDING else reason,
            end_detail=detail,
            ended_at=None if state == JobState.PENDING else database_now(),
        )
    )
    _end_attempt(connection, held.job_id, held.attempt, reason, detail)
    connection.execute(
        update(WorkerRow).where(WorkerRow.job_id == held.job_id).values(job_id=None, last_beat=database_now())
    )
    if state == JobState.PENDING and _end_cancelled(connection, [held.job_id]):
        return JobState.FAILED
    return state


def next_state(reason: EndReason, failures: int) -> JobState:
    """Tell what becomes of a job whose attempt ended.

    Args:
        reason: why the attempt ended.
        failures: attempts of this job that failed before this one.
    """
    if reason in (EndReason.PREEMPTED, EndReason.LOST):
        return JobState.PENDING
    if reason in RETRIES:
        return JobState.PENDING if failures < RETRIES[reason] else JobState.FAILED
    if reason in (EndReason.ERROR, EndReason.NAN, EndReason.CANCELLED):
        return JobState.FAILED
    return JobState.DONE


def return_lost(connection: Connection, lost_owners: Sequence[str] = (), study_id: int | None = None) -> list[int]:
    """Give back the jobs whose lease ran out, or whose owner is known to be dead; they go on under their number.

    Args:
        connection: a writing transaction.
        lost_owners: ids of workers that are certainly dead.
        study_id: only jobs of this study; None takes all.

    Returns:
        Trial numbers that were given back.
    """
    expired = (JobRow.lease_until < database_now()) | JobRow.owner.in_(lost_owners)
    query = update(JobRow).where(JobRow.state == JobState.LEASED, expired)
    if study_id is not None:
        query = query.where(JobRow.study_id == study_id)
    rows = connection.execute(
        query.values(state=JobState.PENDING, owner=None, lease_until=0.0).returning(
            JobRow.id, JobRow.attempt, JobRow.trial_number
        )
    ).all()
    for row in rows:
        _end_attempt(connection, row.id, row.attempt, EndReason.LOST, "the worker died or could not be reached")
    _end_cancelled(connection, [row.id for row in rows])
    return [row.trial_number for row in rows]


def _end_cancelled(connection: Connection, job_ids: Sequence[int]) -> int:
    """End those of some jobs that came back although a person has cancelled them; return how many."""
    return connection.execute(
        update(JobRow)
        .where(JobRow.id.in_(job_ids), JobRow.state == JobState.PENDING)
        .where(JobRow.verdict_reason == EndReason.CANCELLED)
        .values(
            state=JobState.FAILED,
            end_reason=EndReason.CANCELLED,
            end_detail="cancelled while it ran",
            ended_at=database_now(),
        )
    ).rowcount


def _end_attempt(connection: Connection, job_id: int, attempt: int, reason: EndReason, detail: str) -> None:
    connection.execute(
        update(AttemptRow)
        .where(AttemptRow.job_id == job_id, AttemptRow.attempt == attempt)
        .values(ended_at=database_now(), end_reason=reason, end_detail=detail)
    )


def living_workers(database: Database, study_id: int | None = None) -> list[WorkerRow]:
    """Return the workers that have not said good-bye; some may be dead."""
    query = select(WorkerRow.__table__).where(WorkerRow.ended_at.is_(None))
    if study_id is not None:
        query = query.where(WorkerRow.study_id == study_id)
    with database.read() as connection:
        return [WorkerRow(**row._mapping) for row in connection.execute(query)]


def open_jobs(database: Database, study_id: int) -> int:
    """Return how many jobs of a study are pending, running, or ended but not yet told to Optuna."""
    query = select(func.count()).where(JobRow.study_id == study_id, JobRow.told.is_(False))
    with database.read() as connection:
        return int(connection.execute(query).scalar_one())


def trial_hours(database: Database, study_id: int) -> float:
    """Return the hours that all attempts of a study have run so far, in sum."""
    seconds = func.sum(func.coalesce(AttemptRow.ended_at, database_now()) - AttemptRow.started_at)
    query = select(seconds).join(JobRow, JobRow.id == AttemptRow.job_id).where(JobRow.study_id == study_id)
    with database.read() as connection:
        return float(connection.execute(query).scalar_one() or 0.0) / 3600.0


def worker_count(database: Database, study_id: int) -> int:
    """Return how many workers, of this host and of others, have lately been ready to work for a study."""
    query = select(func.count()).where(
        WorkerRow.ended_at.is_(None),
        WorkerRow.study_id.is_(None) | (WorkerRow.study_id == study_id),
        WorkerRow.last_beat > database_now() - LEASE_SECONDS,
    )
    with database.read() as connection:
        return int(connection.execute(query).scalar_one())
