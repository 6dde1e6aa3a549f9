from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import insert, select, update

from orchestrator.database import Database, open_database
from orchestrator.errors import LeaseLostError
from orchestrator.jobs import (
    LEASE_SECONDS,
    AttemptStart,
    Claim,
    WorkerIdentity,
    claim,
    finish,
    forget_checkpoints,
    hold,
    open_jobs,
    record_checkpoint,
    record_epochs,
    record_start,
    register_worker,
    return_lost,
    trial_hours,
)
from orchestrator.provenance import provenance
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
    WorkerRow,
)
from trainers.protocol import EpochReport, SavedCheckpoint, Verdict


def worker(name: str = "w") -> WorkerIdentity:
    return WorkerIdentity(name, "host/boot", 1, 0.0, "cpu", 1)


def seed(database: Database, jobs: int) -> None:
    """Add a study with pending jobs, trial numbers from 0."""
    with database.begin() as connection:
        connection.execute(
            insert(StudyRow).values(
                id=1,
                name="s",
                optuna_study_id=1,
                space_json="{}",
                space_hash="h",
                seed=1,
                budget_trials=jobs,
                created_at=0.0,
            )
        )
        for number in range(jobs):
            connection.execute(
                insert(JobRow).values(
                    study_id=1, trial_number=number, optuna_trial_id=number, config={}, config_hash="c",
                    params={"a": 1}, trainer="t:t", threads=2, run_dir="/r", created_at=0.0,
                )
            )  # fmt: skip


def take(database: Database, name: str = "w") -> Claim:
    held = database.write(lambda connection: claim(connection, worker(name)))
    assert held is not None
    return held


def expire(database: Database) -> None:
    with database.begin() as connection:
        connection.execute(update(JobRow).values(lease_until=1.0))


def rows(database: Database, table: type[Any]) -> list[Any]:
    with database.read() as connection:
        return list(connection.execute(select(table.__table__).order_by(*table.__table__.primary_key)).all())


def claim_all(url: str, name: str, done: Any) -> None:
    database = open_database(url)
    while (held := database.write(lambda connection: claim(connection, worker(name)))) is not None:
        done.put(held.trial_number)


def test_no_two_processes_ever_claim_the_same_job(any_url: str) -> None:
    database = open_database(any_url, create=True)
    seed(database, 60)
    context = multiprocessing.get_context("spawn")
    done = context.Queue()
    processes = [context.Process(target=claim_all, args=(any_url, f"w{k}", done)) for k in range(4)]
    for process in processes:
        process.start()
    numbers = sorted(done.get(timeout=60) for _ in range(60))
    for process in processes:
        process.join()
        assert process.exitcode == 0
    assert numbers == list(range(60))
    assert done.empty()
    database.engine.dispose()


def test_a_claim_carries_what_the_trial_needs_and_counts_the_attempt(database: Database) -> None:
    seed(database, 1)
    held = take(database)
    assert (held.attempt, held.trial_number, held.threads, held.run_dir) == (1, 0, 2, Path("/r"))
    assert database.write(lambda connection: claim(connection, worker("other"))) is None
    (attempt,) = rows(database, AttemptRow)
    assert (attempt.worker, attempt.ended_at) == ("w", None)


def test_only_jobs_of_the_wanted_study_are_claimed(database: Database) -> None:
    seed(database, 1)
    assert database.write(lambda connection: claim(connection, worker(), study_id=2)) is None
    assert database.write(lambda connection: claim(connection, worker(), study_id=1)) is not None


WRITES: list[Callable[[Any, Claim], object]] = [
    hold,
    lambda connection, held: finish(connection, held, EndReason.FINISHED),
]


@pytest.mark.parametrize("write", WRITES)
def test_a_worker_that_was_replaced_can_write_nothing(
    database: Database, write: Callable[[Any, Claim], object]
) -> None:
    seed(database, 1)
    late = take(database, "late")
    expire(database)
    assert database.write(return_lost) == [0]
    successor = take(database, "successor")
    assert successor.attempt == late.attempt + 1
    with pytest.raises(LeaseLostError, match="attempt 1"):
        database.write(lambda connection: write(connection, late))
    database.write(lambda connection: finish(connection, successor, EndReason.FINISHED))
    (job,) = rows(database, JobRow)
    assert (job.state, job.attempt, job.end_reason) == (JobState.DONE, 2, EndReason.FINISHED)


def test_holding_a_job_renews_its_lease_and_hears_the_verdict(database: Database) -> None:
    seed(database, 1)
    held = take(database)
    expire(database)
    assert database.write(lambda connection: hold(connection, held)) == (Verdict.CONTINUE, None)
    with database.read() as connection:
        left = connection.execute(select(JobRow.lease_until)).scalar_one() - database.now(connection)
    assert left == pytest.approx(LEASE_SECONDS, abs=5.0)
    with database.begin() as connection:
        connection.execute(update(JobRow).values(verdict=Verdict.STOP, verdict_reason=EndReason.RUNG))
    assert database.write(lambda connection: hold(connection, held)) == (Verdict.STOP, EndReason.RUNG)


@pytest.mark.parametrize(
    ("reasons", "state"),
    [
        ([EndReason.FINISHED], JobState.DONE),
        ([EndReason.RUNG], JobState.DONE),
        ([EndReason.PREEMPTED] * 5, JobState.PENDING),
        ([EndReason.ERROR], JobState.FAILED),
        ([EndReason.NAN], JobState.FAILED),
        ([EndReason.CRASH] * 2, JobState.PENDING),
        ([EndReason.CRASH] * 3, JobState.FAILED),
        ([EndReason.PREEMPTED, EndReason.OOM, EndReason.CRASH, EndReason.OOM], JobState.FAILED),
    ],
)
def test_each_reason_puts_the_job_where_it_belongs(
    database: Database, reasons: list[EndReason], state: JobState
) -> None:
    seed(database, 1)
    for reason in reasons:
        held = take(database)
        ended = database.write(lambda connection, held=held, reason=reason: finish(connection, held, reason, "why"))
    assert ended == state
    (job,) = rows(database, JobRow)
    assert job.state == state
    assert (job.end_reason is None) == (state == JobState.PENDING)
    assert [row.end_reason for row in rows(database, AttemptRow)] == reasons


def test_jobs_of_dead_workers_go_back_at_once_and_others_stay(database: Database) -> None:
    seed(database, 2)
    take(database, "dead")
    take(database, "alive")
    assert database.write(lambda connection: return_lost(connection, ["dead"])) == [0]
    assert [job.state for job in rows(database, JobRow)] == [JobState.PENDING, JobState.LEASED]
    assert rows(database, AttemptRow)[0].end_reason == EndReason.LOST


def test_an_epoch_that_is_reported_twice_is_there_once(database: Database) -> None:
    seed(database, 1)
    held = take(database)
    first = EpochReport(1, 3, {"val_accuracy": 0.5, "val_loss": 2.0}, 1.5)
    second = EpochReport(2, 3, {"val_accuracy": 0.6, "val_loss": 1.0}, 1.5)
    database.write(lambda connection: record_epochs(connection, held, [first]))
    database.write(lambda connection: record_epochs(connection, held, [first, second]))
    assert [row.epoch for row in rows(database, EpochRow)] == [1, 2]
    metrics = {(row.epoch, row.name): row.value for row in rows(database, MetricRow)}
    assert metrics == {(1, "val_accuracy"): 0.5, (1, "val_loss"): 2.0, (2, "val_accuracy"): 0.6, (2, "val_loss"): 1.0}


def test_checkpoint_rows_follow_the_files(database: Database) -> None:
    seed(database, 1)
    held = take(database)
    for epoch in (1, 2, 3):
        saved = SavedCheckpoint(Path(f"/r/ckpt-{epoch}"), epoch, 0, "digest", 10)
        database.write(lambda connection, saved=saved: record_checkpoint(connection, held, saved))
    database.write(lambda connection: forget_checkpoints(connection, held.job_id, [Path("/r/ckpt-3")]))
    assert [row.path for row in rows(database, CheckpointRow)] == ["/r/ckpt-3"]


def test_equal_environments_share_a_row(database: Database) -> None:
    seed(database, 2)
    for _ in range(2):
        held = take(database)
        start = AttemptStart(7, Path("/r/log"), 0, "torch", provenance("cpu"))
        database.write(lambda connection, held=held, start=start: record_start(connection, held, start))
    (environment,) = rows(database, EnvironmentRow)
    assert environment.packages["optuna"].startswith("5.")
    assert {row.environment_id for row in rows(database, AttemptRow)} == {environment.id}


def test_the_open_jobs_and_hours_of_a_study_are_counted(database: Database) -> None:
    seed(database, 3)
    assert open_jobs(database, 1) == 3
    held = take(database)
    database.write(lambda connection: finish(connection, held, EndReason.FINISHED))
    assert open_jobs(database, 1) == 3  # until Optuna has been told, the study is not at its end
    with database.begin() as connection:
        connection.execute(update(JobRow).where(JobRow.id == held.job_id).values(told=True))
    assert open_jobs(database, 1) == 2
    with database.begin() as connection:
        connection.execute(update(AttemptRow).values(started_at=0.0, ended_at=7200.0))
    assert trial_hours(database, 1) == pytest.approx(2.0)


def test_a_workers_row_shows_what_it_works_on(database: Database) -> None:
    seed(database, 1)
    database.write(lambda connection: register_worker(connection, worker(), 1))
    held = take(database)
    assert rows(database, WorkerRow)[0].job_id == held.job_id
    database.write(lambda connection: finish(connection, held, EndReason.FINISHED))
    assert rows(database, WorkerRow)[0].job_id is None
