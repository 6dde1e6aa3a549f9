"""Spikformer: convolutional tokenizer, spiking self-attention, shortcuts that add spikes (Zhou et al., 2023)."""

from __future__ import annotations

from typing import Any, Literal, Unpack

import torch
from torch import nn

from trainers.models.attention import SpikingAttention
from trainers.models.backbone import register
from trainers.models.blocks import Block, SpikingMlp
from trainers.models.layers import draw_weights
from trainers.models.neuron_options import NeuronOptions, Neurons
from trainers.models.token_transformer import TokenTransformer
from trainers.models.tokenizers import TOKENIZERS

ProjectionInit = Literal["trunc_normal", "convolution"]


class Spikformer(TokenTransformer):
    """Spikformer; the defaults are the 4-384 of CIFAR-10.

    Args:
        in_channels: channels C of the input.
        img_size: side of the input in pixels, a multiple of the patch size.
        num_classes: classes K.
        embed_dims: width D, a multiple of 8 (of 4 with `two_conv`, any with `one_conv`).
        depth: blocks.
        num_heads: heads; must divide D.
        mlp_ratio: hidden width of the MLPs, in D.
        time_steps: time steps T of a static image.
        patch_size: side of a token's patch in pixels; see `embedding`.
        embedding: tokenizer: `sps` (patches of 1, 2, 4, 8 or 16 pixels), `one_conv` (any) or `two_conv` (4 to 32), the
            kinds that STEP compares.
        attention: product of the attention, by its name in `trainers.models.attention.PRODUCTS`.
        attn_scale: factor of the product. A constant in the published code: 0.125, on event data 0.25, not d^-1/2.
        qkv_bias: give q, k and v a bias, which the published code for CIFAR alone does.
        proj_bias: give the projection after the product a bias; STEP's port for ImageNet does not.
        projection_init: first weights of the blocks' projections and MLPs: `trunc_normal` (deviation 0.02, biases 0)
            for the linear layers of the published code for CIFAR, `convolution` (torch's default) for the 1 x 1
            convolutions that take their place in the others.
        keep_dead_parameters: keep the parameters that the published code never uses, so that totals and keys agree:
            two layer normalisations per block and what `dead_positions` says.
        dead_positions: the published code for event data also has an unused position embedding and normalisation.
        step_by_step: see `SpikingTransformer`.
        step_logits: see `SpikingTransformer`.
        neuron: see `NeuronOptions`.

    Raises:
        ValueError: a size does not fit, or a kind is unknown.
    """

    embedding_layer = "patch_embed.rpe.neuron"

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
        embedding: str = "sps",
        attention: str = "ssa",
        attn_scale: float = 0.125,
        qkv_bias: bool = True,
        proj_bias: bool = True,
        projection_init: ProjectionInit = "trunc_normal",
        keep_dead_parameters: bool = True,
        dead_positions: bool = False,
        step_by_step: bool = False,
        step_logits: bool = False,
        **neuron: Unpack[NeuronOptions],
    ) -> None:
        neurons = Neurons(time_steps=time_steps, **neuron)
        tokenizer = TOKENIZERS.create(
            embedding,
            in_channels=in_channels,
            embed_dims=embed_dims,
            img_size=img_size,
            patch_size=patch_size,
            neurons=neurons,
        )
        attentions = (
            SpikingAttention(
                embed_dims,
                num_heads,
                neurons,
                product=attention,
                scale=attn_scale,
                qkv_bias=qkv_bias,
                proj_bias=proj_bias,
            )
            for _ in range(depth)
        )
        super().__init__(
            tokenizer,
            (
                Block(
                    attention,
                    SpikingMlp(embed_dims, int(embed_dims * mlp_ratio), neurons),
                    unused_norms=embed_dims if keep_dead_parameters else 0,
                )
                for attention in attentions
            ),
            num_classes=num_classes,
            time_steps=time_steps,
            step_by_step=step_by_step,
            step_logits=step_logits,
        )
        draw_weights(self, nn.Linear)
        match projection_init:
            case "trunc_normal":
                draw_weights(self.block, nn.Conv2d)
            case "convolution":
                pass
            case unknown:
                raise ValueError(f"projection_init must be 'trunc_normal' or 'convolution', got '{unknown}'")
        if keep_dead_parameters and dead_positions:
            self.pos_embed = nn.Parameter(torch.zeros(1, (img_size // patch_size) ** 2, embed_dims))
            self.norm = nn.LayerNorm(embed_dims)


_CONVOLUTIONS: dict[str, Any] = {"patch_size": 16, "qkv_bias": False, "projection_init": "convolution"}

spikformer_cifar = register(Spikformer, "spikformer_cifar", "the 4-384 of CIFAR with patches of 4")
spikformer_imagenet = register(
    Spikformer,
    "spikformer_imagenet",
    "the 8-512 of ImageNet with patches of 16",
    **_CONVOLUTIONS,
    img_size=224,
    num_classes=1000,
    embed_dims=512,
    depth=8,
    num_heads=8,
)
spikformer_dvs = register(
    Spikformer,
    "spikformer_dvs",
    "the 2-256 of CIFAR10-DVS for clips of 128 x 128",
    **_CONVOLUTIONS,
    in_channels=2,
    img_size=128,
    embed_dims=256,
    depth=2,
    num_heads=16,
    time_steps=16,
    attn_scale=0.25,
    dead_positions=True,
)
