"""Losses: the uniform call, layouts, and what the published numbers do not cover."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from trainers.losses import LOSSES, TaskLoss, register_loss
from trainers.losses.ce_l1 import CeL1
from trainers.losses.ce_spike_sparsity import CeSpikeSparsity
from trainers.losses.encoder_loss import EncoderLoss, MultiChannelEncoderLoss, mutual_information
from trainers.losses.spike_sparsity import SpikeSparsity

GENERATOR = torch.Generator().manual_seed(0)
LOGITS = torch.randn(4, 3, generator=GENERATOR)
TARGETS = torch.tensor([0, 2, 1, 1])
SOFT = torch.softmax(torch.randn(4, 3, generator=GENERATOR), 1)
EMBEDDINGS = torch.rand(5, 4, 2, 3, generator=GENERATOR)
IMAGES = torch.rand(4, 1, 2, 2, generator=GENERATOR)


def test_losses_are_found_by_name_and_registered_once() -> None:
    assert {"cross_entropy", "ce_ss", "ce_l1", "encoder_loss", "multi_channel_encoder_loss"} <= LOSSES.keys()
    with pytest.raises(ValueError, match="loss 'ce_ss' is registered already"):
        register_loss("ce_ss")(CeSpikeSparsity)


@pytest.mark.parametrize("targets", [TARGETS, SOFT])
@pytest.mark.parametrize(
    ("name", "options"),
    [("cross_entropy", {"label_smoothing": 0.1}), ("ce_ss", {"omega": 0.1, "n_epochs": 3, "label_smoothing": 0.1})],
)
def test_the_uniform_call_takes_indices_and_soft_targets(name: str, options: dict[str, float], targets: Tensor) -> None:
    loss = LOSSES.create(name, **options)
    assert isinstance(loss, TaskLoss)
    value = loss(LOGITS, targets, embeddings=EMBEDDINGS, epoch=0, images=IMAGES)  # no sparsity in the first epoch
    torch.testing.assert_close(value, F.cross_entropy(LOGITS, targets, label_smoothing=0.1))


def test_sparsity_ramps_up_without_a_clamp() -> None:
    loss = SpikeSparsity(omega=0.5, n_epochs=4, c=2.0)
    q = EMBEDDINGS.sum(0).mean(0)
    plain = 0.5 * (q.sum() - 2.0 * (q**2).sum() / (q.sum() + 1e-6))
    for epoch in (0, 1, 4, 6):
        torch.testing.assert_close(loss(EMBEDDINGS, epoch), plain * epoch / 4)


def test_concentrated_spikes_are_rewarded() -> None:
    spread, packed = torch.zeros(2, 5, 1, 8)
    spread[0, 0, :5] = 1
    packed[:, 0, 0] = 1
    loss = SpikeSparsity(omega=1.0, n_epochs=1, c=1.0)
    assert loss(spread, 1).item() == pytest.approx(4.0)  # L1 = 5, K = 1
    assert loss(packed, 1).item() == pytest.approx(0.0, abs=1e-5)  # L1 = 5, K = 5


def test_the_published_layout_scales_the_term_by_batch_over_steps() -> None:
    recurrent = torch.rand(128, 5, 1, 4, 4, generator=GENERATOR, dtype=torch.float64)  # [B, T, ...]
    loss = SpikeSparsity(omega=1.0, n_epochs=10, c=0.7)
    as_is, time_first = loss(recurrent, 9), loss(recurrent.transpose(0, 1), 9)
    torch.testing.assert_close(as_is, time_first * 128 / 5, rtol=1e-6, atol=0)


@pytest.mark.parametrize("loss", [CeSpikeSparsity(omega=0.1, n_epochs=2), CeL1()])
def test_a_loss_says_what_it_misses(loss: TaskLoss) -> None:
    assert loss.needs_embeddings
    with pytest.raises(ValueError, match=f"{type(loss).__name__} needs embeddings"):
        loss(LOGITS, TARGETS)


def test_ce_l1_needs_images() -> None:
    with pytest.raises(ValueError, match="CeL1 needs images"):
        CeL1()(LOGITS, TARGETS, embeddings=EMBEDDINGS)


@pytest.mark.parametrize(("alpha", "has_gradient"), [(10.0, True), (10.5, False)])
def test_ce_l1_counts_hard_spikes_above_slope_ten(alpha: float, has_gradient: bool) -> None:
    embeddings = EMBEDDINGS.clone().requires_grad_()
    loss = CeL1(alpha)(LOGITS.clone().requires_grad_(), TARGETS, embeddings=embeddings, images=IMAGES)
    (grad,) = torch.autograd.grad(loss, embeddings, allow_unused=True)
    assert (grad is not None) == has_gradient


def test_mutual_information_by_hand() -> None:
    x, y = torch.tensor([1.0, 0.0, 1.0, 0.0]), torch.tensor([2.0, 0.0, 2.0, 0.0])
    assert mutual_information(x, y).item() == pytest.approx(1.0)  # j = 1, a = 1/2, b = 1: 1 log2(2)
    with pytest.raises(ValueError, match="means must not be negative"):
        mutual_information(x, -y)
    with pytest.raises(ValueError, match="both must have one shape"):
        mutual_information(x, y[:2])


def test_with_both_layers_the_first_has_a_term_unless_as_published() -> None:
    x = torch.rand(2, 6, generator=GENERATOR)
    spikes, z1, z2 = torch.rand(2, 24, generator=GENERATOR), torch.rand(2, 6), torch.rand(2, 6)
    loss = EncoderLoss(count_spikes=False, z_terms="last")
    alone = -loss(spikes, x)
    first, second = mutual_information(x, z1), mutual_information(x, z2)
    torch.testing.assert_close(loss(spikes, x, z1, z2), -(alone + second) / 3)
    torch.testing.assert_close(loss(spikes, x, z1), -(alone + first) / 2)
    both = EncoderLoss(count_spikes=False)
    torch.testing.assert_close(both(spikes, x, z1, z2), -(alone + first + second) / 3)
    torch.testing.assert_close(both(spikes, x, z1), loss(spikes, x, z1))
    torch.testing.assert_close(EncoderLoss(use_z=False, count_spikes=False)(spikes, x, z1, z2), -alone)


def test_slot_weights() -> None:
    x = torch.ones(1, 1)
    spikes = torch.tensor([[1.0, 0.0, 0.0]])  # one spike in the first of three slots
    values = {w: EncoderLoss(w, count_spikes=False)(spikes, x).item() for w in ("late", "early", "uniform")}
    assert values == {"late": 0.0, "early": 0.0, "uniform": 0.0}  # one pixel: j = a b whatever the weight
    x, spikes = torch.tensor([[1.0, 0.0]]), torch.tensor([[1.0, 0.0, 0.0, 0.0, 0.0, 1.0]])
    late, early, uniform = (EncoderLoss(w, count_spikes=False)(spikes, x).item() for w in ("late", "early", "uniform"))
    # pixel 1 fires first, pixel 2 last: s = (1, 3), (3, 1), (1, 1)
    assert late == pytest.approx(-0.5 * torch.tensor(0.5 / (0.5 * 2)).log2().item())
    assert early == pytest.approx(-1.5 * torch.tensor(1.5 / (0.5 * 2)).log2().item())
    assert uniform == pytest.approx(0.0)


def test_encoder_losses_refuse_shapes_that_do_not_fit() -> None:
    with pytest.raises(ValueError, match=r"spikes must be \[2, 6 x T\], got \(2, 20\)"):
        EncoderLoss()(torch.rand(2, 20), torch.rand(2, 6))
    with pytest.raises(ValueError, match="both must have one shape"):
        EncoderLoss()(torch.rand(2, 24), torch.rand(2, 6), torch.rand(2, 5), torch.rand(2, 5))


def test_one_channel_is_the_encoder_loss_of_its_memory_as_published() -> None:
    spikes, x = torch.rand(2, 5, 9, generator=GENERATOR), torch.rand(2, 1, 3, 3, generator=GENERATOR)
    several = MultiChannelEncoderLoss(spike_layout="as_is")(spikes, x)
    torch.testing.assert_close(several, EncoderLoss()(spikes.flatten(1), x.flatten(1)))


def test_pixels_come_first_in_the_encoder_loss_of_each_channel() -> None:
    steps, x = torch.rand(2, 5, 3, 4, 4, generator=GENERATOR), torch.rand(2, 3, 4, 4, generator=GENERATOR)
    z1, z2 = (torch.rand(2, 3, 4, 4, generator=GENERATOR) for _ in range(2))
    slots = steps.permute(0, 2, 3, 4, 1)  # [B, C, H, W, T]
    parts = [EncoderLoss()(*(part[:, c].flatten(1) for part in (slots, x, z1, z2))) for c in range(3)]
    expected = sum(parts) / 3
    torch.testing.assert_close(MultiChannelEncoderLoss()(steps, x, z1, z2), expected)
    flat = (steps.flatten(2), x.flatten(2), z1.flatten(2), z2.flatten(2))
    torch.testing.assert_close(MultiChannelEncoderLoss()(*flat), expected)


@pytest.mark.parametrize("targets", [TARGETS, SOFT])
def test_tet_is_the_mean_over_steps_of_the_cross_entropy_and_draws_logits_to_a_mean(targets: Tensor) -> None:
    steps = torch.randn(5, 4, 3, generator=torch.Generator().manual_seed(1))
    loss = LOSSES.create("tet", lamb=0.05, mean=1.0, label_smoothing=0.1)
    entropy = torch.stack([F.cross_entropy(logits, targets, label_smoothing=0.1) for logits in steps]).mean()
    expected = 0.95 * entropy + 0.05 * F.mse_loss(steps, torch.ones_like(steps))
    torch.testing.assert_close(loss(steps, targets, embeddings=None, epoch=3, images=IMAGES), expected)
    assert isinstance(loss, TaskLoss)
    assert not loss.needs_embeddings


def test_tet_wants_the_logits_of_each_step() -> None:
    with pytest.raises(ValueError, match=r"logits of each step \[T, B, K\], got \(4, 3\)"):
        LOSSES.create("tet")(LOGITS, TARGETS)
