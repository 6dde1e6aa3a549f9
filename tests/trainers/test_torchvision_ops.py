"""torchvision can be imported beside a torch that its compiled operators do not fit."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path


def run(code: str, *path: Path) -> subprocess.CompletedProcess[str]:
    prefix = f"import sys; sys.path[:0] = {[str(p) for p in path]!r}; "
    return subprocess.run([sys.executable, "-c", prefix + code], capture_output=True, text=True, check=False)


def fake_torchvision(folder: Path, body: str) -> Path:
    (folder / "torchvision").mkdir()
    (folder / "torchvision" / "__init__.py").write_text(body)
    return folder


def test_torchvision_timm_and_spikingjelly_can_be_imported() -> None:
    done = run(
        "import trainers.torchvision_ops; import torchvision.transforms, timm; "
        "from spikingjelly.activation_based import neuron; import trainers.torchvision_ops"
    )
    assert done.returncode == 0, done.stderr


def test_operators_are_declared_only_where_they_are_missing(tmp_path: Path) -> None:
    fitting = fake_torchvision(tmp_path, "")
    done = run("import torch, trainers.torchvision_ops; print(hasattr(torch.ops.torchvision, 'qnms'))", fitting)
    assert (done.returncode, done.stdout.strip()) == (0, "False"), done.stderr


def test_another_failure_of_torchvision_is_not_hidden(tmp_path: Path) -> None:
    broken = fake_torchvision(tmp_path, "raise RuntimeError('built for another CUDA')")
    done = run("import trainers.torchvision_ops", broken)
    assert "built for another CUDA" in done.stderr
