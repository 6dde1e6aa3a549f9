"""Encoders: shapes, thresholds, slot order, codes, and what they refuse."""

from __future__ import annotations

import functools
import math

import pytest
import torch
from torch import Tensor, nn

import trainers.torchvision_ops  # noqa: F401  # before timm

# isort: split
from timm.utils import ModelEmaV3

from trainers.encoders import ENCODERS, StepEncoder, TokenEncoder, register_encoder
from trainers.encoders.ancestor import Ancestor
from trainers.encoders.convstal import ConvStal
from trainers.encoders.sps import Sps
from trainers.encoders.stal import Stal
from trainers.encoders.stal_ps import StalPs


def images(channels: int = 1, size: int = 8, batch: int = 6) -> Tensor:
    return torch.rand(batch, channels, size, size, generator=torch.Generator().manual_seed(0))


def count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


# --- registry and shapes ----------------------------------------------------------------------------------------------


def test_a_name_is_registered_once() -> None:
    with pytest.raises(ValueError, match=r"encoder 'stalps' is registered already, by .*StalPs"):
        register_encoder("new_name_2", "stalps")(StalPs)


def test_an_unknown_name_gets_a_hint() -> None:
    with pytest.raises(ValueError, match="unknown encoder 'convstall'; did you mean 'convstal'"):
        ENCODERS.create("convstall")


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("stal", {"l1_size": 32, "l2_size": 64}),
        ("convstal", {"hidden_channels": 6}),
        ("rate", {}),
        ("latency", {}),
        ("latency", {"variant": "log"}),
        ("latency", {"variant": "first_sample"}),
        ("ancestor", {"l1_size": 64}),
    ],
)
def test_step_encoders_give_batch_and_time_first(name: str, options: dict[str, object], channels: int) -> None:
    encoder = ENCODERS.create(name, in_channels=channels, img_size=8, time_steps=4, **options)
    assert isinstance(encoder, StepEncoder)
    steps = encoder.steps(encoder(images(channels)).spikes)
    assert steps.shape[:2] == (6, 4)
    assert steps[0, 0].numel() == encoder.step_size == channels * 64


@pytest.mark.parametrize("name", ["stalps", "convstal_ps", "sps"])
def test_token_encoders_give_time_first(name: str) -> None:
    encoder = ENCODERS.create(name, in_channels=3, img_size=8, time_steps=4, embed_dims=16)
    assert isinstance(encoder, TokenEncoder)
    assert encoder(images(3)).shape == (4, 6, 4, 16)


# --- STAL -------------------------------------------------------------------------------------------------------------


def test_slot_orders_read_the_same_spikes() -> None:
    spikes = torch.arange(2 * 3 * 4.0).view(2, 12)  # [B, n * T] with n = 3 values, T = 4 slots
    time_major = Stal(window_size=3, time_steps=4, l1_size=3, l2_size=3).steps(spikes)
    pixel_major = Stal(window_size=3, time_steps=4, l1_size=3, l2_size=3, slot_order="pixel_major").steps(spikes)
    assert time_major[0, 1].tolist() == [1.0, 5.0, 9.0]  # slot 1 of every value
    assert pixel_major[0, 1].tolist() == [3.0, 4.0, 5.0]  # the second run of three


@pytest.mark.parametrize(
    ("l1_size", "l2_size", "message"),
    [(6, 24, "l2_size must divide 24"), (6, 5, "l2_size must divide 24"), (4, 6, "width 4 and the 6 inputs")],
)
def test_stal_refuses_widths_that_do_not_fit(l1_size: int, l2_size: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Stal(window_size=6, time_steps=4, l1_size=l1_size, l2_size=l2_size)


@pytest.mark.parametrize("training", [True, False])
def test_thresholds_are_clamped_after_their_use(training: bool) -> None:
    encoders = [
        Stal(window_size=64, time_steps=2, l1_size=64, l2_size=64),
        ConvStal(in_channels=1, img_size=8, time_steps=2, hidden_channels=4),
    ]
    for encoder in encoders:
        encoder.train(training)
        with torch.no_grad():
            encoder.threshold_adder.fill_(-3.0)
        assert encoder(images()).spikes.min() > 0.99  # sigma(25 (h + 3)) with h >= 0
        assert torch.all(encoder.threshold_adder == 1e-3)


# --- ConvSTAL ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("channels", "size", "hidden", "total"), [(1, 28, 784, 20_387), (3, 32, 784, 60_057), (3, 32, 32, 17_193)]
)
def test_convstal_has_the_published_number_of_parameters(channels: int, size: int, hidden: int, total: int) -> None:
    assert count(ConvStal(in_channels=channels, img_size=size, hidden_channels=hidden)) == total


def test_a_gray_image_takes_the_first_channel_of_wide_blocks() -> None:
    encoder = ConvStal(in_channels=1, img_size=8, hidden_channels=5, drop_p=0.0).eval()
    assert torch.equal(encoder(images()).z1, encoder.Z1(images())[:, :1])


def test_convstal_refuses_sizes_that_do_not_fit() -> None:
    with pytest.raises(ValueError, match="kernel_size must be odd"):
        ConvStal(in_channels=1, img_size=8, kernel_size=4)
    with pytest.raises(ValueError, match="a block of 2 channels must divide the 3 channels"):
        ConvStal(in_channels=3, img_size=8, hidden_channels=2)


# --- STAL-PS ----------------------------------------------------------------------------------------------------------


def test_two_threshold_passes_shift_the_effective_threshold() -> None:
    torch.manual_seed(0)
    once = StalPs(in_channels=1, img_size=8, time_steps=3, embed_dims=64, threshold_passes=1).double()
    with torch.no_grad():
        once.threshold_adder.uniform_(0.2, 0.8)
        once.rpe_bn.weight.fill_(0.3)  # tokens near the thresholds
        once.proj_bn3.weight.fill_(0.3)
    twice = StalPs(in_channels=1, img_size=8, time_steps=3, embed_dims=64).double()
    twice.load_state_dict(once.state_dict())
    x = images().double()
    theta = once.threshold_adder[:, None].detach()
    effective = theta + torch.log(theta / (1 - theta)) / 25
    g = once(x).logit() / 25 + theta  # the tokens before any threshold
    assert torch.equal(twice(x) >= 0.5, g >= effective)
    assert torch.equal(twice(x) >= 0.5, once(x) >= theta)
    assert not torch.equal(twice(x) >= 0.5, once(x) >= 0.5)


def test_stal_ps_never_clamps() -> None:
    encoder = StalPs(in_channels=1, img_size=8, embed_dims=8)
    with torch.no_grad():
        encoder.threshold_adder.fill_(1.5)
    encoder(images())
    assert torch.all(encoder.threshold_adder == 1.5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"img_size": 8, "patch_size": 2}, "patch_size must be 4"),
        ({"img_size": 30}, "multiple of 4, got 30; set data.image_size"),
        ({"img_size": 8, "embed_dims": 12}, "multiple of 8, got 12"),
    ],
)
def test_patch_splitting_refuses_sizes_that_do_not_fit(options: dict[str, int], message: str) -> None:
    for encoder in (StalPs, Sps):
        with pytest.raises(ValueError, match=message):
            encoder(in_channels=1, **options)


# --- SPS --------------------------------------------------------------------------------------------------------------


def test_sps_tokens_are_sums_of_two_spikes() -> None:
    tokens = Sps(in_channels=1, img_size=8, embed_dims=32)(images())
    assert set(tokens.unique().tolist()) <= {0.0, 1.0, 2.0}
    assert 0 < tokens.mean() < 1


# --- rate and latency -------------------------------------------------------------------------------------------------


def test_rate_is_brightness() -> None:
    torch.manual_seed(0)
    encoder = ENCODERS.create("rate", in_channels=1, img_size=8, time_steps=2000)
    spikes = encoder(images(batch=2)).spikes
    assert set(spikes.unique().tolist()) == {0.0, 1.0}
    torch.testing.assert_close(spikes.mean(1), images(batch=2), atol=0.05, rtol=0)


def test_latency_is_one_spike_and_bright_is_early() -> None:
    encoder = ENCODERS.create("latency", in_channels=1, img_size=2, time_steps=5)
    spikes = encoder(torch.tensor([[[[1.0, 0.0], [0.5, 0.74]]]])).spikes
    assert torch.all(spikes.sum(1) == 1)
    assert spikes.argmax(1).flatten().tolist() == [0, 4, 2, 1]


def test_the_published_latency_code_knows_the_first_sample_alone() -> None:
    encoder = ENCODERS.create("latency", in_channels=1, img_size=8, time_steps=5, variant="first_sample")
    first = encoder(images()).spikes
    assert torch.equal(encoder(1 - images()).spikes, first)
    assert torch.equal(first[5], first[0])  # row b is frame b mod T


def test_the_published_latency_code_keeps_its_sample_in_its_state() -> None:
    build = functools.partial(
        ENCODERS.create, "latency", in_channels=1, img_size=8, time_steps=5, variant="first_sample"
    )
    encoder, copy = build(), build()
    first = encoder(images()).spikes
    copy.load_state_dict(encoder.state_dict())
    assert torch.equal(copy(1 - images()).spikes, first)
    averaged = ModelEmaV3(nn.Sequential(build(), nn.Linear(1, 1)), decay=0.9)
    averaged.update(nn.Sequential(encoder, nn.Linear(1, 1)))
    assert torch.equal(averaged.module[0](1 - images()).spikes, first)
    assert not ENCODERS.create("latency", in_channels=1, img_size=8).state_dict()


@pytest.mark.parametrize("name", ["rate", "latency"])
def test_codes_refuse_normalised_pixels(name: str) -> None:
    encoder = ENCODERS.create(name, in_channels=1, img_size=8, time_steps=5)
    with pytest.raises(ValueError, match=rf"{name} coding takes pixels in \[0, 1\], got \[-"):
        encoder(images() - 0.5)


# --- ancestors --------------------------------------------------------------------------------------------------------


def test_an_ancestor_without_hidden_layers_thresholds_its_input() -> None:
    encoder = Ancestor(window_size=3, time_steps=2, l2_size=3, alpha=100.0)  # l1_size 0 leaves out the second layer too
    with torch.no_grad():
        encoder.threshold_adder.fill_(0.5)
    spikes, z1, z2 = encoder(torch.tensor([[0.5, 0.51, 0.0]]))
    assert spikes[0, :4].tolist() == pytest.approx([0.5, 0.5, *[1 / (1 + math.exp(-1.0))] * 2], rel=1e-3)
    assert z1 is None
    assert z2 is None


def test_an_ancestor_leaves_out_batch_normalisation_of_one_sample() -> None:
    encoder = Ancestor(window_size=4, time_steps=2, l1_size=4)
    assert encoder(torch.rand(1, 4)).spikes.shape == (1, 8)
    assert encoder.bn1.num_batches_tracked == 0
    encoder(torch.rand(2, 4))
    assert encoder.bn1.num_batches_tracked == 1


def test_an_ancestor_can_mix_its_channels() -> None:
    encoder = Ancestor(window_size=4, n_channels=3, time_steps=2, mix_channels=True)
    encoder.conv.weight.data.fill_(1.0)
    encoder.conv.bias.data.zero_()
    x = torch.rand(2, 3, 4) / 3
    plain = Ancestor(window_size=4, time_steps=2)
    plain.threshold_adder.data.copy_(encoder.threshold_adder)
    torch.testing.assert_close(encoder(x).spikes, plain(x.sum(1)).spikes)


def test_an_ancestor_refuses_widths_that_do_not_fit() -> None:
    with pytest.raises(ValueError, match="a layer of width 5 must divide 8"):
        Ancestor(window_size=4, time_steps=2, l1_size=5)
