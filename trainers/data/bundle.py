"""A data set: three splits, dealt out in an order that only the split seed decides, in memory or in files."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from trainers.data.lazy import LazySplit, Transform
from trainers.data.normalization import Normalization
from trainers.determinism import numpy_stream

SPLITS = ("train", "val", "test")
_RESIZE_CHUNK = 4096  # images resized at once, to bound the float copy


@dataclass(frozen=True, slots=True)
class Split:
    """Images and labels of one split, in memory.

    Args:
        images: `[n, C, H, W]`, uint8 in 0..255 or float32 in 0..1.
        labels: `[n]`, int64 class numbers.
        normalization: what is done to images that are taken; None leaves them in [0, 1].
    """

    images: Tensor
    labels: Tensor
    normalization: Normalization | None = None

    def __len__(self) -> int:
        return len(self.labels)

    def to(self, device: torch.device) -> Split:
        """Return the split with its tensors on `device`."""
        return replace(self, images=self.images.to(device), labels=self.labels.to(device))

    @property
    def shape(self) -> tuple[int, int, int]:
        """Shape (C, H, W) of an image."""
        channels, height, width = self.images.shape[1:]
        return channels, height, width

    def sample(self, number: int) -> Tensor:
        """Return one image as it lies there."""
        return self.images[number]

    def take(self, index: Tensor) -> tuple[Tensor, Tensor]:
        """Return the chosen images as float32 in [0, 1], normalised where the split is, and their labels.

        Args:
            index: `[b]`, int64, on the split's device.
        """
        images = as_unit_floats(self.images.index_select(0, index))
        if self.normalization is not None:
            self.normalization.apply_(images)
        return images, self.labels.index_select(0, index)

    def part(self, index: Tensor, size: int | None) -> Split:
        """Return the chosen images, resized to `size`, as a split of their own.

        Args:
            index: `[n]`, int64.
            size: side in pixels; None keeps the images as they are.
        """
        return replace(self, images=self.images[index], labels=self.labels[index]).resized(size)

    def resized(self, size: int | None) -> Split:
        """Return the split with images of `size` x `size` pixels (bilinear, antialiased); None keeps them."""
        if size is None or self.images.shape[-2:] == (size, size):
            return self
        chunks = [_resize(chunk, size) for chunk in torch.split(self.images, _RESIZE_CHUNK)]
        return replace(self, images=torch.cat(chunks))


Samples = Split | LazySplit


class DataBundle:
    """The three splits of a data set; a split is made when it is first asked for.

    Training asks for `train` and `val` only, so the test images are not even read.

    Args:
        makers: split name to a function that makes it.
        classes: class names in the order of their numbers.
        transform: what is done to each training sample, drawn anew in each epoch; None does nothing.
    """

    def __init__(
        self,
        makers: Mapping[str, Callable[[], Samples]],
        classes: Sequence[str],
        transform: Transform | None = None,
    ) -> None:
        self._makers = makers
        self._made: dict[str, Samples] = {}
        self.classes = tuple(classes)
        self.transform = transform

    def split(self, name: str) -> Samples:
        """Return the split `train`, `val` or `test`."""
        if name not in self._made:
            self._made[name] = self._makers[name]()
        return self._made[name]

    @property
    def train(self) -> Samples:
        """The images the weights are fitted to."""
        return self.split("train")

    @property
    def val(self) -> Samples:
        """The images a search looks at."""
        return self.split("val")

    @property
    def test(self) -> Samples:
        """The images nobody looks at until the end."""
        return self.split("test")

    @property
    def shape(self) -> tuple[int, int, int]:
        """Shape (C, H, W) of an image, or of a frame of a clip."""
        return self.train.shape

    @property
    def num_classes(self) -> int:
        """How many classes there are."""
        return len(self.classes)


def as_unit_floats(images: Tensor) -> Tensor:
    """Return images as float32 in [0, 1]; uint8 ones are divided by 255."""
    return images.float().div_(255.0) if images.dtype == torch.uint8 else images


def split_indices(count: int, sizes: Sequence[int], seed: int) -> list[Tensor]:
    """Deal out the numbers 0..count-1 to parts of the given sizes.

    Args:
        count: how many images there are; at least the sum of `sizes`.
        sizes: images per part.
        seed: the only thing the outcome depends on besides the numbers.

    Returns:
        One `[size]` int64 tensor per part, without overlap.
    """
    order = numpy_stream(seed, "split").permutation(count).astype(np.int64)
    bounds = np.cumsum([0, *sizes])
    return [torch.from_numpy(order[start:stop].copy()) for start, stop in pairwise(bounds)]


def _resize(images: Tensor, size: int) -> Tensor:
    resized = F.interpolate(images.float(), size=(size, size), mode="bilinear", antialias=True, align_corners=False)
    return resized.round_().clamp_(0, 255).to(torch.uint8) if images.dtype == torch.uint8 else resized.clamp_(0.0, 1.0)
