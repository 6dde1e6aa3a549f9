"""STAL: two linear blocks whose output, repeated over time slots, is compared with learnable thresholds."""

from __future__ import annotations

from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn

from trainers.encoders.base import (
    Encoded,
    StepEncoder,
    clamp_thresholds,
    initial_thresholds,
    register_encoder,
    soft_threshold,
)

SlotOrder = Literal["time_major", "pixel_major"]


class LinearBlock(nn.Module):
    """Linear layer, batch normalisation, ReLU and dropout.

    Args:
        in_size: width that comes in.
        out_size: width that goes out.
        drop_p: dropout probability.
    """

    def __init__(self, in_size: int, out_size: int, drop_p: float) -> None:
        super().__init__()
        self.lin = nn.Linear(in_size, out_size)
        self.bn = nn.BatchNorm1d(out_size)
        self.drop_p = drop_p

    def forward(self, x: Tensor) -> Tensor:
        """Return [B, out_size]."""
        x = F.relu(self.bn(self.lin(x)), inplace=True)
        return F.dropout(x, self.drop_p, self.training) if self.drop_p else x


class SlotEncoder(StepEncoder):
    """Encoder whose spikes [B, n * T] lie value by value, all T slots of a value side by side.

    Args:
        in_size: values n of a sample.
        time_steps: time slots per value.
        slot_order: how `steps` reads the spikes: `time_major` gives step t slot t of every value; `pixel_major` cuts
            them into T equal runs, so that step t sees all slots of a T-th of the values, as published.
    """

    def __init__(self, in_size: int, time_steps: int, slot_order: SlotOrder) -> None:
        super().__init__(time_steps, step_size=in_size)
        self.in_size = in_size
        self.slot_order: SlotOrder = slot_order

    def steps(self, spikes: Tensor) -> Tensor:
        """Return the spikes as [B, T, n] in the slot order."""
        if self.slot_order == "pixel_major":
            return spikes.view(len(spikes), self.time_steps, self.in_size)
        return spikes.view(len(spikes), self.in_size, self.time_steps).transpose(1, 2)


class Stal(SlotEncoder):
    """spikes = sigma(alpha (repeat(h2) - theta)) with h2 the output of two linear blocks (DeniBademi/Thesis, STAL).

    Args:
        window_size: values per channel (pixels of an image).
        n_channels: channels.
        time_steps: time slots per value (psi).
        l1_size: width of the first block.
        l2_size: width of the second; must divide window_size * n_channels * time_steps and be smaller.
        drop_p: dropout probability.
        alpha: slope of the threshold sigmoid.
        slot_order: see `SlotEncoder`.

    Raises:
        ValueError: a width does not divide what it must divide.
    """

    def __init__(
        self,
        *,
        window_size: int,
        n_channels: int = 1,
        time_steps: int = 5,
        l1_size: int = 784,
        l2_size: int = 784,
        drop_p: float = 0.1,
        alpha: float = 25.0,
        slot_order: SlotOrder = "time_major",
    ) -> None:
        super().__init__(window_size * n_channels, time_steps, slot_order)
        out_size = self.in_size * time_steps
        if out_size % l2_size or l2_size >= out_size:
            raise ValueError(f"l2_size must divide {out_size} (inputs x time steps) and be smaller, got {l2_size}")
        for width in (l1_size, l2_size):
            if max(width, self.in_size) % min(width, self.in_size):
                raise ValueError(f"a block of width {width} and the {self.in_size} inputs must divide one another")
        self.repeats = out_size // l2_size
        self.alpha = alpha
        self.Z1 = LinearBlock(self.in_size, l1_size, drop_p)
        self.Z2 = LinearBlock(l1_size, l2_size, drop_p)
        self.threshold_adder = initial_thresholds(out_size)

    def forward(self, x: Tensor) -> Encoded:
        """Encode images or windows.

        Args:
            x: [B, ...] with window_size * n_channels values per sample.

        Returns:
            Spikes [B, n * T], index value * T + slot where l2_size = n; Z1 and Z2 [B, n].
        """
        h1 = self.Z1(x.flatten(1))
        h2 = self.Z2(h1)
        repeated = h2.repeat_interleave(self.repeats, dim=1)
        spikes = soft_threshold(repeated, self.threshold_adder, self.alpha)
        clamp_thresholds(self.threshold_adder)
        return Encoded(spikes, match_width(h1, self.in_size), match_width(h2, self.in_size))


def match_width(x: Tensor, width: int, pool: Literal["average", "max"] = "average") -> Tensor:
    """Bring [B, f] to [B, width] by pooling f / width neighbours or by repeating each entry width / f times.

    Args:
        x: [B, f].
        width: wanted width; one of the two must divide the other.
        pool: how neighbours are joined.

    Returns:
        [B, width].
    """
    size = x.shape[1]
    if size == width:
        return x
    if size < width:
        return x.repeat_interleave(width // size, dim=1)
    groups = x.view(len(x), width, size // width)
    return groups.mean(-1) if pool == "average" else groups.amax(-1)


@register_encoder("stal")
def stal(*, in_channels: int, img_size: int, time_steps: int = 5, **kwargs: object) -> Stal:
    """Build STAL for images.

    Args:
        in_channels: image channels.
        img_size: image side in pixels.
        time_steps: time steps T.
        kwargs: further arguments of `Stal`.

    Returns:
        The encoder.
    """
    return Stal(window_size=img_size**2, n_channels=in_channels, time_steps=time_steps, **kwargs)  # type: ignore[arg-type]
