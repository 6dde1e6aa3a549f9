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


def first_sample_latency(first: Tensor, batch: int, time_steps: int) -> Tensor:
    """Return what the latency encoder of DeniBademi/Thesis gave: row b is frame (b mod T) of one sample, at every step.

    Args:
        first: the first sample ever encoded, [C, H, W] in [0, 1].
        batch: rows B to return.
        time_steps: time steps T.

    Returns:
        Spikes [B, T, C, H, W] that carry nothing of any later image.
    """
    frames = linear_latency(first.unsqueeze(0), time_steps)[0]  # [T, C, H, W]
    rows = frames[torch.arange(batch, device=first.device) % time_steps]
    return rows.unsqueeze(1).expand(-1, time_steps, *first.shape)


def _one_spike(slots: Tensor, time_steps: int, dtype: torch.dtype) -> Tensor:
    return F.one_hot(slots, time_steps).movedim(-1, 1).to(dtype)


@register_encoder("latency")
class LatencyEncoder(StepEncoder):
    """Code brightness as the time of a single spike.

    Args:
        in_channels: unused; every encoder is told the image's size.
        img_size: unused, likewise.
        time_steps: time steps T.
        variant: `linear` as intended, `log` as in snnTorch, `first_sample` as published (it carries no information).
    """

    def __init__(
        self,
        *,
        in_channels: int,  # noqa: ARG002  # see Args
        img_size: int,  # noqa: ARG002  # see Args
        time_steps: int = 5,
        variant: Variant = "linear",
    ) -> None:
        super().__init__(time_steps)
        self.variant: Variant = variant
        self._first: Tensor | None = None

    def forward(self, images: Tensor) -> Encoded:
        """Encode images.

        Args:
            images: [B, C, H, W] in [0, 1]; looked at in the first call only.

        Returns:
            Spikes [B, T, C, H, W], no Z.

        Raises:
            ValueError: a pixel of the first batch is outside [0, 1].
        """
        if self._first is None:
            check_pixels(images, "latency")
            self._first = images[0].detach().clone()
        if self.variant == "first_sample":
            return Encoded(first_sample_latency(self._first.to(images), len(images), self.time_steps))
        code = linear_latency if self.variant == "linear" else log_latency
        return Encoded(code(images, self.time_steps))
