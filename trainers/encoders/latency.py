"""Latency coding: one spike per pixel, earlier for brighter ones."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from trainers.encoders.base import Encoded, StepEncoder, register_encoder
from trainers.encoders.rate import check_pixels

Variant = Literal["linear", "log", "first_sample"]


def linear_latency(images: Tensor, time_steps: int) -> Tensor:
    """Return one spike per pixel at slot round_half_even((T - 1)(1 - x)).

    Args:
        images: [B, ...] in [0, 1].
        time_steps: time steps T.

    Returns:
        Spikes [B, T, ...].
    """
    return _one_spike(((time_steps - 1) * (1 - images)).round().long(), time_steps, images.dtype)


def log_latency(images: Tensor, time_steps: int, threshold: float = 0.01) -> Tensor:
    """Return one spike per pixel at its logarithmic latency, normalised by the longest of the whole batch (snnTorch).

    d = max(x, threshold + 1e-7); t = ln(d / (d - threshold)); slot = round(t (T - 1) / max t).

    Args:
        images: [B, ...] in [0, 1].
        time_steps: time steps T.
        threshold: brightness below which a pixel counts as darkest.

    Returns:
        Spikes [B, T, ...].
    """
    brightness = images.clamp(min=threshold + 1e-7)
    latency = torch.log(brightness / (brightness - threshold))
    return _one_spike((latency * (time_steps - 1) / latency.max()).round().long(), time_steps, images.dtype)


def _one_spike(slots: Tensor, time_steps: int, dtype: torch.dtype) -> Tensor:
    return F.one_hot(slots, time_steps).movedim(-1, 1).to(dtype)


@register_encoder("latency")
class LatencyEncoder(StepEncoder):
    """Code brightness as the time of a single spike.

    `first_sample` is what the code of DeniBademi/Thesis gave: row b of every batch is frame (b mod T) of the first
    image it ever saw, at every step. The frames are part of its state, so a continued run keeps to the same image.

    Args:
        in_channels: image channels.
        img_size: image side in pixels.
        time_steps: time steps T.
        variant: `linear` as intended, `log` as in snnTorch, `first_sample` as published (it carries no information).
    """

    frames: Tensor
    has_frames: Tensor

    def __init__(self, *, in_channels: int, img_size: int, time_steps: int = 5, variant: Variant = "linear") -> None:
        super().__init__(time_steps, in_channels * img_size**2)
        self.variant: Variant = variant
        self._checked = False
        if variant == "first_sample":  # truth values: averaging of weights copies them as they are
            frames = torch.zeros(time_steps, in_channels, img_size, img_size, dtype=torch.bool)
            self.register_buffer("frames", frames)
            self.register_buffer("has_frames", torch.tensor(False))

    def forward(self, images: Tensor) -> Encoded:
        """Encode images.

        Args:
            images: [B, C, H, W] in [0, 1]; checked in the first call only.

        Returns:
            Spikes [B, T, C, H, W], no Z.

        Raises:
            ValueError: a pixel of the first batch is outside [0, 1].
        """
        if not self._checked:
            check_pixels(images, "latency")
            self._checked = True
            if self.variant == "first_sample" and not self.has_frames:
                self.frames.copy_(linear_latency(images[:1], self.time_steps)[0])
                self.has_frames.fill_(True)
        if self.variant == "first_sample":
            rows = self.frames[torch.arange(len(images), device=images.device) % self.time_steps]
            return Encoded(rows.to(images.dtype).unsqueeze(1).expand(-1, self.time_steps, -1, -1, -1))
        code = linear_latency if self.variant == "linear" else log_latency
        return Encoded(code(images, self.time_steps))
