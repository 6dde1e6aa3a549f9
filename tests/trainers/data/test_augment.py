"""Normalisation of pixels and timm's transforms of single images."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from configs.data_fit import EVENT_SETS, IMAGE_SHAPES
from configs.schema import Augmentation, DigitsData
from trainers.data import load_data
from trainers.data.augment import TimmTransform, make_transform
from trainers.data.batches import TrainBatches, eval_batches
from trainers.data.normalization import OF_DATASET, Normalization, choose_normalization
from trainers.protocol import TrainerError

CPU = torch.device("cpu")
SPIKFORMER_OPS = ("Equalize", "Rotate", "ShearX", "TranslateXRel", "TranslateYRel")
CIFAR = OF_DATASET["cifar10"]


def picture(channels: int = 3, side: int = 32) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (channels, side, side), generator=generator).to(torch.uint8)


def transform(normalization: Normalization | None = None, **section: object) -> TimmTransform:
    return TimmTransform(Augmentation(**section), 32, normalization)


def operations(made: TimmTransform) -> list[Any]:
    return next(step.ops for step in made._pipeline.transforms if hasattr(step, "ops"))


def test_every_set_of_images_has_numbers_for_its_channels() -> None:
    assert set(OF_DATASET) == set(IMAGE_SHAPES) - EVENT_SETS
    for name, normalization in OF_DATASET.items():
        assert len(normalization.mean) == len(normalization.std) == IMAGE_SHAPES[name][0]
        assert all(0.0 < mean < 1.0 for mean in normalization.mean)


def test_the_numbers_of_the_digits_are_those_of_the_digits() -> None:
    bundle = load_data(DigitsData())
    images = torch.cat([bundle.split(name).images for name in ("train", "val", "test")])
    assert images.mean().item() == pytest.approx(OF_DATASET["digits"].mean[0], abs=1e-4)
    assert images.std().item() == pytest.approx(OF_DATASET["digits"].std[0], abs=1e-4)


def test_normalisation_is_none_the_sets_or_explicit() -> None:
    assert choose_normalization(Augmentation(), "cifar10") is None
    assert choose_normalization(Augmentation(normalize="dataset"), "cifar10") == CIFAR
    cifar10s = Augmentation(normalize="explicit", mean=CIFAR.mean, std=CIFAR.std)
    assert choose_normalization(cifar10s, "cifar100") == CIFAR != OF_DATASET["cifar100"]
    with pytest.raises(TrainerError, match=r"give augmentation\.mean and augmentation\.std"):
        choose_normalization(Augmentation(normalize="explicit", mean=(0.5,)), "mnist")


@pytest.mark.parametrize("flip", [0.0, 1e-9])
def test_every_batch_is_normalised_once_with_or_without_a_transform(flip: float) -> None:
    section = Augmentation(normalize="explicit", mean=(0.25,), std=(0.5,), horizontal_flip=flip)
    plain, bundle = load_data(DigitsData()), load_data(DigitsData(), section)
    assert (bundle.transform is None) == (flip == 0.0)

    def first(data, transform) -> Tensor:
        return next(TrainBatches(data.train, batch_size=50, seed=0, device=CPU, transform=transform).epoch(0))[0]

    expected = (first(plain, None) - 0.25) / 0.5
    assert torch.allclose(first(bundle, bundle.transform), expected, atol=4 / 255)  # transforms work on bytes
    for split in ("val", "test"):
        raw, ours = (next(eval_batches(data.split(split), 20))[0] for data in (plain, bundle))
        assert torch.equal(ours, (raw - 0.25) / 0.5)
        assert torch.equal(ours, next(eval_batches(bundle.split(split), 20))[0])  # the set itself is left alone


def test_normalisation_comes_before_erasing_and_suits_gray_images() -> None:
    made = transform(CIFAR, random_erasing=1.0)
    torch.manual_seed(0)
    erased = made(picture())
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (CIFAR.mean, CIFAR.std))
    expected = (picture() / 255 - mean) / std
    kept = erased != 0
    assert torch.allclose(erased[kept], expected[kept], atol=1e-6)
    assert 0.0 < 1 - kept.float().mean() < 0.5
    gray = transform(Normalization((0.5,), (0.25,)), horizontal_flip=1e-9)(picture(1))
    assert torch.allclose(gray, (picture(1) / 255 - 0.5) / 0.25)


def test_erased_pixels_are_noise_where_asked() -> None:
    kinds = {mode: transform(random_erasing=1.0, random_erasing_mode=mode) for mode in ("const", "pixel")}
    changed = {}
    for mode, made in kinds.items():
        torch.manual_seed(0)
        image = made(picture())
        changed[mode] = image[(image * 255 - picture()).abs() > 1e-3]
    assert set(changed["const"].tolist()) == {0.0}
    assert changed["pixel"].unique().numel() > 50
    assert changed["pixel"].min() < 0.0


def test_operations_are_restricted_and_keep_their_strength() -> None:
    policy = "rand-m9-n1-mstd0.4-inc1"
    free = operations(transform(rand_augment=policy))
    ours = operations(transform(rand_augment=policy, rand_augment_ops=SPIKFORMER_OPS))
    assert [op.name for op in ours] == list(SPIKFORMER_OPS)
    assert len(free) == 15
    like = {op.name: op for op in free}
    for op in ours:
        assert (op.prob, op.magnitude, op.magnitude_std) == (0.5, 9, 0.4)
        assert op.hparams == like[op.name].hparams
        assert op.kwargs == like[op.name].kwargs
    assert [op.name for op in operations(transform(rand_augment=policy, rand_augment_ops=("TranslateX",)))]


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ({"rand_augment": "rand-m9", "rand_augment_ops": ("Equalise",)}, "'Equalise' is no operation.*Equalize"),
        ({"rand_augment": "rand-m9", "rand_augment_ops": ()}, "expected names"),
        ({"rand_augment": "original", "rand_augment_ops": ("Rotate",)}, "begins with 'rand'"),
    ],
)
def test_operations_that_do_not_exist_are_named(section: dict[str, object], message: str) -> None:
    with pytest.raises(TrainerError, match=message):
        transform(**section)


def test_colour_is_jittered_but_not_beside_randaugment() -> None:
    torch.manual_seed(0)
    jittered = transform(color_jitter=0.5)(picture())
    assert not torch.allclose(jittered, picture() / 255)
    names = [type(step).__name__ for step in transform(color_jitter=0.5, rand_augment="rand-m1")._pipeline.transforms]
    assert "ColorJitter" not in names
    assert make_transform(Augmentation(color_jitter=0.5), (3, 32, 32)) is not None


def test_the_crop_has_the_ratio_and_interpolation_given() -> None:
    made = transform(crop_scale=(0.1, 0.5), crop_ratio=(1.0, 1.0), interpolation="bicubic")._pipeline.transforms[0]
    assert (made.scale, made.ratio, made.interpolation.value) == ((0.1, 0.5), (1.0, 1.0), "bicubic")
    usual = transform(crop_scale=(0.1, 0.5))._pipeline.transforms[0]
    assert (usual.ratio, usual.interpolation.value) == ((3 / 4, 4 / 3), "bilinear")
    whole = transform(horizontal_flip=0.5)._pipeline.transforms[0]
    assert (whole.scale, whole.ratio) == ((1.0, 1.0), (1.0, 1.0))
