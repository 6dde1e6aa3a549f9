"""The reference runs notice every switch for what published code does unexpectedly: flipped, a run fails."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import pytest
import torch
from golden_transformers import LOGITS, Run, cases, family

from trainers.keymaps.pretrained import load_pretrained
from trainers.protocol import CheckpointError

CASES = dict(cases())


@pytest.mark.parametrize(
    ("case", "changes", "fails_at"),
    [
        ("qkformer_cifar_small", {"proj_state": "per_sample"}, "logits"),
        ("qkformer_imagenet_small", {"proj_state": "per_sample"}, "logits"),
        ("qkformer_cifar_small", {"attn_scale": 8**-0.5}, "logits"),
        ("qkformer_cifar_small", {"num_heads": 4}, "logits"),
        ("sdt_cifar_small", {"attn_v_threshold": 1.0}, "threshold of block.0.attn.talking_heads_lif"),
        ("sdt_cifar10dvs_small", {"event_pooling": False}, "logits"),
        ("sdt_cifar_small", {"event_pooling": True}, "logits"),
        ("sdt_cifar_small", {"keep_dead_parameters": False}, "trainable parameters"),
        ("sdt_cifar_small", {"detach_reset": False}, "gradient of"),
        ("spikformer_cifar_small", {"attn_scale": 16**-0.5}, "logits"),
        ("spikformer_dvs_small", {"attn_scale": 0.125}, "logits"),
        ("spikformer_cifar_small", {"qkv_bias": False}, "unexpected"),
        ("spikformer_imagenet_small", {"qkv_bias": True}, "missing"),
        ("spikformer_cifar_small", {"keep_dead_parameters": False}, "trainable parameters"),
        ("spikformer_cifar_small", {"surrogate_alpha": 2.0}, "gradient of"),
        ("spikformer_cifar_small", {"surrogate": "atan"}, "gradient of"),
        ("spikformer_cifar_small", {"detach_reset": False}, "gradient of"),
        ("spikformer_cifar_small", {"soft_reset": True}, "logits"),
        ("spikformer_cifar_small", {"decay_input": False}, "logits"),
        ("spikformer_cifar_small", {"patch_size": 8}, "logits"),
        ("spikingformer_dvs_small", {"tau": 2.0}, "time constant of"),
        ("spikingformer_cifar_small", {"proj_bias": False}, "unexpected"),
        ("tim_small", {"thresholds": "intended"}, "threshold of"),
        ("tim_small", {"detach_membrane": False}, "gradient of"),
        ("tim_small", {"alpha": 0.4}, "gradient of"),  # as released its blend never fires: the logits do not change
        ("tim_small", {"proj_bias": True}, "missing"),
    ],
)
def test_a_flipped_switch_is_noticed(case: str, changes: dict[str, Any], fails_at: str) -> None:
    with pytest.raises((AssertionError, CheckpointError), match=fails_at):
        Run(CASES[case], "as_released", "train", changes).check()
    Run(CASES[case], "as_released", "train").check()


@pytest.mark.parametrize(
    "case",
    [
        "qkformer_cifar_small",
        "qkformer_imagenet_small",
        "qkformer_cifar10dvs_small",
        "sdt_cifar_small",
        "sdt_cifar10dvs_small",
        "spikformer_cifar_small",
        "spikformer_imagenet_small",
        "spikformer_dvs_small",
        "spikingformer_cifar_small",
        "spikingformer_imagenet_small",
        "spikingformer_dvs_small",
        "tim_small",
    ],
)
def test_a_file_with_official_keys_gives_the_reference_logits(case: str, tmp_path: Path) -> None:
    """The file is as the training scripts save it: the weights are inside, beside the options of the run."""
    run = Run(CASES[case], "as_released", "eval")
    torch.save(
        {"state_dict": run._filled(), "args": argparse.Namespace(lr=1e-3), "epoch": 3}, tmp_path / "official.pth"
    )
    source = load_pretrained(run.model, tmp_path / "official.pth")
    assert source == run.keymap.source
    run.model.eval()
    logits = run.model(run._input())
    assert (logits - torch.tensor(run.expected["logits"], dtype=torch.float64)).abs().max() < LOGITS


def test_a_wrong_file_is_explained(tmp_path: Path) -> None:
    spikformer = Run(CASES["spikformer_cifar_small"], "as_released", "eval")
    qkformer = Run(CASES["qkformer_cifar_small"], "as_released", "eval")
    torch.save(qkformer._filled(), tmp_path / "qkformer.pth")
    with pytest.raises(CheckpointError) as error:
        load_pretrained(spikformer.model, tmp_path / "qkformer.pth")
    text = str(error.value)
    assert "qkformer.pth: the checkpoint does not fit the model" in text
    assert "missing:" in text
    assert "unexpected:" in text
    weights = spikformer._filled()
    weights["block.0.attn.q_linear.wieght"] = weights.pop("block.0.attn.q_linear.weight")
    weights["head.weight"] = weights["head.weight"][:3]
    torch.save(weights, tmp_path / "broken.pth")
    with pytest.raises(CheckpointError) as error:
        load_pretrained(spikformer.model, tmp_path / "broken.pth")
    text = str(error.value)
    assert "block.0.attn.projections.q.conv.weight (nearest in the file: block.0.attn.q_linear.wieght)" in text
    assert "head.weight: [3, 64], the model has [10, 64]" in text
    assert "model.new_head" in text


def test_a_new_head_takes_other_classes(tmp_path: Path) -> None:
    run = Run(CASES["qkformer_cifar_small"], "as_released", "eval")
    torch.save(run._filled(), tmp_path / "official.pth")
    model, _ = family(CASES["qkformer_cifar_small"])
    model.reset_classifier(7)
    model.double()
    load_pretrained(model, tmp_path / "official.pth", new_head=True)
    assert model(run._input()).shape == (2, 7)
    assert 0 < model.head.weight.detach().abs().max() < 1e-3
