"""Spikingformer: Spikformer whose shortcuts add membranes, so that every weight sees spikes (Zhou et al., 2023)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Unpack

from torch import Tensor, nn

from trainers.models.attention import SpikingAttention
from trainers.models.backbone import register
from trainers.models.blocks import Block, SpikingMlp
from trainers.models.layers import ConvBn, NeuronConvBn, check_width, draw_weights, halvings
from trainers.models.neuron_options import NeuronOptions, Neurons
from trainers.models.token_transformer import TokenTransformer

_WIDTHS = (8, 4, 2, 1, 1)  # what D is divided by
_FIRING_STAGES = len(_WIDTHS) - 1


class MembraneTokenizer(nn.Module):
    """A 3 x 3 convolution of the image and four of spikes; with n halvings, the last n of those pool their spikes.

    Args:
        in_channels: channels of the input.
        dim: width D.
        pools: halvings, 0 to 4.
        neurons: makes the spiking layers.
    """

    def __init__(self, in_channels: int, dim: int, pools: int, neurons: Neurons) -> None:
        super().__init__()
        check_width(dim, 8)
        widths = [dim // divisor for divisor in _WIDTHS]
        pooled = [stage >= _FIRING_STAGES - pools for stage in range(_FIRING_STAGES)]
        self.stages = nn.ModuleList([ConvBn(in_channels, widths[0], 3)])
        for before, after, pool in zip(widths[:-1], widths[1:], pooled, strict=True):
            self.stages.append(NeuronConvBn(before, after, 3, neuron=neurons.make("tokenizer"), pool=pool))
        self.feature_info = [
            {"num_chs": width, "reduction": 2 ** sum(pooled[:stage]), "module": f"patch_embed.stages.{stage}"}
            for stage, width in enumerate(widths)
        ]

    def maps(self, x: Tensor) -> Iterator[Tensor]:
        """Yield the membranes [T, B, C', H', W'] of each stage of [T, B, C, H, W]; the last ones are the tokens."""
        for stage in self.stages:
            x = stage(x)
            yield x


class Spikingformer(TokenTransformer):
    """Spikingformer (arXiv 2304.11954); the defaults are the 4-384 of CIFAR-10.

    The head sees the mean membrane of the last block: there is no neuron before it. Feature maps are the membranes of
    the tokenizer's stages before the last, and of the last block.

    Args:
        in_channels: channels C of the input.
        img_size: side of the input in pixels, a multiple of the patch size.
        num_classes: classes K.
        embed_dims: width D, a multiple of 8.
        depth: blocks.
        num_heads: heads; must divide D.
        mlp_ratio: hidden width of the MLPs, in D.
        time_steps: time steps T of a static image.
        patch_size: side of a token's patch in pixels: 1, 2, 4, 8 or 16.
        attention: product of the attention, by its name in `trainers.models.attention.PRODUCTS`.
        attn_scale: factor of the product, a constant in the published code, not d^-1/2.
        proj_bias: give the projection after the product a bias, as the authors' code does and STEP's port does not.
        keep_dead_parameters: keep the two layer normalisations per block that the published code never applies, so
            that totals and keys agree; STEP's port has none.
        step_by_step: see `SpikingTransformer`.
        step_logits: see `SpikingTransformer`.
        neuron: see `NeuronOptions`.

    Raises:
        ValueError: a size does not fit, or the attention is unknown.
    """

    embedding_layer = f"patch_embed.stages.{_FIRING_STAGES}.neuron"
    adds_spikes = False

    def __init__(
        self,
        *,
        in_channels: int = 3,
        img_size: int = 32,
        num_classes: int = 10,
        embed_dims: int = 384,
        depth: int = 4,
        num_heads: int = 12,
        mlp_ratio: float = 4.0,
        time_steps: int = 4,
        patch_size: int = 4,
        attention: str = "ssa",
        attn_scale: float = 0.125,
        proj_bias: bool = True,
        keep_dead_parameters: bool = True,
        step_by_step: bool = False,
        step_logits: bool = False,
        **neuron: Unpack[NeuronOptions],
    ) -> None:
        neurons = Neurons(time_steps, **neuron)
        pools = halvings(img_size, patch_size, 0, _FIRING_STAGES)
        super().__init__(
            MembraneTokenizer(in_channels, embed_dims, pools, neurons),
            (
                Block(
                    SpikingAttention(
                        embed_dims,
                        num_heads,
                        neurons,
                        product=attention,
                        scale=attn_scale,
                        proj_bias=proj_bias,
                        input_neuron=True,
                        output_neuron=False,
                    ),
                    SpikingMlp(embed_dims, int(embed_dims * mlp_ratio), neurons, fire_first=True),
                    unused_norms=embed_dims if keep_dead_parameters else 0,
                )
                for _ in range(depth)
            ),
            num_classes=num_classes,
            time_steps=time_steps,
            step_by_step=step_by_step,
            step_logits=step_logits,
        )
        draw_weights(self, nn.Linear)


spikingformer_cifar = register(
    Spikingformer, "spikingformer_cifar", "the 4-384 of CIFAR with patches of 4; CIFAR-100 has 8 heads"
)
spikingformer_imagenet = register(
    Spikingformer,
    "spikingformer_imagenet",
    "the 8-512 of ImageNet with patches of 16",
    img_size=224,
    patch_size=16,
    num_classes=1000,
    embed_dims=512,
    depth=8,
    num_heads=8,
)
spikingformer_dvs = register(
    Spikingformer,
    "spikingformer_dvs",
    "the 2-256 of CIFAR10-DVS for clips of 128 x 128, whose LIF neurons have tau 1.5 (2 in STEP's port)",
    lif={"tau": 1.5},
    in_channels=2,
    img_size=128,
    patch_size=16,
    embed_dims=256,
    depth=2,
    num_heads=16,
    time_steps=16,
)
