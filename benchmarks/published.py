"""The models as their authors run them in plain torch: what step times are compared with.

Neurons are spikingjelly's LIF layers on its torch backend, a Python loop over T; an image is repeated T times and the
whole network sees the copies; batch normalisation is a layer of its own. Spikformer for CIFAR also keeps its tokens as
[T, B, N, D], with linear layers, and normalises transposed tensors (Zhou et al., 2023, github.com/ZK-Zhou/spikformer).
"""

from __future__ import annotations

from typing import cast

from torch import Tensor, nn

import trainers.torchvision_ops  # noqa: F401  # before spikingjelly

# isort: split
from spikingjelly.activation_based import neuron, surrogate

from trainers.models.attention import SpikingAttention
from trainers.models.spikformer import Spikformer
from trainers.neurons import Lif


def as_published(model: nn.Module, time_steps: int) -> nn.Module:
    """Turn a model into the formulation of its authors; its weights stay, except for the blocks of Spikformer.

    Args:
        model: a model with LIF layers.
        time_steps: time steps T of a static image.

    Returns:
        A model for images [B, C, H, W] or clips [B, T, C, H, W].
    """
    if type(model) is Spikformer:
        heads = [cast("SpikingAttention", block.attn).num_heads for block in model.block]
        model.block = nn.ModuleList(_TokenBlock(model.num_features, number) for number in heads)
    for module in list(model.modules()):
        for name, child in module.named_children():
            if isinstance(child, Lif):
                setattr(module, name, _PublishedLif(child.dynamics.v_threshold))
    return _Repeated(model, time_steps)


class _Repeated(nn.Module):
    """Show a model T copies of an image."""

    def __init__(self, model: nn.Module, time_steps: int) -> None:
        super().__init__()
        self.model = model
        self.time_steps = time_steps

    def forward(self, images: Tensor) -> Tensor:
        clips = images if images.ndim == 5 else images.unsqueeze(1).repeat(1, self.time_steps, 1, 1, 1)
        logits: Tensor = self.model(clips)
        return logits


class _PublishedLif(neuron.LIFNode):  # type: ignore[misc]  # spikingjelly is untyped
    """spikingjelly's layer, reset before every call unless its state is carried (see `trainers.neurons`)."""

    carries = False
    needs_all_steps = False

    def __init__(self, v_threshold: float = 1.0) -> None:
        super().__init__(
            v_threshold=v_threshold,
            detach_reset=True,
            surrogate_function=surrogate.Sigmoid(alpha=4.0),
            step_mode="m",
        )

    def forget(self) -> None:
        self.reset()

    def forward(self, x: Tensor) -> Tensor:
        if not self.carries:
            self.reset()
        spikes: Tensor = super().forward(x)
        return spikes


class _LinearBnLif(nn.Module):
    def __init__(self, dim: int, out: int) -> None:
        super().__init__()
        self.linear = nn.Linear(dim, out)
        self.bn = nn.BatchNorm1d(out)
        self.lif = _PublishedLif()

    def forward(self, x: Tensor) -> Tensor:
        steps, batch, tokens, _ = x.shape
        out = self.linear(x.flatten(0, 1))
        out = self.bn(out.transpose(-1, -2)).transpose(-1, -2).reshape(steps, batch, tokens, -1).contiguous()
        spikes: Tensor = self.lif(out)
        return spikes


class _TokenAttention(nn.Module):
    def __init__(self, dim: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.q, self.k, self.v, self.proj = (_LinearBnLif(dim, dim) for _ in range(4))
        self.attn_lif = _PublishedLif(0.5)

    def forward(self, x: Tensor) -> Tensor:
        steps, batch, tokens, dim = x.shape
        q, k, v = (
            layer(x).reshape(steps, batch, tokens, self.num_heads, -1).permute(0, 1, 3, 2, 4).contiguous()
            for layer in (self.q, self.k, self.v)
        )
        out = (q @ k.transpose(-2, -1)) @ v * 0.125
        out = self.attn_lif(out.transpose(2, 3).reshape(steps, batch, tokens, dim).contiguous())
        projected: Tensor = self.proj(out)
        return projected


class _TokenBlock(nn.Module):
    """A block of Spikformer on tokens; it takes and returns maps, so that the rest of the model fits."""

    def __init__(self, dim: int, num_heads: int) -> None:
        super().__init__()
        self.attn = _TokenAttention(dim, num_heads)
        self.mlp = nn.Sequential(_LinearBnLif(dim, 4 * dim), _LinearBnLif(4 * dim, dim))

    def forward(self, x: Tensor) -> Tensor:
        tokens = x.flatten(3).transpose(-1, -2)
        tokens = tokens + self.attn(tokens)
        out: Tensor = tokens + self.mlp(tokens)
        return out.transpose(-1, -2).view(x.shape)
