"""Spikformer: published sizes, other sizes, tokenizers, features, first weights and every switch."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from spiking_models import check_embeddings, check_features, check_steps, clips, differs, lively, pictures, total
from torch import nn

from timm import create_model

from trainers.keymaps.pretrained import keymap_of
from trainers.keymaps.spikformer import KEYMAPS
from trainers.models import spikformer_cifar

CIFAR, IMAGENET, EVENTS = "spikformer_cifar", "spikformer_imagenet", "spikformer_dvs"
SMALL: dict[str, Any] = {"embed_dims": 32, "depth": 1, "num_heads": 4, "img_size": 16, "time_steps": 3}
EMBEDDINGS = ("sps", "one_conv", "two_conv")
ATTENTIONS = ("ssa", "sdsa", "qk_token", "qk_channel")


@pytest.mark.parametrize(
    ("name", "arguments", "expected"),
    [
        (CIFAR, {"embed_dims": 256, "num_heads": 8}, 4_159_274),
        (CIFAR, {"depth": 2}, 5_768_122),
        (CIFAR, {}, 9_330_874),
        (CIFAR, {"num_classes": 100}, 9_365_524),
        (IMAGENET, {"embed_dims": 384, "num_heads": 12}, 16_828_312),
        (IMAGENET, {"depth": 6}, 23_385_640),
        (IMAGENET, {}, 29_705_768),
        (IMAGENET, {"depth": 10}, 36_025_896),
        (IMAGENET, {"embed_dims": 768, "num_heads": 12}, 66_363_208),
        (EVENTS, {}, 2_585_610),
        (EVENTS, {"num_classes": 11}, 2_585_867),
    ],
)
def test_parameter_totals_are_the_published_ones(name: str, arguments: dict[str, Any], expected: int) -> None:
    assert total(name, **arguments) == expected


def test_the_paper_counts_no_dead_parameters() -> None:
    assert total(CIFAR, keep_dead_parameters=False) == 9_330_874 - 4 * 4 * 384
    assert total(EVENTS, keep_dead_parameters=False) == 2_585_610 - 2 * 4 * 256 - 64 * 256 - 2 * 256


@pytest.mark.parametrize(("patch", "side"), [(1, 5), (2, 6), (4, 24), (8, 24), (16, 48)])
def test_any_image_side_patch_and_number_of_steps(patch: int, side: int) -> None:
    model = lively(CIFAR, **SMALL | {"patch_size": patch, "img_size": side, "time_steps": 6})
    assert model(pictures(side)).shape == (2, 10)
    assert model.forward_features(pictures(side)).shape == (2, 32, side // patch, side // patch)
    assert model(pictures(side), return_embeddings=True)[1].shape == (6, 2, 32, side // patch, side // patch)


def test_images_need_not_be_square() -> None:
    model = lively(CIFAR, **SMALL)
    assert model.forward_features(pictures(32)[..., :16, :]).shape == (2, 32, 4, 8)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"img_size": 30}, r"the image side must be a multiple of patch_size \(4\), got 30"),
        ({"img_size": 30, "embedding": "one_conv"}, r"the image side must be a multiple of patch_size \(4\), got 30"),
        ({"patch_size": 32}, "patch_size must be one of 1, 2, 4, 8, 16, got 32"),
        ({"patch_size": 2, "embedding": "two_conv"}, "patch_size must be one of 4, 8, 16, 32, got 2"),
        ({"embed_dims": 36}, "embed_dims must be a multiple of 8 for this tokenizer, got 36"),
        ({"embed_dims": 34, "embedding": "two_conv"}, "embed_dims must be a multiple of 4 for this tokenizer, got 34"),
        ({"num_heads": 5}, r"num_heads \(5\) must divide the width \(32\)"),
        ({"embedding": "spz"}, "unknown embedding 'spz'"),
        ({"attention": "ssb"}, "unknown attention 'ssb'"),
        ({"projection_init": "normal"}, "projection_init must be 'trunc_normal' or 'convolution', got 'normal'"),
    ],
)
def test_what_does_not_fit_is_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        create_model(CIFAR, **SMALL | arguments)


def test_pretrained_weights_cannot_be_downloaded() -> None:
    with pytest.raises(ValueError, match="there are no weights of 'spikformer_cifar' to download"):
        spikformer_cifar(pretrained=True)


def test_clips_bring_their_own_time() -> None:
    model = lively(EVENTS, **SMALL, step_logits=True)
    assert model(clips(16, steps=5)).shape == (5, 2, 10)


@pytest.mark.parametrize("attention", ATTENTIONS)
@pytest.mark.parametrize("embedding", EMBEDDINGS)
def test_step_by_step_equals_layer_by_layer(embedding: str, attention: str) -> None:
    model = lively(CIFAR, **SMALL, embedding=embedding, attention=attention)
    check_steps(model, pictures(16))


@pytest.mark.parametrize(
    ("arguments", "channels", "strides"),
    [
        ({}, [4, 8, 16, 32], [1, 1, 2, 4]),
        ({"patch_size": 16}, [4, 8, 16, 32], [2, 4, 8, 16]),
        ({"embedding": "one_conv"}, [32], [4]),
        ({"embedding": "two_conv"}, [8, 32], [2, 4]),
        ({"embedding": "two_conv", "patch_size": 16}, [8, 32], [8, 16]),
    ],
)
def test_features_and_embeddings(arguments: dict[str, Any], channels: list[int], strides: list[int]) -> None:
    arguments = SMALL | {"img_size": 64} | arguments
    check_features(CIFAR, pictures(64), channels, strides, **arguments)
    side = 64 // strides[-1]
    check_embeddings(lively(CIFAR, **arguments), pictures(64), (3, 2, 32, side, side))


@pytest.mark.parametrize("attention", ATTENTIONS)
@pytest.mark.parametrize("embedding", EMBEDDINGS)
def test_every_swap_learns(embedding: str, attention: str) -> None:
    model = lively(CIFAR, **SMALL, embedding=embedding, attention=attention, keep_dead_parameters=False).train()
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-2)
    targets = torch.tensor([0, 1])
    losses = []
    for _ in range(4):
        loss = nn.functional.cross_entropy(model(pictures(16)), targets)
        optimiser.zero_grad()
        loss.backward()
        assert all(parameter.grad is not None for parameter in model.parameters())
        optimiser.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < losses[0]


@pytest.mark.parametrize(
    "switch",
    [
        {"attn_scale": 0.25},
        {"qkv_bias": False},
        {"proj_bias": False},
        {"attention": "sdsa"},
        {"attention": "qk_token"},
        {"attention": "qk_channel"},
        {"attn_v_threshold": 1.0},
        {"tokenizer_v_threshold": 0.8},
        {"attention_v_threshold": 0.8},
        {"mlp_v_threshold": 0.8},
        {"v_threshold": 0.8},
        {"tau": 1.5},
        {"soft_reset": True},
        {"decay_input": False},
        {"time_steps": 4},
    ],
    ids=str,
)
def test_every_switch_changes_the_logits(switch: dict[str, Any]) -> None:
    model = lively(CIFAR, **SMALL)
    for layer in model.modules():
        if isinstance(layer, nn.Conv2d) and layer.bias is not None:
            nn.init.constant_(layer.bias, 0.3)
    assert differs(model, lively(CIFAR, **SMALL | switch), pictures(16))


def test_dead_parameters_change_nothing() -> None:
    for name, images in ((CIFAR, pictures(16)), (EVENTS, clips(16))):
        with_dead, without = lively(name, **SMALL), lively(name, **SMALL, keep_dead_parameters=False)
        assert len(with_dead.state_dict()) > len(without.state_dict())
        assert not differs(with_dead, without, images)


def test_a_checkpoint_with_dead_parameters_loads_without_them() -> None:
    official = next(keymap for keymap in KEYMAPS if keymap.source == "ZK-Zhou/spikformer")
    without = create_model(CIFAR, **SMALL, keep_dead_parameters=False)
    published = {
        "block.0.norm1.weight": torch.ones(32),
        **{_published(name): value for name, value in without.state_dict().items()},
    }
    converted = official.convert(published, without)
    assert converted.keys() == without.state_dict().keys()


def test_the_ports_of_step_are_known_by_the_constants_of_their_neurons() -> None:
    model = create_model(CIFAR, **SMALL, keep_dead_parameters=False)
    published = {_published(name): value for name, value in model.state_dict().items()}
    assert keymap_of(model, published).source == "ZK-Zhou/spikformer"
    published |= {f"block.0.attn.q_lif.{name}": torch.ones(()) for name in ("threshold", "act_fun.alpha")}
    keymap = keymap_of(model, published)
    assert keymap.source.startswith("Fancyssc/STEP, spikformer_imagenet")
    assert keymap.convert(published, model).keys() == model.state_dict().keys()


def _published(name: str) -> str:
    """Return the official CIFAR model's key of one of our names."""
    layer, kind, last = name.rsplit(".", 2) if name.count(".") > 1 else ("", *name.split("."))
    kind = {"conv": "linear" if layer.startswith("block") else "conv"}.get(kind, kind)
    if layer == "patch_embed.rpe":
        return f"patch_embed.rpe_{kind}.{last}"
    if layer.startswith("patch_embed.stages."):
        return f"patch_embed.proj_{kind}{layer[-1] if layer[-1] != '0' else ''}.{last}"
    if layer.startswith("block"):
        return f"{layer.replace('projections.', '')}_{kind}.{last}"
    return name


def test_the_linear_layers_of_the_published_code_are_drawn_small() -> None:
    torch.manual_seed(0)
    sizes: dict[str, Any] = {"embed_dims": 128, "depth": 1, "num_heads": 4, "num_classes": 50}
    models = {name: create_model(name, **sizes) for name in (CIFAR, IMAGENET, EVENTS)}
    for name, model in models.items():
        model.requires_grad_(False)
        assert model.head.weight.std() == pytest.approx(0.02, rel=0.05)
        assert model.head.bias.abs().max() == 0
        fan_in = model.patch_embed.rpe.conv.weight
        assert fan_in.std() == pytest.approx((3 * 128 * 9) ** -0.5, rel=0.05)
        block = model.block[0]
        for layer in (*block.attn.projections.values(), block.attn.proj, block.mlp.fc1):
            expected = 0.02 if name == CIFAR else (3 * 128) ** -0.5
            assert layer.conv.weight.std() == pytest.approx(expected, rel=0.05)
            if layer.conv.bias is not None:
                assert (layer.conv.bias.abs().max() == 0) == (name == CIFAR)


def test_step_by_step_trains_with_all_steps_at_once() -> None:
    """Batch normalisation needs them; evaluation alone saves the memory."""
    model = lively("spikformer_cifar", img_size=16, embed_dims=32, depth=1, num_heads=4, time_steps=3).train()
    images = pictures(16)
    before = model(images)
    model.step_by_step = True
    assert torch.equal(model(images), before)
