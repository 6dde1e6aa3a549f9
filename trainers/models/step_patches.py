"""Tokens for a transformer out of an encoder's steps."""

from __future__ import annotations

from torch import Tensor, nn

from trainers.encoders.patch_splitting import PATCH


class StepPatches(nn.Module):
    """Project each patch of 4 x 4 pixels of a step to a token, then normalise the token.

    For ConvSTAL's spikes DeniBademi/Thesis has a 1 x 1 convolution and a layer normalisation, which keep one token per
    pixel; patches of 4 x 4 give as many tokens as the encoders that give tokens by themselves.

    Args:
        step_size: values per sample and step, read as channels of H x W values.
        img_size: image side H = W in pixels, a multiple of 4.
        embed_dims: token width D.

    Raises:
        ValueError: the step is no whole number of channels, or the side no multiple of 4.
    """

    def __init__(self, step_size: int, img_size: int, embed_dims: int) -> None:
        super().__init__()
        if img_size % PATCH:
            raise ValueError(f"the image side must be a multiple of {PATCH}, got {img_size}; set data.image_size")
        if step_size % img_size**2:
            raise ValueError(
                f"the {step_size} values of a step must be a multiple of the image's {img_size} x {img_size} pixels"
            )
        self.image_shape = (step_size // img_size**2, img_size, img_size)
        self.proj = nn.Conv2d(self.image_shape[0], embed_dims, kernel_size=PATCH, stride=PATCH, bias=False)
        self.norm = nn.LayerNorm(embed_dims)

    def forward(self, steps: Tensor) -> Tensor:
        """Return tokens [T, B, N, D] of steps [B, T, ...]."""
        batch, time = steps.shape[:2]
        patches = self.proj(steps.reshape(batch * time, *self.image_shape))  # [B*T, D, H/4, W/4]
        tokens: Tensor = self.norm(patches.flatten(2).transpose(1, 2))  # [B*T, N, D]
        return tokens.view(batch, time, *tokens.shape[1:]).transpose(0, 1)
