from __future__ import annotations

import json
from pathlib import Path

import optuna
import pytest
from optuna.artifacts import FileSystemArtifactStore
from optuna_dashboard.artifact._backend import get_trial_artifact_meta, list_trial_artifacts
from seeded import seed_study

from orchestrator.reading.history import read_history
from orchestrator.reports.artifact_shelf import Shelf
from orchestrator.storage.database import Database
from orchestrator.storage.study import optuna_storage


@pytest.fixture
def shelf(database: Database, tmp_path: Path) -> Shelf:
    return new_shelf(database, tmp_path)


def new_shelf(database: Database, folder: Path, name: str = "stal_loss") -> Shelf:
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    storage = optuna_storage(database)
    study = optuna.create_study(storage=storage, study_name=name)
    for value in (1.0, 2.0):
        study.tell(study.ask(), value)
    storage.engine.dispose()
    seed_study(database, name=name, trials=2, epochs=2)
    return Shelf(database, read_history(database, name).study, folder / "artifacts")


def test_the_dashboard_finds_what_was_put_beside_an_ended_trial(
    shelf: Shelf, database: Database, tmp_path: Path
) -> None:
    shelf.put(1, "rates.png", b"image")
    shelf.put(1, "config.yaml", b"a: 1")
    assert shelf.names() == {1: {"rates.png", "config.yaml"}}
    storage = optuna_storage(database)
    trial, attrs = storage.get_trial(1), storage.get_study_system_attrs(1)
    listed = {meta["filename"]: meta for meta in list_trial_artifacts(attrs, trial.system_attrs, trial)}
    assert {name: meta["mimetype"] for name, meta in listed.items()} == {
        "rates.png": "image/png",
        "config.yaml": "text/yaml",
    }
    artifact = listed["rates.png"]["artifact_id"]
    assert get_trial_artifact_meta(storage, 1, 1, artifact) == listed["rates.png"]
    with FileSystemArtifactStore(tmp_path / "artifacts").open_reader(artifact) as file:
        assert file.read() == b"image"
    storage.engine.dispose()


def test_putting_twice_replaces(shelf: Shelf, tmp_path: Path) -> None:
    shelf.put(2, "rates.png", b"old")
    shelf.put(2, "rates.png", b"new")
    assert [path.read_bytes() for path in (tmp_path / "artifacts").iterdir()] == [b"new"]
    assert shelf.names() == {2: {"rates.png"}}


def test_a_checkpoint_takes_no_room_and_goes_with_its_trial(shelf: Shelf, tmp_path: Path) -> None:
    checkpoint = tmp_path / "ckpt-00001-0000000.pt"
    checkpoint.write_bytes(b"weights")
    shelf.link(1, checkpoint.name, checkpoint)
    shelf.link(1, checkpoint.name, checkpoint)
    assert checkpoint.stat().st_nlink == 2
    checkpoint.unlink()  # as the retention does when the trial leaves the front
    shelf.clear(1, {checkpoint.name})
    assert shelf.names() == {}
    assert list((tmp_path / "artifacts").iterdir()) == []


def test_without_hard_links_there_is_a_symbolic_one(
    shelf: Shelf, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError("another file system")

    monkeypatch.setattr("orchestrator.reports.artifact_shelf.os.link", refuse)
    checkpoint = tmp_path / "ckpt.pt"
    checkpoint.write_bytes(b"weights")
    shelf.link(1, checkpoint.name, checkpoint)
    (link,) = (tmp_path / "artifacts").iterdir()
    assert link.resolve() == checkpoint
    assert shelf.names() == {1: {"ckpt.pt"}}
    checkpoint.unlink()
    assert shelf.names() == {}


def test_what_people_attach_is_left_alone(shelf: Shelf, database: Database, tmp_path: Path) -> None:
    storage = optuna_storage(database)
    meta = {"artifact_id": "0a-1b", "filename": "rates.png", "mimetype": "image/png", "encoding": None}
    storage.set_study_system_attr(1, "dashboard:artifacts:1:0a-1b", json.dumps(meta))
    shelf.put(1, "rates.png", b"ours")
    (tmp_path / "artifacts" / "0a-1b").write_bytes(b"theirs")
    shelf.clear(1, {"rates.png"})
    assert "dashboard:artifacts:1:0a-1b" in storage.get_study_system_attrs(1)
    assert [path.name for path in (tmp_path / "artifacts").iterdir()] == ["0a-1b"]
    storage.engine.dispose()


def test_what_is_gone_is_missing(shelf: Shelf, database: Database, tmp_path: Path) -> None:
    shelf.put(1, "rates.png", b"deleted in the dashboard")
    storage = optuna_storage(database)
    (key,) = [key for key in storage.get_study_system_attrs(1) if key.startswith("dashboard:artifacts:")]
    storage.set_study_system_attr(1, key, json.dumps(None))
    storage.engine.dispose()
    shelf.put(2, "rates.png", b"another machine's folder")
    assert shelf.names() == {2: {"rates.png"}}
    for path in (tmp_path / "artifacts").iterdir():
        path.unlink()
    assert shelf.names() == {}
