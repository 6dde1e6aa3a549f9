"""Data, augmentation and schedules that do not go together."""

from __future__ import annotations

from typing import Any

import pytest

from configs.data_fit import (
    CLIP_ENCODERS,
    EVENT_SETS,
    IMAGE_SHAPES,
    UNIT_PIXEL_ENCODERS,
    UNIT_PIXEL_LOSSES,
    image_shape,
)
from configs.fit import misfits
from configs.keys import known_keys

DVS = {"name": "cifar10_dvs", "frames": 10}
DIRECT = {"name": "direct", "time_steps": 10}
CIFAR = {"name": "cifar10"}
RGB = [0.5, 0.5, 0.5]


def epochs(count: int, **schedule: object) -> dict[str, Any]:
    return {"schedule": {"name": "cosine", **schedule}, "training": {"epochs": count}}


@pytest.mark.parametrize(
    ("values", "keys"),
    [
        ({"training": {"processes": 2, "batch_size": 4, "device": "cuda:0,3"}}, []),
        (
            {"training": {"processes": 2, "batch_size": 3, "device": "cuda:1"}},
            ["training.device", "training.batch_size"],
        ),
        ({"training": {"batch_size": 1, "device": "cuda:0,3"}}, ["training.device"]),
        ({"training": {"processes": 2, "batch_size": 128, "device": "mps"}}, ["training.processes"]),
        ({"training": {"processes": 8, "batch_size": "16", "device": "auto"}}, []),
        ({"data": DVS, "encoder": DIRECT}, []),
        ({"data": DVS, "encoder": {**DIRECT, "time_steps": 4}}, ["encoder.time_steps"]),
        ({"data": DVS, "encoder": {"time_steps": 4}}, ["encoder.time_steps"]),
        ({"data": DVS, "encoder": {"name": "rate", "time_steps": 4}}, ["encoder.name"]),
        ({"data": CIFAR, "encoder": {**DIRECT, "time_steps": 4}}, []),
        ({"data": DVS, "augmentation": {"horizontal_flip": 0.5, "mixup": 0.5, "event_cutout": 16}}, []),
        (
            {"data": DVS, "augmentation": {"rand_augment": "rand-m9", "random_erasing": 0.25, "normalize": "dataset"}},
            ["augmentation.normalize", "augmentation.rand_augment", "augmentation.random_erasing"],
        ),
        ({"data": DVS, "augmentation": {"rand_augment": None, "random_erasing": 0.0, "normalize": "none"}}, []),
        ({"data": DVS, "augmentation": {"crop_scale": [0.5, 1.0]}}, ["augmentation.crop_scale"]),
        (
            {"data": CIFAR, "augmentation": {"event_augment": "spikformer_dvs", "event_cutout": 16}},
            ["augmentation.event_augment", "augmentation.event_cutout"],
        ),
        ({"data": CIFAR, "augmentation": {"event_augment": "none", "event_cutout": 0}}, []),
        ({"data": CIFAR, "augmentation": {"normalize": "explicit", "mean": RGB, "std": RGB}}, []),
        ({"data": CIFAR, "augmentation": {"normalize": "explicit", "mean": RGB, "std": None}}, ["augmentation.std"]),
        ({"data": CIFAR, "augmentation": {"normalize": "explicit", "mean": [0.5], "std": RGB}}, ["augmentation.mean"]),
        ({"data": CIFAR, "augmentation": {"normalize": "dataset", "mean": RGB, "std": None}}, ["augmentation.mean"]),
        ({"data": CIFAR, "augmentation": {"normalize": "none", "mean": None, "std": RGB}}, ["augmentation.std"]),
        ({"encoder": {"name": "rate"}, "augmentation": {"normalize": "dataset"}}, ["augmentation.normalize"]),
        ({"loss": {"name": "ce_l1"}, "augmentation": {"normalize": "dataset"}}, ["augmentation.normalize"]),
        ({"loss": {"name": "ce_l1"}, "augmentation": {"normalize": "none"}}, []),
        ({"augmentation": {"crop_ratio": [1.0, 0.5], "crop_scale": [0.5, 1.0]}}, ["augmentation.crop_ratio"]),
        ({"augmentation": {"crop_ratio": [1.0, 1.0], "crop_scale": None}}, ["augmentation.crop_ratio"]),
        ({"augmentation": {"rand_augment_ops": ["Rotate"], "rand_augment": None}}, ["augmentation.rand_augment_ops"]),
        ({"augmentation": {"rand_augment_ops": ["Rotate"], "rand_augment": "rand-m9"}}, []),
        (epochs(310, cooldown_epochs=10, warmup_epochs=20), []),
        (epochs(10, cooldown_epochs=10), ["schedule.cooldown_epochs"]),
        (epochs(10, cooldown_epochs=10, warmup_epochs=9), ["schedule.cooldown_epochs"]),
        (epochs(10, cooldown_epochs=10, warmup_epochs=10), []),
        (epochs(10, cooldown_epochs=10, warmup_epochs=10, warmup_prefix=True), ["schedule.cooldown_epochs"]),
        (epochs(30, cooldown_epochs=10, warmup_epochs=20), []),
        (epochs(30, cooldown_epochs=10, warmup_epochs=20, warmup_prefix=True), ["schedule.cooldown_epochs"]),
        (epochs(20, warmup_epochs=20, warmup_prefix=True), ["schedule.warmup_epochs"]),
        (epochs(10, name="step", cooldown_epochs=10), []),
    ],
)
def test_what_does_not_fit_is_named(values: dict[str, Any], keys: list[str]) -> None:
    assert [misfit.key for misfit in misfits(values)] == keys
    assert set(keys) <= known_keys().keys()


@pytest.mark.parametrize(
    "values",
    [
        {"data": {**DVS, "frames": "ten"}, "encoder": {**DIRECT, "time_steps": None}},
        {"data": DVS, "encoder": {"name": 3, "time_steps": 10}},
        {"data": {"name": 3}, "augmentation": {"event_cutout": 3}},
        {"data": CIFAR, "augmentation": {"normalize": "dataset-wide", "mean": 3}},
        {"data": CIFAR, "augmentation": {"normalize": "explicit", "mean": 0.5, "std": "x"}},
        {"augmentation": {"crop_ratio": "wide"}},
        epochs(10, cooldown_epochs="ten", warmup_prefix="yes"),
    ],
)
def test_values_that_are_wrong_by_themselves_are_passed_over(values: dict[str, Any]) -> None:
    assert misfits(values) == []


def test_the_tables_name_kinds_that_exist() -> None:
    keys = known_keys()
    assert set(IMAGE_SHAPES) == set(keys["data.name"].values)
    assert set(keys["data.frames"].kinds) == EVENT_SETS
    assert set(keys["encoder.name"].values) >= CLIP_ENCODERS | UNIT_PIXEL_ENCODERS
    assert set(keys["loss.name"].values) >= UNIT_PIXEL_LOSSES


def test_shapes_of_images() -> None:
    assert image_shape({"name": "cifar10_dvs"}) == (2, 128, 128)
    assert image_shape({"name": "n_caltech101", "image_size": 64}) == (2, 64, 64)
    assert image_shape({"name": "tiny_imagenet", "image_size": None}) == (3, 64, 64)
    assert image_shape({"name": "elsewhere"}) is None
