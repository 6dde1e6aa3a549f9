"""Spike-driven Transformer: membrane shortcuts, attention that masks channels (Yao et al., 2023, arXiv 2307.01694)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Unpack

from torch import Tensor, nn

from trainers.models.attention import SpikeDrivenSelfAttention, SpikingAttention
from trainers.models.backbone import register
from trainers.models.blocks import Block, SpikingMlp
from trainers.models.layers import (
    ConvBn,
    ConvBnNeuron,
    NeuronConvBn,
    UnusedNeuron,
    check_width,
    draw_weights,
    halvings,
    mean_of_pixels,
)
from trainers.models.neuron_options import NeuronOptions, Neurons
from trainers.models.token_transformer import TokenTransformer
from trainers.normalisation import halve

_STAGES = 4


class SdtTokenizer(nn.Module):
    """Four 3 x 3 convolutions and a relative position embedding around which the membrane of the fourth goes.

    The pools come last: with n halvings, the last n of the four stages pool, the fourth one its membrane and the
    others their spikes.

    Args:
        in_channels: channels of the input.
        dim: width D.
        pools: halvings, 0 to 4.
        neurons: makes the spiking layers.
        keep_dead_parameters: keep those of a neuron that the published code never runs.
    """

    def __init__(self, in_channels: int, dim: int, pools: int, neurons: Neurons, *, keep_dead_parameters: bool) -> None:
        super().__init__()
        check_width(dim, 8)
        widths = (in_channels, dim // 8, dim // 4, dim // 2)
        pooled = [stage >= _STAGES - pools for stage in range(_STAGES)]
        self.stages = nn.ModuleList(
            ConvBnNeuron(
                widths[stage],
                widths[stage + 1],
                3,
                neuron=neurons.make("tokenizer"),
                pool="after_neuron" if pooled[stage] else "none",
            )
            for stage in range(_STAGES - 1)
        )
        self.last = ConvBn(widths[-1], dim, 3)
        self.pool_last = pooled[-1]
        self.rpe = NeuronConvBn(dim, dim, 3, neuron=neurons.make("tokenizer"))
        if keep_dead_parameters:
            self.unused_neuron = UnusedNeuron(neurons.make("tokenizer"))
        modules = [f"patch_embed.stages.{stage}" for stage in range(_STAGES - 1)] + ["patch_embed"]
        self.feature_info = [
            {"num_chs": width, "reduction": 2 ** sum(pooled[: stage + 1]), "module": module}
            for stage, (width, module) in enumerate(zip((*widths[1:], dim), modules, strict=True))
        ]

    def maps(self, x: Tensor) -> Iterator[Tensor]:
        """Yield the spikes of three stages of [T, B, C, H, W], then the membranes of the tokens, [T, B, D, H', W']."""
        for stage in self.stages:
            x = stage(x)
            yield x
        x = self.last(x)
        if self.pool_last:
            x = halve(x)
        yield self.rpe(x) + x


class EventPooledAttention(SpikeDrivenSelfAttention):
    """SDSA-1 whose products k * v and q * mask are max-pooled over windows of 3 tokens x 3 channels.

    The released code does so on CIFAR10-DVS alone; the paper does not mention it.
    """

    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Return spikes [T, B, heads, d, N] of spikes q, k, v of that shape."""
        mask: Tensor = self.neuron(_pool_tokens(k * v).sum(-1, keepdim=True))
        return _pool_tokens(q * mask)

    def accumulations(self, *inputs: Tensor) -> Tensor:
        """Count the spikes of the pooled k * v that are summed; pooling and masking are selections."""
        _, k, v = inputs
        return _pool_tokens(k * v).double().sum()


class SdtAttention(SpikingAttention):
    """Attention of a block with membrane shortcuts.

    Args:
        dim: width D.
        num_heads: heads; must divide D.
        neurons: makes the spiking layers.
        attention: the product, by its name in `trainers.models.attention.PRODUCTS`.
        attn_scale: factor of the products that have one.
        event_pooling: max-pool k and v over 3 x 3 pixels, and the products over 3 tokens x 3 channels.
        keep_dead_parameters: keep those that the published code never uses.

    Raises:
        ValueError: the heads do not divide D, or the products of another attention than `sdsa` are to be pooled.
    """

    def __init__(
        self,
        dim: int,
        num_heads: int,
        neurons: Neurons,
        *,
        attention: str,
        attn_scale: float,
        event_pooling: bool,
        keep_dead_parameters: bool,
    ) -> None:
        if event_pooling and attention != "sdsa":
            raise ValueError(f"event_pooling is a part of attention 'sdsa', got attention '{attention}'")
        product = EventPooledAttention(neurons) if event_pooling else attention
        super().__init__(
            dim, num_heads, neurons, product=product, scale=attn_scale, input_neuron=True, output_neuron=False
        )
        self.event_pooling = event_pooling
        if keep_dead_parameters:
            self.talking_heads = nn.Conv1d(num_heads, num_heads, kernel_size=1, bias=False)
            self.unused_neuron = UnusedNeuron(neurons.make("attention"))

    def project(self, spikes: Tensor) -> dict[str, Tensor]:
        """Return the spikes q, k and v, maps [T, B, D, H, W], of the input's."""
        maps = super().project(spikes)
        if self.event_pooling:
            maps |= {name: _pool(maps[name]) for name in ("k", "v")}
        return maps


class InnerShortcutBlock(Block):
    """Block with a shortcut around each half of its MLP, whose hidden width is D.

    The released code has it wherever the widths allow; with another hidden width there is only the MLP's own shortcut.
    """

    mlp: SpikingMlp

    def forward(self, x: Tensor) -> Tensor:
        """Return [T, B, D, H, W] of [T, B, D, H, W]."""
        x = x + self.attn(x)
        x = x + self.mlp.fc1(x)
        out: Tensor = x + self.mlp.fc2(x)
        return out


class Sdt(TokenTransformer):
    """Spike-driven Transformer; the defaults are the 2-512 of CIFAR-10.

    Feature maps are the spikes of the tokenizer's stages before the last, and the membranes of the last block.

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
        attention: `sdsa`, or another product of `trainers.models.attention.PRODUCTS`.
        attn_scale: factor of the products that have one; `sdsa` has none.
        event_pooling: pool k, v and the products of SDSA as the released code does for CIFAR10-DVS.
        inner_shortcut: with mlp_ratio 1, give each half of an MLP its own shortcut as the released code does.
        keep_dead_parameters: keep the parameters that the published code never uses, so that totals and keys agree.
        step_by_step: see `SpikingTransformer`.
        step_logits: see `SpikingTransformer`.
        neuron: see `NeuronOptions`. `attn_v_threshold` is the threshold of SDSA's mask: 0.5 in the authors' code, 1.0
            in STEP's port.

    Raises:
        ValueError: a size does not fit.
    """

    embedding_layer = "patch_embed.rpe.neuron"
    adds_spikes = False

    def __init__(
        self,
        *,
        in_channels: int = 3,
        img_size: int = 32,
        num_classes: int = 10,
        embed_dims: int = 512,
        depth: int = 2,
        num_heads: int = 8,
        mlp_ratio: float = 4.0,
        time_steps: int = 4,
        patch_size: int = 4,
        attention: str = "sdsa",
        attn_scale: float = 0.125,
        event_pooling: bool = False,
        inner_shortcut: bool = True,
        keep_dead_parameters: bool = True,
        step_by_step: bool = False,
        step_logits: bool = False,
        **neuron: Unpack[NeuronOptions],
    ) -> None:
        neurons = Neurons(time_steps, **neuron)
        pools = halvings(img_size, patch_size, 0, _STAGES)
        hidden = int(embed_dims * mlp_ratio)
        kind = InnerShortcutBlock if inner_shortcut and hidden == embed_dims else Block
        super().__init__(
            SdtTokenizer(in_channels, embed_dims, pools, neurons, keep_dead_parameters=keep_dead_parameters),
            (
                kind(
                    SdtAttention(
                        embed_dims,
                        num_heads,
                        neurons,
                        attention=attention,
                        attn_scale=attn_scale,
                        event_pooling=event_pooling,
                        keep_dead_parameters=keep_dead_parameters,
                    ),
                    SpikingMlp(embed_dims, hidden, neurons, fire_first=True),
                )
                for _ in range(depth)
            ),
            num_classes=num_classes,
            time_steps=time_steps,
            step_by_step=step_by_step,
            step_logits=step_logits,
        )
        self.head_neuron = neurons.make("head")
        draw_weights(self, nn.Conv2d)  # the linear head keeps torch's own, the opposite of the other families

    def forward_head(self, x: Tensor) -> Tensor:
        """Return logits per time step [T, B, K] of the last map [T, B, D, H', W']."""
        logits: Tensor = self.head(self.head_neuron(mean_of_pixels(x)))
        return logits


def _pool(x: Tensor) -> Tensor:
    """Max-pool 3 x 3 over the last two axes, with stride 1."""
    return nn.functional.max_pool2d(x.flatten(0, -3), kernel_size=3, stride=1, padding=1).view_as(x)


def _pool_tokens(x: Tensor) -> Tensor:
    """Max-pool heads [T, B, heads, d, N] over 3 tokens x 3 channels."""
    # Of equal values the first one gets the gradient, so the axes must lie as in the published code: [..., N, d].
    return _pool(x.transpose(-2, -1).contiguous()).transpose(-2, -1)


# Also published: 2-256 with 2 channels, patches of 4 and event_pooling on frames of 64 x 64 (CIFAR10-DVS), 2-256 with 2
# channels and patches of 8 on frames of 128 x 128 (DVS128 Gesture), 8-384 to 8-768 with patches of 16 (ImageNet)
sdt = register(Sdt, "sdt", "the 2-512 of CIFAR with patches of 4")
