"""Many workers on one queue of short trials: no error, no trial twice, none left over."""

from __future__ import annotations

import multiprocessing
import os
from collections import Counter
from typing import Any

import pytest
from queued_jobs import rows, seed, worker

from orchestrator.machine.provenance import provenance
from orchestrator.queue.jobs import claim, finish, hold, register_worker
from orchestrator.queue.records import AttemptStart, record_epochs, record_start
from orchestrator.storage.database import open_database
from orchestrator.storage.tables import AttemptRow, EndReason, EpochRow, JobRow, JobState, WorkerRow
from orchestrator.workers.trial_process import TrialSpec
from trainers.protocol import EpochReport, RunFacts

pytestmark = pytest.mark.system

EACH = 200  # trials for each worker, on average


def work(url: str, name: str, start: Any, done: Any) -> None:
    """Take trials and write what a real one writes, until none is left."""
    database = open_database(url)
    me = worker(name)
    database.write(lambda connection: register_worker(connection, me, 1))
    surroundings = provenance("cpu")
    start.wait()
    taken = []
    while (held := database.write(lambda connection: claim(connection, me, 1))) is not None:
        spec = TrialSpec(held.config, held.trainer, held.run_dir, "cpu", held.threads, held.attempt)
        begin = AttemptStart(os.getpid(), spec.log_path, RunFacts("cpu", "none", 0, 1, 1), surroundings)
        report = EpochReport(1, 1, {"val_accuracy": held.trial_number / 1e6, "val_loss": 1.0}, 0.0)

        def conclude(connection: Any, held: Any = held, begin: Any = begin, report: Any = report) -> None:
            hold(connection, held)
            record_start(connection, held, begin)
            record_epochs(connection, held, [report])
            finish(connection, held, EndReason.FINISHED)

        database.write(conclude)
        taken.append(held.trial_number)
    done.put(taken)
    database.engine.dispose()


@pytest.mark.parametrize(("url", "workers"), [("sqlite_url", 4), ("pg_url", 8)])
def test_every_trial_is_done_once(request: pytest.FixtureRequest, url: str, workers: int) -> None:
    address = str(request.getfixturevalue(url))
    trials = workers * EACH
    database = open_database(address, create=True)
    seed(database, trials)
    context = multiprocessing.get_context("spawn")
    start, done = context.Event(), context.Queue()
    processes = [context.Process(target=work, args=(address, f"w{k}", start, done)) for k in range(workers)]
    for process in processes:
        process.start()
    start.set()
    taken = [number for _ in processes for number in done.get(timeout=200)]
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0] * workers
    assert sorted(taken) == list(range(trials))
    assert Counter((job.state, job.attempt, job.end_reason) for job in rows(database, JobRow)) == {
        (JobState.DONE, 1, EndReason.FINISHED): trials
    }
    assert len(rows(database, AttemptRow)) == len(rows(database, EpochRow)) == trials
    assert [row.job_id for row in rows(database, WorkerRow)] == [None] * workers
    database.engine.dispose()
