"""`spikebench evaluate`: the metrics of a checkpoint, or one clear message."""

from __future__ import annotations

from pathlib import Path

import pytest

from configs.resolve import from_dict
from orchestrator.cli import main
from trainers.protocol import Result, SilentReporter
from trainers.training import train


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Result:
    config = from_dict(
        {
            "model": {"name": "stal_srnn", "hidden_size": 8},
            "encoder": {"name": "rate"},
            "data": {"name": "digits", "val_fraction": 0.1, "test_fraction": 0.7},
            "training": {"epochs": 1},
        }
    )
    return train(config, SilentReporter(), run_dir=tmp_path_factory.mktemp("run"), threads=1)


def run(*arguments: str) -> int:
    with pytest.raises(SystemExit) as left:
        main(["evaluate", *arguments])
    return int(left.value.code or 0)


def test_validation_of_a_file_is_what_training_reported(trained: Result, capsys) -> None:
    assert trained.checkpoint is not None
    assert run("--checkpoint", str(trained.checkpoint.path), "--split", "val", "--threads", "1") == 0
    out = capsys.readouterr().out
    assert f"{trained.metrics['val_accuracy']:.6f}" in out
    assert f"{trained.metrics['val_spike_density']:.6f}" in out


def test_folder_stands_for_its_newest_checkpoint_and_overrides_reach_it(trained: Result, capsys) -> None:
    assert trained.checkpoint is not None
    folder = str(trained.checkpoint.path.parent)
    assert run("--checkpoint", folder, "--training.eval_batch_size", "7", "data.workers=0") == 0
    assert "test_accuracy" in capsys.readouterr().out


def test_wrong_files_and_words_are_one_clear_message(trained: Result, tmp_path: Path, capsys) -> None:
    assert trained.checkpoint is not None
    path = str(trained.checkpoint.path)
    for arguments, code, words in [
        ((str(tmp_path),), 2, "no valid checkpoint"),
        ((str(tmp_path / "none.pt"),), 2, "there is no checkpoint"),
        ((path, "--split", "dev"), 2, "use one of train, val, test"),
        ((path, "--energy-table", "e.csv", "--energy.measure", "false"), 2, "set energy.measure true"),
        ((path, "--energy-table", str(tmp_path / "no" / "e.csv")), 1, "give another --energy-table"),
        ((path, "--training.epochz", "1"), 2, "epochz"),
        ((path, "--training.device", "cuda:99"), 1, "CUDA"),
    ]:
        assert run("--checkpoint", *arguments) == code
        assert words in capsys.readouterr().err
    damaged = tmp_path / "damaged.pt"
    damaged.write_bytes(trained.checkpoint.path.read_bytes()[:1000])
    assert run("--checkpoint", str(damaged)) == 2
    assert "is damaged" in capsys.readouterr().err
