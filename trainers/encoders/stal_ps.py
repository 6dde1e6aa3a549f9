"""STAL-PS (ConvSTAL-PS): Spikformer's patch splitting with ReLU, then learnable thresholds per time step and token."""

from __future__ import annotations

from typing import Literal

import torch.nn.functional as F
from torch import Tensor

from trainers.encoders.base import initial_thresholds, register_encoder, soft_threshold
from trainers.encoders.patch_splitting import PatchSplitting


@register_encoder("stalps", "convstal_ps")
class StalPs(PatchSplitting):
    """Compare the tokens g with thresholds, twice: out_t = sigma(alpha (sigma(alpha (g - theta_t)) - theta_t)).

    The thresholds are never clamped (DeniBademi/Thesis, ConvSTAL-PS).

    Args:
        in_channels: image channels C.
        img_size: image side in pixels, a multiple of 4.
        time_steps: time steps T.
        embed_dims: token width D, a multiple of 8.
        patch_size: pixels per token side; the two max-pools fix it to 4.
        alpha: slope of the threshold sigmoid.
        threshold_passes: 2 applies the threshold twice, as published; 1 applies it once.

    Raises:
        ValueError: the patch size is not 4, or a size is not the multiple it must be.
    """

    def __init__(
        self,
        *,
        in_channels: int,
        img_size: int,
        time_steps: int = 5,
        embed_dims: int = 128,
        patch_size: int = 4,
        alpha: float = 25.0,
        threshold_passes: Literal[1, 2] = 2,
    ) -> None:
        super().__init__(in_channels, img_size, time_steps, embed_dims, patch_size)
        self.alpha = alpha
        self.threshold_passes = threshold_passes
        self.threshold_adder = initial_thresholds(time_steps, self.num_tokens, embed_dims)

    def forward(self, images: Tensor) -> Tensor:
        """Encode images.

        Args:
            images: [B, C, H, W].

        Returns:
            Tokens [T, B, N, D] in (0, 1); the convolutions run once for all time steps.
        """
        x = F.relu(self.proj_bn(self.proj_conv(images)))
        x = F.relu(self.proj_bn1(self.proj_conv1(x)))
        x = self.pool(F.relu(self.proj_bn2(self.proj_conv2(x))))
        f = self.pool(F.relu(self.proj_bn3(self.proj_conv3(x))))
        g = F.relu(self.rpe_bn(self.rpe_conv(f))) + f  # [B, D, H/4, W/4]
        tokens: Tensor = g.flatten(2).transpose(1, 2)  # [B, N, D]
        thresholds = self.threshold_adder.unsqueeze(1)  # [T, 1, N, D]
        for _ in range(self.threshold_passes):
            tokens = soft_threshold(tokens, thresholds, self.alpha)  # [T, B, N, D]
        return tokens
