from __future__ import annotations

import multiprocessing
import os
import time
from collections.abc import Iterator
from multiprocessing.context import ForkServerContext
from pathlib import Path
from typing import Any

import leash
import pytest
from sqlalchemy import insert, select, update

from configs.schema import RunConfig
from orchestrator.queue.jobs import WorkerIdentity, claim
from orchestrator.storage.database import Database, open_database
from orchestrator.storage.tables import AttemptRow, EndReason, EpochRow, JobRow, JobState, StudyRow
from orchestrator.workers.attempt import Attempt
from orchestrator.workers.doorbell import Doorbell, Ring
from orchestrator.workers.trial_handle import TrialHandles

SUPPORT = Path(__file__).parents[2] / "support"


@pytest.fixture(autouse=True)
def _fake_trainers_are_importable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(SUPPORT))


@pytest.fixture(scope="module")
def context() -> ForkServerContext:
    return multiprocessing.get_context("forkserver")


@pytest.fixture
def sqlite(sqlite_url: str) -> Iterator[Database]:
    database = open_database(sqlite_url, create=True)
    yield database
    database.engine.dispose()


def attempt(database: Database, context: ForkServerContext, trainer: str, run_dir: Path, epochs: int = 3) -> Attempt:
    """Queue one job of a fake trainer, claim it and return the attempt at it."""
    config = RunConfig.model_validate({"model": {"name": "stal_srnn"}, "training": {"epochs": epochs}})
    with database.begin() as connection:
        connection.execute(
            insert(StudyRow).values(
                id=1, name="s", optuna_study_id=1, space_json="", space_hash="", seed=1, budget_trials=1, created_at=0.0
            )
        )
        connection.execute(
            insert(JobRow).values(
                study_id=1, trial_number=0, optuna_trial_id=0, config=config.model_dump(mode="json"), config_hash="c",
                params={}, trainer=f"fake_trainers:{trainer}", threads=1, run_dir=str(run_dir), created_at=0.0,
            )
        )  # fmt: skip
    return again(database, context)


def again(database: Database, context: ForkServerContext) -> Attempt:
    held = database.write(lambda connection: claim(connection, WorkerIdentity("w", "h/b", os.getpid(), 0.0, "cpu", 1)))
    assert held is not None
    return Attempt(database, held, "cpu", TrialHandles(context))


def only(database: Database, table: type[Any]) -> Any:
    (row,) = all_of(database, table)
    return row


def all_of(database: Database, table: type[Any]) -> list[Any]:
    with database.read() as connection:
        return list(connection.execute(select(table.__table__).order_by(*table.__table__.primary_key)).all())


def test_a_trial_runs_to_its_end_and_everything_it_says_is_written(
    sqlite: Database, context: ForkServerContext, tmp_path: Path
) -> None:
    assert attempt(sqlite, context, "quick", tmp_path / "run").run(Doorbell(None)) is JobState.DONE
    assert [row.epoch for row in all_of(sqlite, EpochRow)] == [1, 2, 3]
    row = only(sqlite, AttemptRow)
    assert (row.end_reason, row.neuron_backend, row.resumed_epoch) == (EndReason.FINISHED, "none", 0)
    assert row.pid != os.getpid()
    assert (tmp_path / "run/config.yaml").read_text().count("name: stal_srnn") == 1


@pytest.mark.parametrize(
    ("trainer", "reason", "detail", "state"),
    [
        ("raises", EndReason.ERROR, "RuntimeError: the roof is leaking; log:", JobState.FAILED),
        ("diverges", EndReason.NAN, "loss is nan at epoch 2, step 3; log:", JobState.FAILED),
        ("out_of_memory", EndReason.OOM, "out of memory: MemoryError", JobState.PENDING),
        ("goes_silent", EndReason.DEAD_SPIKES, "no spiking layer fired", JobState.DONE),
        ("segfaults", EndReason.CRASH, "killed by SIGSEGV", JobState.PENDING),
        ("missing", EndReason.ERROR, "trainer 'fake_trainers:missing' cannot be loaded", JobState.FAILED),
    ],
)
def test_every_bad_end_has_its_reason_and_names_its_log(
    sqlite: Database,
    context: ForkServerContext,
    tmp_path: Path,
    trainer: str,
    reason: EndReason,
    detail: str,
    state: JobState,
) -> None:
    assert attempt(sqlite, context, trainer, tmp_path / "run").run(Doorbell(None)) is state
    row = only(sqlite, AttemptRow)
    assert row.end_reason == reason
    assert detail in row.end_detail
    assert "trial.log" in row.end_detail
    if reason is EndReason.ERROR:
        assert "Traceback" in (tmp_path / "run/trial.log").read_text()


def test_a_preempted_trial_goes_on_where_it_was(sqlite: Database, context: ForkServerContext, tmp_path: Path) -> None:
    theirs, ours = multiprocessing.Pipe()
    first = attempt(sqlite, context, "steady", tmp_path / "run", epochs=5)
    with leash.held(tmp_path / "run", 2, lambda _: theirs.send(Ring.LEAVE)):
        assert first.run(Doorbell(ours)) is JobState.PENDING
    assert [row.epoch for row in all_of(sqlite, EpochRow)] == [1, 2]
    assert again(sqlite, context).run(Doorbell(None)) is JobState.DONE
    assert [row.epoch for row in all_of(sqlite, EpochRow)] == [1, 2, 3, 4, 5]
    assert [row.end_reason for row in all_of(sqlite, AttemptRow)] == [EndReason.PREEMPTED, EndReason.FINISHED]
    assert all_of(sqlite, AttemptRow)[1].resumed_epoch == 2


def test_a_trial_that_was_given_to_another_is_ended_without_a_trace(
    sqlite: Database, context: ForkServerContext, tmp_path: Path
) -> None:
    late = attempt(sqlite, context, "steady", tmp_path / "run", epochs=5)

    def give_away(_: int) -> None:
        with sqlite.begin() as connection:
            connection.execute(update(JobRow).values(attempt=2, owner="other"))

    with leash.held(tmp_path / "run", 2, give_away):
        assert late.run(Doorbell(None)) is None
    count = len(all_of(sqlite, EpochRow))
    time.sleep(0.3)
    assert len(all_of(sqlite, EpochRow)) == count
    row = only(sqlite, JobRow)
    assert (row.state, row.attempt, row.owner) == (JobState.LEASED, 2, "other")


def test_a_stopped_trial_ends_with_the_reason_of_whoever_stopped_it(
    sqlite: Database, context: ForkServerContext, tmp_path: Path
) -> None:
    running = attempt(sqlite, context, "steady", tmp_path / "run", epochs=5)

    def stop(_: int) -> None:
        with sqlite.begin() as connection:
            connection.execute(update(JobRow).values(verdict="stop", verdict_reason="rung"))

    with leash.held(tmp_path / "run", 2, stop):
        assert running.run(Doorbell(None)) is JobState.DONE
    assert only(sqlite, JobRow).end_reason == EndReason.RUNG


def test_a_run_folder_that_cannot_be_written_fails_the_trial_and_says_where(
    sqlite: Database, context: ForkServerContext, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    assert attempt(sqlite, context, "quick", tmp_path / "file/run").run(Doorbell(None)) is JobState.FAILED
    assert f"cannot start the trial in {tmp_path}/file/run" in only(sqlite, JobRow).end_detail
