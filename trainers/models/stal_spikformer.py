"""Spikformer with a swappable encoder: spiking self-attention blocks over tokens, averaged over tokens and time."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

import trainers.torchvision_ops  # noqa: F401  # before timm

# isort: split
from timm.models import register_model

from trainers.encoders import StepEncoder
from trainers.models.parts import build_encoder, encode, freeze, keep_frozen_in_eval, no_pretrained_weights
from trainers.models.step_patches import StepPatches
from trainers.neurons import make_lif

LifBuilder = Callable[..., nn.Module]


def _norm_fire(x: Tensor, linear: nn.Linear, bn: nn.BatchNorm1d, lif: nn.Module) -> Tensor:
    """Linear layer, batch normalisation over channels and LIF on [T, B, N, C]."""
    # [T*B*N, C]: the same statistics as [T*B, C, N], without two transpositions and far faster on a CPU
    y = bn(linear(x).flatten(0, 2))
    spikes: Tensor = lif(y.view(*x.shape[:3], -1))
    return spikes


class SpikingSelfAttention(nn.Module):
    """LIF(scale (q k^T) v) of binary q, k, v, then a linear layer with LIF; there is no softmax (Spikformer, 2023).

    Args:
        dim: token width D.
        num_heads: heads; must divide D.
        scale: constant factor.
        lif: builds a LIF layer; `v_threshold` is passed for the one after the product.
        attn_v_threshold: threshold of that layer.
    """

    def __init__(self, dim: int, num_heads: int, scale: float, lif: LifBuilder, attn_v_threshold: float) -> None:
        super().__init__()
        if dim % num_heads:
            raise ValueError(f"num_heads ({num_heads}) must divide the token width ({dim})")
        self.num_heads = num_heads
        self.scale = scale
        for name in ("q", "k", "v", "proj"):
            setattr(self, f"{name}_linear", nn.Linear(dim, dim))
            setattr(self, f"{name}_bn", nn.BatchNorm1d(dim))
            setattr(self, f"{name}_lif", lif())
        self.attn_lif = lif(v_threshold=attn_v_threshold)

    def forward(self, x: Tensor) -> Tensor:
        """Return spikes [T, B, N, D] of tokens [T, B, N, D]."""
        q, k, v = (self._heads(self._spikes(name, x)) for name in ("q", "k", "v"))  # [T, B, heads, N, d]
        # q, k, v are 0 or 1: every product is a whole number, so the cheaper order gives the same bits
        tokens, width = q.shape[-2:]
        product = q @ (k.transpose(-2, -1) @ v) if tokens > width else (q @ k.transpose(-2, -1)) @ v
        attended = (product * self.scale).transpose(2, 3).flatten(3)  # [T, B, N, D]
        return self._spikes("proj", self.attn_lif(attended))

    def _heads(self, x: Tensor) -> Tensor:
        return x.view(*x.shape[:3], self.num_heads, -1).transpose(2, 3)

    def _spikes(self, name: str, x: Tensor) -> Tensor:
        return _norm_fire(x, *(getattr(self, f"{name}_{part}") for part in ("linear", "bn", "lif")))


class SpikingMlp(nn.Module):
    """Two linear layers, each with batch normalisation and LIF (Spikformer, 2023).

    Args:
        dim: token width D.
        hidden: width between the two.
        lif: builds a LIF layer.
    """

    def __init__(self, dim: int, hidden: int, lif: LifBuilder) -> None:
        super().__init__()
        self.fc1_linear, self.fc1_bn, self.fc1_lif = nn.Linear(dim, hidden), nn.BatchNorm1d(hidden), lif()
        self.fc2_linear, self.fc2_bn, self.fc2_lif = nn.Linear(hidden, dim), nn.BatchNorm1d(dim), lif()

    def forward(self, x: Tensor) -> Tensor:
        """Return spikes [T, B, N, D]."""
        x = _norm_fire(x, self.fc1_linear, self.fc1_bn, self.fc1_lif)
        return _norm_fire(x, self.fc2_linear, self.fc2_bn, self.fc2_lif)


class Block(nn.Module):
    """x <- x + SSA(x); x <- x + MLP(x) (DeniBademi/Thesis).

    Args:
        dim: token width D.
        num_heads: attention heads.
        mlp_ratio: width of the MLP over D.
        attn_scale: constant factor of the attention product.
        lif: builds a LIF layer.
        attn_v_threshold: threshold of the layer after the attention product.
    """

    def __init__(
        self,
        dim: int,
        num_heads: int,
        *,
        mlp_ratio: float = 4.0,
        attn_scale: float = 0.125,
        lif: LifBuilder = make_lif,
        attn_v_threshold: float = 0.5,
    ) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim)  # never applied: kept so that published checkpoints load
        self.attn = SpikingSelfAttention(dim, num_heads, attn_scale, lif, attn_v_threshold)
        self.norm2 = nn.LayerNorm(dim)  # likewise
        self.mlp = SpikingMlp(dim, int(dim * mlp_ratio), lif)

    def forward(self, x: Tensor) -> Tensor:
        """Return tokens [T, B, N, D] of tokens [T, B, N, D]."""
        x = x + self.attn(x)
        out: Tensor = x + self.mlp(x)
        return out


class StalSpikformer(nn.Module):
    """Encoder, Spikformer blocks, mean over tokens and time, linear head (DeniBademi/Thesis, SpikformerHotSwap).

    The spikes of an encoder that gives steps [B, T, ...] become tokens by `StepPatches`; the embeddings are the spikes.
    `embeddings_time_dim` says where the time axis of the embeddings is: 0 in tokens, else 1.

    Args:
        num_classes: classes K.
        in_channels: image channels.
        img_size: image side in pixels, a multiple of 4.
        time_steps: time steps T.
        encoder: name of an encoder.
        encoder_kwargs: its further arguments.
        freeze_encoder: keep the encoder fixed: no gradients, no updated statistics, no dropout.
        embed_dims: token width D.
        num_heads: attention heads; must divide D.
        mlp_ratio: width of the MLP over D.
        depth: number of blocks.
        attn_scale: constant factor of the attention product.
        tau: membrane time constant of the LIF layers, as all that follows; see `trainers.neurons.make_lif`.
        v_threshold: firing threshold.
        attn_v_threshold: firing threshold after the attention product.
        v_reset: value of the hard reset.
        soft_reset: subtract the threshold instead; a switch of its own because `timm.create_model` drops every None.
        decay_input: divide the input by tau as well.
        detach_reset: let no gradient through the reset.
        surrogate: shape of the surrogate derivative.
        surrogate_alpha: its slope.
        backend: kernel of the LIF layers.

    Raises:
        ValueError: the encoder is unknown, or its sizes do not fit.
    """

    def __init__(
        self,
        *,
        num_classes: int = 10,
        in_channels: int = 1,
        img_size: int = 28,
        time_steps: int = 5,
        encoder: str = "stalps",
        encoder_kwargs: Mapping[str, object] | None = None,
        freeze_encoder: bool = False,
        embed_dims: int = 128,
        num_heads: int = 4,
        mlp_ratio: float = 4.0,
        depth: int = 6,
        attn_scale: float = 0.125,
        tau: float = 2.0,
        v_threshold: float = 1.0,
        attn_v_threshold: float = 0.5,
        v_reset: float = 0.0,
        soft_reset: bool = False,
        decay_input: bool = True,
        detach_reset: bool = True,
        surrogate: str = "sigmoid",
        surrogate_alpha: float = 4.0,
        backend: str = "auto",
    ) -> None:
        super().__init__()
        lif = functools.partial(
            make_lif,
            tau=tau,
            v_threshold=v_threshold,
            v_reset=None if soft_reset else v_reset,
            decay_input=decay_input,
            detach_reset=detach_reset,
            surrogate=surrogate,
            surrogate_alpha=surrogate_alpha,
            backend=backend,
        )
        self.encoder = build_encoder(
            encoder,
            {"embed_dims": embed_dims, **({"lif": lif} if encoder == "sps" else {})},  # it spikes as the model does
            in_channels=in_channels,
            img_size=img_size,
            time_steps=time_steps,
            **(encoder_kwargs or {}),
        )
        self.embeddings_time_dim, self.patches = 0, None
        if isinstance(self.encoder, StepEncoder):
            self.embeddings_time_dim = 1
            self.patches = StepPatches(self.encoder.step_size, img_size, embed_dims)
        self.block = nn.ModuleList(
            Block(
                embed_dims,
                num_heads,
                mlp_ratio=mlp_ratio,
                attn_scale=attn_scale,
                lif=lif,
                attn_v_threshold=attn_v_threshold,
            )
            for _ in range(depth)
        ).apply(_initialise)
        self.head = nn.Linear(embed_dims, num_classes).apply(_initialise)
        self.freeze_encoder = freeze_encoder
        if freeze_encoder:
            freeze(self.encoder)

    def train(self, mode: bool = True) -> StalSpikformer:
        """Set the mode; a frozen encoder stays in evaluation mode."""
        super().train(mode)
        return keep_frozen_in_eval(self)

    def forward(self, images: Tensor, return_embeddings: bool = False) -> Tensor | tuple[Tensor, Tensor]:
        """Classify images.

        Args:
            images: [B, C, H, W].
            return_embeddings: return the encoder's output too.

        Returns:
            Logits [B, K], and with `return_embeddings` the tokens [T, B, N, D] or spikes [B, T, ...].
        """
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.freeze_encoder):
            embeddings = encode(self.encoder, images)
        x = embeddings if self.patches is None else self.patches(embeddings)
        for block in self.block:
            x = block(x)
        logits: Tensor = self.head(x.mean((0, 2)))
        return (logits, embeddings) if return_embeddings else logits


def _initialise(module: nn.Module) -> None:
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
        nn.init.zeros_(module.bias)


@register_model  # type: ignore[untyped-decorator]  # timm is untyped
def stal_spikformer(pretrained: bool = False, **kwargs: Any) -> StalSpikformer:
    """Build `StalSpikformer` for `timm.create_model("stal_spikformer", ...)`.

    Args:
        pretrained: must be False.
        kwargs: arguments of `StalSpikformer`.

    Returns:
        The model.

    Raises:
        ValueError: pretrained weights are asked for.
    """
    return StalSpikformer(**no_pretrained_weights("stal_spikformer", pretrained, kwargs))
