"""The batches of an epoch, in an order that only (seed, epoch) decides, from any position on."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from trainers.data.augment import as_bytes
from trainers.data.bundle import Samples, Split
from trainers.data.lazy import Batch, LazySplit, Transform, allowed_workers, loaded
from trainers.determinism import derive_seed, image_rng, numpy_stream
from trainers.protocol import TrainerError

__all__ = ["Batch", "TrainBatches", "eval_batches"]


class TrainBatches:
    """Training batches of a split.

    Without a transform a split in memory lies on the device as tensors and a batch is one gather. With one, and where
    samples lie in files, they are read and augmented one by one in loader processes; each one's random numbers come
    from (seed, epoch, number), so neither the position a run is resumed at nor the number of processes changes a pixel.

    Where several processes train one run, each takes its slice of every batch. A batch that is mixed in pairs is cut so
    that both images of a pair are in the same slice, at the same places from its ends.

    Args:
        split: the training images or clips.
        batch_size: images per batch; the last batch of an epoch may be smaller, and is left out when it has one image
            (batch normalisation needs two), or less than two for each process.
        seed: seed of order and augmentation.
        device: where the batches go.
        even: drop the last image of an odd batch, as mixing in pairs needs.
        transform: augmentation of one sample, or None.
        workers: loader processes, where samples are read or augmented one by one; 0 does it in this process.
        part: number of this process among those that train the run.
        parts: how many these are.

    Raises:
        TrainerError: there are too few images for one batch.
    """

    def __init__(
        self,
        split: Samples,
        *,
        batch_size: int,
        seed: int,
        device: torch.device,
        even: bool = False,
        transform: Transform | None = None,
        workers: int = 0,
        part: int = 0,
        parts: int = 1,
    ) -> None:
        self._seed = seed
        self._device = device
        bounds = _cut(len(split), batch_size, even=even, parts=parts)
        self._plan = _BatchPlan(bounds, [_slice(*ends, part=part, parts=parts, even=even) for ends in bounds])
        self._count = len(split)
        self._source: Split | DataLoader[Batch]
        if isinstance(split, LazySplit):
            self._source = self._loader(split, transform or split.prepare, workers)
        elif transform is not None:
            self._source = self._loader(Split(as_bytes(split.images), split.labels), transform, workers)
        else:
            self._source = split.to(device)

    def __len__(self) -> int:
        """Batches per epoch."""
        return len(self._plan.bounds)

    @property
    def sizes(self) -> list[int]:
        """Images of each batch of an epoch, over all processes."""
        return [last - first for first, last in self._plan.bounds]

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        """Yield the batches of an epoch from number `start` on.

        Args:
            epoch: 0-based epoch.
            start: batches to leave out at the front, because they are done.

        Yields:
            This process's images `[b, C, H, W]`, float32, in [0, 1] unless they are normalised, or clips
            `[b, T, C, H, W]` of event counts, free to be changed in place, and labels `[b]`, on the device.
        """
        order = numpy_stream(self._seed, "order", epoch).permutation(self._count).astype(np.int64)
        if isinstance(self._source, Split):
            index = torch.from_numpy(order).to(self._device)
            for ranges in self._plan.slices[start:]:
                pieces = [index[first:last] for first, last in ranges]
                yield self._source.take(pieces[0] if len(pieces) == 1 else torch.cat(pieces))
        else:
            self._plan.aim(order, epoch, start)
            yield from loaded(self._source, self._device)

    def _loader(self, split: Samples, transform: Transform, workers: int) -> DataLoader[Batch]:
        workers = allowed_workers(workers)
        return DataLoader(
            _AugmentedSamples(split, transform, self._seed),
            batch_sampler=self._plan,
            num_workers=workers,
            persistent_workers=workers > 0,
            pin_memory=self._device.type == "cuda",
            generator=torch.Generator(),  # its own: the loader must not draw from the run's generator
        )


def eval_batches(split: Samples, batch_size: int) -> Iterator[Batch]:
    """Yield a whole split in its own order.

    Args:
        split: the images, already on the device that evaluates them, or clips whose batches go there.
        batch_size: images per batch; the last one may be smaller.
    """
    if isinstance(split, LazySplit):
        yield from split.batches(batch_size)
        return
    for start in range(0, len(split), batch_size):
        index = torch.arange(start, min(start + batch_size, len(split)), device=split.labels.device)
        yield split.take(index)


def _cut(count: int, batch_size: int, *, even: bool, parts: int) -> list[tuple[int, int]]:
    """Return the (first, last + 1) positions of each batch of an epoch of `count` images."""
    bounds = []
    least = 1 if batch_size == 1 else 2 * parts
    for first in range(0, count, batch_size):
        last = min(first + batch_size, count)
        if even:
            last -= (last - first) % 2
        if last - first >= least:
            bounds.append((first, last))
    if not bounds:
        raise TrainerError(
            f"{count} training image(s) in batches of {batch_size} give no batch to train on"
            + (": mixup and cutmix need training.batch_size of 2 or more" if even else "")
        )
    return bounds


def _slice(first: int, last: int, *, part: int, parts: int, even: bool) -> list[tuple[int, int]]:
    """Return the (first, last + 1) positions of one process's slice of a batch; slices differ by an image or a pair."""
    if parts == 1:
        return [(first, last)]
    if not even:
        size = last - first
        return [(first + size * part // parts, first + size * (part + 1) // parts)]
    half = (last - first) // 2
    begin, end = half * part // parts, half * (part + 1) // parts
    return [(first + begin, first + end), (last - end, last - begin)]


class _BatchPlan(Sampler[list[tuple[int, int]]]):
    """Batch sampler that names images as (epoch, number) pairs, so that workers that live on know the epoch."""

    def __init__(self, bounds: list[tuple[int, int]], slices: list[list[tuple[int, int]]]) -> None:
        self.bounds = bounds
        self.slices = slices
        self._order: np.ndarray[Any, np.dtype[np.int64]] = np.zeros(0, np.int64)
        self._epoch = 0
        self._start = 0

    def aim(self, order: np.ndarray[Any, np.dtype[np.int64]], epoch: int, start: int) -> None:
        """Set what the next iteration yields."""
        self._order, self._epoch, self._start = order, epoch, start

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        for ranges in self.slices[self._start :]:
            yield [(self._epoch, int(number)) for first, last in ranges for number in self._order[first:last]]

    def __len__(self) -> int:
        return len(self.bounds) - self._start


class _AugmentedSamples(Dataset[Batch]):
    """Samples read and augmented on access, each with random numbers of its own."""

    def __init__(self, split: Samples, transform: Transform, seed: int) -> None:
        self._split = split
        self._transform = transform
        self._seed = seed

    def __len__(self) -> int:
        return len(self._split)

    def __getitem__(self, key: tuple[int, int]) -> Batch:
        epoch, number = key
        with image_rng(derive_seed(self._seed, "image", epoch, number)):
            return self._transform(self._split.sample(number)), self._split.labels[number]
