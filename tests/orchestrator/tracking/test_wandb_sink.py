from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
from seeded import seed_study
from wandb_files import read_runs

from configs.schema import Tracking
from orchestrator.errors import TrackingError
from orchestrator.storage.database import Database
from orchestrator.tracking import targets
from orchestrator.tracking.targets import WandbTarget, require_services, targets_of
from orchestrator.tracking.tracking import delivery, undelivered


def deliver(database: Database, study: int, folder: Path) -> list[str]:
    notes: list[str] = []
    target = WandbTarget("thesis", folder, offline=True)
    with delivery(database, study, [target], notes.append):
        pass  # a search that ends at once
    assert undelivered(database, study, "wandb") == (0, 0)
    return [note for note in notes if "last numbers" not in note]


@pytest.mark.system
def test_a_study_is_a_group_and_a_trial_a_run(
    local: Database, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    study = seed_study(local, trials=13, epochs=3)
    assert deliver(local, study, tmp_path / "runs") == []
    runs = {run.name: run for run in read_runs(tmp_path / "runs")}
    assert sorted(runs) == sorted(f"trial {number}" for number in range(13))
    assert {(run.project, run.group) for run in runs.values()} == {("thesis", "stal_loss")}
    first = runs["trial 0"]
    assert list(first.history) == [1, 2, 3]
    assert "val_accuracy" in first.history[3]
    assert first.config["training"]["epochs"] == 3
    assert "tracking" not in first.config
    assert (first.exit_code, first.summary["end_reason"]) == (0, "finished")
    assert runs["trial 12"].exit_code == 1
    assert len({run.id for run in runs.values()}) == 13
    assert capfd.readouterr() == ("", "")

    assert deliver(local, study, tmp_path / "runs") == []  # again: all is there
    assert len(read_runs(tmp_path / "runs")) == 13


@pytest.mark.system
def test_an_interrupted_trial_goes_on_in_its_run(local: Database, tmp_path: Path) -> None:
    study = seed_study(local, trials=0, running=1, epochs=8)
    with local.begin() as connection:
        held = hold_back_after(connection, 1)
    deliver(local, study, tmp_path)
    with local.begin() as connection:
        give_back(connection, held)
    deliver(local, study, tmp_path)
    before, after = read_runs(tmp_path)
    assert before.id == after.id
    assert (before.exit_code, list(before.history)) == (255, [1])
    assert 1 not in after.history
    assert next(iter(after.history)) == 2


def hold_back_after(connection: Any, epoch: int) -> list[tuple[Any, list[dict[str, Any]]]]:
    """Take the epochs after one out of the database, and return them."""
    from orchestrator.storage.tables import EpochRow, MetricRow

    held = []
    for row in (EpochRow, MetricRow):
        found = connection.execute(row.__table__.select().where(row.epoch > epoch))
        held.append((row, [dict(entry._mapping) for entry in found]))
        connection.execute(row.__table__.delete().where(row.epoch > epoch))
    return held


def give_back(connection: Any, held: list[tuple[Any, list[dict[str, Any]]]]) -> None:
    for row, entries in held:
        connection.execute(row.__table__.insert(), entries)


@pytest.mark.system
def test_the_command_line_is_not_stored(local: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["spikebench-search", "--storage", "postgresql://me:s3cr3t@host/x"])
    deliver(local, seed_study(local, trials=1, epochs=1), tmp_path)
    written = [path for path in tmp_path.rglob("*") if path.is_file() and not path.name.startswith("study.db")]
    assert len(written) > 1
    assert [path for path in written if b"s3cr3t" in path.read_bytes()] == []


def test_a_missing_package_is_one_clear_line(monkeypatch: pytest.MonkeyPatch) -> None:
    require_services(Tracking(wandb=True))
    monkeypatch.setattr(targets.importlib.util, "find_spec", lambda _: None)
    require_services(Tracking(mlflow=True))
    with pytest.raises(TrackingError, match=r"pip install 'spikebench\[wandb\]', or add --tracking.wandb false"):
        require_services(Tracking(wandb=True))


def test_a_configuration_names_its_services(tmp_path: Path) -> None:
    assert targets_of(Tracking(), tmp_path) == []
    both = Tracking(mlflow=True, mlflow_experiment="e", wandb=True, wandb_project="p", wandb_offline=True)
    mlflow, wandb = targets_of(both, tmp_path)
    assert mlflow == targets.MlflowTarget("sqlite:///runs/mlflow.db", "e")
    assert wandb == WandbTarget("p", tmp_path, offline=True)
