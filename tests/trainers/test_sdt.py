"""Spike-driven Transformer: published sizes, other sizes, features, and every switch."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from spiking_models import check_embeddings, check_features, check_steps, clips, differs, lively, pictures, total
from torch import nn

from trainers.keymaps.pretrained import keymap_of
from trainers.models import sdt

SMALL: dict[str, Any] = {"embed_dims": 32, "depth": 1, "num_heads": 4, "img_size": 16, "time_steps": 3, "gain": 3.0}
EVENTS: dict[str, Any] = SMALL | {"in_channels": 2, "shift": 0.0}


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ({"embed_dims": 256}, 2_567_082),
        ({}, 10_233_546),
        ({"num_classes": 100}, 10_279_716),
        ({"embed_dims": 256, "in_channels": 2, "img_size": 64, "event_pooling": True}, 2_566_794),
        ({"embed_dims": 256, "in_channels": 2, "img_size": 128, "patch_size": 8, "num_classes": 11}, 2_567_051),
        *(
            (
                {"depth": depth, "embed_dims": dim, "img_size": 224, "patch_size": 16, "num_classes": 1000},
                expected,
            )
            for depth, dim, expected in (
                (8, 384, 16_816_536),
                (6, 512, 23_373_736),
                (8, 512, 29_689_896),
                (10, 512, 36_006_056),
                (8, 768, 66_339_144),
            )
        ),
    ],
)
def test_parameter_totals_are_the_published_ones(arguments: dict[str, Any], expected: int) -> None:
    assert total("sdt", **arguments) == expected


@pytest.mark.parametrize(("patch", "side"), [(1, 5), (2, 6), (4, 12), (8, 24), (16, 48)])
def test_any_image_side_and_patch(patch: int, side: int) -> None:
    model = lively("sdt", **SMALL | {"patch_size": patch, "img_size": side, "time_steps": 2})
    assert model(pictures(side)).shape == (2, 10)
    assert model.forward_features(pictures(side)).shape == (2, 32, side // patch, side // patch)


def test_clips_bring_their_own_time() -> None:
    model = lively("sdt", **EVENTS, step_logits=True)
    assert model(clips(16, steps=5)).shape == (5, 2, 10)


@pytest.mark.parametrize("event_pooling", [False, True])
def test_step_by_step_equals_layer_by_layer(event_pooling: bool) -> None:
    check_steps(lively("sdt", **EVENTS, event_pooling=event_pooling), clips(16, steps=4))


def test_features_and_embeddings() -> None:
    check_features("sdt", pictures(16), [4, 8, 16, 32], [1, 1, 2, 4], **SMALL)
    check_embeddings(lively("sdt", **SMALL), pictures(16), (3, 2, 32, 4, 4))


def test_logits_per_step_have_the_logits_as_their_mean() -> None:
    model = lively("sdt", **SMALL)
    mean = model(pictures(16))
    model.step_logits = True
    torch.testing.assert_close(model(pictures(16)).mean(0), mean)


@pytest.mark.parametrize(
    "switch",
    [
        {"attn_v_threshold": 1.0},  # STEP's port
        {"event_pooling": True},
        {"attention": "ssa"},
        {"attention": "qk_token"},
        {"v_threshold": 0.7},
        {"tokenizer_v_threshold": 0.7},
        {"attention_v_threshold": 0.7},
        {"mlp_v_threshold": 0.7},
        {"soft_reset": True},
        {"tau": 1.5},
    ],
    ids=str,
)
def test_a_switch_changes_the_logits(switch: dict[str, Any]) -> None:
    assert differs(lively("sdt", **EVENTS), lively("sdt", **EVENTS | switch), clips(16))


def test_only_products_that_have_a_factor_are_scaled() -> None:
    scaled = {"attn_scale": 0.25}
    assert not differs(lively("sdt", **EVENTS), lively("sdt", **EVENTS, **scaled), clips(16))
    ssa = EVENTS | {"attention": "ssa"}
    assert differs(lively("sdt", **ssa), lively("sdt", **ssa, **scaled), clips(16))


def test_the_inner_shortcut_needs_a_hidden_width_of_d() -> None:
    equal = EVENTS | {"mlp_ratio": 1.0}
    assert differs(lively("sdt", **equal), lively("sdt", **equal, inner_shortcut=False), clips(16))
    assert not differs(lively("sdt", **EVENTS), lively("sdt", **EVENTS, inner_shortcut=False), clips(16))


def test_each_half_of_the_mlp_has_the_inner_shortcut() -> None:
    (block,) = lively("sdt", **EVENTS | {"mlp_ratio": 1.0}).block
    x = torch.randn(3, 2, 32, 4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(3)) + 1
    attended = x + block.attn(x)
    half = attended + block.mlp.fc1(attended)
    assert torch.equal(block(x), half + block.mlp.fc2(half))


def test_dead_parameters_change_the_total_alone() -> None:
    arguments = SMALL | {"neuron": "plif"}
    whole, lean = lively("sdt", **arguments), lively("sdt", **arguments, keep_dead_parameters=False)
    dead = whole.state_dict().keys() - lean.state_dict().keys()
    assert dead == {
        "patch_embed.unused_neuron.w",
        "block.0.attn.unused_neuron.w",
        "block.0.attn.talking_heads.weight",
    }
    lean.load_state_dict({key: value for key, value in whole.state_dict().items() if key not in dead})
    assert torch.equal(whole(pictures(16)), lean(pictures(16)))
    whole(pictures(16)).sum().backward()
    assert {name for name, parameter in whole.named_parameters() if parameter.grad is None} == dead


def test_convolutions_are_drawn_and_the_head_is_torchs() -> None:
    torch.manual_seed(0)
    model = sdt(embed_dims=128, num_classes=200)
    projection = model.block[0].attn.proj.conv
    assert float(projection.weight.detach().std()) == pytest.approx(0.02, rel=0.05)
    assert not projection.bias.any()
    assert float(model.head.weight.detach().abs().max()) == pytest.approx(128**-0.5, rel=0.01)  # uniform


def test_sizes_that_do_not_fit_are_refused() -> None:
    for wrong, message in (
        ({"patch_size": 3}, r"patch_size must be one of 1, 2, 4, 8, 16, got 3"),
        ({"img_size": 18}, r"the image side must be a multiple of patch_size \(4\), got 18"),
        ({"num_heads": 5}, r"num_heads \(5\) must divide the width \(32\)"),
        ({"attention": "ssa", "event_pooling": True}, "event_pooling is a part of attention 'sdsa', got"),
        ({"embed_dims": 36}, r"embed_dims must be a multiple of 8 for this tokenizer, got 36"),
        ({"attention": "sdsaa"}, "unknown attention 'sdsaa'; did you mean 'sdsa'"),
    ):
        with pytest.raises(ValueError, match=message):
            lively("sdt", **SMALL | wrong)


def published_keys(model: nn.Module, mlp: str) -> dict[str, str]:
    """Return our names by the published ones, of a model with one block."""
    keys = {"head.weight": "head.weight", "head.bias": "head.bias"}
    layers = {f"patch_embed.proj_{{}}{stage or ''}": f"patch_embed.stages.{stage}" for stage in range(3)}
    layers |= {"patch_embed.proj_{}3": "patch_embed.last", "patch_embed.rpe_{}": "patch_embed.rpe"}
    layers |= {f"block.0.attn.{name}_{{}}": f"block.0.attn.projections.{name}" for name in "qkv"}
    layers |= {"block.0.attn.proj_{}": "block.0.attn.proj"}
    layers |= {"block.0.mlp." + mlp.replace("#", str(fc)): f"block.0.mlp.fc{fc}" for fc in (1, 2)}
    for published, ours in layers.items():
        for part in ("conv", "bn"):
            entries = (key.removeprefix(f"{ours}.{part}.") for key in model.state_dict() if f"{ours}.{part}." in key)
            keys |= {f"{published.replace('{}', part)}.{entry}": f"{ours}.{part}.{entry}" for entry in entries}
    return keys | {"block.0.attn.talking_heads.weight": "block.0.attn.talking_heads.weight"}


@pytest.mark.parametrize(("mlp", "code"), [("fc#_{}", "BICLab"), ("fc_{}#", "STEP")])
def test_published_keys_load_strictly(mlp: str, code: str) -> None:
    source, target = lively("sdt", **SMALL), lively("sdt", **SMALL, shift=0.1)
    weights = {key: source.state_dict()[ours] for key, ours in published_keys(source, mlp).items()}
    assert len(weights) == len(source.state_dict())
    if code == "STEP":
        weights["head_lif.threshold"] = weights["block.0.attn.q_lif.act_fun.alpha"] = torch.tensor(1.0)
    keymap = keymap_of(target, weights)
    assert code in keymap.source
    target.load_state_dict(keymap.convert(weights, target))
    assert torch.equal(source(pictures(16)), target(pictures(16)))
    lean = lively("sdt", **SMALL, keep_dead_parameters=False)
    lean.load_state_dict(keymap.convert(weights, lean))
    assert torch.equal(source(pictures(16)), lean(pictures(16)))
