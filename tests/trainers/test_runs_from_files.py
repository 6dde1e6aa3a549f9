"""Runs on data that is read from files: what is broken off and continued equals the unbroken run, bit for bit."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from configs.resolve import from_dict, with_params
from configs.schema import RunConfig
from trainers import checkpoint
from trainers.evaluation import evaluate
from trainers.protocol import Outcome, Verdict
from trainers.training import train

STEP_SCHEDULE = {"name": "cosine", "per": "step", "warmup_epochs": 1, "warmup_prefix": True, "cooldown_epochs": 1}


def write_clips(root: Path) -> None:
    rng = np.random.default_rng(0)
    for label in range(10):
        folder = root / "frames_number_2_split_by_number" / str(label)
        folder.mkdir(parents=True)
        for number in range(4):
            np.savez(folder / f"{number}.npz", frames=rng.integers(0, 3, (2, 2, 16, 16)).astype(float))


def write_images(root: Path) -> None:
    rng = np.random.default_rng(0)
    for split, count in (("train", 14), ("val", 2)):
        for label in ("n0", "n1", "n2"):
            (root / split / label).mkdir(parents=True)
            for number in range(count):
                pixels = rng.integers(0, 256, (20, 24, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(root / split / label / f"{number}.JPEG")


def clips(root: Path) -> RunConfig:
    write_clips(root)
    return from_dict(
        {
            "model": {"name": "spikformer_dvs", "embed_dims": 16, "depth": 1, "num_heads": 2},
            "encoder": {"name": "direct", "time_steps": 2},
            "data": {"name": "cifar10_dvs", "data_dir": str(root), "frames": 2, "image_size": 16, "val_fraction": 0.25},
            "augmentation": {"horizontal_flip": 0.5, "event_augment": "spikformer_dvs", "mixup": 0.5, "cutmix": 0.5},
            "optimizer": {"scale_lr_by_batch": 4},
            "schedule": STEP_SCHEDULE,
            "training": {"epochs": 3, "batch_size": 8, "device": "cpu"},
        }
    )


def images(root: Path) -> RunConfig:
    write_images(root)
    return from_dict(
        {
            "model": {"name": "spikformer_cifar", "embed_dims": 16, "depth": 1, "num_heads": 2},
            "encoder": {"name": "direct", "time_steps": 2},
            "data": {"name": "image_folder", "data_dir": str(root), "image_size": 16, "val_fraction": 0.2},
            "augmentation": {
                "normalize": "dataset",
                "crop_scale": [0.3, 1.0],
                "rand_augment": "rand-m9-n1-mstd0.4-inc1",
                "random_erasing": 0.5,
                "random_erasing_mode": "pixel",
            },
            "schedule": STEP_SCHEDULE,
            "training": {"epochs": 3, "batch_size": 8, "accumulation_steps": 2, "device": "cpu"},
        }
    )


@pytest.mark.parametrize("make", [clips, images])
def test_a_broken_run_goes_on_as_if_nothing_had_been(
    tmp_path: Path, make: Callable[[Path], RunConfig], recorder: Any
) -> None:
    config = make(tmp_path / "data")
    whole, first, second = recorder(), recorder(Verdict.PREEMPT, at=6), recorder()
    unbroken = train(config, whole, run_dir=tmp_path / "unbroken", threads=1)
    broken = train(config, first, run_dir=tmp_path / "broken", threads=1)
    assert (broken.outcome, broken.checkpoint.step > 0) == (Outcome.PREEMPTED, True)
    resumed = train(config, second, broken.checkpoint.path, run_dir=tmp_path / "broken", threads=1)
    assert second.numbers() == whole.numbers()
    ours, theirs = (checkpoint.load(run.checkpoint.path)["weights"]["model"] for run in (resumed, unbroken))
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    measured = evaluate(unbroken.checkpoint.path, "val", threads=1)
    assert measured["val_loss"] == whole.epochs[-1].metrics["val_loss"]


def test_loader_processes_change_nothing(tmp_path: Path, recorder: Any) -> None:
    config = clips(tmp_path / "data")
    alone, helped = recorder(), recorder()
    train(config, alone, threads=1)
    train(with_params(config, {"data.workers": 2}), helped, threads=1)
    assert helped.numbers() == alone.numbers()


def test_the_rate_used_is_told_and_followed_step_by_step(tmp_path: Path, recorder: Any) -> None:
    told = recorder()
    train(clips(tmp_path / "data"), told, threads=1)
    peak = 1e-3 * 8 / 4
    assert told.facts[0].learning_rate == pytest.approx(peak)
    updates = 4  # 40 clips (nine tenths of 4 are 4), 30 without validation: 8 + 8 + 8 + 6
    rates = [told.numbers()[epoch]["learning_rate"] for epoch in (1, 2, 3)]
    half_cosine = peak * (1 + np.cos(np.pi * (updates - 1) / updates)) / 2
    assert rates == pytest.approx([peak * (updates - 1) / updates, half_cosine, 0.0])
