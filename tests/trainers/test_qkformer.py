"""QKFormer: published sizes, other sizes, the leak of the published code, features, and every switch."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from spiking_models import check_embeddings, check_features, check_steps, clips, differs, lively, pictures, total
from torch import nn

from timm import create_model

from trainers.keymaps.pretrained import keymap_of

SIZES: dict[str, Any] = {"embed_dims": 32, "num_heads": 2, "time_steps": 3, "gain": 2.0, "shift": 0.7}
CIFAR: dict[str, Any] = SIZES | {"img_size": 16, "depth": 3}
IMAGENET: dict[str, Any] = SIZES | {"img_size": 32, "depth": 4, "num_classes": 10}
EVENTS: dict[str, Any] = SIZES | {"img_size": 32}
LEAK = {"proj_state": "batch_leak"}
DIMS = {384: 6, 512: 8, 768: 12}


@pytest.mark.parametrize(
    ("name", "arguments", "expected"),
    [
        ("qkformer_cifar", {}, 6_706_234),
        ("qkformer_cifar", {"num_classes": 100}, 6_740_884),
        ("qkformer_imagenet", {}, 16_473_688),
        ("qkformer_imagenet", {"embed_dims": 512, "num_heads": 8}, 29_079_336),
        ("qkformer_imagenet", {"embed_dims": 768, "num_heads": 12, "img_size": 288}, 64_962_760),
        ("qkformer_dvs", {}, 1_504_138),
        ("qkformer_dvs", {"mlp_ratio": 4, "num_classes": 11}, 1_999_371),
    ],
)
def test_parameter_totals_are_the_published_ones(name: str, arguments: dict[str, Any], expected: int) -> None:
    assert total(name, **arguments) == expected


@pytest.mark.parametrize(
    ("name", "patch", "side"),
    [
        *(("qkformer_cifar", patch, 16 * patch // 4) for patch in (4, 8, 16)),
        *(("qkformer_imagenet", patch, 3 * patch) for patch in (4, 8, 16, 32)),
        *(("qkformer_dvs", patch, 3 * patch) for patch in (2, 4, 8, 16, 32)),
    ],
)
def test_any_image_side_and_patch(name: str, patch: int, side: int) -> None:
    sizes = SIZES | {"depth": 4, "img_size": side, "patch_size": patch, "in_channels": 3, "time_steps": 2}
    model = lively(name, **sizes, num_classes=7)
    assert model(pictures(side)).shape == (2, 7)
    assert model.forward_features(pictures(side)).shape == (2, 32, side // patch, side // patch)


@pytest.mark.parametrize("leak", [{}, LEAK], ids=["per_sample", "batch_leak"])
def test_step_by_step_equals_layer_by_layer(leak: dict[str, Any]) -> None:
    check_steps(lively("qkformer_cifar", **CIFAR, **leak), pictures(16))
    check_steps(lively("qkformer_imagenet", **IMAGENET, **leak), pictures(32))
    check_steps(lively("qkformer_dvs", **EVENTS, **leak), clips(32, steps=5))


def test_features_and_embeddings() -> None:
    check_features("qkformer_cifar", pictures(16), [8, 16, 32], [1, 2, 4], **CIFAR)
    check_features("qkformer_imagenet", pictures(32), [8, 16, 32], [4, 8, 16], **IMAGENET)
    check_features("qkformer_dvs", clips(32), [16, 32], [8, 16], **EVENTS)
    check_embeddings(lively("qkformer_cifar", **CIFAR), pictures(16), (3, 2, 8, 16, 16))
    check_embeddings(lively("qkformer_imagenet", **IMAGENET), pictures(32), (3, 2, 8, 8, 8))
    check_embeddings(lively("qkformer_dvs", **EVENTS), clips(32), (3, 2, 16, 4, 4))


@torch.no_grad()
def test_only_the_leak_makes_logits_depend_on_the_batch() -> None:
    images = pictures(16, batch=3)
    model, leaking = lively("qkformer_cifar", **CIFAR), lively("qkformer_cifar", **CIFAR, **LEAK)
    one_by_one = torch.cat([model(image[None]) for image in images])
    torch.testing.assert_close(model(images), one_by_one, rtol=0, atol=1e-12)
    assert differs(model, leaking, images)
    torch.testing.assert_close(torch.cat([leaking(image[None]) for image in images]), one_by_one, rtol=0, atol=1e-12)
    assert not torch.allclose(leaking(images.flip(0)).flip(0), leaking(images), atol=1e-6)


def test_the_leak_is_in_ssa_alone() -> None:
    without = CIFAR | {"attention": ("qk_token", "qk_channel", "qk_token")}
    assert not differs(lively("qkformer_cifar", **without), lively("qkformer_cifar", **without, **LEAK), pictures(16))


@pytest.mark.parametrize(
    "switch",
    [
        LEAK,
        {"attention": ("qk_channel", "qk_token", "ssa")},
        {"attention": ("qk_token", "ssa", "ssa")},
        {"attention": ("qk_token", "qk_token", "sdsa")},
        {"attn_scale": 0.25},
        {"attn_v_threshold": 1.0},
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
    assert differs(lively("qkformer_cifar", **CIFAR), lively("qkformer_cifar", **CIFAR | switch), pictures(16))


def test_blocks_per_stage() -> None:
    def depths(name: str, **arguments: Any) -> list[int]:
        with torch.device("meta"):
            return [len(stage.blocks) for stage in create_model(name, **arguments).stages]

    assert depths("qkformer_cifar") == [1, 1, 2]
    assert depths("qkformer_imagenet") == [1, 2, 7]
    assert depths("qkformer_imagenet", stage_depths=[1, 1, 7]) == [1, 1, 7]  # STEP's port
    assert depths("qkformer_dvs") == [1, 1]
    assert depths("qkformer_dvs", depth=4) == [1, 3]


def test_the_head_alone_is_drawn() -> None:
    torch.manual_seed(0)
    model = create_model("qkformer_cifar", num_classes=500)
    assert float(model.head.weight.detach().std()) == pytest.approx(0.02, rel=0.05)
    assert not model.head.bias.any()
    projection = model.stages[2].blocks[0].attn.proj.conv.weight.detach()
    assert float(projection.abs().max()) == pytest.approx(384**-0.5, rel=0.01)  # torch's uniform


def test_sizes_that_do_not_fit_are_refused() -> None:
    for wrong, message in (
        ({"patch_size": 2}, r"patch_size must be one of 4, 8, 16, got 2"),
        ({"img_size": 18}, r"the image side must be a multiple of patch_size \(4\), got 18"),
        ({"num_heads": 3}, r"num_heads \(3\) must divide the width \(8\)"),
        ({"depth": 2}, r"depth must be at least 3 blocks, got 2"),
        ({"attention": ("ssa",)}, r"attention must have 3 entries, one for each stage, got 1"),
        ({"stage_depths": (1, 1)}, r"stage_depths must have 3 entries, one for each stage, got 2"),
        ({"embed_dims": 36}, r"embed_dims must be a multiple of 8 for this tokenizer, got 36"),
        ({"proj_state": "leak"}, r"proj_state must be one of per_sample, batch_leak, got 'leak'"),
        ({"neuron": "psn", **LEAK}, r"'batch_leak' has T\*B time steps, but Psn has parameters for each of T"),
        ({"layout": "mnist"}, r"unknown layout 'mnist'; known: cifar, imagenet, dvs"),
    ):
        with pytest.raises(ValueError, match=message):
            lively("qkformer_cifar", **CIFAR | wrong)


# Published folder: registered model, arguments, published names of the first embedding's layers by ours, name of the
# first convolution of later embeddings, of the last stage's attention, of an MLP's layers.
FOLDERS: dict[str, tuple[str, dict[str, Any], dict[str, str], str, str, str]] = {
    "cifar10 and": ("qkformer_cifar", CIFAR, {"stem.0": "proj", "main.0": "proj1"}, "proj3", "ssa", "mlp#_{}"),
    "QKFormer, imagenet": (
        "qkformer_imagenet",
        IMAGENET,
        {"stem.0": "proj", "main.0": "proj1", "main.1": "proj2"},
        "proj3",
        "attn",
        "fc#_{}",
    ),
    "dvs128": (
        "qkformer_dvs",
        EVENTS,
        {"stem.0": "proj", "stem.1": "proj1", "main.0": "proj2", "main.1": "proj3"},
        "proj",
        "ssa",
        "mlp#_{}",
    ),
    "STEP, qkformer_cifar": (
        "qkformer_cifar",
        CIFAR,
        {"stem.0": "proj", "main.0": "proj1"},
        "proj3",
        "ssa",
        "fc_{}#",
    ),
    "STEP, qkformer_imagenet": (
        "qkformer_imagenet",
        IMAGENET | {"stage_depths": (1, 1, 1)},
        {"stem.0": "proj", "main.0": "proj1", "main.1": "proj2"},
        "proj3",
        "ssa",
        "fc_{}#",
    ),
}


def published_keys(
    model: nn.Module, first: dict[str, str], later: str, last_attention: str, mlp: str
) -> dict[str, str]:
    """Return our names by the published ones."""
    layers: dict[str, str] = {}
    stages: Any = model.stages
    for number, stage in enumerate(stages):
        ours = f"stages.{number}"
        embed = first if number == 0 else {"main.0": later, "main.1": "proj4"}
        layers |= {f"{ours}.embed.{name}": f"patch_embed{number + 1}.{old}_{{}}" for name, old in embed.items()}
        layers |= {f"{ours}.embed.shortcut": f"patch_embed{number + 1}.proj_res_{{}}"}
        for index in range(len(stage.blocks)):
            block, old = f"{ours}.blocks.{index}", f"stage{number + 1}.{index}"
            attention = f"{old}.{last_attention if number == len(stages) - 1 else 'tssa'}"
            layers |= {f"{block}.attn.projections.{name}": f"{attention}.{name}_{{}}" for name in "qkv"}
            layers |= {f"{block}.attn.proj": f"{attention}.proj_{{}}"}
            layers |= {f"{block}.mlp.fc{fc}": f"{old}.mlp.{mlp.replace('#', str(fc))}" for fc in (1, 2)}
    keys = {"head.weight": "head.weight", "head.bias": "head.bias"}
    for name in model.state_dict().keys() - keys.keys():
        layer, part, entry = name.rsplit(".", 2)
        keys[f"{layers[layer].replace('{}', part)}.{entry}"] = name
    return keys


@pytest.mark.parametrize("folder", FOLDERS)
def test_published_keys_load_strictly(folder: str) -> None:
    name, arguments, *names = FOLDERS[folder]
    source, target = lively(name, **arguments), lively(name, **arguments)
    with torch.no_grad():
        for parameter in target.parameters():
            parameter.zero_()
    weights = {}
    for key, ours in published_keys(source, *names).items():
        value = source.state_dict()[ours]
        weights[key] = value[..., 0] if value.ndim == 4 and ".mlp." not in key and "stage" in key else value  # Conv1d
    keymap = keymap_of(target, weights)
    assert folder in keymap.source
    target.load_state_dict(keymap.convert(weights, target))
    images = clips(32) if name == "qkformer_dvs" else pictures(arguments["img_size"])
    assert torch.equal(source(images), target(images))
