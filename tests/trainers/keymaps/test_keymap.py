"""Keys that a checkpoint lacks, and which of its own are likely meant."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from trainers.keymaps.keymap import KeyMap, nearest_key
from trainers.protocol import CheckpointError

FILE = [
    *(
        f"block.{block}.attn.{name}{kind}.{last}"
        for block in range(12)
        for name in "qkv"
        for kind, lasts in (("conv", ["weight"]), ("bn", ["weight", "bias", "running_mean"]))
        for last in lasts
    ),
    "patch_embed.projconv.weight",
    "patch_embed.projconv1.weight",
    "block.0.mlp.fc1conv.weight",
    "block.0.mlp.fc2conv.weight",
    "block.0.mlp.fc1conv.bias",
    "stage2.0.tssa.q_conv.weight",
    "classifier.weight",
    "epoch",
]


@pytest.mark.parametrize(
    ("missing", "nearest"),
    [
        ("block.0.attn.q_conv.weight", "block.0.attn.qconv.weight"),
        ("block.0.attn.projections.q.conv.weight", "block.0.attn.qconv.weight"),
        ("block.11.attn.projections.k.conv.weight", "block.11.attn.kconv.weight"),
        ("block.1.attn.projections.v.bn.running_mean", "block.1.attn.vbn.running_mean"),
        ("block.3.attn.projections.v.bn.bias", "block.3.attn.vbn.bias"),
        ("block.0.mlp.fc2.conv.weight", "block.0.mlp.fc2conv.weight"),
        ("block.0.mlp.fc1.conv.bias", "block.0.mlp.fc1conv.bias"),
        ("patch_embed.proj_conv1.weight", "patch_embed.projconv1.weight"),
        ("stage2.0.tssa.q.conv.weight", "stage2.0.tssa.q_conv.weight"),
        ("head.weight", None),
        ("pos_embed", None),
        ("block.0.attn.projections.q.bn.running_var", None),
    ],
)
def test_the_nearest_key_is_found_however_its_parts_are_parted(missing: str, nearest: str | None) -> None:
    assert nearest_key(missing, FILE) == nearest


def test_a_checkpoint_that_does_not_fit_names_what_is_near() -> None:
    model = nn.ModuleDict({"q_conv": nn.Conv2d(2, 2, 1, bias=False), "bn": nn.BatchNorm2d(2)})
    keymap = KeyMap(source="ours", rules=((r".*", r"\g<0>"),))
    weights = dict(model.state_dict())
    weights["qconv.weight"] = weights.pop("q_conv.weight")
    weights["bn.extra"] = torch.zeros(2)
    with pytest.raises(CheckpointError) as raised:
        keymap.convert(weights, model)
    lines = str(raised.value).splitlines()
    assert "    q_conv.weight (nearest in the file: qconv.weight)" in lines
    assert "    bn.extra" in lines
