"""ConvSTAL: two convolution blocks whose output is compared with learnable thresholds per time step and pixel."""

from __future__ import annotations

from typing import Literal

import torch
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


class ConvBlock(nn.Module):
    """Convolution, batch normalisation, ReLU and dropout.

    Args:
        in_channels: channels that come in.
        out_channels: channels that go out.
        kernel_size: odd kernel size; the image keeps its size.
        drop_p: dropout probability.
    """

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int, drop_p: float) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, kernel_size, padding=kernel_size // 2)
        self.bn = nn.BatchNorm2d(out_channels)
        self.drop_p = drop_p

    def forward(self, x: Tensor) -> Tensor:
        """Return [B, out_channels, H, W]."""
        x = F.relu(self.bn(self.conv(x)), inplace=True)
        return F.dropout(x, self.drop_p, self.training) if self.drop_p else x


@register_encoder("convstal")
class ConvStal(StepEncoder):
    """Compare the output x of two convolution blocks with thresholds: S[b, t] = sigma(alpha (x_b - theta_t)).

    Time enters through the thresholds alone (DeniBademi/Thesis, ConvSTAL).

    Args:
        in_channels: image channels C.
        img_size: image side in pixels.
        time_steps: time steps T (psi).
        hidden_channels: channels of the first block.
        out_channels: channels of the second block; None takes in_channels.
        kernel_size: odd kernel size of both blocks.
        drop_p: dropout probability.
        alpha: slope of the threshold sigmoid.
        flatten: `none` returns spikes [B, T, C2, H, W] and Z [B, C, H, W]; `hw` [B, T, C2*H*W] and [B, C, H*W]; `all`
            [B, T*C2*H*W] and [B, C*H*W].

    Raises:
        ValueError: the kernel size is even, or a block with fewer channels than the image does not divide them.
    """

    def __init__(
        self,
        *,
        in_channels: int,
        img_size: int,
        time_steps: int = 5,
        hidden_channels: int = 784,
        out_channels: int | None = None,
        kernel_size: int = 3,
        drop_p: float = 0.1,
        alpha: float = 25.0,
        flatten: Literal["none", "hw", "all"] = "none",
    ) -> None:
        out_channels = in_channels if out_channels is None else out_channels
        super().__init__(time_steps, out_channels * img_size**2)
        if kernel_size % 2 == 0:
            raise ValueError(f"kernel_size must be odd so that the image keeps its size, got {kernel_size}")
        for width in (hidden_channels, out_channels):
            if width < in_channels and in_channels % width:
                raise ValueError(f"a block of {width} channels must divide the {in_channels} channels of the image")
        self.in_channels = in_channels
        self.alpha = alpha
        self.flatten = flatten
        self.Z1 = ConvBlock(in_channels, hidden_channels, kernel_size, drop_p)
        self.Z2 = ConvBlock(hidden_channels, out_channels, kernel_size, drop_p)
        self.threshold_adder = initial_thresholds(time_steps, out_channels, img_size, img_size)

    def forward(self, images: Tensor) -> Encoded:
        """Encode images.

        Args:
            images: [B, C, H, W].

        Returns:
            Spikes, Z1 and Z2 in the shapes that `flatten` names.
        """
        hidden = self.Z1(images)
        out = self.Z2(hidden)
        spikes = soft_threshold(out.unsqueeze(1), self.threshold_adder, self.alpha)  # [B, T, C2, H, W]
        clamp_thresholds(self.threshold_adder)
        z1, z2 = (_match_channels(z, self.in_channels) for z in (hidden, out))
        if self.flatten == "hw":
            return Encoded(spikes.flatten(2), z1.flatten(2), z2.flatten(2))
        if self.flatten == "all":
            return Encoded(spikes.flatten(1), z1.flatten(1), z2.flatten(1))
        return Encoded(spikes, z1, z2)

    def steps(self, spikes: Tensor) -> Tensor:
        """Return the spikes as [B, T, ...]."""
        return spikes.view(len(spikes), self.time_steps, *self.threshold_adder.shape[1:])


def _match_channels(z: Tensor, channels: int) -> Tensor:
    """Bring [B, f, H, W] to `channels` by picking every f/channels-th or repeating each; values are >= 0 already."""
    width = z.shape[1]
    if width == channels:
        return z
    if width > channels:
        return z[:, torch.arange(channels, device=z.device) * width // channels]
    return z.repeat_interleave(channels // width, dim=1)
