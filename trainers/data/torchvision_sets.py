"""MNIST, Fashion-MNIST, CIFAR-10 and CIFAR-100 through torchvision, downloaded only when asked."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

import trainers.torchvision_ops  # noqa: F401  (makes torchvision importable)
from torchvision import datasets

from trainers.data.bundle import DataBundle, Split, split_indices
from trainers.data_presence import missing
from trainers.protocol import DataNotFoundError, TrainerError

if TYPE_CHECKING:
    from configs.schema import TorchvisionData

_CLASSES: dict[str, Any] = {
    "mnist": datasets.MNIST,
    "fashion_mnist": datasets.FashionMNIST,
    "cifar10": datasets.CIFAR10,
    "cifar100": datasets.CIFAR100,
}


def load_torchvision(section: TorchvisionData) -> DataBundle:
    """Return a torchvision data set: its training images dealt out to train and val, its test images as test.

    Raises:
        DataNotFoundError: the files are not there, and downloading is off or has failed.
        TrainerError: the files are there but cannot be read.
    """
    read = cache(lambda train: _read(section, train=train))
    official, _ = read(True)
    n_val = round(len(official) * section.val_fraction)
    parts = split_indices(len(official), (len(official) - n_val, n_val), section.split_seed)

    makers: dict[str, Callable[[], Split]] = {
        "train": partial(official.part, parts[0], section.image_size),
        "val": partial(official.part, parts[1], section.image_size),
        "test": lambda: read(False)[0].resized(section.image_size),
    }
    return DataBundle(makers, read(True)[1])


def _read(section: TorchvisionData, *, train: bool) -> tuple[Split, Sequence[str]]:
    folder = Path(section.data_dir).expanduser()
    try:
        dataset = _CLASSES[section.name](str(folder), train=train, download=section.download)
    except RuntimeError as error:  # torchvision's word for "not found or corrupted"
        raise _missing(section, folder, str(error)) from error
    except OSError as error:  # the network, the disk, or a folder that cannot be written
        raise _missing(section, folder, f"{type(error).__name__}: {error}") from error
    except (AssertionError, EOFError, ValueError) as error:
        reason = str(error) or type(error).__name__
        raise TrainerError(
            f"the files of {section.name} in {folder.resolve()} are damaged ({reason}): fetch them again"
        ) from error
    images = torch.as_tensor(np.asarray(dataset.data))
    # MNIST comes as [n, H, W], CIFAR as [n, H, W, C]
    images = images[:, None] if images.ndim == 3 else images.permute(0, 3, 1, 2).contiguous()
    return Split(images, torch.as_tensor(np.asarray(dataset.targets), dtype=torch.int64)), list(dataset.classes)


def _missing(section: TorchvisionData, folder: Path, reason: str) -> DataNotFoundError:
    if section.download:
        return DataNotFoundError(f"{section.name} could not be downloaded to {folder.resolve()}: {reason}")
    return missing(section, folder)
