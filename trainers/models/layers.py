"""Layers of the spiking transformers, all on [T, B, C, H, W]: weights see T*B images, neurons see time."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Literal

from torch import Tensor, nn

from trainers.normalisation import convolve, fire, halve, normalise

Pooling = Literal["none", "before_neuron", "after_neuron"]


class ConvBn(nn.Module):
    """Convolution and batch normalisation over the T*B images of a batch.

    Args:
        in_channels: channels C.
        out_channels: channels C'.
        kernel_size: side of the kernel.
        stride: stride of the convolution.
        padding: pixels on each side, by default as many as keep the sides with an odd kernel.
        bias: give the convolution a bias, although the normalisation removes it.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int = 1,
        *,
        stride: int = 1,
        padding: int | None = None,
        bias: bool = False,
    ) -> None:
        super().__init__()
        pixels = kernel_size // 2 if padding is None else padding
        self.conv = nn.Conv2d(in_channels, out_channels, kernel_size, stride, pixels, bias=bias)
        self.bn = nn.BatchNorm2d(out_channels)

    def forward(self, x: Tensor) -> Tensor:
        """Return [T, B, C', H', W'] of [T, B, C, H, W]."""
        return normalise(self.bn, convolve(self.conv, x))

    def fire(self, x: Tensor, neuron: nn.Module, *, pools: bool = False) -> Tensor:
        """Return the spikes [T, B, C', H', W'] of a layer behind it, in one pass where that can be.

        Args:
            x: [T, B, C, H, W].
            neuron: the spiking layer, or the identity.
            pools: halve the sides between normalisation and layer.
        """
        return fire(neuron, self.bn, convolve(self.conv, x), pools=pools)


class ConvBnNeuron(ConvBn):
    """Convolution, batch normalisation and spikes, with a 3 x 3 max-pool of stride 2 before or after them if asked for.

    Args:
        in_channels: channels C.
        out_channels: channels C'.
        kernel_size: side of the kernel.
        neuron: the spiking layer.
        stride: stride of the convolution.
        padding: see `ConvBn`.
        bias: give the convolution a bias.
        pool: where to halve the sides: nowhere, before or after the neuron.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int = 1,
        *,
        neuron: nn.Module,
        stride: int = 1,
        padding: int | None = None,
        bias: bool = False,
        pool: Pooling = "none",
    ) -> None:
        super().__init__(in_channels, out_channels, kernel_size, stride=stride, padding=padding, bias=bias)
        self.neuron = neuron
        self.pool = pool

    def forward(self, x: Tensor) -> Tensor:
        """Return spikes [T, B, C', H', W'] of [T, B, C, H, W]."""
        spikes = self.fire(x, self.neuron, pools=self.pool == "before_neuron")
        return halve(spikes) if self.pool == "after_neuron" else spikes


class NeuronConvBn(ConvBn):
    """Spikes, then convolution and batch normalisation: the order of membrane shortcuts.

    Args:
        in_channels: channels C.
        out_channels: channels C'.
        kernel_size: 1 or 3.
        neuron: the spiking layer.
        bias: give the convolution a bias.
        pool: halve the sides between neuron and convolution.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int = 1,
        *,
        neuron: nn.Module,
        bias: bool = False,
        pool: bool = False,
    ) -> None:
        super().__init__(in_channels, out_channels, kernel_size, bias=bias)
        self.neuron = neuron
        self.pool = pool

    def forward(self, x: Tensor) -> Tensor:
        """Return membrane currents [T, B, C', H', W'] of membranes [T, B, C, H, W]."""
        spikes: Tensor = self.neuron(x)
        return super().forward(halve(spikes) if self.pool else spikes)


class SpikeProduct(nn.Module, ABC):
    """A product of spikes with spikes: work that is in no weight layer, but costs energy all the same."""

    @abstractmethod
    def accumulations(self, *inputs: Tensor) -> Tensor:
        """Count the additions that `forward` of the same inputs needs where only spikes cause work.

        Args:
            inputs: what `forward` was given.

        Returns:
            A scalar, float64.
        """


class UnusedNeuron(nn.Module):
    """The parameters of a spiking layer that published code has, but never runs.

    Args:
        neuron: a layer of the kind; its parameters are taken, not the layer.
    """

    def __init__(self, neuron: nn.Module) -> None:
        super().__init__()
        for name, parameter in neuron.named_parameters():
            self.register_parameter(name, parameter)


def check_width(embed_dims: int, multiple: int) -> None:
    """Raise ValueError where the stages of a tokenizer cannot have whole fractions of the width D."""
    if embed_dims % multiple:
        raise ValueError(f"embed_dims must be a multiple of {multiple} for this tokenizer, got {embed_dims}")


def halvings(img_size: int, patch_size: int, fewest: int, most: int) -> int:
    """Return how often a tokenizer halves the sides to make one token of each patch.

    Args:
        img_size: image side in pixels.
        patch_size: side of a patch in pixels.
        fewest: halvings that the tokenizer always does.
        most: halvings that it has room for.

    Raises:
        ValueError: the patch is no power of two in reach, or does not divide the image.
    """
    sizes = [2**count for count in range(fewest, most + 1)]
    if patch_size not in sizes:
        raise ValueError(f"patch_size must be one of {', '.join(map(str, sizes))}, got {patch_size}")
    if img_size % patch_size:
        raise ValueError(f"the image side must be a multiple of patch_size ({patch_size}), got {img_size}")
    return patch_size.bit_length() - 1


def draw_weights(model: nn.Module, kind: type[nn.Module]) -> None:
    """Draw the weights of all layers of a kind from a truncated normal of deviation 0.02 and set their biases to 0."""
    for layer in model.modules():
        if isinstance(layer, kind):
            nn.init.trunc_normal_(layer.weight, std=0.02)  # type: ignore[arg-type]  # a linear layer or convolution
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)  # type: ignore[arg-type]


def split_heads(x: Tensor, num_heads: int) -> Tensor:
    """Turn maps [T, B, D, H, W] into heads of tokens [T, B, heads, d, N]."""
    if not _channels_are_last(x):
        return x.reshape(*x.shape[:2], num_heads, x.shape[2] // num_heads, -1)
    # by way of [T, B, N, heads, d], so that a gradient in any order needs one copy at most
    rows = x.permute(0, 1, 3, 4, 2).reshape(*x.shape[:2], -1, num_heads, x.shape[2] // num_heads)
    return rows.permute(0, 1, 3, 4, 2)


def merge_heads(x: Tensor, height: int, width: int) -> Tensor:
    """Turn heads [T, B, heads, d, N] back into maps [T, B, D, H, W]."""
    if not _channels_are_last(x.transpose(2, 3)):
        return x.reshape(*x.shape[:2], -1, height, width)
    return x.permute(0, 1, 4, 2, 3).reshape(*x.shape[:2], height, width, -1).permute(0, 1, 4, 2, 3)


def mean_of_pixels(x: Tensor) -> Tensor:
    """Turn maps [T, B, D, H, W] into [T, B, D]; the gradient is laid out in memory as the maps are."""
    if _channels_are_last(x):
        return x.permute(0, 1, 3, 4, 2).flatten(2, 3).mean(2)
    return x.mean((3, 4))


def _channels_are_last(x: Tensor) -> bool:
    """Return whether the third dimension of [T, B, D, ...] is the innermost in memory."""
    return x.stride(2) == 1 and x.shape[2] > 1
