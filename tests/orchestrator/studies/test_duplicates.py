"""Configurations that a study draws again: another seed, or the result that is there."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from sqlalchemy import select

from configs.resolve import config_hash, from_dict
from orchestrator.queue.jobs import WorkerIdentity, claim, finish
from orchestrator.queue.records import record_epochs
from orchestrator.reading.history import read_history
from orchestrator.storage.database import Database
from orchestrator.storage.study import Study, open_study
from orchestrator.storage.tables import EndReason, JobRow, JobState
from orchestrator.studies.ask_tell import AskTell
from search_spaces.load import load_space
from trainers.protocol import EpochReport

OPEN: list[Study] = []
TWO_KERNELS = {"encoder.kernel_size": {"type": "categorical", "choices": [3, 5]}}


@pytest.fixture(autouse=True)
def _close_studies() -> Iterator[None]:
    yield
    while OPEN:
        OPEN.pop().close()


def asker(database: Database, folder: Path, **changes: Any) -> AskTell:
    """Open, or go on with, a study over two configurations."""
    (folder / "base.yaml").write_text("model: {name: stal_srnn}\ntraining: {epochs: 2, seed: 7}\n")
    document: dict[str, Any] = {
        "name": "tiny",
        "base": "base.yaml",
        "parameters": TWO_KERNELS,
        "objectives": [
            {"metric": "val_accuracy", "direction": "maximize"},
            {"metric": "val_spike_density", "direction": "minimize"},
        ],
        "sampler": {"name": "random", "seed": 3},
        "budget": {"trials": 8},
    }
    path = folder / "tiny.yaml"
    path.write_text(yaml.safe_dump({**document, **changes}))
    OPEN.append(open_study(database, load_space(path)))
    return AskTell(database, OPEN[-1], folder / "runs", threads=1)


def work(database: Database) -> int | None:
    """Do the next job, if there is one; return its trial's number."""
    held = database.write(lambda connection: claim(connection, WorkerIdentity("w", "h/b", 1, 0.0, "cpu", 1)))
    if held is None:
        return None
    value = held.config["encoder"]["kernel_size"] / 10 + held.config["training"]["seed"] / 1000
    reports = [
        EpochReport(epoch, 2, {"val_accuracy": value * epoch, "val_spike_density": 1 / value}, 0.1) for epoch in (1, 2)
    ]
    database.write(lambda connection: record_epochs(connection, held, reports))
    database.write(lambda connection: finish(connection, held, EndReason.FINISHED))
    return held.trial_number


def jobs(database: Database) -> list[Any]:
    with database.read() as connection:
        return list(connection.execute(select(JobRow.__table__).order_by(JobRow.trial_number)).all())


def seeds(database: Database) -> dict[int, list[int]]:
    """Return kernel size -> seeds in the order of the trials."""
    found: dict[int, list[int]] = {}
    for job in jobs(database):
        found.setdefault(job.config["encoder"]["kernel_size"], []).append(job.config["training"]["seed"])
    return found


def test_a_configuration_that_comes_again_gets_the_next_seed(database: Database, tmp_path: Path) -> None:
    ask_tell = asker(database, tmp_path)
    for _ in range(8):
        ask_tell.ask()
    found = seeds(database)
    assert sorted(found) == [3, 5]
    assert all(numbers == list(range(7, 7 + len(numbers))) for numbers in found.values())
    assert len({job.config_hash for job in jobs(database)}) == 8
    assert all(config_hash(from_dict(job.config)) == job.config_hash for job in jobs(database))


def test_four_and_four_trials_with_a_restart_are_those_of_eight(local: Database, tmp_path: Path) -> None:
    for _ in range(2):
        ask_tell = asker(local, tmp_path)
        for _ in range(4):
            ask_tell.ask()
            work(local)
            ask_tell.tell_ended()
    halves = [(job.trial_number, job.config_hash) for job in jobs(local)]
    whole = asker(local, tmp_path, name="whole")
    for _ in range(8):
        whole.ask()
        work(local)
        whole.tell_ended()
    both = {(job.trial_number, job.config_hash) for job in jobs(local)}
    assert len(jobs(local)) == 16
    assert both == set(halves)


def test_with_reuse_the_result_is_told_again_and_nothing_is_trained(database: Database, tmp_path: Path) -> None:
    ask_tell = asker(database, tmp_path, duplicates="reuse")
    trained = []
    for _ in range(8):
        ask_tell.ask()
        trained.append(work(database))
        ask_tell.tell_ended()
    first = {job.config["encoder"]["kernel_size"]: job.trial_number for job in reversed(jobs(database))}
    assert {number for number in trained if number is not None} == set(first.values())
    assert {len(numbers) for numbers in seeds(database).values()} != {1}
    trials = OPEN[-1].optuna.trials
    assert {trial.state.name for trial in trials} == {"COMPLETE"}
    for trial in trials:
        source = first[trial.params["encoder.kernel_size"]]
        assert trial.user_attrs.get("same_as", trial.number) == source
        assert trial.values == trials[source].values
    history = read_history(database, "tiny")
    curves = history.curves("val_accuracy")
    assert all(curves[trial.number] == curves[first[trial.params["encoder.kernel_size"]]] for trial in history.trials)
    again = next(job for job in jobs(database) if job.trial_number not in first.values())
    assert (again.state, again.told, again.attempt) == (JobState.DONE, True, 0)
    assert again.run_dir == jobs(database)[first[again.config["encoder"]["kernel_size"]]].run_dir


def test_while_the_first_has_no_result_its_copy_is_a_replicate(local: Database, tmp_path: Path) -> None:
    ask_tell = asker(local, tmp_path, duplicates="reuse")
    for _ in range(8):
        ask_tell.ask()
    assert all(numbers == list(range(7, 7 + len(numbers))) for numbers in seeds(local).values())


def test_where_the_seed_is_drawn_it_is_never_changed(local: Database, tmp_path: Path) -> None:
    ask_tell = asker(local, tmp_path, parameters={"training.seed": {"type": "int", "low": 1, "high": 2}})
    for _ in range(6):
        ask_tell.ask()
        work(local)
        ask_tell.tell_ended()
    assert all(job.config["training"]["seed"] == job.params["training.seed"] for job in jobs(local))
    assert sum(job.attempt for job in jobs(local)) == 2
