"""SPS: Spikformer's spiking patch splitting, run on T copies of a still image."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn

from trainers.encoders.base import register_encoder
from trainers.encoders.patch_splitting import PatchSplitting
from trainers.neurons import make_lif
from trainers.normalisation import convolve, normalise


@register_encoder("sps")
class Sps(PatchSplitting):
    """Convolutions, batch normalisations and LIF layers; tokens are sums of two spikes, 0, 1 or 2 (Spikformer, 2023).

    Args:
        in_channels: image channels C.
        img_size: image side in pixels, a multiple of 4.
        time_steps: time steps T.
        embed_dims: token width D, a multiple of 8.
        patch_size: pixels per token side; the two max-pools fix it to 4.
        lif: builds one LIF layer.

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
        lif: Callable[[], nn.Module] = make_lif,
    ) -> None:
        super().__init__(in_channels, img_size, time_steps, embed_dims, patch_size)
        self.proj_lif = lif()
        self.proj_lif1 = lif()
        self.proj_lif2 = lif()
        self.proj_lif3 = lif()
        self.rpe_lif = lif()

    def forward(self, images: Tensor) -> Tensor:
        """Encode images.

        Args:
            images: [B, C, H, W].

        Returns:
            Tokens [T, B, N, D] in {0, 1, 2}.
        """
        # All T copies are equal up to the first neurons: one convolution serves them all.
        x = convolve(self.proj_conv, images.expand(self.time_steps, *images.shape))
        x = self.proj_lif(normalise(self.proj_bn, x)).flatten(0, 1)  # [T*B, D/8, H, W]
        x = self._fire(self.proj_lif1, self.proj_bn1(self.proj_conv1(x)))
        x = self.pool(self._fire(self.proj_lif2, self.proj_bn2(self.proj_conv2(x))))
        f: Tensor = self.pool(self._fire(self.proj_lif3, self.proj_bn3(self.proj_conv3(x))))
        tokens = self._fire(self.rpe_lif, self.rpe_bn(self.rpe_conv(f))) + f  # [T*B, D, H/4, W/4]
        return self._split_time(tokens.flatten(2).transpose(1, 2))

    def _fire(self, lif: nn.Module, x: Tensor) -> Tensor:
        """Run a LIF layer on [T*B, ...]."""
        spikes: Tensor = lif(self._split_time(x))
        return spikes.flatten(0, 1)

    def _split_time(self, x: Tensor) -> Tensor:
        """Turn [T*B, ...] into [T, B, ...]."""
        return x.view(self.time_steps, -1, *x.shape[1:])
