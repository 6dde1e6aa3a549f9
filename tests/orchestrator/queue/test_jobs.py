from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from queued_jobs import rows, seed, take, worker
from sqlalchemy import select, update

from orchestrator.errors import LeaseLostError
from orchestrator.queue.jobs import (
    Claim,
    claim,
    finish,
    hold,
    register_worker,
    return_lost,
    trial_hours,
)
from orchestrator.queue.timing import DEFAULT_LEASE_SECONDS
from orchestrator.storage.database import Database, open_database
from orchestrator.storage.tables import AttemptRow, EndReason, JobRow, JobState, WorkerRow
from orchestrator.studies.control import standing
from trainers.protocol import Verdict


def expire(database: Database) -> None:
    with database.begin() as connection:
        connection.execute(update(JobRow).values(lease_until=1.0))


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
    numbers = sorted(done.get(timeout=120) for _ in range(60))
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
    assert left == pytest.approx(DEFAULT_LEASE_SECONDS, abs=5.0)
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
        ([EndReason.DEAD_SPIKES], JobState.DONE),
        ([EndReason.CRASH] * 2, JobState.PENDING),
        ([EndReason.CRASH] * 3, JobState.FAILED),
        ([EndReason.HANG] * 3, JobState.FAILED),
        ([EndReason.CRASH, EndReason.PREEMPTED, EndReason.HANG, EndReason.CRASH, EndReason.HANG], JobState.PENDING),
        ([EndReason.LOST] * 20, JobState.PENDING),
        ([EndReason.LOST] * 21, JobState.FAILED),
        ([EndReason.OOM], JobState.FAILED),  # the configuration of these jobs has no batch to halve
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


def test_each_time_memory_runs_out_the_next_attempt_takes_half_as_many_images_at_once(database: Database) -> None:
    seed(database, 1, {"training": {"batch_size": 12, "accumulation_steps": 2, "epochs": 3}})
    seen = []
    while True:
        held = take(database)
        seen.append(
            (held.attempt_config["training"]["batch_size"], held.attempt_config["training"]["accumulation_steps"])
        )
        if database.write(lambda connection, held=held: finish(connection, held, EndReason.OOM)) is JobState.FAILED:
            break
        held = take(database)
        database.write(lambda connection, held=held: finish(connection, held, EndReason.PREEMPTED))
    assert seen == [(12, 2), (6, 4), (3, 8)]
    (job,) = rows(database, JobRow)
    assert (job.end_reason, job.micro_batch_halvings, job.attempt) == (EndReason.OOM, 2, 5)
    assert job.config["training"] == {"batch_size": 12, "accumulation_steps": 2, "epochs": 3}


def test_jobs_of_dead_workers_go_back_at_once_and_others_stay(database: Database) -> None:
    seed(database, 2)
    take(database, "dead")
    take(database, "alive")
    assert database.write(lambda connection: return_lost(connection, ["dead"])) == [0]
    assert [job.state for job in rows(database, JobRow)] == [JobState.PENDING, JobState.LEASED]
    assert rows(database, AttemptRow)[0].end_reason == EndReason.LOST


def test_the_open_jobs_and_hours_of_a_study_are_counted(database: Database) -> None:
    seed(database, 3)
    assert standing(database, 1).open == 3
    held = take(database)
    database.write(lambda connection: finish(connection, held, EndReason.FINISHED))
    assert standing(database, 1).open == 3  # until Optuna has been told, the study is not at its end
    with database.begin() as connection:
        connection.execute(update(JobRow).where(JobRow.id == held.job_id).values(told=True))
    assert standing(database, 1).open == 2
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
