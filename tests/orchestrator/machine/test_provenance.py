"""What is written down about code, packages and device."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path

import pytest
import torch

from orchestrator.machine import provenance as module
from orchestrator.machine.provenance import Provenance, provenance
from orchestrator.machine.slots import Gpu
from orchestrator.storage.tables import EnvironmentRow


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A checkout in which the code lies in `package/provenance.py`."""
    folder = tmp_path / "package"
    folder.mkdir()
    (folder / "provenance.py").write_text("first = 1\n")
    git(tmp_path, "init", "-q")
    git(tmp_path, "add", ".")
    commit(tmp_path)
    monkeypatch.setattr(module, "HERE", folder / "provenance.py")
    provenance.cache_clear()
    yield tmp_path
    provenance.cache_clear()


def git(folder: Path, *arguments: str) -> str:
    done = subprocess.run(["git", *arguments], cwd=folder, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def commit(folder: Path) -> None:
    git(folder, "-c", "user.name=a", "-c", "user.email=a@example.org", "commit", "-q", "-m", "Change")


def now() -> Provenance:
    provenance.cache_clear()
    return provenance("cpu")


def test_the_fields_are_the_columns() -> None:
    columns = {column.name for column in EnvironmentRow.__table__.columns} - {"id"}
    assert {field.name for field in fields(Provenance)} == columns


def test_the_packages_and_the_build_of_torch_are_those_of_this_process() -> None:
    found = provenance("cpu")
    assert found.torch == torch.__version__
    assert found.cuda == torch.version.cuda
    assert {"torch", "optuna", "spikingjelly"} <= found.packages.keys()
    assert found.device_name
    assert found.driver is None


def test_all_gpus_of_a_trial_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    there = tuple(Gpu(f"cuda:{n}", name, 1000, "570") for n, name in enumerate(("H100", "H100", "A100", "H100")))
    monkeypatch.setattr(module, "gpus", lambda: there)
    provenance.cache_clear()
    found = {device: provenance(device).device_name for device in ("cuda:1", "cuda:0,3", "cuda:1,2")}
    assert found == {"cuda:1": "H100", "cuda:0,3": "2 x H100", "cuda:1,2": "H100, A100"}
    assert provenance("cuda:0,3").driver == "570"
    provenance.cache_clear()


def test_a_clean_checkout_has_a_commit_and_no_dirty_hash(checkout: Path) -> None:
    assert now().git_commit == git(checkout, "rev-parse", "HEAD")
    assert now().git_dirty_hash is None


def test_a_changed_file_and_a_new_one_each_change_the_dirty_hash(checkout: Path) -> None:
    (checkout / "package" / "provenance.py").write_text("first = 2\n")
    changed = now().git_dirty_hash
    new = checkout / "other" / "new.py"
    new.parent.mkdir()
    new.write_text("second = 1\n")
    with_new = now().git_dirty_hash
    new.write_text("second = 2\n")
    assert len({None, changed, with_new, now().git_dirty_hash}) == 4


def test_what_git_ignores_is_not_code(checkout: Path) -> None:
    (checkout / ".gitignore").write_text("runs/\n")
    git(checkout, "add", ".")
    commit(checkout)
    (checkout / "runs").mkdir()
    (checkout / "runs" / "config.yaml").write_text("a: 1\n")
    (checkout / "notes.txt").write_text("a\n")
    assert now().git_dirty_hash is None


def test_an_installed_copy_inside_another_checkout_has_no_commit(checkout: Path) -> None:
    installed = checkout / "site-packages" / "orchestrator"
    installed.mkdir(parents=True)
    (checkout / ".gitignore").write_text("site-packages/\n")
    (installed / "provenance.py").write_text("first = 1\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "HERE", installed / "provenance.py")
        assert (now().git_commit, now().git_dirty_hash) == (None, None)


def test_equal_surroundings_have_one_digest_and_any_difference_another(checkout: Path) -> None:
    before = now()
    assert before.digest == now().digest
    (checkout / "package" / "provenance.py").write_text("first = 3\n")
    assert before.digest != now().digest
