from __future__ import annotations

from dataclasses import replace

import pytest
from seeded import seed_study, seed_worker
from sqlalchemy import delete, event, insert, update

from orchestrator.errors import StudyNotFoundError
from orchestrator.reading.snapshot import SnapshotReader, StudySnapshot
from orchestrator.reading.views import TrialState
from orchestrator.storage.database import Database, database_now
from orchestrator.storage.tables import EndReason, EpochRow, JobRow, JobState, MetricRow, StudyRow, WorkerRow


def test_snapshot_shows_what_happens(database: Database) -> None:
    study = seed_study(database, trials=20, running=2, waiting=1, budget=30)
    seed_worker(database, "w0", study_id=study)
    seed_worker(database, "w1")
    snapshot = SnapshotReader(database, study).read()
    assert (len(snapshot.ended), len(snapshot.running), snapshot.waiting, snapshot.workers) == (20, 2, 1, 2)
    assert snapshot.count(TrialState.FAILED) == 1
    assert [trial.number for trial in snapshot.running] == [20, 21]
    running = snapshot.running[0]
    assert (running.epochs, running.device, running.host) == (10, "cuda:0", "gpubox")
    best = snapshot.best[0]
    assert best is not None
    assert best.values[0] == max(t.values[0] for t in snapshot.ended if t.state is TrialState.FINISHED)
    assert best in snapshot.front.trials


def test_reading_again_equals_reading_fresh(database: Database) -> None:
    study = seed_study(database, trials=10, running=2, waiting=1, budget=30, epochs=3)
    reader = SnapshotReader(database, study)
    reader.read()
    with database.begin() as connection:
        number = {"job_id": 11, "epoch": 3}
        connection.execute(delete(EpochRow).where(EpochRow.job_id == 11))
        connection.execute(delete(MetricRow).where(MetricRow.job_id == 11))
        connection.execute(insert(EpochRow).values(**number, attempt=1, seconds=1.0, reported_at=database_now()))
        for name, value in (("val_accuracy", 0.999), ("val_spike_density", 1e-9)):
            connection.execute(insert(MetricRow).values(**number, name=name, value=value))
        ended = {"state": JobState.DONE, "end_reason": EndReason.FINISHED, "ended_at": database_now()}
        connection.execute(update(JobRow).where(JobRow.id == 11).values(ended))
        connection.execute(update(JobRow).where(JobRow.id == 13).values(state=JobState.LEASED))
    again, fresh = reader.read(), SnapshotReader(database, study).read()
    assert {t.number: t for t in again.ended}.keys() == {t.number: t for t in fresh.ended}.keys()
    assert again.ended[-1].number == 10
    assert [t.number for t in again.front.trials] == [t.number for t in fresh.front.trials] == [10]
    assert [t.number for t in again.running] == [t.number for t in fresh.running] == [11, 12]
    assert again.waiting == fresh.waiting == 0
    assert again.device_seconds == pytest.approx(fresh.device_seconds, rel=1e-3)


def test_new_jobs_are_seen_and_ended_ones_are_kept(local: Database) -> None:
    first = seed_study(local, trials=3, budget=9)
    reader = SnapshotReader(local, first)
    before = reader.read()
    seed_study(local, name="other", trials=2)
    with local.begin() as connection:
        connection.execute(update(JobRow).where(JobRow.id == 4).values(study_id=first, trial_number=3))
    after = reader.read()
    assert sorted(t.number for t in after.ended) == [0, 1, 2, 3]
    assert after.ended[3].number == 3
    assert after.ended[:3] == before.ended


def test_a_study_without_its_controller_is_interrupted(database: Database) -> None:
    study = seed_study(database, trials=2, budget=5)
    assert SnapshotReader(database, study).read().study.state == "interrupted"
    with database.begin() as connection:
        connection.execute(update(StudyRow).values(controller_lease_until=database_now() + 60))
    assert SnapshotReader(database, study).read().study.state == "running"
    with database.begin() as connection:
        connection.execute(update(StudyRow).values(state="complete", controller_lease_until=0.0))
    assert SnapshotReader(database, study).read().study.state == "complete"


def test_a_deleted_study_is_an_error(local: Database) -> None:
    with pytest.raises(StudyNotFoundError, match="7"):
        SnapshotReader(local, 7).read()


def test_silent_workers_do_not_count(local: Database) -> None:
    study = seed_study(local, trials=1)
    seed_worker(local, "w0", study_id=study)
    with local.begin() as connection:
        connection.execute(update(WorkerRow).values(last_beat=database_now() - 600))
    assert SnapshotReader(local, study).read().workers == 0


def read(local: Database, **changes: object) -> StudySnapshot:
    return SnapshotReader(local, seed_study(local, **changes)).read()


def test_time_left_is_estimated_from_ended_trials(local: Database) -> None:
    snapshot = read(local, trials=20, running=2, budget=60, accidents=False)
    typical = sum(t.seconds for t in snapshot.ended) / 20
    running = tuple(replace(t, epoch=5, epochs=10, epoch_seconds=2.0, elapsed=10.0) for t in snapshot.running)
    left = replace(snapshot, running=running).seconds_left
    assert left == pytest.approx((38 * typical + 2 * 10.0) / 2)


def test_time_left_before_the_first_end_comes_from_epochs(local: Database) -> None:
    snapshot = read(local, trials=0, running=2, budget=2)
    running = tuple(replace(t, epoch=4, epochs=10, epoch_seconds=3.0) for t in snapshot.running)
    assert replace(snapshot, running=running).seconds_left == pytest.approx(18.0)
    nothing = tuple(replace(t, epoch=0, epoch_seconds=None) for t in snapshot.running)
    assert replace(snapshot, running=nothing).seconds_left is None
    assert read(local, name="done", trials=3, budget=3).seconds_left == 0.0


def test_reading_again_takes_a_few_statements_and_keeps_what_has_ended(local: Database) -> None:
    study = seed_study(local, trials=1000, running=4, epochs=2, layers=())
    reader = SnapshotReader(local, study)
    first = reader.read()
    statements: list[str] = []
    event.listen(local.engine, "before_cursor_execute", lambda *call: statements.append(call[2]))
    again = reader.read()
    assert 0 < len(statements) < 10
    assert len(again.ended) == 1000
    assert all(new is old for new, old in zip(again.ended, first.ended, strict=True))
