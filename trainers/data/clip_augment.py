"""Augmentation of clips of an event camera: every frame of a clip is moved alike."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor

import trainers.torchvision_ops  # noqa: F401  (makes torchvision importable)
from torchvision.transforms import InterpolationMode
from torchvision.transforms import functional as vision

if TYPE_CHECKING:
    from configs.schema import Augmentation

SHEAR = 0.3  # pixels moved per pixel, at most
SHIFT = 5  # pixels, at most
TURN = 30.0  # degrees, at most
CUTOUT_AREA = (0.001, 0.11)  # share of a frame
OPERATIONS = ("identity", "shear_x", "shift_x", "shift_y", "rotate", "cutout")


class ClipTransform:
    """Flip a clip, apply one random operation to it and cut a square out of it.

    Args:
        flip: probability of a horizontal flip.
        operation: draw one of `OPERATIONS` (Spikformer's CIFAR10-DVS code, arXiv 2209.15425, after NDA, arXiv
            2203.06145): a shear of up to 0.3, a shift of up to 5 pixels, a rotation of up to 30 degrees, each in either
            direction, or a square of 0.1 to 11 % of the area set to 0.
        cutout: side in pixels of a square around a random point that is set to 0 as well; 0 leaves it out.
    """

    def __init__(self, flip: float, *, operation: bool, cutout: int) -> None:
        self._flip = flip
        self._operation = operation
        self._cutout = cutout

    def __call__(self, clip: Tensor) -> Tensor:
        """Augment one clip, with torch's generator.

        Args:
            clip: `[T, C, H, W]`, float.

        Returns:
            The same shape.
        """
        if self._flip and _uniform(0.0, 1.0) < self._flip:
            clip = clip.flip(-1)
        if self._operation:
            clip = apply_operation(clip, OPERATIONS[_integer(0, len(OPERATIONS) - 1)])
        if self._cutout:
            clip = _cut_around(clip, self._cutout)
        return clip


def make_clip_transform(section: Augmentation) -> ClipTransform | None:
    """Return the transform of training clips, or None when all of it is off."""
    operation = section.event_augment != "none"
    if not (section.horizontal_flip or operation or section.event_cutout):
        return None
    return ClipTransform(section.horizontal_flip, operation=operation, cutout=section.event_cutout)


def apply_operation(clip: Tensor, name: str) -> Tensor:
    """Apply one operation with a random strength; what comes in from outside the frame is 0.

    Args:
        clip: `[T, C, H, W]`, float.
        name: one of `OPERATIONS`.
    """
    if name == "shear_x":
        angle = math.degrees(math.atan(_uniform(-SHEAR, SHEAR)))
        return _moved(clip, shear=[angle, 0.0])
    if name == "shift_x":
        return _moved(clip, translate=[_integer(-SHIFT, SHIFT), 0])
    if name == "shift_y":
        return _moved(clip, translate=[0, _integer(-SHIFT, SHIFT)])
    if name == "rotate":
        turned: Tensor = vision.rotate(clip, _uniform(-TURN, TURN), interpolation=InterpolationMode.NEAREST)
        return turned
    if name == "cutout":
        return _cut_area(clip)
    return clip


def _moved(clip: Tensor, translate: list[int] | None = None, shear: list[float] | None = None) -> Tensor:
    moved: Tensor = vision.affine(
        clip,
        angle=0.0,
        translate=translate or [0, 0],
        scale=1.0,
        shear=shear or [0.0, 0.0],
        interpolation=InterpolationMode.NEAREST,  # counts stay counts
    )
    return moved


def _cut_area(clip: Tensor) -> Tensor:
    """Set a square that lies wholly inside the frame to 0."""
    height, width = clip.shape[-2:]
    side = max(1, round(math.sqrt(_uniform(*CUTOUT_AREA) * height * width)))
    side = min(side, height, width)
    top, left = _integer(0, height - side), _integer(0, width - side)
    return _erased(clip, top, left, top + side, left + side)


def _cut_around(clip: Tensor, side: int) -> Tensor:
    """Set a square around a random point to 0; it may stick out of the frame (DeVries and Taylor, arXiv 1708.04552)."""
    height, width = clip.shape[-2:]
    top, left = _integer(0, height - 1) - side // 2, _integer(0, width - 1) - side // 2
    return _erased(clip, max(top, 0), max(left, 0), top + side, left + side)


def _erased(clip: Tensor, top: int, left: int, bottom: int, right: int) -> Tensor:
    clip = clip.clone()
    clip[..., top:bottom, left:right] = 0.0
    return clip


def _uniform(low: float, high: float) -> float:
    return low + (high - low) * float(torch.rand(()))


def _integer(low: int, high: int) -> int:
    return int(torch.randint(low, high + 1, ()))
