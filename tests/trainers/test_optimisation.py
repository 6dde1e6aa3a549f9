import numpy as np
import pytest
import torch
from torch import nn

from configs.schema import Augmentation, Optimizer, Schedule, Training
from trainers.optimisation import Updater, effective_learning_rate, make_mixup, make_optimizer, make_schedule
from trainers.protocol import TrainerError

CPU = torch.device("cpu")


def updater(**section: object) -> Updater:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 1))
    optimizer = make_optimizer(model, Optimizer(name="momentum", momentum=0.0, learning_rate=0.5, weight_decay=0.0))
    return Updater(model, optimizer, Training(**section), CPU)


def loss_of(part: Updater, rows: torch.Tensor) -> torch.Tensor:
    part.model.eval()
    return part.model(rows).square().mean()


def weights(part: Updater) -> torch.Tensor:
    return nn.utils.parameters_to_vector(part.model.parameters()).detach()


ROWS = torch.arange(12.0).view(4, 3) / 10


def test_accumulated_batches_equal_one_large_batch() -> None:
    whole, parts = updater(), updater()
    whole.backward(loss_of(whole, ROWS), 1.0)
    for rows in ROWS.chunk(2):
        parts.backward(loss_of(parts, rows), 0.5)
    whole.update()
    parts.update()
    assert torch.allclose(weights(whole), weights(parts), atol=1e-7)
    assert not torch.allclose(weights(whole), weights(updater()))
    assert all(parameter.grad is None for parameter in whole.model.parameters())


def test_clipping_bounds_the_step() -> None:
    part = updater(clip_grad_norm=0.01)
    before = weights(part)
    part.backward(loss_of(part, 100 * ROWS), 1.0)
    part.update()
    assert (weights(part) - before).norm() == pytest.approx(0.5 * 0.01, rel=1e-3)


def test_averaged_weights_follow_with_the_decay_given() -> None:
    part = updater(ema_decay=0.75)
    before = weights(part)
    part.backward(loss_of(part, ROWS), 1.0)
    part.update()
    averaged = nn.utils.parameters_to_vector(part.evaluated_model.parameters())
    assert torch.allclose(averaged, 0.75 * before + 0.25 * weights(part), atol=1e-6)
    assert updater().evaluated_model.training  # without averaging it is the model itself


def test_state_is_taken_over_whole() -> None:
    first, second = updater(ema_decay=0.5), updater(ema_decay=0.5)
    first.backward(loss_of(first, ROWS), 1.0)
    first.update()
    second.load_state_dict(first.state_dict())
    for part in (first, second):
        part.backward(loss_of(part, ROWS), 1.0)
        part.update()
    assert torch.equal(weights(first), weights(second))
    assert second.evaluated_model.state_dict().keys() == first.evaluated_model.state_dict().keys()


@pytest.mark.parametrize(
    ("section", "expected"),
    [
        ({"name": "constant"}, [1, 1, 1, 1, 1, 1]),
        ({"name": "constant", "warmup_epochs": 2}, [0, 0.5, 1, 1, 1, 1]),
        ({"name": "step", "step_epochs": 2, "gamma": 0.2}, [1, 1, 0.2, 0.2, 0.04, 0.04]),
        ({"name": "cosine", "min_learning_rate": 0.0}, [(1 + np.cos(np.pi * e / 6)) / 2 for e in range(6)]),
        (
            {"name": "cosine", "warmup_epochs": 2, "warmup_learning_rate": 0.1},
            [0.1, 0.55, *((1 + np.cos(np.pi * e / 6)) / 2 for e in range(2, 6))],
        ),
        (
            {"name": "cosine", "cooldown_epochs": 2, "min_learning_rate": 0.1},
            [*(0.1 + 0.9 * (1 + np.cos(np.pi * e / 4)) / 2 for e in range(4)), 0.1, 0.1],
        ),
        ({"name": "cosine", "warmup_epochs": 8, "cooldown_epochs": 7}, [e / 8 for e in range(6)]),
        (
            {"name": "cosine", "warmup_epochs": 2, "warmup_prefix": True},
            [0.0, 0.5, *((1 + np.cos(np.pi * e / 4)) / 2 for e in range(4))],
        ),
    ],
)
def test_learning_rate_of_each_epoch(section: dict[str, object], expected: list[float]) -> None:
    optimizer = make_optimizer(nn.Linear(2, 2), Optimizer(learning_rate=1.0))
    schedule = make_schedule(optimizer, Schedule(**section), epochs=6)
    rates = []
    for epoch in range(6):
        schedule.step(epoch)
        rates.append(optimizer.param_groups[0]["lr"])
    assert rates == pytest.approx(expected)


def test_a_schedule_per_step_sets_the_rate_of_each_update() -> None:
    """QKFormer's on ImageNet: linear from 0, then half a cosine over what is left (arXiv 2403.16552)."""
    section = Schedule(name="cosine", per="step", warmup_epochs=1, warmup_prefix=True, min_learning_rate=0.1)
    optimizer = make_optimizer(nn.Linear(2, 2), Optimizer(learning_rate=1.0))
    schedule = make_schedule(optimizer, section, epochs=3, updates_per_epoch=4)
    rates = []
    for update in range(12):
        schedule.step(update // 4)  # does nothing for this kind
        schedule.step_update(update)
        rates.append(optimizer.param_groups[0]["lr"])
    assert rates == pytest.approx([0, 0.25, 0.5, 0.75, *(0.1 + 0.45 * (1 + np.cos(np.pi * t / 8)) for t in range(8))])


@pytest.mark.parametrize(("per_images", "expected"), [(None, 6e-4), (256, 6e-4 * 512 / 256), (1024, 6e-4 / 2)])
def test_the_learning_rate_grows_with_the_images_of_an_update(per_images: int | None, expected: float) -> None:
    section = Optimizer(learning_rate=6e-4, scale_lr_by_batch=per_images)
    rate = effective_learning_rate(section, Training(batch_size=64, accumulation_steps=8))
    assert rate == pytest.approx(expected)
    made = make_optimizer(nn.Linear(2, 2), section, rate)
    assert {group["lr"] for group in made.param_groups} == {rate}


def test_lamb_is_there() -> None:
    assert type(make_optimizer(nn.Linear(2, 2), Optimizer(name="lamb"))).__name__ == "Lamb"


def test_weight_decay_spares_norms_and_biases_when_asked() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    spared = make_optimizer(model, Optimizer(weight_decay=0.1, decay_bias_and_norm=False))
    assert sorted((group["weight_decay"], len(group["params"])) for group in spared.param_groups) == [
        (0.0, 3),
        (0.1, 1),
    ]
    all_alike = make_optimizer(model, Optimizer(weight_decay=0.1))
    assert [group["weight_decay"] for group in all_alike.param_groups] == [0.1]


def test_optimiser_settings_reach_it() -> None:
    made = make_optimizer(nn.Linear(2, 2), Optimizer(name="AdamW", betas=(0.8, 0.9), eps=1e-5))
    assert type(made).__name__ == "AdamW"
    assert (made.defaults["betas"], made.defaults["eps"]) == ((0.8, 0.9), 1e-5)


def test_unknown_optimisers_and_settings_are_named() -> None:
    with pytest.raises(TrainerError, match=r"'adamv' is no optimiser of timm; did you mean"):
        make_optimizer(nn.Linear(2, 2), Optimizer(name="adamv"))
    with pytest.raises(TrainerError, match="optimizer 'sgd' has no betas"):
        make_optimizer(nn.Linear(2, 2), Optimizer(name="sgd", betas=(0.8, 0.9)))
    with pytest.raises(TrainerError, match="optimizer 'sgd' refuses one of its settings: Nesterov"):
        make_optimizer(nn.Linear(2, 2), Optimizer(name="sgd", momentum=0.0))


def test_mixing_gives_probabilities_and_is_off_by_default() -> None:
    assert make_mixup(Augmentation(), 10) is None
    mixup = make_mixup(Augmentation(mixup=1.0), 10)
    assert mixup is not None
    np.random.seed(1)
    images, targets = mixup(torch.rand(4, 1, 8, 8), torch.tensor([1, 2, 3, 4]))
    assert targets.shape == (4, 10)
    assert torch.allclose(targets.sum(1), torch.ones(4))
    assert 0 < targets[0, 1] < 1
    mixup.mixup_enabled = False
    _, plain = mixup(images, torch.tensor([1, 2, 3, 4]))
    assert torch.equal(plain.argmax(1), torch.tensor([1, 2, 3, 4]))
    assert set(plain.flatten().tolist()) == {0.0, 1.0}


def test_clips_are_mixed_in_the_plane_of_their_frames() -> None:
    clips = torch.arange(4.0).view(4, 1, 1, 1, 1).expand(4, 3, 2, 8, 8).clone()
    mixup = make_mixup(Augmentation(mixup=1.0), 4)
    assert mixup is not None
    np.random.seed(0)
    mixed, targets = mixup(clips.clone(), torch.arange(4))
    share = targets[0, 0].item()
    assert 0 < share < 1
    assert torch.allclose(mixed, share * clips + (1 - share) * clips.flip(0), atol=1e-5)
    cutmix = make_mixup(Augmentation(cutmix=1.0), 4)
    assert cutmix is not None
    np.random.seed(2)
    cut, targets = cutmix(clips.clone(), torch.arange(4))
    foreign = cut != clips
    assert torch.equal(foreign, foreign[:1, :1, :1].expand_as(foreign))  # one rectangle for all frames and polarities
    assert foreign[0, 0, 0].float().mean().item() == pytest.approx(1 - targets[0, 0].item())
    assert 0 < targets[0, 0] < 1
