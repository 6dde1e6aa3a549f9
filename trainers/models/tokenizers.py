"""Tokenizers of Spikformer: how an image becomes a map of tokens, each the sum of two spikes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from torch import Tensor, nn

from trainers.models.layers import ConvBnNeuron, Pooling, check_width, halvings
from trainers.models.neuron_options import Neurons
from trainers.registry import Registry

_SPS_STAGES = 4


class Tokenizer(nn.Module):
    """Stages that turn pixels into one map of spikes f, and the relative position embedding: f + spikes(conv(f)).

    Args:
        stages: convolutions that fire; the last has D channels.
        strides: pixels between neighbours in the map of each stage.
        neurons: makes the neuron of the position embedding.
    """

    def __init__(self, stages: Sequence[ConvBnNeuron], strides: Sequence[int], neurons: Neurons) -> None:
        super().__init__()
        self.stages = nn.ModuleList(stages)
        dim = stages[-1].conv.out_channels
        self.rpe = ConvBnNeuron(dim, dim, 3, neuron=neurons.make("tokenizer"))
        self.feature_info: list[dict[str, Any]] = [
            {"num_chs": stage.conv.out_channels, "reduction": stride, "module": f"patch_embed.stages.{index}"}
            for index, (stage, stride) in enumerate(zip(stages, strides, strict=True))
        ]

    def maps(self, x: Tensor) -> Iterator[Tensor]:
        """Yield the map [T, B, C', H', W'] of each stage of [T, B, C, H, W]; the last one holds the tokens 0, 1, 2."""
        for stage in self.stages[:-1]:
            x = stage(x)
            yield x
        x = self.stages[-1](x)
        yield x + self.rpe(x)


TOKENIZERS: Registry[Tokenizer] = Registry("embedding")


@TOKENIZERS.register("sps")
def spiking_patch_splitting(
    *, in_channels: int, embed_dims: int, img_size: int, patch_size: int, neurons: Neurons
) -> Tokenizer:
    """Build four 3 x 3 convolutions to D/8, D/4, D/2 and D channels (SPS, Spikformer, arXiv 2209.15425, eq. 2).

    The last log2(patch_size) of them halve the sides after their neurons.

    Args:
        in_channels: channels C of the input.
        embed_dims: width D, a multiple of 8.
        img_size: side of the input in pixels, a multiple of the patch size.
        patch_size: side of a patch in pixels: 1, 2, 4, 8 or 16.
        neurons: makes the spiking layers.

    Returns:
        The tokenizer.

    Raises:
        ValueError: a size is not the multiple or the power of two it must be.
    """
    check_width(embed_dims, 8)
    first_pool = _SPS_STAGES - halvings(img_size, patch_size, 0, _SPS_STAGES)
    widths = [in_channels, *(embed_dims * 2**stage // 8 for stage in range(_SPS_STAGES))]
    pools: list[Pooling] = ["after_neuron" if stage >= first_pool else "none" for stage in range(_SPS_STAGES)]
    stages = [
        ConvBnNeuron(before, after, 3, neuron=neurons.make("tokenizer"), pool=pool)
        for before, after, pool in zip(widths[:-1], widths[1:], pools, strict=True)
    ]
    return Tokenizer(stages, [2 ** max(0, stage - first_pool + 1) for stage in range(_SPS_STAGES)], neurons)


@TOKENIZERS.register("one_conv")
def one_convolution(
    *, in_channels: int, embed_dims: int, img_size: int, patch_size: int, neurons: Neurons
) -> Tokenizer:
    """Build one convolution whose kernel and stride are the patch, as in ViT (arXiv 2010.11929).

    STEP's one-conv adds a learned, real-valued position embedding; this one keeps Spikformer's convolution, so that
    tokens stay sums of spikes and the image may have any size.

    Args:
        in_channels: channels C of the input.
        embed_dims: width D.
        img_size: side of the input in pixels, a multiple of the patch size.
        patch_size: side of a patch in pixels, any.
        neurons: makes the spiking layers.

    Returns:
        The tokenizer.

    Raises:
        ValueError: the patch does not divide the image.
    """
    if img_size % patch_size:
        raise ValueError(f"the image side must be a multiple of patch_size ({patch_size}), got {img_size}")
    neuron = neurons.make("tokenizer")
    stage = ConvBnNeuron(in_channels, embed_dims, patch_size, neuron=neuron, stride=patch_size, padding=0)
    return Tokenizer([stage], [patch_size], neurons)


@TOKENIZERS.register("two_conv")
def two_convolutions(
    *, in_channels: int, embed_dims: int, img_size: int, patch_size: int, neurons: Neurons
) -> Tokenizer:
    """Build two 3 x 3 convolutions to D/4 and D channels, each with a pool after its neuron (STEP's two-conv).

    Patches of more than 4 pixels are reached by a stride of the first convolution.

    Args:
        in_channels: channels C of the input.
        embed_dims: width D, a multiple of 4.
        img_size: side of the input in pixels, a multiple of the patch size.
        patch_size: side of a patch in pixels: 4, 8, 16 or 32.
        neurons: makes the spiking layers.

    Returns:
        The tokenizer.

    Raises:
        ValueError: a size is not the multiple or the power of two it must be.
    """
    check_width(embed_dims, 4)
    halvings(img_size, patch_size, 2, 5)
    widths, strides = [in_channels, embed_dims // 4, embed_dims], [patch_size // 4, 1]
    stages = [
        ConvBnNeuron(before, after, 3, neuron=neurons.make("tokenizer"), stride=stride, pool="after_neuron")
        for before, after, stride in zip(widths[:-1], widths[1:], strides, strict=True)
    ]
    return Tokenizer(stages, [patch_size // 2, patch_size], neurons)
