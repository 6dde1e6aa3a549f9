"""Spikingformer: published sizes, other sizes, features, and every switch."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from spiking_models import check_embeddings, check_features, check_steps, clips, differs, lively, pictures, total
from torch import nn

from timm import create_model

from trainers.keymaps.pretrained import keymap_of
from trainers.neurons import spiking_layers

SMALL: dict[str, Any] = {
    "embed_dims": 32,
    "depth": 2,
    "num_heads": 4,
    "img_size": 16,
    "time_steps": 3,
    "gain": 3.0,
    "shift": 0.8,
}
EVENTS: dict[str, Any] = SMALL | {"img_size": 32}
STEP = {"proj_bias": False, "keep_dead_parameters": False}


@pytest.mark.parametrize(
    ("name", "arguments", "expected"),
    [
        ("spikingformer_cifar", {"embed_dims": 256, "num_heads": 8}, 4_156_202),
        ("spikingformer_cifar", {"depth": 2}, 5_765_818),
        ("spikingformer_cifar", {}, 9_326_266),
        ("spikingformer_cifar", {"num_classes": 100, "num_heads": 8}, 9_360_916),
        ("spikingformer_imagenet", {"embed_dims": 384}, 16_828_312),
        ("spikingformer_imagenet", {}, 29_705_768),
        ("spikingformer_imagenet", {"embed_dims": 768}, 66_363_208),
        ("spikingformer_dvs", {}, 2_568_714),
    ],
)
def test_parameter_totals_are_the_published_ones(name: str, arguments: dict[str, Any], expected: int) -> None:
    assert total(name, **arguments) == expected


@pytest.mark.parametrize(("patch", "side"), [(1, 5), (2, 6), (4, 12), (8, 24), (16, 48)])
def test_any_image_side_and_patch(patch: int, side: int) -> None:
    model = lively("spikingformer_imagenet", **SMALL | {"patch_size": patch, "img_size": side, "time_steps": 2})
    assert model(pictures(side)).shape == (2, 1000)
    assert model.forward_features(pictures(side)).shape == (2, 32, side // patch, side // patch)


def test_clips_bring_their_own_time() -> None:
    model = lively("spikingformer_dvs", **EVENTS, step_logits=True)
    assert model(clips(32, steps=5)).shape == (5, 2, 10)


def test_step_by_step_equals_layer_by_layer() -> None:
    check_steps(lively("spikingformer_cifar", **SMALL), pictures(16))
    check_steps(lively("spikingformer_dvs", **EVENTS), clips(32, steps=5))


def test_features_and_embeddings() -> None:
    widths = [4, 8, 16, 32, 32]
    check_features("spikingformer_cifar", pictures(16), widths, [1, 1, 1, 2, 4], **SMALL)
    check_features("spikingformer_dvs", clips(32), widths, [1, 2, 4, 8, 16], **EVENTS)
    check_embeddings(lively("spikingformer_cifar", **SMALL), pictures(16), (3, 2, 32, 8, 8))


def test_event_models_have_their_own_time_constant() -> None:
    def constants(name: str, **arguments: Any) -> set[float]:
        return {layer.tau for layer in spiking_layers(create_model(name, **arguments)).values()}

    assert constants("spikingformer_dvs", embed_dims=32) == {1.5}
    assert constants("spikingformer_dvs", embed_dims=32, tau=2.0) == {2.0}  # STEP's port
    assert constants("spikingformer_cifar", embed_dims=48) == {2.0}
    create_model("spikingformer_dvs", embed_dims=32, neuron="if")  # has none


@pytest.mark.parametrize(
    "switch",
    [
        {"tau": 2.0},
        {"attn_scale": 0.25},
        {"attention": "sdsa"},
        {"attention": "qk_channel"},
        {"attn_v_threshold": 1.0},
        {"v_threshold": 0.7},
        {"tokenizer_v_threshold": 0.7},
        {"attention_v_threshold": 0.7},
        {"mlp_v_threshold": 0.7},
        {"soft_reset": True},
    ],
    ids=str,
)
def test_a_switch_changes_the_logits(switch: dict[str, Any]) -> None:
    one, other = lively("spikingformer_dvs", **EVENTS), lively("spikingformer_dvs", **EVENTS | switch)
    assert differs(one, other, clips(32))


def test_the_biases_of_the_projections_can_be_left_out() -> None:
    one, other = lively("spikingformer_cifar", **SMALL), lively("spikingformer_cifar", **SMALL, proj_bias=False)
    missing = {"block.0.attn.proj.conv.bias", "block.1.attn.proj.conv.bias"}
    assert one.state_dict().keys() - other.state_dict().keys() == missing
    for name in missing:
        nn.init.normal_(one.get_parameter(name), generator=torch.Generator().manual_seed(0))
    assert differs(one, other, pictures(16))


def test_dead_parameters_change_the_total_alone() -> None:
    whole = lively("spikingformer_cifar", **SMALL)
    lean = lively("spikingformer_cifar", **SMALL, keep_dead_parameters=False)
    dead = whole.state_dict().keys() - lean.state_dict().keys()
    assert dead == {
        f"block.{block}.norm{norm}.{part}" for block in (0, 1) for norm in (1, 2) for part in ("weight", "bias")
    }
    lean.load_state_dict({key: value for key, value in whole.state_dict().items() if key not in dead})
    assert torch.equal(whole(pictures(16)), lean(pictures(16)))
    whole(pictures(16)).sum().backward()
    assert {name for name, parameter in whole.named_parameters() if parameter.grad is None} == dead


def test_the_head_alone_is_drawn() -> None:
    torch.manual_seed(0)
    model = create_model("spikingformer_cifar", num_classes=500)
    assert float(model.head.weight.detach().std()) == pytest.approx(0.02, rel=0.05)
    projection = model.block[0].attn.proj.conv.weight.detach()
    assert float(projection.abs().max()) == pytest.approx(384**-0.5, rel=0.01)  # torch's uniform


def test_sizes_that_do_not_fit_are_refused() -> None:
    for wrong, message in (
        ({"patch_size": 32}, r"patch_size must be one of 1, 2, 4, 8, 16, got 32"),
        ({"img_size": 18}, r"the image side must be a multiple of patch_size \(4\), got 18"),
        ({"embed_dims": 36}, r"embed_dims must be a multiple of 8 for this tokenizer, got 36"),
        ({"num_heads": 5}, r"num_heads \(5\) must divide the width \(32\)"),
    ):
        with pytest.raises(ValueError, match=message):
            lively("spikingformer_cifar", **SMALL | wrong)


# Code base: registered model, arguments, published names of the tokenizer's and the MLPs' layers.
CODES: dict[str, tuple[str, dict[str, Any], list[str], str]] = {
    "cifar10 and cifar100": (
        "spikingformer_cifar",
        SMALL,
        [f"block{stage}_{{}}" for stage in range(5)],
        "mlp#_{}",
    ),
    "imagenet and event data": (
        "spikingformer_dvs",
        EVENTS,
        ["proj_{}", "proj1_{}", "proj2_{}", "proj3_{}", "proj4_{}"],
        "mlp#_{}",
    ),
    "STEP": (
        "spikingformer_cifar",
        SMALL | STEP,
        ["proj_{}", "proj_{}1", "proj_{}2", "proj_{}3", "rpe_{}"],
        "fc#_{}",
    ),
}


@pytest.mark.parametrize("code", CODES)
def test_published_keys_load_strictly(code: str) -> None:
    name, arguments, stages, mlp = CODES[code]
    source, target = lively(name, **arguments), lively(name, **arguments)
    with torch.no_grad():
        for parameter in target.parameters():
            parameter.zero_()
    layers = {f"patch_embed.stages.{stage}": f"patch_embed.{old}" for stage, old in enumerate(stages)}
    for block in ("block.0", "block.1"):
        layers |= {f"{block}.attn.projections.{part}": f"{block}.attn.{part}_{{}}" for part in "qkv"}
        layers |= {f"{block}.attn.proj": f"{block}.attn.proj_{{}}"}
        layers |= {f"{block}.mlp.fc{fc}": f"{block}.mlp.{mlp.replace('#', str(fc))}" for fc in (1, 2)}
    weights = {}
    for ours, value in source.state_dict().items():
        layer, part, entry = ours.rsplit(".", 2) if ours.count(".") > 1 else ("", "", "")
        key = f"{layers[layer].replace('{}', part)}.{entry}" if layer in layers else ours  # the head, normalisations
        weights[key] = value[..., 0] if value.ndim == 4 and ".attn." in key else value  # Conv1d
    keymap = keymap_of(target, weights)
    assert code in keymap.source
    target.load_state_dict(keymap.convert(weights, target))
    images = clips(32) if name == "spikingformer_dvs" else pictures(16)
    assert torch.equal(source(images), target(images))
