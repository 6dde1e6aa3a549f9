"""TIM: Spikformer whose queries remember the ones before them (Shen et al., 2024, arXiv 2401.11687)."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any, Literal, Unpack

import torch
from torch import Tensor, nn

from trainers.models.attention import SpikingAttention
from trainers.models.backbone import register
from trainers.models.blocks import Block, SpikingMlp
from trainers.models.layers import draw_weights, merge_heads, split_heads
from trainers.models.neuron_options import NeuronOptions, Neurons
from trainers.models.token_transformer import TokenTransformer
from trainers.models.tokenizers import TOKENIZERS
from trainers.neurons import carried_state

Thresholds = Literal["intended", "as_released"]

_INTENDED = (0.3, 0.5)  # thresholds of the interaction's two neurons
_KERNEL = 5


class TemporalInteraction(nn.Module):
    """Blend the spikes of a step with what a convolution makes of the blended spikes before (TIM, eq. 9).

    y_1 = q_1; y_t = out(alpha * in(conv(y_{t-1})) + (1 - alpha) * q_t), where `in` and `out` are neurons. The
    convolution takes the tokens for its channels and slides along the channels of a head.

    Args:
        tokens: tokens N.
        alpha: share of the past, in [0, 1].
        in_neuron: fires on the convolution, one step per call.
        out_neuron: fires on the blend, one step per call.

    Raises:
        ValueError: the neurons need all time steps at once.
    """

    carries = False

    def __init__(self, tokens: int, alpha: float, in_neuron: nn.Module, out_neuron: nn.Module) -> None:
        super().__init__()
        if getattr(in_neuron, "needs_all_steps", False):
            raise ValueError(f"TIM runs its neurons step by step, which '{type(in_neuron).__name__.lower()}' cannot do")
        self.alpha = alpha
        self.interactor = nn.Conv1d(tokens, tokens, _KERNEL, padding=_KERNEL // 2)
        self.in_neuron = in_neuron
        self.out_neuron = out_neuron
        self.last: Tensor | None = None

    def forget(self) -> None:
        """Drop the spikes of the last step."""
        self.last = None

    def forward(self, queries: Tensor) -> Tensor:
        """Return spikes [T, B, heads, d, N] of spikes of that shape.

        Raises:
            ValueError: there are other than N tokens.
        """
        tokens = self.interactor.in_channels
        if queries.shape[-1] != tokens:
            raise ValueError(
                f"this model interacts {tokens} tokens, but the image has {queries.shape[-1]}: "
                "build it with the img_size and the patch_size of the images"
            )
        by_token = queries.transpose(-2, -1)  # [T, B, heads, N, d]
        with nullcontext() if self.carries else carried_state(self):
            steps = [self._step(step.unsqueeze(0)) for step in by_token.unbind()]
        return torch.cat(steps).transpose(-2, -1)

    def _step(self, query: Tensor) -> Tensor:
        """Return spikes [1, B, heads, N, d] of the queries of one step."""
        if self.last is not None:
            past = self.in_neuron(self.interactor(self.last.flatten(0, 2)).view_as(query))
            query = self.out_neuron(past * self.alpha + query * (1 - self.alpha))
        self.last = query
        return query


class TimAttention(SpikingAttention):
    """Attention whose queries go through `TemporalInteraction`.

    Args:
        dim: width D.
        num_heads: heads; must divide D.
        neurons: makes the spiking layers.
        interaction: the interaction.
        kwargs: see `SpikingAttention`.
    """

    def __init__(
        self, dim: int, num_heads: int, neurons: Neurons, interaction: TemporalInteraction, **kwargs: Any
    ) -> None:
        super().__init__(dim, num_heads, neurons, **kwargs)
        self.interaction = interaction

    def project(self, spikes: Tensor) -> dict[str, Tensor]:
        """Return the spikes q, k and v, maps [T, B, D, H, W], of the input's."""
        maps = super().project(spikes)
        queries = self.interaction(split_heads(maps["q"], self.num_heads))
        return maps | {"q": merge_heads(queries, *spikes.shape[-2:])}


class Tim(TokenTransformer):
    """Spikformer with TIM; the defaults are those of CIFAR10-DVS.

    Args:
        in_channels: channels C of the clips.
        img_size: side of the frames in pixels, a multiple of the patch size.
        num_classes: classes K.
        embed_dims: width D, a multiple of 8.
        depth: blocks.
        num_heads: heads; must divide D.
        mlp_ratio: hidden width of the MLPs, in D.
        time_steps: time steps T of a static image; clips bring their own.
        patch_size: side of a token's patch in pixels; see `Spikformer`.
        embedding: tokenizer; see `Spikformer`.
        attention: product of the attention, by its name in `trainers.models.attention.PRODUCTS`.
        attn_scale: factor of the product.
        proj_bias: give the projection after the product a bias; the published code does not.
        alpha: share of the past in the queries, in [0, 1].
        thresholds: `intended` fires on the convolution at 0.3, on the blend at 0.5 and on the product at
            `attn_v_threshold`, 0.5, as the authors wrote. In the code that gave the published accuracy these arguments
            are lost, and all three have `v_threshold`, 1.0 (`as_released`): the queries after the first step are then
            always 0, for the blend is at most 1 and its neuron's membrane stays below that.
        detach_membrane: let no gradient go from a membrane to the step before, in all neurons, as Brain-Cog's do; the
            port in STEP back-propagates through time.
        keep_dead_parameters: keep two layer normalisations per block that the published code never uses, so that
            totals and keys agree.
        step_by_step: see `SpikingTransformer`.
        step_logits: see `SpikingTransformer`.
        neuron: see `NeuronOptions`.

    Raises:
        ValueError: a size does not fit, a kind is unknown, or the neurons need all time steps at once.
    """

    embedding_layer = "patch_embed.rpe.neuron"

    def __init__(
        self,
        *,
        in_channels: int = 2,
        img_size: int = 64,
        num_classes: int = 10,
        embed_dims: int = 256,
        depth: int = 2,
        num_heads: int = 16,
        mlp_ratio: float = 4.0,
        time_steps: int = 10,
        patch_size: int = 16,
        embedding: str = "sps",
        attention: str = "ssa",
        attn_scale: float = 0.25,
        proj_bias: bool = False,
        alpha: float = 0.5,
        thresholds: Thresholds = "intended",
        detach_membrane: bool = True,
        keep_dead_parameters: bool = True,
        step_by_step: bool = False,
        step_logits: bool = False,
        **neuron: Unpack[NeuronOptions],
    ) -> None:
        if not 0 <= alpha <= 1:
            raise ValueError(f"alpha must be in [0, 1], got {alpha}")
        at_in, at_out = _INTENDED
        match thresholds:
            case "intended":
                pass
            case "as_released":
                at_in = at_out = neuron["attn_v_threshold"] = neuron.get("v_threshold", 1.0)
            case unknown:
                raise ValueError(f"thresholds must be 'intended' or 'as_released', got '{unknown}'")
        neurons = Neurons(time_steps=time_steps, detach_membrane=detach_membrane, **neuron)
        tokenizer = TOKENIZERS.create(
            embedding,
            in_channels=in_channels,
            embed_dims=embed_dims,
            img_size=img_size,
            patch_size=patch_size,
            neurons=neurons,
        )
        tokens = (img_size // patch_size) ** 2
        attentions = (
            TimAttention(
                embed_dims,
                num_heads,
                neurons,
                TemporalInteraction(tokens, alpha, neurons.at_threshold(at_in), neurons.at_threshold(at_out)),
                product=attention,
                scale=attn_scale,
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


tim = register(Tim, "tim", "the 2-256 of CIFAR10-DVS and N-Caltech101 for frames of 64 x 64, in 10 steps")
