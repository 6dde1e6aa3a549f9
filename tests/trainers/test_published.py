"""A published checkpoint becomes one of ours that evaluates to the published model's logits."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from golden_transformers import Run, cases

from configs.resolve import resolve
from configs.schema import RunConfig
from trainers import checkpoint as checkpoints
from trainers.evaluation import evaluate
from trainers.protocol import CheckpointError, TrainerError
from trainers.published import convert_checkpoint

CASE = dict(cases())["qkformer_cifar_small"]


@pytest.fixture
def config(tmp_path: Path) -> RunConfig:
    """The variant of the reference run, on digits that are as large as its images."""
    sizes = ["model.embed_dims=64", "model.num_heads=8", "model.depth=4", "model.proj_state=batch_leak"]
    file = tmp_path / "variant.yaml"
    file.write_text("model: {name: qkformer_cifar}\ndata: {name: cifar10}\nencoder: {name: direct, time_steps: 4}\n")
    return resolve(file, sizes).config


@pytest.fixture
def official(tmp_path: Path) -> Path:
    path = tmp_path / "official.pth"
    torch.save({"model": Run(CASE, "as_released", "eval")._filled(), "epoch": 200}, path)
    return path


def test_a_published_file_becomes_a_checkpoint_with_its_configuration(
    config: RunConfig, official: Path, tmp_path: Path
) -> None:
    found = convert_checkpoint(config, official, tmp_path / "run")
    assert found.saved.path == tmp_path / "run" / "ckpt-00000-0000000.pt"
    assert "QKFormer" in found.source
    assert (found.parameters, found.classes) == (CASE["param_count"], 10)
    content = checkpoints.load(found.saved.path)
    assert checkpoints.config_of(content, found.saved.path) == config
    run = Run(CASE, "as_released", "eval")
    run.model.load_state_dict(content["weights"]["model"])
    run.model.float().eval()
    logits = run.model(run._input().float())
    assert torch.isfinite(logits).all()


def test_it_evaluates_on_the_data_of_this_machine(official: Path, tmp_path: Path) -> None:
    run = Run(CASE, "as_released", "eval")
    weights = run._filled()
    weights["patch_embed1.proj_conv.weight"] = weights["patch_embed1.proj_conv.weight"].sum(1, keepdim=True)  # grey
    torch.save(weights, official)
    file = tmp_path / "digits.yaml"
    file.write_text("model: {name: qkformer_cifar, embed_dims: 64, num_heads: 8, depth: 4}\ndata: {name: digits}\n")
    convert_checkpoint(resolve(file, ["data.image_size=16"]).config, official, tmp_path / "run")
    measured = evaluate(tmp_path / "run" / "ckpt-00000-0000000.pt", "val", overrides={"training.eval_batch_size": 64})
    assert 0 <= measured["val_accuracy"] <= 1
    assert measured["val_energy_uj"] > 0


def test_what_does_not_fit_is_refused_before_anything_is_written(
    config: RunConfig, official: Path, tmp_path: Path
) -> None:
    run_dir = tmp_path / "run"
    other = RunConfig.model_validate({"model": {"name": "sdt"}, "data": {"name": "cifar10"}})
    with pytest.raises(CheckpointError, match="does not fit the model"):
        convert_checkpoint(other, official, run_dir)
    assert not run_dir.exists()
    with pytest.raises(TrainerError, match="'stal_srnn' is none of the published families"):
        convert_checkpoint(RunConfig.model_validate({"model": {"name": "stal_srnn"}}), official, run_dir)
    torch.save({"weights": {"a": torch.zeros(1)}}, official)
    with pytest.raises(CheckpointError, match=r"no 'head\.weight'"):
        convert_checkpoint(config, official, run_dir)
    run_dir.mkdir()
    (run_dir / "ckpt-00003-0000000.pt").touch()
    with pytest.raises(CheckpointError, match="has checkpoints already"):
        convert_checkpoint(config, official, run_dir)
