"""A split whose samples lie in files and are read when they are asked for, in loader processes."""

from __future__ import annotations

import logging
import multiprocessing
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL.Image import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from trainers.protocol import TrainerError

_log = logging.getLogger(__name__)

Raw = Tensor | Image
Transform = Callable[[Any], Tensor]
Batch = tuple[Tensor, Tensor]
CPU = torch.device("cpu")


@dataclass(frozen=True, slots=True)
class Files:
    """Samples by file name, in little memory: loader processes share one array, not a million strings.

    Args:
        root: folder that all are in.
        names: `[n]`, bytes, paths below `root`.
        labels: `[n]`, int64 class numbers.
    """

    root: Path
    names: np.ndarray[Any, np.dtype[np.bytes_]]
    labels: Tensor

    @classmethod
    def of(cls, root: Path, samples: Sequence[tuple[str, int]]) -> Files:
        """Take files from (path, class number) pairs; every path begins with `root`."""
        start = len(os.path.join(root, ""))  # noqa: PTH118  (as torchvision joins; a Path per file would take a minute)
        names = [os.fsencode(path[start:]) for path, _ in samples]
        return cls(root, np.array(names, dtype=np.bytes_), torch.tensor([label for _, label in samples]).long())

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, number: int) -> Path:
        return self.root / os.fsdecode(bytes(self.names[number]))

    def part(self, index: Tensor) -> Files:
        """Return the chosen files.

        Args:
            index: `[n]`, int64.
        """
        return Files(self.root, self.names[index.numpy()], self.labels[index])


@dataclass(frozen=True, slots=True)
class LazySplit:
    """One split of a data set that does not fit memory.

    Args:
        files: where the samples are.
        read: path to sample: a picture, or a clip `[T, C, H, W]`.
        prepare: sample to tensor as it is evaluated.
        shape: (C, H, W) of an image, or of a frame of a clip.
        workers: loader processes; 0 reads in this process.
        device: where batches go.
    """

    files: Files
    read: Callable[[Path], Raw]
    prepare: Transform
    shape: tuple[int, int, int]
    workers: int = 0
    device: torch.device = CPU

    def __len__(self) -> int:
        return len(self.files)

    @property
    def labels(self) -> Tensor:
        """`[n]`, int64 class numbers."""
        return self.files.labels

    def to(self, device: torch.device) -> LazySplit:
        """Return the split with batches that go to `device`."""
        return replace(self, device=device)

    def sample(self, number: int) -> Raw:
        """Return one sample as it is read."""
        return self.read(self.files[number])

    def batches(self, batch_size: int) -> Iterator[Batch]:
        """Yield the whole split in its own order, prepared for evaluation.

        Args:
            batch_size: samples per batch; the last one may be smaller.
        """
        loader = DataLoader(
            _Prepared(self),
            batch_size=batch_size,
            num_workers=allowed_workers(self.workers),
            pin_memory=self.device.type == "cuda",
            generator=torch.Generator(),  # its own: the loader must not draw from the run's generator
        )
        yield from loaded(loader, self.device)


class _Prepared(Dataset[Batch]):
    """Samples as they are evaluated."""

    def __init__(self, split: LazySplit) -> None:
        self._split = split

    def __len__(self) -> int:
        return len(self._split)

    def __getitem__(self, number: int) -> Batch:
        return self._split.prepare(self._split.sample(number)), self._split.labels[number]


def loaded(loader: DataLoader[Batch], device: torch.device) -> Iterator[Batch]:
    """Yield a loader's batches on a device.

    Raises:
        TrainerError: a sample cannot be read; the message is that of the reader, without the loader process's stack.
    """
    try:
        for images, labels in loader:
            yield images.to(device, non_blocking=True), labels.to(device, non_blocking=True)
    except TrainerError as error:
        error.__traceback__ = None  # it would hold the loader processes, which then take 5 s each to end
        raise TrainerError(str(error).rpartition("TrainerError: ")[2].strip()) from error


def allowed_workers(workers: int) -> int:
    """Return how many loader processes this process may start: one per core at most, a daemon none."""
    if workers and multiprocessing.current_process().daemon:
        _log.warning("data.workers is %d, but a daemon process may start none: images are augmented in it", workers)
        return 0
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(workers, cores)
