"""Losses that train an encoder alone: keep information about the image, spend spikes in proportion to its area."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from trainers.losses.base import register_loss

SlotWeights = Literal["late", "early", "uniform"]
ZTerms = Literal["all", "last"]
SpikeLayout = Literal["pixel_first", "as_is"]
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
    `slot_scale`. MI = MI(x, s), plus MI(x, Z) of each hidden block; n is the number of terms. As published
    (`z_terms="last"`) the first of two blocks is counted in n but adds no term.

    Args:
        slot_weights: weights of the time slots.
        slot_scale: factor of all slot weights.
        use_z: take Z1 and Z2 into account.
        z_terms: `all` blocks add a term, or the `last` alone.
        area: fixed number of spikes to compare with in place of the image's area.
        count_spikes: keep the term that counts spikes.
    """

    def __init__(
        self,
        slot_weights: SlotWeights = "late",
        *,
        slot_scale: float = 1.0,
        use_z: bool = True,
        z_terms: ZTerms = "all",
        area: float | None = None,
        count_spikes: bool = True,
    ) -> None:
        super().__init__()
        self.slot_weights: SlotWeights = slot_weights
        self.slot_scale = slot_scale
        self.use_z = use_z
        self.z_terms: ZTerms = z_terms
        self.area = area
        self.count_spikes = count_spikes

    def forward(self, spikes: Tensor, x: Tensor, z1: Tensor | None = None, z2: Tensor | None = None) -> Tensor:
        """Return the loss of one batch.

        Args:
            spikes: soft spikes [B, P * T], slot fastest.
            x: images [B, P] or [B, C, H, W] with P = C * H * W.
            z1: output of the encoder's first block [B, P], or None.
            z2: output of its second block [B, P], or None.

        Returns:
            A scalar.

        Raises:
            ValueError: a shape does not fit.
        """
        x = x.flatten(1)
        batch, pixels = x.shape
        if spikes.ndim != 2 or spikes.shape[0] != batch or spikes.shape[1] % pixels:
            raise ValueError(f"spikes must be [{batch}, {pixels} x T], got {tuple(spikes.shape)}")
        slots = spikes.view(batch, pixels, -1)  # [B, P, T]
        time_steps = slots.shape[2]
        information = mutual_information(x, slots @ self._weights(time_steps, spikes))
        hidden = [z for z in (z1, z2) if z is not None] if self.use_z else []
        terms = 1 + len(hidden)
        for z in hidden if self.z_terms == "all" else hidden[-1:]:
            information = information + mutual_information(x, z)
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

    The spikes of a channel lie time slot by time slot while `EncoderLoss` reads them pixel by pixel. As published they
    were given to it as they lie, so weights and pixels did not belong together.

    Args:
        z_terms: see `EncoderLoss`.
        spike_layout: `pixel_first` turns the spikes round for `EncoderLoss`, `as_is` leaves them as published.
    """

    def __init__(self, z_terms: ZTerms = "all", spike_layout: SpikeLayout = "pixel_first") -> None:
        super().__init__()
        self.encoder_loss = EncoderLoss(z_terms=z_terms)
        self.spike_layout: SpikeLayout = spike_layout

    def forward(self, spikes: Tensor, x: Tensor, z1: Tensor | None = None, z2: Tensor | None = None) -> Tensor:
        """Return the loss of one batch.

        Args:
            spikes: soft spikes [B, T, C * P] or [B, T, C, H, W].
            x: images [B, C, H, W] or [B, C, P].
            z1: output of the encoder's first block, shaped like the images, or None.
            z2: output of its second block, shaped like the images, or None.

        Returns:
            A scalar.

        Raises:
            ValueError: a shape does not fit.
        """
        x = x.flatten(2)
        channels = spikes.reshape(*spikes.shape[:2], x.shape[1], -1)  # [B, T, C, P]
        if self.spike_layout == "pixel_first":
            channels = channels.transpose(1, 3)  # [B, P, C, T]
        losses = [
            self.encoder_loss(
                channels[:, :, c].flatten(1),
                x[:, c],
                None if z1 is None else z1[:, c].flatten(1),
                None if z2 is None else z2[:, c].flatten(1),
            )
            for c in range(x.shape[1])
        ]
        return torch.stack(losses).mean()
