"""The batches of an epoch, in an order that only (seed, epoch) decides, from any position on."""

from __future__ import annotations

import logging
import multiprocessing
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from trainers.data.augment import ImageTransform, as_bytes
from trainers.data.bundle import Split
from trainers.determinism import derive_seed, image_rng, numpy_stream
from trainers.protocol import TrainerError

_log = logging.getLogger(__name__)

Batch = tuple[Tensor, Tensor]


class TrainBatches:
    """Training batches of a split.

    Without a transform the whole split lies on the device as tensors and a batch is one gather. With one, images are
    augmented one by one in loader processes; each image's random numbers come from (seed, epoch, image), so neither the
    position a run is resumed at nor the number of processes changes a pixel.

    Args:
        split: the training images.
        batch_size: images per batch; the last batch of an epoch may be smaller, and is left out when it has one image
            (batch normalisation needs two).
        seed: seed of order and augmentation.
        device: where the batches go.
        even: drop the last image of an odd batch, as mixing in pairs needs.
        transform: per-image augmentation, or None.
        workers: loader processes, used with a transform only; 0 augments in this process.

    Raises:
        TrainerError: there are too few images for one batch.
    """

    def __init__(
        self,
        split: Split,
        *,
        batch_size: int,
        seed: int,
        device: torch.device,
        even: bool = False,
        transform: ImageTransform | None = None,
        workers: int = 0,
    ) -> None:
        self._seed = seed
        self._device = device
        self._even = even
        self._plan = _BatchPlan(_cut(len(split), batch_size, even=even))
        self._loader: DataLoader[Batch] | None = None
        if transform is None:
            self._split = split.to(device)
        else:
            self._split = Split(as_bytes(split.images), split.labels)
            workers = _allowed(workers)
            self._loader = DataLoader(
                _AugmentedImages(self._split, transform, seed),
                batch_sampler=self._plan,
                num_workers=workers,
                persistent_workers=workers > 0,
                pin_memory=device.type == "cuda",
                generator=torch.Generator(),  # its own: the loader must not draw from the run's generator
            )

    def __len__(self) -> int:
        """Batches per epoch."""
        return len(self._plan.bounds)

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        """Yield the batches of an epoch from number `start` on.

        Args:
            epoch: 0-based epoch.
            start: batches to leave out at the front, because they are done.

        Yields:
            Images `[b, C, H, W]`, float32 in [0, 1], free to be changed in place, and labels `[b]`, on the device.
        """
        order = numpy_stream(self._seed, "order", epoch).permutation(len(self._split)).astype(np.int64)
        if self._loader is None:
            index = torch.from_numpy(order).to(self._device)
            for first, last in self._plan.bounds[start:]:
                yield self._split.take(index[first:last])
        else:
            self._plan.aim(order, epoch, start)
            for images, labels in self._loader:
                yield images.to(self._device, non_blocking=True), labels.to(self._device, non_blocking=True)


def eval_batches(split: Split, batch_size: int) -> Iterator[Batch]:
    """Yield a whole split in its own order.

    Args:
        split: the images, already on the device that evaluates them.
        batch_size: images per batch; the last one may be smaller.
    """
    for start in range(0, len(split), batch_size):
        index = torch.arange(start, min(start + batch_size, len(split)), device=split.labels.device)
        yield split.take(index)


def _cut(count: int, batch_size: int, *, even: bool) -> list[tuple[int, int]]:
    """Return the (first, last + 1) positions of each batch of an epoch of `count` images."""
    bounds = []
    for first in range(0, count, batch_size):
        last = min(first + batch_size, count)
        if even:
            last -= (last - first) % 2
        if last - first > 1 or (batch_size == 1 and last > first):
            bounds.append((first, last))
    if not bounds:
        raise TrainerError(
            f"{count} training image(s) in batches of {batch_size} give no batch to train on"
            + (": mixup and cutmix need training.batch_size of 2 or more" if even else "")
        )
    return bounds


def _allowed(workers: int) -> int:
    """Return how many loader processes this process may start: a daemon may start none."""
    if workers and multiprocessing.current_process().daemon:
        _log.warning("data.workers is %d, but a daemon process may start none: images are augmented in it", workers)
        return 0
    return workers


class _BatchPlan(Sampler[list[tuple[int, int]]]):
    """Batch sampler that names images as (epoch, number) pairs, so that workers that live on know the epoch."""

    def __init__(self, bounds: list[tuple[int, int]]) -> None:
        self.bounds = bounds
        self._order: np.ndarray[Any, np.dtype[np.int64]] = np.zeros(0, np.int64)
        self._epoch = 0
        self._start = 0

    def aim(self, order: np.ndarray[Any, np.dtype[np.int64]], epoch: int, start: int) -> None:
        """Set what the next iteration yields."""
        self._order, self._epoch, self._start = order, epoch, start

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        for first, last in self.bounds[self._start :]:
            yield [(self._epoch, int(number)) for number in self._order[first:last]]

    def __len__(self) -> int:
        return len(self.bounds) - self._start


class _AugmentedImages(Dataset[tuple[Tensor, Tensor]]):
    """Images augmented on access, each with random numbers of its own."""

    def __init__(self, split: Split, transform: ImageTransform, seed: int) -> None:
        self._split = split
        self._transform = transform
        self._seed = seed

    def __len__(self) -> int:
        return len(self._split)

    def __getitem__(self, key: tuple[int, int]) -> tuple[Tensor, Tensor]:
        epoch, number = key
        with image_rng(derive_seed(self._seed, "image", epoch, number)):
            return self._transform(self._split.images[number]), self._split.labels[number]
