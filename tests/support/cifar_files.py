"""CIFAR files as torchvision keeps them, with few random images."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest

import trainers.torchvision_ops  # noqa: F401  # makes torchvision importable


def write_cifar(root: Path, monkeypatch: pytest.MonkeyPatch, *, fine: bool = False, per_file: int = 10) -> None:
    """Write a data set and have torchvision take it for whole.

    Args:
        root: data.data_dir.
        monkeypatch: sets torchvision's check of MD5 sums aside, which only the real images pass.
        fine: CIFAR-100 in place of CIFAR-10; its labels are below 10 as well.
        per_file: images in each file.
    """
    monkeypatch.setattr("torchvision.datasets.cifar.check_integrity", lambda path, md5=None: Path(path).is_file())
    folder = root / ("cifar-100-python" if fine else "cifar-10-batches-py")
    folder.mkdir(parents=True)
    names = ["train", "test"] if fine else [*(f"data_batch_{n}" for n in range(1, 6)), "test_batch"]
    rng = np.random.default_rng(0)
    for name in names:
        labels = [int(label) for label in rng.integers(0, 10, per_file)]
        pixels = rng.integers(0, 256, (per_file, 3072), dtype=np.uint8)
        (folder / name).write_bytes(pickle.dumps({"data": pixels, "fine_labels" if fine else "labels": labels}))
    meta = {"fine_label_names": [str(n) for n in range(100)]} if fine else {"label_names": [str(n) for n in range(10)]}
    (folder / ("meta" if fine else "batches.meta")).write_bytes(pickle.dumps(meta))
