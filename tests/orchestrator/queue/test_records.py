"""What an attempt reports is in its tables, each thing once."""

from __future__ import annotations

from pathlib import Path

from queued_jobs import rows, seed, take
from sqlalchemy import update

from orchestrator.machine.provenance import provenance
from orchestrator.queue.jobs import return_lost
from orchestrator.queue.records import (
    AttemptStart,
    drop_overtaken_epochs,
    forget_checkpoints,
    record_checkpoint,
    record_epochs,
    record_peaks,
    record_start,
)
from orchestrator.storage.database import Database
from orchestrator.storage.tables import AttemptRow, CheckpointRow, EnvironmentRow, EpochRow, JobRow, MetricRow
from trainers.protocol import EpochReport, RunFacts, SavedCheckpoint

FACTS = RunFacts("cpu", "torch", 3, 10, 64, micro_batch=16, learning_rate=0.01, seed=7, deterministic=True)


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
        start = AttemptStart(7, Path("/r/log"), FACTS, provenance("cpu"))
        database.write(lambda connection, held=held, start=start: record_start(connection, held, start))
    (environment,) = rows(database, EnvironmentRow)
    assert environment.packages["optuna"].startswith("5.")
    assert {row.environment_id for row in rows(database, AttemptRow)} == {environment.id}


def test_what_an_attempt_ran_with_and_what_it_took_is_in_its_row(database: Database) -> None:
    seed(database, 1)
    held = take(database)
    start = AttemptStart(7, Path("/r/log"), FACTS, provenance("cpu"))
    database.write(lambda connection: record_start(connection, held, start))
    database.write(lambda connection: record_peaks(connection, held, None, 512.5))
    (row,) = rows(database, AttemptRow)
    assert (row.pid, row.log_path, row.resumed_epoch, row.neuron_backend) == (7, "/r/log", 3, "torch")
    assert (row.effective_batch, row.micro_batch, row.learning_rate) == (64, 16, 0.01)
    assert (row.seed, row.deterministic) == (7, True)
    assert (row.peak_memory_mb, row.peak_rss_mb) == (None, 512.5)


def test_a_trial_that_ends_before_its_predecessors_last_epoch_keeps_only_its_own_curve(database: Database) -> None:
    seed(database, 2)
    first, other = take(database), take(database)
    reports = [EpochReport(epoch, 9, {"val_loss": 1.0 / epoch}, 1.0) for epoch in range(1, 6)]
    for held in (first, other):
        database.write(lambda connection, held=held: record_epochs(connection, held, reports))
    with database.begin() as connection:
        connection.execute(update(JobRow).where(JobRow.id == first.job_id).values(lease_until=1.0))
    database.write(return_lost)
    second = take(database)
    database.write(lambda connection: record_epochs(connection, second, reports[:3]))
    database.write(lambda connection: drop_overtaken_epochs(connection, second))
    assert [(row.job_id, row.epoch, row.attempt) for row in rows(database, EpochRow)] == [
        *((first.job_id, epoch, 2) for epoch in (1, 2, 3)),
        *((other.job_id, epoch, 1) for epoch in (1, 2, 3, 4, 5)),
    ]
    assert len(rows(database, MetricRow)) == 8
