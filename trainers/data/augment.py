"""Augmentation of single images, by timm's transforms."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

import trainers.torchvision_ops  # noqa: F401  (timm imports torchvision)
from timm.data.auto_augment import NAME_TO_OP, AugmentOp, RandAugment
from timm.data.transforms_factory import transforms_imagenet_train

from configs.problems import did_you_mean
from trainers.data.lazy import Transform
from trainers.data.normalization import Normalization
from trainers.protocol import TrainerError

if TYPE_CHECKING:
    from configs.schema import Augmentation

TIMM_RATIO = (3 / 4, 4 / 3)


class TimmTransform:
    """Crop, flip, jitter, RandAugment, normalisation and random erasing of one image.

    Gray images go through timm's colour pipeline as gray RGB and come back as one channel. What comes in from outside
    the picture has the mean colour of the normalisation, black without one.

    Args:
        section: `augmentation` of the configuration.
        size: side of the square image in pixels.
        normalization: applied before random erasing; None keeps pixels in [0, 1].

    Raises:
        TrainerError: timm does not understand the policy, or has no operation of a name that is given.
    """

    def __init__(self, section: Augmentation, size: int, normalization: Normalization | None = None) -> None:
        try:
            self._pipeline = transforms_imagenet_train(
                size,
                scale=section.crop_scale or (1.0, 1.0),
                ratio=(section.crop_ratio or TIMM_RATIO) if section.crop_scale else (1.0, 1.0),
                hflip=section.horizontal_flip,
                color_jitter=section.color_jitter or None,
                auto_augment=section.rand_augment,
                interpolation=section.interpolation,
                mean=_three(normalization.mean) if normalization else (0.0, 0.0, 0.0),
                std=_three(normalization.std) if normalization else (1.0, 1.0, 1.0),
                re_prob=section.random_erasing,
                re_mode=section.random_erasing_mode,
            )
        except (AssertionError, ValueError, KeyError) as error:
            raise TrainerError(
                f"augmentation.rand_augment: timm does not understand '{section.rand_augment}' ({error}); "
                "an example is rand-m9-n1-mstd0.4-inc1"
            ) from error
        if section.rand_augment_ops is not None:
            _restrict(self._pipeline, section.rand_augment_ops)

    def __call__(self, image: Tensor | Image.Image) -> Tensor:
        """Augment one image.

        Args:
            image: `[C, H, W]`, uint8, C of 1 or 3; or an RGB picture of any size.

        Returns:
            `[C, size, size]`, float32, in [0, 1] unless it is normalised.
        """
        channels = 3
        if isinstance(image, Tensor):
            channels = image.shape[0]
            pixels = image.expand(3, -1, -1).permute(1, 2, 0).numpy()
            image = Image.fromarray(np.ascontiguousarray(pixels))
        augmented: Tensor = self._pipeline(image)
        return augmented[:channels]


def _three(values: tuple[float, ...]) -> tuple[float, ...]:
    return values * 3 if len(values) == 1 else values


def _restrict(pipeline: Any, names: tuple[str, ...]) -> None:
    """Let RandAugment draw from the operations of these names, each as strong and as likely as before."""
    for name in names:
        if name not in NAME_TO_OP:
            hint = did_you_mean(name, list(NAME_TO_OP)) or f"timm has {', '.join(NAME_TO_OP)}"
            raise TrainerError(f"augmentation.rand_augment_ops: '{name}' is no operation of timm; {hint}")
    chosen = [step for step in pipeline.transforms if isinstance(step, RandAugment)]
    if not chosen or not names:
        raise TrainerError("augmentation.rand_augment_ops: expected names, and a policy that begins with 'rand'")
    for step in chosen:
        like = step.ops[0]
        step.ops = [AugmentOp(name, prob=like.prob, magnitude=like.magnitude, hparams=like.hparams) for name in names]
        step.choice_weights = None


def make_transform(
    section: Augmentation, shape: tuple[int, int, int], normalization: Normalization | None = None
) -> Transform | None:
    """Return the per-image transform, or None when every per-image augmentation is off.

    Args:
        section: `augmentation` of the configuration.
        shape: (C, H, W) of the images.
        normalization: what the transform ends with; without a transform it is the split's affair.

    Raises:
        TrainerError: the RandAugment policy is not understood, or the images are not square.
    """
    chances = (section.horizontal_flip, section.color_jitter, section.random_erasing)
    if not (section.crop_scale or section.rand_augment or any(chances)):
        return None
    if shape[1] != shape[2]:
        raise TrainerError(f"augmentation needs square images, not {shape[1]} x {shape[2]}: set data.image_size")
    return TimmTransform(section, shape[1], normalization)


def as_bytes(images: Tensor) -> Tensor:
    """Return images as uint8, which the transforms work on; floats in [0, 1] are rounded to 1/255."""
    return images if images.dtype == torch.uint8 else images.mul(255.0).round_().to(torch.uint8)
