"""Mean and deviation that pixels are normalised with."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from trainers.protocol import TrainerError

if TYPE_CHECKING:
    from configs.schema import Augmentation


@dataclass(frozen=True, slots=True)
class Normalization:
    """Subtract a mean from each channel and divide by a deviation.

    Args:
        mean: one number for each channel, of pixels in [0, 1].
        std: one number above zero for each channel.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]

    def apply_(self, images: Tensor) -> Tensor:
        """Normalise images in place and return them.

        Args:
            images: `[B, C, H, W]`, float.
        """
        mean, std = _constants(self, images.device)
        return images.sub_(mean).div_(std)


@cache
def _constants(normalization: Normalization, device: torch.device) -> tuple[Tensor, Tensor]:
    """Keep the two tensors on the device: copying them there for each batch would stall a GPU's queue."""
    with torch.inference_mode(False):
        return (
            torch.tensor(normalization.mean, device=device).view(-1, 1, 1),
            torch.tensor(normalization.std, device=device).view(-1, 1, 1),
        )


_IMAGENET = Normalization((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
OF_DATASET = {  # of the training images, as they are usually given
    "digits": Normalization((0.3053,), (0.3760,)),
    "mnist": Normalization((0.1307,), (0.3081,)),
    "mnist_files": Normalization((0.1307,), (0.3081,)),
    "fashion_mnist": Normalization((0.2860,), (0.3530,)),
    "cifar10": Normalization((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)),
    "cifar100": Normalization((0.5071, 0.4867, 0.4408), (0.2675, 0.2565, 0.2761)),
    "image_folder": _IMAGENET,
    "imagenet": _IMAGENET,
    "tiny_imagenet": Normalization((0.4802, 0.4481, 0.3975), (0.2770, 0.2691, 0.2821)),
}


def choose_normalization(section: Augmentation, name: str) -> Normalization | None:
    """Return what a configuration normalises pixels with, or None where it leaves them in [0, 1].

    Args:
        section: `augmentation` of the configuration.
        name: name of the data set.

    Raises:
        TrainerError: the numbers are to be explicit, but are not given.
    """
    if section.normalize == "none":
        return None
    if section.normalize == "dataset":
        return OF_DATASET[name]
    if section.mean is None or section.std is None:
        raise TrainerError("augmentation.normalize is 'explicit': give augmentation.mean and augmentation.std")
    return Normalization(section.mean, section.std)
