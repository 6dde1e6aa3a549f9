"""The two classifiers: registration, sizes, outputs, frozen encoders."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import trainers.models  # noqa: F401  # registers them with timm

# isort: split
from timm import create_model, is_model

from trainers.models.stal_spikformer import SpikingSelfAttention
from trainers.models.step_patches import StepPatches
from trainers.neurons import make_lif

SMALL: dict[str, dict[str, Any]] = {
    "stal_srnn": {"encoder_kwargs": {"hidden_channels": 6}, "hidden_size": 12},
    "stal_spikformer": {"embed_dims": 16, "num_heads": 2, "depth": 1},
}


def small(name: str, **options: Any) -> nn.Module:
    torch.manual_seed(0)
    model: nn.Module = create_model(name, num_classes=4, img_size=8, time_steps=3, **{**SMALL[name], **options})
    return model


def images(batch: int = 6, channels: int = 1) -> Tensor:
    return torch.rand(batch, channels, 8, 8, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("name", SMALL)
def test_timm_finds_the_models(name: str) -> None:
    assert is_model(name)
    with pytest.raises(ValueError, match=f"there are no pretrained weights of '{name}'"):
        create_model(name, pretrained=True)


@pytest.mark.parametrize(
    ("name", "encoder", "gray", "colour"),
    [
        ("stal_srnn", "convstal", 68_219, 236_017),
        ("stal_srnn", "stal", 1_285_768, 19_084_120),
        ("stal_srnn", "rate", 47_832, 175_960),
        ("stal_spikformer", "stalps", 1_481_210, 1_491_098),
        ("stal_spikformer", "sps", 1_449_850, 1_450_138),
    ],
)
def test_parameter_totals_are_the_published_ones(name: str, encoder: str, gray: int, colour: int) -> None:
    for channels, size, total in ((1, 28, gray), (3, 32, colour)):
        width = channels * size**2
        options = {"l1_size": width, "l2_size": width} if encoder == "stal" else {}
        with torch.device("meta"):  # sizes alone
            model = create_model(name, in_channels=channels, img_size=size, encoder=encoder, encoder_kwargs=options)
        assert sum(parameter.numel() for parameter in model.parameters()) == total


def test_an_encoder_alone_has_the_weight_names_of_a_classifiers_encoder() -> None:
    alone = create_model("encoder_only", img_size=8, time_steps=3, encoder_kwargs={"hidden_channels": 6})
    names = {name for name in small("stal_srnn").state_dict() if name.startswith("encoder.")}
    assert set(alone.state_dict()) == names
    with pytest.raises(ValueError, match="there are no pretrained weights of 'encoder_only'"):
        create_model("encoder_only", pretrained=True)


@pytest.mark.parametrize("encoder", ["rate", "latency", "stalps", "sps"])
def test_an_encoder_without_an_encoder_loss_is_not_trained_alone(encoder: str) -> None:
    with pytest.raises(ValueError, match=f"trains convstal, stal or ancestor by an encoder loss, not '{encoder}'"):
        create_model("encoder_only", img_size=8, encoder=encoder)


def test_state_dictionaries_have_the_published_names() -> None:
    srnn, spikformer = (set(small(name).state_dict()) for name in SMALL)
    assert {"encoder.Z1.conv.weight", "encoder.Z2.bn.running_var", "encoder.threshold_adder"} <= srnn
    assert {"classifier.fc1.bias", "classifier.rlif1.recurrent.weight", "classifier.rlif2.recurrent.bias"} <= srnn
    assert {"block.0.attn.q_linear.weight", "block.0.attn.proj_bn.bias", "block.0.norm2.weight"} <= spikformer
    assert {"block.0.mlp.fc1_linear.bias", "encoder.rpe_conv.weight", "head.weight"} <= spikformer


@pytest.mark.parametrize("name", SMALL)
def test_embeddings_come_with_the_logits(name: str) -> None:
    model = small(name).eval()
    logits, embeddings = model(images(), return_embeddings=True)
    assert logits.shape == (6, 4)
    assert embeddings.shape[model.embeddings_time_dim] == 3
    assert embeddings.shape[1 - model.embeddings_time_dim] == 6
    assert torch.equal(model(images()), logits)  # and nothing is remembered between two calls


def test_srnn_logits_count_spikes() -> None:
    model = small("stal_srnn")
    with torch.no_grad():
        model.classifier.fc2.bias.fill_(0.8)
    logits = model(images())
    assert torch.equal(logits, logits.round())
    assert 0 < logits.mean() <= 3


@pytest.mark.parametrize("name", SMALL)
def test_every_used_parameter_learns(name: str) -> None:
    model = small(name)
    logits, embeddings = model(images(), return_embeddings=True)
    (logits.square().sum() + embeddings.sum()).backward()
    without = {key for key, parameter in model.named_parameters() if parameter.grad is None}
    assert all(".norm" in key for key in without), without  # layer norms that are kept for old checkpoints


@pytest.mark.parametrize("name", SMALL)
def test_a_frozen_encoder_stays_as_it_is(name: str) -> None:
    model = small(name, freeze_encoder=True).train()
    before = {key: value.clone() for key, value in model.encoder.state_dict().items()}
    logits, embeddings = model(images(), return_embeddings=True)
    logits.sum().backward()
    assert not embeddings.requires_grad
    assert all(parameter.grad is None for parameter in model.encoder.parameters())
    torch.testing.assert_close(model.encoder.state_dict(), before, rtol=0, atol=0)
    assert not model.encoder.training
    assert model.training
    assert any(parameter.grad is not None for parameter in model.parameters())


def test_the_srnn_reads_all_tokens_of_a_step() -> None:
    model = small("stal_srnn", encoder="stalps", encoder_kwargs={}, embed_dims=16).eval()
    logits, tokens = model(images(), return_embeddings=True)
    assert tokens.shape == (3, 6, 4, 16)
    assert model.embeddings_time_dim == 0
    spikes, _ = model.classifier(tokens.permute(1, 0, 2, 3).flatten(2))  # [B, T, N*D]
    assert torch.equal(logits, spikes.sum(0))


@pytest.mark.parametrize("channels", [1, 3])
def test_the_spikformer_reads_patches_of_steps(channels: int) -> None:
    options = {"encoder": "convstal", "encoder_kwargs": {"hidden_channels": 6}, "in_channels": channels}
    model = small("stal_spikformer", **options).eval()
    assert model.embeddings_time_dim == 1
    seen: list[Tensor] = []
    model.block[0].register_forward_pre_hook(lambda block, args: seen.append(args[0]))
    _, spikes = model(images(channels=channels), return_embeddings=True)
    assert spikes.shape == (6, 3, channels, 8, 8)
    patch = spikes[4, 2, :, 4:, :4]  # sample 4, step 2, third of four patches
    token = model.patches.norm((model.patches.proj.weight * patch).sum((1, 2, 3)))
    assert seen[0].shape == (3, 6, 4, 16)
    torch.testing.assert_close(seen[0][2, 4, 2], token)


def test_patches_exist_only_for_steps() -> None:
    assert not [name for name in small("stal_spikformer").state_dict() if name.startswith("patches")]
    model = small("stal_spikformer", encoder="rate")
    names = {name for name in model.state_dict() if name.startswith("patches")}
    assert names == {"patches.proj.weight", "patches.norm.weight", "patches.norm.bias"}


@pytest.mark.parametrize(
    ("step_size", "img_size", "message"),
    [(100, 10, "side must be a multiple of 4, got 10"), (100, 8, "the 100 values of a step .* 8 x 8 pixels")],
)
def test_steps_that_are_no_image_of_patches_are_refused(step_size: int, img_size: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        StepPatches(step_size, img_size, 16)


@pytest.mark.parametrize("name", SMALL)
def test_an_unknown_encoder_is_told_with_a_near_one(name: str) -> None:
    with pytest.raises(ValueError, match=r"unknown encoder 'convstel'.*convstal"):
        small(name, encoder="convstel")


def test_heads_must_divide_the_width() -> None:
    with pytest.raises(ValueError, match=r"num_heads \(3\) must divide the token width \(16\)"):
        small("stal_spikformer", num_heads=3)


@pytest.mark.parametrize("tokens", [3, 9])
def test_both_orders_of_the_attention_product_give_the_same_bits(tokens: int) -> None:
    torch.manual_seed(0)
    attention = SpikingSelfAttention(24, 4, 0.125, make_lif, 0.5).eval()  # heads of width 6
    q, k, v = (torch.rand(2, 3, 4, tokens, 6) < 0.5 for _ in range(3))
    scores = (q.float() @ k.float().transpose(-2, -1)) * 0.125
    seen = []
    attention.attn_lif.register_forward_pre_hook(lambda layer, args: seen.append(args[0]))
    spikes = {"q": q.float(), "k": k.float(), "v": v.float()}
    attention._spikes = lambda name, x: spikes[name].transpose(2, 3).flatten(3) if name in spikes else x
    attention(torch.zeros(2, 3, tokens, 24))
    assert torch.equal(seen[0], (scores @ v.float()).transpose(2, 3).flatten(3))


def test_neuron_options_reach_every_layer() -> None:
    model = small("stal_spikformer", encoder="sps", tau=3.0, v_threshold=0.7, attn_v_threshold=0.3, soft_reset=True)
    layers = {name: module for name, module in model.named_modules() if name.endswith(("lif", "lif1", "lif2", "lif3"))}
    assert len(layers) == 5 + 7
    for name, layer in layers.items():
        assert (layer.tau, layer.v_reset) == (3.0, None)
        assert layer.v_threshold == (0.3 if name.endswith("attn_lif") else 0.7)
    recurrent = small("stal_srnn", beta=0.4, v_threshold=1.3, surrogate_alpha=5.0).classifier.rlif2.dynamics
    assert (recurrent.beta, recurrent.v_threshold, recurrent.alpha) == (0.4, 1.3, 5.0)


@pytest.mark.parametrize("name", SMALL)
def test_models_run_under_autocast(name: str) -> None:
    model = small(name)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        logits, embeddings = model(images(), return_embeddings=True)
    (logits.float().sum() + embeddings.float().sum()).backward()
    assert all(parameter.grad is None or torch.isfinite(parameter.grad).all() for parameter in model.parameters())
