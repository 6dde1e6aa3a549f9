"""The convolutions that STAL-PS and SPS share: an image becomes tokens of 4 x 4 pixels."""

from __future__ import annotations

from torch import nn

from trainers.encoders.base import TokenEncoder

PATCH = 4  # two max-pools of stride 2


class PatchSplitting(TokenEncoder):
    """Five 3 x 3 convolutions with batch normalisation and two max-pools (Zhou et al., Spikformer, 2023).

    Args:
        in_channels: image channels C.
        img_size: image side in pixels, a multiple of 4.
        time_steps: time steps T.
        embed_dims: token width D, a multiple of 8.
        patch_size: pixels per token side, 4.

    Raises:
        ValueError: the patch size is not 4, or a size is not the multiple it must be.
    """

    def __init__(self, in_channels: int, img_size: int, time_steps: int, embed_dims: int, patch_size: int) -> None:
        super().__init__(time_steps, (img_size // PATCH) ** 2, embed_dims)
        if patch_size != PATCH:
            raise ValueError(f"patch_size must be {PATCH}, which the two max-pools fix, got {patch_size}")
        if img_size % PATCH:
            raise ValueError(f"the image side must be a multiple of {PATCH}, got {img_size}; set data.image_size")
        if embed_dims % 8:
            raise ValueError(f"embed_dims must be a multiple of 8, got {embed_dims}")
        widths = (embed_dims // 8, embed_dims // 4, embed_dims // 2, embed_dims)
        self.proj_conv, self.proj_bn = _conv(in_channels, widths[0])
        self.proj_conv1, self.proj_bn1 = _conv(widths[0], widths[1])
        self.proj_conv2, self.proj_bn2 = _conv(widths[1], widths[2])
        self.proj_conv3, self.proj_bn3 = _conv(widths[2], widths[3])
        self.rpe_conv, self.rpe_bn = _conv(widths[3], widths[3])
        self.pool = nn.MaxPool2d(kernel_size=3, stride=2, padding=1)


def _conv(in_channels: int, out_channels: int) -> tuple[nn.Conv2d, nn.BatchNorm2d]:
    conv = nn.Conv2d(in_channels, out_channels, kernel_size=3, padding=1, bias=False)
    return conv, nn.BatchNorm2d(out_channels)
