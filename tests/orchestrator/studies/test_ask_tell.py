from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import optuna
import pytest
import yaml
from sqlalchemy import delete, event, select, update

from orchestrator.errors import StudyMismatchError, StudyNotFoundError
from orchestrator.machine.placement import shape_of
from orchestrator.queue.jobs import WorkerIdentity, claim, finish
from orchestrator.queue.records import record_epochs
from orchestrator.storage.database import Database, open_database
from orchestrator.storage.study import Study, find_row, open_study, require_row
from orchestrator.storage.tables import EndReason, JobRow, JobState
from orchestrator.studies.ask_tell import AskTell
from orchestrator.studies.control import begin
from orchestrator.studies.sampler import MAKERS
from search_spaces.load import load_space
from search_spaces.space import CheckedSpace
from trainers.protocol import EpochReport


def space(folder: Path, **changes: Any) -> CheckedSpace:
    """Load a space of one training file; `changes` replace its top-level keys."""
    (folder / "base.yaml").write_text("model: {name: stal_srnn}\nloss: {name: ce_ss}\ntraining: {epochs: 2}\n")
    document: dict[str, Any] = {
        "name": "tiny",
        "base": "base.yaml",
        "parameters": {
            "loss.omega": {"type": "float", "low": 1e-6, "high": 5e-4, "log": True},
            "training.batch_size": {"type": "int", "low": 8, "high": 64, "log": True},
            "encoder.kernel_size": {"type": "categorical", "choices": [3, 5]},
        },
        "objectives": [
            {"metric": "val_accuracy", "direction": "maximize"},
            {"metric": "val_spike_density", "direction": "minimize"},
        ],
        "sampler": {"name": "tpe", "seed": 3, "startup_trials": 4},
        "budget": {"trials": 8},
    }
    path = folder / "tiny.yaml"
    path.write_text(yaml.safe_dump({**document, **changes}))
    return load_space(path)


OPEN: list[Study] = []


@pytest.fixture(autouse=True)
def _close_studies() -> Iterator[None]:
    yield
    while OPEN:
        OPEN.pop().close()


def opened(database: Database, checked: CheckedSpace, **options: Any) -> Study:
    OPEN.append(open_study(database, checked, **options))
    return OPEN[-1]


def asker(database: Database, checked: CheckedSpace, folder: Path) -> tuple[Study, AskTell]:
    study = opened(database, checked)
    return study, AskTell(database, study, folder / "runs", threads=1)


def work(database: Database, reason: EndReason = EndReason.FINISHED, **metrics: float) -> None:
    """Do the next job: report two epochs whose numbers follow from its parameters, and end."""
    held = database.write(lambda connection: claim(connection, WorkerIdentity("w", "h/b", 1, 0.0, "cpu", 1)))
    assert held is not None
    omega = held.config["loss"]["omega"]
    numbers = metrics or {"val_accuracy": 1.0 - 500 * omega, "val_spike_density": 1e-6 / omega}
    reports = [
        EpochReport(epoch, 2, {name: value * epoch / 2 for name, value in numbers.items()}, 0.1) for epoch in (1, 2)
    ]
    database.write(lambda connection: record_epochs(connection, held, reports))
    database.write(lambda connection: finish(connection, held, reason))


def job(database: Database, number: int) -> Any:
    with database.read() as connection:
        return connection.execute(select(JobRow.__table__).where(JobRow.trial_number == number)).one()


def test_a_trial_becomes_a_job_with_its_whole_configuration(database: Database, tmp_path: Path) -> None:
    study, ask_tell = asker(database, space(tmp_path), tmp_path)
    assert ask_tell.ask() == 0
    row = job(database, 0)
    assert row.config["loss"]["omega"] == row.params["loss.omega"]
    assert row.config["training"]["batch_size"] == row.params["training.batch_size"]
    assert row.shape_hash == shape_of(row.config, "trainers:train")
    assert row.run_dir == str(tmp_path / "runs/tiny/trial_00000")
    assert study.optuna.trials[0].params == row.params


def test_values_of_the_last_epoch_are_told(database: Database, tmp_path: Path) -> None:
    study, ask_tell = asker(database, space(tmp_path), tmp_path)
    ask_tell.ask()
    work(database, val_accuracy=0.9, val_spike_density=0.2)
    assert ask_tell.tell_ended() == [0]
    assert ask_tell.tell_ended() == []
    (trial,) = study.optuna.trials
    assert (trial.state.name, trial.values) == ("COMPLETE", [0.9, 0.2])


def test_with_one_objective_optuna_sees_the_curve(database: Database, tmp_path: Path) -> None:
    checked = space(tmp_path, objectives=[{"metric": "val_accuracy", "direction": "maximize"}])
    study, ask_tell = asker(database, checked, tmp_path)
    ask_tell.ask()
    work(database, val_accuracy=0.9)
    ask_tell.tell_ended()
    assert study.optuna.trials[0].intermediate_values == {1: 0.45, 2: 0.9}
    assert study.optuna.best_value == 0.9


@pytest.mark.parametrize(
    ("reason", "metrics", "state"),
    [
        (EndReason.ERROR, {"val_accuracy": 0.9, "val_spike_density": 0.1}, "FAIL"),
        (EndReason.NAN, {"val_accuracy": 0.9, "val_spike_density": 0.1}, "FAIL"),
        (EndReason.RUNG, {"val_accuracy": 0.9, "val_spike_density": 0.1}, "PRUNED"),
        (EndReason.FINISHED, {"val_accuracy": 0.9}, "FAIL"),
    ],
)
def test_every_end_has_its_state_in_optuna(
    database: Database, tmp_path: Path, reason: EndReason, metrics: dict[str, float], state: str
) -> None:
    study, ask_tell = asker(database, space(tmp_path), tmp_path)
    ask_tell.ask()
    work(database, reason, **metrics)
    ask_tell.tell_ended()
    assert study.optuna.trials[0].state.name == state
    assert ask_tell.failures_in_row == (1 if job(database, 0).state == JobState.FAILED else 0)


def test_constraints_reach_the_sampler(database: Database, tmp_path: Path) -> None:
    checked = space(tmp_path, constraints=[{"metric": "val_spike_density", "max": 0.15}])
    study, ask_tell = asker(database, checked, tmp_path)
    for density in (0.2, 0.1):
        ask_tell.ask()
        work(database, val_accuracy=0.9, val_spike_density=density)
    ask_tell.tell_ended()
    broken, kept = (trial.constraints["val_spike_density"] for trial in study.optuna.trials)
    assert broken == pytest.approx(0.05)
    assert kept <= 0
    assert [trial.number for trial in study.optuna.best_trials] == [1]


def parameters_after(folder: Path, parts: list[int], sampler: str) -> list[dict[str, Any]]:
    """Search one trial at a time, opening everything anew between the parts; return all parameters."""
    folder.mkdir()
    total = 0
    for part in parts:
        database = open_database(f"sqlite:///{folder}/s.db", create=True)
        checked = space(folder, sampler={"name": sampler, "seed": 3, "startup_trials": 3})
        study, ask_tell = asker(database, checked, folder)
        for _ in range(part):
            ask_tell.ask()
            work(database)
            ask_tell.tell_ended()
        total += part
        assert ask_tell.told == total
        found = [trial.params for trial in study.optuna.trials]
        database.engine.dispose()
    return found


@pytest.mark.parametrize("sampler", ["tpe", "random", "qmc", "nsga2"])
def test_a_study_in_two_parts_draws_what_one_in_one_part_draws(tmp_path: Path, sampler: str) -> None:
    whole = parameters_after(tmp_path / "whole", [12], sampler)
    parts = parameters_after(tmp_path / "parts", [6, 6], sampler)
    assert parts == whole
    assert len({str(params) for params in whole}) == 12


def test_every_sampler_of_a_space_can_be_made() -> None:
    from search_spaces.space import Sampler

    assert set(MAKERS) == set(Sampler.model_fields["name"].annotation.__args__)


def test_a_trial_that_was_asked_but_not_queued_is_adopted_with_the_same_parameters(
    database: Database, tmp_path: Path
) -> None:
    checked = space(tmp_path)
    study, ask_tell = asker(database, checked, tmp_path)
    ask_tell.ask()
    ask_tell.ask()
    expected = job(database, 1).params
    with database.begin() as connection:
        connection.execute(delete(JobRow).where(JobRow.trial_number == 1))
    again = AskTell(database, opened(database, checked), tmp_path / "runs", threads=1)
    again.adopt_orphans()
    assert job(database, 1).params == expected
    assert again.ask() == 2
    assert Counter(trial.state.name for trial in study.optuna.trials) == {"RUNNING": 3}


def test_a_result_that_was_told_but_not_marked_is_told_once(database: Database, tmp_path: Path) -> None:
    checked = space(tmp_path, constraints=[{"metric": "val_spike_density", "max": 0.15}])
    study, ask_tell = asker(database, checked, tmp_path)
    ask_tell.ask()
    work(database, val_accuracy=0.9, val_spike_density=0.2)
    ask_tell.tell_ended()
    with database.begin() as connection:
        connection.execute(update(JobRow).values(told=False))
    assert ask_tell.tell_ended() == [0]
    assert study.optuna.trials[0].values == [0.9, 0.2]


def test_parameters_that_make_no_configuration_fail_one_trial_without_any_work(
    database: Database, tmp_path: Path
) -> None:
    checked = space(tmp_path)
    study, ask_tell = asker(database, checked, tmp_path)
    object.__setattr__(checked.space.parameters["encoder.kernel_size"], "choices", (0, -1))
    ask_tell.ask()
    assert ask_tell.tell_ended() == [0]
    assert study.optuna.trials[0].state is optuna.trial.TrialState.FAIL
    assert "kernel_size" in job(database, 0).end_detail


def test_another_space_is_refused_with_each_difference(database: Database, tmp_path: Path) -> None:
    opened(database, space(tmp_path))
    changed = space(tmp_path, parameters={"loss.omega": {"type": "float", "low": 1e-6, "high": 1e-3, "log": True}})
    with pytest.raises(StudyMismatchError, match=r"(?s)loss\.omega.*0\.0005.*0\.001.*--study NEW_NAME"):
        opened(database, changed)
    assert not opened(database, changed, name="other").resumed


def test_budget_and_workers_may_change_between_starts(database: Database, tmp_path: Path) -> None:
    opened(database, space(tmp_path))
    again = opened(database, space(tmp_path, budget={"trials": 9}, workers={"count": 3}), trials=11)
    assert again.resumed
    assert again.budget == 11
    begin(database, again.id, again.budget)  # as the controller does that gets the study
    row = find_row(database, "tiny")
    assert row is not None
    assert row.budget_trials == 11


def test_a_study_is_found_by_name_or_as_the_only_one(database: Database, tmp_path: Path) -> None:
    with pytest.raises(StudyNotFoundError, match="holds no study yet"):
        require_row(database, None)
    opened(database, space(tmp_path))
    assert require_row(database, None).name == "tiny"
    with pytest.raises(StudyNotFoundError, match=r"no study 'tinny'.*did you mean 'tiny'"):
        require_row(database, "tinny")
    opened(database, space(tmp_path), name="second")
    with pytest.raises(StudyNotFoundError, match="which study"):
        require_row(database, None)


# --- how much is written ----------------------------------------------------------------------------------------------


@pytest.fixture
def commits_and_statements(database: Database) -> tuple[list[str], list[str]]:
    """Return the lists to which every transaction and every statement of ours on the database is added."""
    commits: list[str] = []
    statements: list[str] = []
    event.listen(database.engine, "commit", lambda _: commits.append("commit"))
    event.listen(database.engine, "before_cursor_execute", lambda *call: statements.append(call[2]))
    return commits, statements


def test_a_trial_and_its_job_are_written_in_one_transaction(
    database: Database, tmp_path: Path, commits_and_statements: tuple[list[str], list[str]]
) -> None:
    commits, statements = commits_and_statements
    study, ask_tell = asker(database, space(tmp_path), tmp_path)
    ask_tell.ask()
    by_optuna: list[str] = []
    event.listen(study.storage.engine, "before_cursor_execute", lambda *call: by_optuna.append(call[2]))
    commits.clear()
    statements.clear()
    ask_tell.ask()
    assert len(commits) == 1
    assert len(statements) < 10, "a look for enqueued trials, the trial, its parameters, its job"
    assert by_optuna == []


def test_all_that_has_ended_is_told_in_one_transaction(
    database: Database, tmp_path: Path, commits_and_statements: tuple[list[str], list[str]]
) -> None:
    commits, statements = commits_and_statements
    checked = space(
        tmp_path,
        objectives=[{"metric": "val_accuracy", "direction": "maximize"}],
        constraints=[{"metric": "val_spike_density", "max": 0.15}],
    )
    _, ask_tell = asker(database, checked, tmp_path)
    used = []
    for count in (1, 6):
        for _ in range(count):
            ask_tell.ask()
            work(database)
        commits.clear()
        statements.clear()
        assert len(ask_tell.tell_ended()) == count
        assert len(commits) == 1
        used.append(len(statements))
    assert used[0] == used[1] < 12
