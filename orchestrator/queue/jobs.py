"""The job table: who works on which trial, and what they report; every write carries the attempt as a fencing token.

Statements that each trial needs are built once: building one takes longer than running it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from sqlalchemy import Boolean, ColumnElement, Connection, Select, bindparam, case, func, insert, select, update
from sqlalchemy.sql.dml import ReturningUpdate

from orchestrator.errors import LeaseLostError
from orchestrator.machine.placement import Seat
from orchestrator.queue.faults import POLICIES, can_halve, next_state, with_smaller_batches
from orchestrator.queue.gpu_room import fitting
from orchestrator.queue.timing import lease_seconds
from orchestrator.storage.database import Database, database_now
from orchestrator.storage.tables import (
    AttemptRow,
    EndReason,
    JobRow,
    JobState,
    StudyRow,
    StudyState,
    WorkerRow,
)
from trainers.protocol import Verdict


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
        seat: its share of a GPU; None on the CPU.
    """

    id: str
    host: str
    pid: int
    process_started: float
    device: str
    threads: int
    seat: Seat | None = None


@dataclass(frozen=True, slots=True)
class Claim:
    """A job that this worker now holds.

    Args:
        job_id: key in `sb_jobs`.
        attempt: number of this attempt at it, the fencing token.
        study_id: its study.
        trial_number: Optuna's number of the trial.
        config: the trial's resolved configuration.
        trainer: "module:function".
        threads: CPU threads.
        run_dir: the trial's folder.
        halvings: how often its batches have been halved because memory ran out.
    """

    job_id: int
    attempt: int
    study_id: int
    trial_number: int
    config: dict[str, Any]
    trainer: str
    threads: int
    run_dir: Path
    halvings: int = 0

    @property
    def attempt_config(self) -> dict[str, Any]:
        """The job's configuration, with batches as small as earlier attempts have shown to be needed."""
        return with_smaller_batches(self.config, self.halvings)


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
            gpu=worker.seat and worker.seat.gpu,
            gpu_memory_mb=worker.seat and worker.seat.memory_mb,
            gpu_share_mb=worker.seat and worker.seat.share_mb,
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


_SEEN = update(WorkerRow).values(last_beat=database_now())
_WITHOUT_JOB = _SEEN.where(WorkerRow.id == bindparam("worker")).values(job_id=None)
_WITH_JOB = _SEEN.where(WorkerRow.id == bindparam("worker")).values(job_id=bindparam("job"))
_ALIVE = _SEEN.where(WorkerRow.id == bindparam("worker"))
_LEFT_JOB = _SEEN.where(WorkerRow.job_id == bindparam("job")).values(job_id=None)


def beat(connection: Connection, worker_id: str) -> None:
    """Write that a worker without work is alive."""
    connection.execute(_WITHOUT_JOB, {"worker": worker_id})


def work_waits(connection: Connection, study_id: int | None = None) -> bool:
    """Tell, by a read alone, whether a job is pending; `claim` says whether it may be taken.

    Args:
        connection: a transaction.
        study_id: only jobs of this study; None looks at all.
    """
    query = _pending(of_study=study_id is not None)
    return connection.execute(query, {"study": study_id}).first() is not None


@cache
def _pending(*, of_study: bool) -> Select[int]:
    """Select the next pending job; the order is that of an index, so that no other job is looked at."""
    query = select(JobRow.id).where(JobRow.state == JobState.PENDING)
    if of_study:
        query = query.where(JobRow.study_id == bindparam("study"))
    return query.order_by(JobRow.priority, JobRow.id).limit(1)


def claim(connection: Connection, worker: WorkerIdentity, study_id: int | None = None) -> Claim | None:
    """Take the next pending job of a study that runs and whose trial fits on the worker's GPU, or None.

    One statement finds and takes it, so no two workers ever hold the same job: PostgreSQL skips rows that another has
    locked, SQLite has the writer's lock for the whole transaction.

    Args:
        connection: a writing transaction.
        worker: who takes it.
        study_id: only jobs of this study; None takes any.
    """
    kind = {"of_study": study_id is not None, "skip_locked": connection.dialect.name == "postgresql"}
    fits = fitting(connection, worker.seat)
    taking = _taking_any(**kind) if fits is None else _taking(_next_job(**kind).where(fits))
    whose = {"worker": worker.id, "worker_threads": worker.threads, "lease": lease_seconds(), "study": study_id}
    row = connection.execute(taking, whose).first()
    if row is None:
        return None
    connection.execute(
        _START_ATTEMPT,
        {"job_id": row.id, "attempt": row.attempt, "worker": worker.id, "host": worker.host, "device": worker.device},
    )
    connection.execute(_WITH_JOB, {"worker": worker.id, "job": row.id})
    return Claim(
        row.id,
        row.attempt,
        row.study_id,
        row.trial_number,
        row.config,
        row.trainer,
        row.threads,
        Path(row.run_dir),
        row.micro_batch_halvings,
    )


@cache
def _next_job(*, of_study: bool, skip_locked: bool) -> Select[int]:
    running = select(StudyRow.id).where(StudyRow.state == StudyState.RUNNING)
    query = _pending(of_study=of_study).where(JobRow.study_id.in_(running))
    return query.with_for_update(skip_locked=True) if skip_locked else query


@cache
def _taking_any(*, of_study: bool, skip_locked: bool) -> ReturningUpdate[*tuple[Any, ...]]:
    return _taking(_next_job(of_study=of_study, skip_locked=skip_locked))


def _taking(next_job: Select[int]) -> ReturningUpdate[*tuple[Any, ...]]:
    return (
        update(JobRow)
        .where(JobRow.id == next_job.scalar_subquery())
        .values(
            state=JobState.LEASED,
            owner=bindparam("worker"),
            attempt=JobRow.attempt + 1,
            lease_until=database_now() + bindparam("lease"),
            threads=case((JobRow.threads == 0, bindparam("worker_threads")), else_=JobRow.threads),
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
            JobRow.micro_batch_halvings,
        )
    )


_START_ATTEMPT = insert(AttemptRow).values(started_at=database_now())
_HELD = (JobRow.id == bindparam("job")) & (JobRow.attempt == bindparam("token")) & (JobRow.state == JobState.LEASED)
_STUDY_STATE = select(StudyRow.state).where(StudyRow.id == JobRow.study_id).scalar_subquery()
_RENEW = (
    update(JobRow)
    .where(_HELD)
    .values(lease_until=database_now() + bindparam("lease"))
    .returning(JobRow.verdict, JobRow.verdict_reason, JobRow.owner, _STUDY_STATE)
)
_LOOK = select(JobRow.verdict, _STUDY_STATE).where(_HELD)
_END_JOB = (
    update(JobRow)
    .where(_HELD)
    .values(
        state=bindparam("to_state"),
        failures=JobRow.failures + bindparam("failed"),
        micro_batch_halvings=bindparam("halvings"),
        owner=None,
        lease_until=0.0,
        end_reason=bindparam("reason"),
        end_detail=bindparam("detail"),
        ended_at=case((bindparam("ends", type_=Boolean), database_now()), else_=None),
    )
)
_END_ATTEMPT = (
    update(AttemptRow)
    .where(AttemptRow.job_id == bindparam("job"), AttemptRow.attempt == bindparam("token"))
    .values(ended_at=database_now(), end_reason=bindparam("reason"), end_detail=bindparam("detail"))
)


def hold(connection: Connection, held: Claim) -> tuple[Verdict, str | None]:
    """Renew the lease and return what is wanted of the trial.

    Raises:
        LeaseLostError: the job was given to another worker; nothing was written.
    """
    row = connection.execute(_RENEW, {**_token(held), "lease": lease_seconds()}).first()
    if row is None:
        raise _lost(held)
    connection.execute(_ALIVE, {"worker": row.owner})
    return _wanted(row.verdict, row[3]), row.verdict_reason


def _token(held: Claim) -> dict[str, int]:
    return {"job": held.job_id, "token": held.attempt}


def _lost(held: Claim) -> LeaseLostError:
    return LeaseLostError(
        f"trial {held.trial_number}, attempt {held.attempt}: the lease ran out and another worker has the trial"
    )


def goes_on(connection: Connection, held: Claim) -> bool:
    """Tell, by a read alone, whether a trial shall go on as before; where not, `hold` says what is wanted."""
    row = connection.execute(_LOOK, _token(held)).first()
    return row is not None and _wanted(row[0], row[1]) is Verdict.CONTINUE


def _wanted(verdict: str, study_state: str) -> Verdict:
    """Put a trial's own verdict and its study's state together: trials of a study that rests are given back."""
    if verdict == Verdict.CONTINUE and study_state in (StudyState.PAUSED, StudyState.STOPPED):
        return Verdict.PREEMPT
    return Verdict(verdict)


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
    state, halvings = _what_follows(connection, held, reason)
    pending = state == JobState.PENDING
    end = {
        "to_state": state,
        "failed": int(POLICIES[reason].after == JobState.FAILED),
        "halvings": halvings,
        "reason": None if pending else reason,
        "detail": detail,
        "ends": not pending,
    }
    if connection.execute(_END_JOB, {**_token(held), **end}).rowcount == 0:
        raise _lost(held)
    _end_attempt(connection, held.job_id, held.attempt, reason, detail)
    connection.execute(_LEFT_JOB, {"job": held.job_id})
    if pending and _end_cancelled(connection, [held.job_id]):
        return JobState.FAILED
    return state


def _what_follows(connection: Connection, held: Claim, reason: EndReason) -> tuple[JobState, int]:
    """Return the state of a job after an attempt, and how often its batches are then halved."""
    if POLICIES[reason].smaller and can_halve(held.config, held.halvings):
        return JobState.PENDING, held.halvings + 1
    before = 0
    if POLICIES[reason].retries:
        query = select(func.count()).where(AttemptRow.job_id == held.job_id, AttemptRow.end_reason == reason)
        before = int(connection.execute(query).scalar_one())
    return next_state(reason, before), held.halvings


def return_lost(
    connection: Connection, lost_owners: Sequence[str] = (), study_id: int | None = None, *, expired: bool = True
) -> list[int]:
    """Give back the jobs whose lease ran out, or whose owner is known to be dead; they go on under their number.

    Args:
        connection: a writing transaction.
        lost_owners: ids of workers that are certainly dead.
        study_id: only jobs of this study; None takes all.
        expired: leases that ran out count; not when nobody could renew them, because the database was away.

    Returns:
        Trial numbers that were given back.
    """
    lost: ColumnElement[bool] = JobRow.owner.in_(lost_owners)
    if expired:
        lost = lost | (JobRow.lease_until < database_now())
    query = update(JobRow).where(JobRow.state == JobState.LEASED, lost)
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
    connection.execute(_END_ATTEMPT, {"job": job_id, "token": attempt, "reason": reason, "detail": detail})


def living_workers(database: Database, study_id: int | None = None) -> list[WorkerRow]:
    """Return the workers that have not said good-bye; some may be dead."""
    query = select(WorkerRow.__table__).where(WorkerRow.ended_at.is_(None))
    if study_id is not None:
        query = query.where(WorkerRow.study_id == study_id)
    with database.read() as connection:
        return [WorkerRow(**row._mapping) for row in connection.execute(query)]


def trial_hours(database: Database, study_id: int) -> float:
    """Return the hours that all attempts of a study have run so far, in sum."""
    seconds = func.sum(func.coalesce(AttemptRow.ended_at, database_now()) - AttemptRow.started_at)
    query = select(seconds).join(JobRow, JobRow.id == AttemptRow.job_id).where(JobRow.study_id == study_id)
    with database.read() as connection:
        return float(connection.execute(query).scalar_one() or 0.0) / 3600.0


def worker_count(database: Database, study_id: int) -> int:
    """Return how many workers, of this host and of others, have lately been ready to work for a study."""
    with database.read() as connection:
        return int(connection.execute(_READY_WORKERS, {"study": study_id, "lease": lease_seconds()}).scalar_one())


_READY_WORKERS = select(func.count()).where(
    WorkerRow.ended_at.is_(None),
    WorkerRow.study_id.is_(None) | (WorkerRow.study_id == bindparam("study")),
    WorkerRow.last_beat > database_now() - bindparam("lease"),
)
