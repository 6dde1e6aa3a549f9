"""Losses that train an encoder alone: keep information about the image, spend spikes in proportion to its area."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from trainers.losses.base import register_loss

SlotWeights = Literal["late", "early", "uniform"]
FLOOR = 1e-12


def mutual_information(x: Tensor, y: Tensor) -> Tensor:
    """Return j log2(j / (a b)) with j = mean(x y), a = mean x, b = mean y over all elements.

    A surrogate of mutual information that may be negative (STAL, arXiv 2407.08362). Where j, a or b is exactly zero all
    three are floored at 1e-12.

    Args:
        x: any shape.
        y: the same shape.

    Returns:
        A scalar.

    Raises:
        ValueError: the shapes differ, or a mean is negative.
    """
    if x.shape != y.shape:
        raise ValueError(f"both must have one shape, got {tuple(x.shape)} and {tuple(y.shape)}")
    means = torch.stack([(x * y).mean(), x.mean(), y.mean()])
    if (means[1:] < 0).any():
        raise ValueError(f"means must not be negative, got {means[1]:.4g} and {means[2]:.4g}")
    joint, a, b = torch.where((means == 0).any(), means.clamp(min=FLOOR), means).unbind()
    return joint * torch.log2(joint / (a * b))


@register_loss("encoder_loss")
class EncoderLoss(nn.Module):
    """-MI / n + mean_b |spikes_b - T area_b| (DeniBademi/Thesis; the options give the ancestors' losses).

    U = spikes as [B, P, T]; s = sum_k w_k U_k with w_k = k ("late"), T + 1 - k ("early") or 1 ("uniform"), times
    `slot_scale`. MI = MI(x, s), plus MI(x, Z2) with n = 3 where there is a Z2, else MI(x, Z1) with n = 2. With both, Z1
    is counted in n but adds no term: so it was published.

    Args:
        slot_weights: weights of the time slots.
        slot_scale: factor of all slot weights.
        use_z: take Z1 and Z2 into account.
        area: fixed number of spikes to compare with in place of the image's area.
        count_spikes: keep the term that counts spikes.
    """

    def __init__(
        self,
        slot_weights: SlotWeights = "late",
        slot_scale: float = 1.0,
        use_z: bool = True,
        area: float | None = None,
        count_spikes: bool = True,
    ) -> None:
        super().__init__()
        self.slot_weights: SlotWeights = slot_weights
        self.slot_scale = slot_scale
        self.use_z = use_z
        self.area = area
        self.count_spikes = count_spikes

    def forward(self, spikes: Tensor, x: Tensor, z1: Tensor | None = None, z2: Tensor | None = None) -> Tensor:
        """Return the loss of one batch.

        Args:
            spikes: soft spikes [B, P * T], slot fastest.
            x: flattened images [B, P].
            z1: output of the encoder's first block [B, P], or None.
            z2: output of its second block [B, P], or None.

        Returns:
            A scalar.

        Raises:
            ValueError: a shape does not fit.
        """
        batch, pixels = x.shape
        if spikes.ndim != 2 or spikes.shape[0] != batch or spikes.shape[1] % pixels:
            raise ValueError(f"spikes must be [{batch}, {pixels} x T], got {tuple(spikes.shape)}")
        slots = spikes.view(batch, pixels, -1)  # [B, P, T]
        time_steps = slots.shape[2]
        information = mutual_information(x, slots @ self._weights(time_steps, spikes))
        terms = 1
        if self.use_z and z2 is not None:
            information, terms = information + mutual_information(x, z2), 3
        elif self.use_z and z1 is not None:
            information, terms = information + mutual_information(x, z1), 2
        if not self.count_spikes:
            return -information / terms
        area = x.sum(1) if self.area is None else self.area
        return -information / terms + (spikes.sum(1) - time_steps * area).abs().mean()

    def _weights(self, time_steps: int, like: Tensor) -> Tensor:
        ramp = torch.arange(1, time_steps + 1, dtype=like.dtype, device=like.device)
        weights = {"late": ramp, "early": ramp.flip(0), "uniform": torch.ones_like(ramp)}[self.slot_weights]
        return weights * self.slot_scale


@register_loss("multi_channel_encoder_loss")
class MultiChannelEncoderLoss(nn.Module):
    """Mean over the channels of `EncoderLoss` (DeniBademi/Thesis).

    The spikes of a channel lie time slot by time slot while `EncoderLoss` reads them pixel by pixel: weights and pixels
    do not belong together. So it was published, and so it is here.
    """

    def __init__(self) -> None:
        super().__init__()
        self.encoder_loss = EncoderLoss()

    def forward(self, spikes: Tensor, x: Tensor, z1: Tensor | None = None, z2: Tensor | None = None) -> Tensor:
        """Return the loss of one batch.

        Args:
            spikes: soft spikes [B, T, C * P].
            x: images [B, C, H, W] or [B, C, P].
            z1: output of the encoder's first block [B, C, P], or None.
            z2: output of its second block [B, C, P], or None.

        Returns:
            A scalar.

        Raises:
            ValueError: a shape does not fit.
        """
        x = x.flatten(2)
        channels = spikes.view(*spikes.shape[:2], x.shape[1], -1)  # [B, T, C, P]
        losses = [
            self.encoder_loss(
                channels[:, :, c].flatten(1),
                x[:, c],
                None if z1 is None else z1[:, c],
                None if z2 is None else z2[:, c],
            )
            for c in range(x.shape[1])
        ]
        return torch.stack(losses).mean()
