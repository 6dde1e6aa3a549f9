"""Rate coding: a pixel fires in a step with the probability of its brightness."""

from __future__ import annotations

import torch
from torch import Tensor

from trainers.encoders.base import Encoded, StepEncoder, register_encoder


def check_pixels(images: Tensor, encoder: str) -> None:
    """Refuse pixels outside [0, 1].

    Args:
        images: any shape.
        encoder: name of the encoder, for the message.

    Raises:
        ValueError: a pixel is outside.
    """
    low, high = torch.aminmax(images)
    if low < 0 or high > 1:
        raise ValueError(
            f"{encoder} coding takes pixels in [0, 1], got [{low:.4g}, {high:.4g}]; do not normalise the images further"
        )


def rate_spikes(images: Tensor, draws: Tensor) -> Tensor:
    """Return 1 where a uniform draw is below the pixel.

    Args:
        images: [B, ...] in [0, 1].
        draws: uniform draws [B, T, ...].

    Returns:
        Spikes [B, T, ...] in the type of the images.
    """
    return (draws < images.unsqueeze(1)).to(images.dtype)


@register_encoder("rate")
class RateEncoder(StepEncoder):
    """Code brightness as firing rate, with fresh draws from torch's generator at every call.

    Args:
        in_channels: image channels.
        img_size: image side in pixels.
        time_steps: time steps T.
    """

    def __init__(self, *, in_channels: int, img_size: int, time_steps: int = 5) -> None:
        super().__init__(time_steps, in_channels * img_size**2)
        self._checked = False

    def forward(self, images: Tensor) -> Encoded:
        """Encode images.

        Args:
            images: [B, C, H, W] in [0, 1]; looked at in the first call only.

        Returns:
            Spikes [B, T, C, H, W], no Z.

        Raises:
            ValueError: a pixel of the first batch is outside [0, 1].
        """
        if not self._checked:
            check_pixels(images, "rate")
            self._checked = True
        shape = (images.shape[0], self.time_steps, *images.shape[1:])
        return Encoded(rate_spikes(images, torch.rand(shape, dtype=images.dtype, device=images.device)))
