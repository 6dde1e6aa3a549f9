"""`spikebench train` with a file of the STAL thesis and the example of its README."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

from configs.resolve import resolve
from orchestrator.cli import main

FILE = Path(__file__).parents[2] / "configs" / "thesis" / "train_spikformer.yaml"
EXAMPLE = "--config train_spikformer.yaml --model.learning_rate 0.003 --training.batch_size 32 --training.epochs 1"
SMALL = "--data.dataset digits --data.test_fraction 0.7 --model.depths 1 --model.encoder.embed_dims 16"


def test_the_example_trains_at_the_learning_rate_it_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copy(FILE, tmp_path)
    with pytest.raises(SystemExit) as left:
        main(["train", *EXAMPLE.split(), *SMALL.split(), "--tracking.wandb", "false", "--training.device", "cpu"])
    assert not left.value.code
    out = capsys.readouterr().out
    assert "32 images per update" in out
    assert re.search(r"^ +1/1 .* 3\.0e-03 ", out, re.MULTILINE)
    written = resolve(tmp_path / "runs" / "train" / "train_spikformer" / "config.yaml").config
    assert (
        written
        == resolve(FILE, [*EXAMPLE.split()[2:], *SMALL.split(), "tracking.wandb=false", "training.device=cpu"]).config
    )
