"""Augmentation of single images, by timm's transforms."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
import torch
from PIL import Image
from torch import Tensor

import trainers.torchvision_ops  # noqa: F401  (timm imports torchvision)
from timm.data.transforms_factory import transforms_imagenet_train

from trainers.protocol import TrainerError

if TYPE_CHECKING:
    from configs.schema import Augmentation

ImageTransform = Callable[[Tensor], Tensor]


class TimmTransform:
    """Flip, crop, RandAugment and random erasing of one image, pixels staying in [0, 1].

    Gray images go through timm's colour pipeline as gray RGB and come back as one channel.

    Args:
        section: `augmentation` of the configuration.
        size: side of the square image in pixels.
    """

    def __init__(self, section: Augmentation, size: int) -> None:
        try:
            self._pipeline = transforms_imagenet_train(
                size,
                scale=section.crop_scale or (1.0, 1.0),
                ratio=(3 / 4, 4 / 3) if section.crop_scale else (1.0, 1.0),
                hflip=section.horizontal_flip,
                color_jitter=None,
                auto_augment=section.rand_augment,
                interpolation="bilinear",
                mean=(0.0, 0.0, 0.0),
                std=(1.0, 1.0, 1.0),
                re_prob=section.random_erasing,
                re_mode="const",
            )
        except (AssertionError, ValueError, KeyError) as error:
            raise TrainerError(
                f"augmentation.rand_augment: timm does not understand '{section.rand_augment}' ({error}); "
                "an example is rand-m9-n1-mstd0.4-inc1"
            ) from error

    def __call__(self, image: Tensor) -> Tensor:
        """Augment one image.

        Args:
            image: `[C, H, W]`, uint8, C of 1 or 3.

        Returns:
            `[C, H, W]`, float32 in [0, 1].
        """
        channels = image.shape[0]
        pixels = image.expand(3, -1, -1).permute(1, 2, 0).numpy()
        augmented: Tensor = self._pipeline(Image.fromarray(np.ascontiguousarray(pixels)))
        return augmented[:channels]


def make_transform(section: Augmentation, shape: tuple[int, int, int]) -> ImageTransform | None:
    """Return the per-image transform, or None when every per-image augmentation is off.

    Args:
        section: `augmentation` of the configuration.
        shape: (C, H, W) of the images.

    Raises:
        TrainerError: the RandAugment policy is not understood, or the images are not square.
    """
    if not (section.horizontal_flip or section.crop_scale or section.rand_augment or section.random_erasing):
        return None
    if shape[1] != shape[2]:
        raise TrainerError(f"augmentation needs square images, not {shape[1]} x {shape[2]}: set data.image_size")
    return TimmTransform(section, shape[1])


def as_bytes(images: Tensor) -> Tensor:
    """Return images as uint8, which the transforms work on; floats in [0, 1] are rounded to 1/255."""
    return images if images.dtype == torch.uint8 else images.mul(255.0).round_().to(torch.uint8)
