"""torchvision can be imported beside a torch that its compiled operators do not fit."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from trainers import torchvision_ops


def fake_torchvision(folder: Path, body: str, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "torchvision").mkdir()
    (folder / "torchvision" / "__init__.py").write_text(body)
    monkeypatch.syspath_prepend(folder)
    monkeypatch.delitem(sys.modules, "torchvision")


def test_a_fresh_process_can_import_torchvision() -> None:
    code = "import trainers.torchvision_ops; import torchvision.transforms"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_operators_are_declared_only_where_they_are_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_torchvision(tmp_path, "", monkeypatch)
    before = list(torchvision_ops._declarations)
    torchvision_ops._import_torchvision()
    assert torchvision_ops._declarations == before


def test_another_failure_of_torchvision_is_not_hidden(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_torchvision(tmp_path, "raise RuntimeError('built for another CUDA')", monkeypatch)
    with pytest.raises(RuntimeError, match="built for another CUDA"):
        torchvision_ops._import_torchvision()
