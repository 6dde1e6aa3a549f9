"""Claims on simulated GPUs: who gets which job follows from what was measured and from what runs."""

from __future__ import annotations

import multiprocessing
from dataclasses import replace

import pytest
from sqlalchemy import insert, update

from orchestrator.machine.placement import Seat
from orchestrator.queue.jobs import Claim, WorkerIdentity, claim, finish, register_worker
from orchestrator.storage.database import Database, open_database
from orchestrator.storage.tables import AttemptRow, EndReason, JobRow, StudyRow

MEMORY = 10_000.0


def worker(name: str, gpu: str | None = "GPU-a", share: float = 5_000.0) -> WorkerIdentity:
    seat = None if gpu is None else Seat(gpu, MEMORY, share)
    return WorkerIdentity(name, "host/boot", 1, 0.0, "cuda:0", 1, seat)


def seed(database: Database, *shapes: str) -> None:
    """Add a study with a pending job of each shape, trial numbers from 0."""
    with database.begin() as connection:
        connection.execute(
            insert(StudyRow).values(
                id=1, name="s", optuna_study_id=1, space_json="{}", space_hash="h", seed=1, budget_trials=9,
                created_at=0.0,
            )
        )  # fmt: skip
        for number, shape in enumerate(shapes):
            connection.execute(
                insert(JobRow).values(
                    study_id=1, trial_number=number, optuna_trial_id=number, config={}, config_hash="c", params={},
                    trainer="t:t", threads=1, run_dir="/r", created_at=0.0, shape_hash=shape,
                )
            )  # fmt: skip


def take(database: Database, who: WorkerIdentity) -> Claim | None:
    def action(connection: object) -> Claim | None:
        register_worker(connection, who, None)
        return claim(connection, who)

    return database.write(action)


def measure(database: Database, who: str, peak: float, reason: EndReason = EndReason.FINISHED) -> None:
    """Run the next job to its end with a peak of memory."""
    held = take(database, worker(who, gpu=None))
    assert held is not None

    def action(connection: object) -> None:
        connection.execute(update(AttemptRow).where(AttemptRow.job_id == held.job_id).values(peak_memory_mb=peak))
        finish(connection, held, reason)

    database.write(action)


def numbers(*claims: Claim | None) -> list[int | None]:
    return [held and held.trial_number for held in claims]


def test_unmeasured_trials_fill_a_gpu_by_shares(database: Database) -> None:
    seed(database, "x", "x", "x", "x")
    assert numbers(*(take(database, worker(name)) for name in "abc")) == [0, 1, None]
    assert numbers(take(database, worker("d", gpu="GPU-b"))) == [2]


def test_measured_trials_fill_it_by_their_peaks(database: Database) -> None:
    seed(database, "x", "x", "x", "x", "x", "x")
    measure(database, "m", 2_400.0)  # and 600 for CUDA: three fit
    assert numbers(*(take(database, worker(name)) for name in "abcd")) == [1, 2, 3, None]


def test_a_trial_that_does_not_fit_lets_a_smaller_one_pass(database: Database) -> None:
    seed(database, "large", "small", "small", "large", "small", "new")
    measure(database, "m1", 7_000.0)
    measure(database, "m2", 400.0)
    assert numbers(take(database, worker("a"))) == [2]
    assert numbers(take(database, worker("b"))) == [3]  # 9,000 free: the large one fits
    assert numbers(take(database, worker("c"))) == [4]  # 1,400 free: only the small one
    assert numbers(take(database, worker("d"))) == [None]  # 400 free, the new one counts for a share
    assert numbers(take(database, worker("e", gpu=None))) == [5]  # the CPU takes anything


def test_an_empty_gpu_takes_what_is_too_large(database: Database) -> None:
    seed(database, "huge", "huge")
    measure(database, "m", 50_000.0)
    assert numbers(take(database, worker("a")), take(database, worker("b"))) == [1, None]


def test_a_trial_that_ran_out_of_memory_was_not_measured(database: Database) -> None:
    seed(database, "x", "x", "x")
    measure(database, "m", 9_900.0, EndReason.OOM)
    assert numbers(*(take(database, worker(name)) for name in "ab")) == [1, 2]


def test_jobs_of_before_shapes_were_stored_count_for_shares(database: Database) -> None:
    seed(database, "", "", "", "")
    measure(database, "m", 100.0)
    assert numbers(*(take(database, worker(name)) for name in "abc")) == [1, 2, None]


def grab(url: str, name: str, gate: object, found: object) -> None:
    """Claim at the same moment as the others; runs in a process of its own."""
    database = open_database(url)
    gate.wait()
    held = take(database, worker(name))
    found.put(held and held.trial_number)
    database.engine.dispose()


@pytest.mark.parametrize("any_url", ["sqlite", "postgresql"], indirect=True)
def test_workers_that_ask_at_once_never_overfill_a_gpu(any_url: str) -> None:
    database = open_database(any_url, create=True)
    seed(database, *["x"] * 6)
    context = multiprocessing.get_context("spawn")
    gate, found = context.Barrier(5), context.Queue()
    processes = [context.Process(target=grab, args=(any_url, f"w{k}", gate, found)) for k in range(5)]
    for process in processes:
        process.start()
    taken = [found.get(timeout=60) for _ in processes]
    for process in processes:
        process.join()
    assert sum(number is not None for number in taken) == 2
    database.engine.dispose()


def test_trials_of_several_processes_wait_for_as_many_gpus(database: Database) -> None:
    seed(database, "x", "x")
    with database.begin() as connection:
        several = {"training": {"processes": 2}}
        connection.execute(update(JobRow).where(JobRow.trial_number == 0).values(config=several))
    pair = replace(worker("pair"), seat=Seat("GPU-b", MEMORY, MEMORY, gpus=2))
    assert numbers(take(database, worker("a")), take(database, worker("b"))) == [1, None]
    assert numbers(take(database, pair)) == [0]
