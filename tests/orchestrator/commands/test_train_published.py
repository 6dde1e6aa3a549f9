"""`spikebench train` of published recipes, on files in the formats that the data sets come in."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from cifar_files import write_cifar

from configs.catalog import ROOT
from orchestrator.cli import main


@pytest.mark.parametrize("name", ["cifar10", "cifar100"])
def test_the_recipe_of_qkformer_starts(name: str, tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    write_cifar(tmp_path / "data", monkeypatch, fine=name == "cifar100", per_file=8 if name == "cifar10" else 40)
    smaller = ["--model.embed_dims", "32", "--training.batch_size", "18", "--data.workers", "0"]
    config = str(ROOT / "qkformer" / f"{name}.yaml")
    with pytest.raises(SystemExit) as left:
        main(["train", "--config", config, *smaller, "--training.epochs", "1", "--training.device", "cpu"])
    out = capsys.readouterr().out
    assert not left.value.code
    assert "18 images per update" in out
    assert re.search(r"test accuracy [01]\.\d{4}", out)
    saved = torch.load(tmp_path / "runs" / "train" / name / "ckpt-00001-0000000.pt", weights_only=True)
    assert len(saved["weights"]["model"]["head.weight"]) == (10 if name == "cifar10" else 100)
