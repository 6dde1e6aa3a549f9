from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import optuna
import pytest
import yaml
from seeded import seed_study
from sqlalchemy import delete, insert, update

from orchestrator.reading.history import read_history
from orchestrator.reports import artifacts
from orchestrator.reports.artifact_shelf import Shelf
from orchestrator.reports.artifacts import CONFIG, RASTER, RATES, FrontTrial, Kept, keep_artifacts, lacking
from orchestrator.storage.database import Database
from orchestrator.storage.study import optuna_storage
from orchestrator.storage.tables import CheckpointRow, JobRow, MetricRow


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The trials that figures are made of; no model is run."""
    numbers: list[int] = []

    def figures(_: object, trial: FrontTrial) -> Iterator[tuple[str, bytes]]:
        numbers.append(trial.view.number)
        yield RATES, b"image"
        yield RASTER, b"image"

    monkeypatch.setattr(artifacts, "figures", figures)
    return numbers


@pytest.fixture
def front(local: Database, tmp_path: Path) -> list[int]:
    """A study of ten trials with their checkpoints; the numbers of its front."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    storage = optuna_storage(local)
    optuna.create_study(storage=storage, study_name="stal_loss", directions=["maximize", "minimize"])
    storage.engine.dispose()
    seed_study(local, trials=10, epochs=2, accidents=False, runs=tmp_path)
    with local.begin() as connection:
        for number in range(10):
            path = tmp_path / "stal_loss" / f"trial_{number:05d}" / "ckpt-00002-0000000.pt"
            path.parent.mkdir(parents=True)
            path.write_bytes(b"weights")
            row = {"job_id": number + 1, "attempt": 1, "epoch": 2, "step": 0, "path": str(path)}
            connection.execute(insert(CheckpointRow).values(**row, sha256="", size=7, created_at=0.0))
    return sorted(trial.number for trial in read_history(local, "stal_loss").front.trials)


def keep(database: Database, folder: Path) -> tuple[Kept, list[str]]:
    notes: list[str] = []
    return keep_artifacts(database, "stal_loss", folder / "artifacts", notes.append), notes


def on_the_shelf(database: Database, folder: Path) -> dict[int, set[str]]:
    shelf = Shelf(database, read_history(database, "stal_loss").study, folder / "artifacts")
    return {optuna_id - 1: names for optuna_id, names in shelf.names().items()}  # by the trial's number


def test_every_trial_of_the_front_gets_its_files_once(
    local: Database, tmp_path: Path, front: list[int], drawn: list[int]
) -> None:
    assert 1 < len(front) < 10
    assert lacking(local, "stal_loss", tmp_path / "artifacts") == tuple(front)
    assert keep(local, tmp_path) == (Kept(len(front), tuple(front), 0, ()), [])
    assert on_the_shelf(local, tmp_path) == {key: {RATES, RASTER, CONFIG, "ckpt-00002-0000000.pt"} for key in front}
    assert keep(local, tmp_path) == (Kept(len(front), (), 0, ()), [])
    assert drawn == front
    assert lacking(local, "stal_loss", tmp_path / "artifacts") == ()
    texts = [path.read_bytes() for path in (tmp_path / "artifacts").iterdir()]
    assert [yaml.safe_load(text)["model"]["name"] for text in texts if b"model:" in text] == ["stal_srnn"] * len(front)


def test_a_trial_that_leaves_the_front_loses_its_files(
    local: Database, tmp_path: Path, front: list[int], drawn: list[int]
) -> None:
    keep(local, tmp_path)
    winner = next(number for number in range(10) if number not in front)
    with local.begin() as connection:  # now it is better than all others
        values = {"val_accuracy": 1.0, "val_spike_density": 0.0}
        for name, value in values.items():
            better = update(MetricRow).where(MetricRow.job_id == winner + 1, MetricRow.name == name)
            connection.execute(better.values(value=value))
    assert keep(local, tmp_path)[0] == Kept(1, (winner,), len(front), ())
    assert list(on_the_shelf(local, tmp_path)) == [winner]
    assert len(list((tmp_path / "artifacts").iterdir())) == 4
    assert (tmp_path / "stal_loss" / f"trial_{front[0]:05d}" / "ckpt-00002-0000000.pt").exists()


def test_one_that_cannot_be_drawn_does_not_cost_the_others_theirs(
    local: Database, tmp_path: Path, front: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    tries = []

    def figures(_: object, trial: FrontTrial) -> Iterator[tuple[str, bytes]]:
        tries.append(trial.view.number)
        if trial.view.number == front[0]:
            raise RuntimeError("shapes do not fit")
        yield RASTER, b"image"

    monkeypatch.setattr(artifacts, "figures", figures)
    kept, notes = keep(local, tmp_path)
    assert notes == [f"trial {front[0]} has no figures: RuntimeError: shapes do not fit"]
    assert kept.lacking == (front[0],)
    assert on_the_shelf(local, tmp_path)[front[0]] == {CONFIG, "ckpt-00002-0000000.pt"}
    assert on_the_shelf(local, tmp_path)[front[1]] == {RASTER, CONFIG, "ckpt-00002-0000000.pt"}
    keep(local, tmp_path)
    assert tries == [*front, front[0]]  # it is tried again


def test_without_checkpoints_there_is_the_configuration(
    local: Database, tmp_path: Path, front: list[int], drawn: list[int]
) -> None:
    with local.begin() as connection:
        connection.execute(delete(CheckpointRow))
    assert keep(local, tmp_path)[0].made == tuple(front)
    assert on_the_shelf(local, tmp_path) == {key: {CONFIG} for key in front}
    assert drawn == []


def test_checkpoints_of_another_trainer_are_not_looked_into(
    local: Database, tmp_path: Path, front: list[int], drawn: list[int]
) -> None:
    with local.begin() as connection:
        connection.execute(update(JobRow).values(trainer="mine:train"))
    keep(local, tmp_path)
    assert on_the_shelf(local, tmp_path) == {key: {CONFIG, "ckpt-00002-0000000.pt"} for key in front}
    assert drawn == []
