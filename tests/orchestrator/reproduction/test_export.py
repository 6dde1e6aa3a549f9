"""Exports: which trial, what is said of it, and that the file trains what the trial trained."""

from __future__ import annotations

from pathlib import Path

import pytest
from seeded import CONFIG, seed_study
from sqlalchemy import select, update

from configs.resolve import config_hash, from_dict, resolve, to_dict
from orchestrator.cli import main
from orchestrator.errors import OutputError, OutputExistsError, TrialNotFoundError
from orchestrator.reading.history import read_history
from orchestrator.reproduction.export import export_trial, write_export
from orchestrator.storage.database import Database
from orchestrator.storage.tables import JobRow, StudyRow

NAME = "stal_loss"


def test_the_default_is_the_front_trial_that_is_best_in_the_first_objective(database: Database) -> None:
    seed_study(database, trials=30)
    number, text = export_trial(database, NAME, None)
    front = read_history(database, NAME).front.trials
    assert number == max(front, key=lambda trial: (trial.values or ())[0]).number
    assert text.startswith(f"# Trial {number} of study stal_loss; of the feasible front the trial that is best in the")


def test_trials_that_break_a_constraint_are_not_chosen(local: Database) -> None:
    seed_study(local, trials=30, constraints=[{"metric": "val_spike_density", "max": 0.02}])
    history = read_history(local, NAME)
    number, text = export_trial(local, NAME, None)
    chosen = next(trial for trial in history.trials if trial.number == number)
    assert chosen.metrics["val_spike_density"] <= 0.02
    assert max(history.finished, key=lambda trial: (trial.values or ())[0]).number != number
    assert "# constraints: val_spike_density <= 0.02; kept" in text


def test_without_a_feasible_trial_a_number_must_be_given(local: Database) -> None:
    seed_study(local, trials=10, constraints=[{"metric": "val_accuracy", "min": 2.0}])
    with pytest.raises(TrialNotFoundError, match=r"keeps the constraints: give .* \(nearest to keeping them: \d+, "):
        export_trial(local, NAME, None)
    assert "; not kept" in export_trial(local, NAME, 4)[1]
    seed_study(local, name="empty", trials=0, waiting=2)
    with pytest.raises(TrialNotFoundError, match="no trial of study 'empty' has finished"):
        export_trial(local, "empty", None)
    assert "nothing measured after 0 epochs; not ended yet" in export_trial(local, "empty", 1)[1]
    with pytest.raises(TrialNotFoundError, match="its trials are 0 to 1"):
        export_trial(local, "empty", 7)


def test_the_file_reads_back_as_the_configuration_that_was_trained(local: Database, tmp_path: Path) -> None:
    odd = {
        **CONFIG,
        "loss": {"name": "ce_ss", "omega": 1e-06, "c": 0.1 + 0.2},
        "data": {"name": "mnist", "data_dir": "~/data: é # 'x' 1e-6"},
        "optimizer": {"name": "adamw", "learning_rate": 3.3e-05, "betas": [0.9, 0.999]},
        "training": {"epochs": 3, "batch_size": 48, "clip_grad_norm": None},
    }
    seed_study(local, trials=2)
    with local.begin() as connection:
        connection.execute(update(JobRow).values(config=to_dict(from_dict(odd))))
    path = tmp_path / "exported.yaml"
    write_export(export_trial(local, NAME, 1)[1], path)
    assert config_hash(resolve(path).config) == config_hash(from_dict(odd))
    with local.begin() as connection:
        connection.execute(update(JobRow).values(micro_batch_halvings=2))
    text = export_trial(local, NAME, 1)[1]
    assert "batches are halved 2 times" in text
    (tmp_path / "halved.yaml").write_text(text)
    training = resolve(tmp_path / "halved.yaml").config.training
    assert (training.batch_size, training.accumulation_steps) == (12, 4)


def test_what_it_says_of_the_trial_is_what_is_stored(local: Database) -> None:
    seed_study(local, trials=5)
    trial = read_history(local, NAME).trials[2]
    text = " ".join(line.removeprefix("#").strip() for line in export_trial(local, NAME, 2)[1].splitlines())
    for name in ("val_accuracy", "val_spike_density"):
        assert f"{name} = {trial.metrics[name]!r}" in text
    for key, value in trial.params.items():
        assert f"{key} = {value!r}" in text
    with local.read() as connection:
        space_hash = connection.execute(select(StudyRow.space_hash)).scalar_one()
    assert f"hash {space_hash}" in text
    assert f"configuration hash {trial.config_hash}" in text
    assert "spikebench train --config THIS_FILE --threads 1" in text
    assert "tracking" not in text


def test_a_file_that_is_there_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "folder" / "a.yaml"
    write_export("a: 1\n", path)
    with pytest.raises(OutputExistsError, match="is there already: delete it, or give another --out"):
        write_export("b: 1\n", path)
    assert path.read_text() == "a: 1\n"
    with pytest.raises(OutputError, match="cannot write"):
        write_export("b: 1\n", path / "inside.yaml")


def test_the_command_writes_the_file_and_says_how_to_train_it(
    local: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SPIKEBENCH_STORAGE", local.url)
    monkeypatch.chdir(tmp_path)
    seed_study(local, trials=5)
    with pytest.raises(SystemExit) as done:
        main(["export", NAME, "3"])
    assert not done.value.code
    assert "spikebench train --config stal_loss_trial_00003.yaml" in capsys.readouterr().out
    assert resolve(tmp_path / "stal_loss_trial_00003.yaml").config.training.epochs == 10
