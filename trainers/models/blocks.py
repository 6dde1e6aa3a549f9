"""The two blocks of the spiking transformers: shortcuts that add spikes, and shortcuts that add membranes."""

from __future__ import annotations

from torch import Tensor, nn

from trainers.models.attention import SpikingAttention
from trainers.models.layers import ConvBnNeuron, NeuronConvBn
from trainers.models.neuron_options import Neurons


class SpikingMlp(nn.Module):
    """Two 1 x 1 convolutions, each with batch normalisation, that fire after or before the weights.

    Args:
        dim: width D.
        hidden: width between the two.
        neurons: makes the spiking layers.
        fire_first: fire before the weights instead of after them.
    """

    def __init__(self, dim: int, hidden: int, neurons: Neurons, *, fire_first: bool = False) -> None:
        super().__init__()
        layer = NeuronConvBn if fire_first else ConvBnNeuron
        self.fc1 = layer(dim, hidden, neuron=neurons.make("mlp"), bias=True)
        self.fc2 = layer(hidden, dim, neuron=neurons.make("mlp"), bias=True)

    def forward(self, x: Tensor) -> Tensor:
        """Return [T, B, D, H, W] of [T, B, D, H, W]."""
        out: Tensor = self.fc2(self.fc1(x))
        return out


class Block(nn.Module):
    """x <- x + attention(x); x <- x + MLP(x).

    Args:
        attention: the attention.
        mlp: the MLP.
        unused_norms: width of two layer normalisations that published code has, but never applies; 0 leaves them out.
    """

    def __init__(self, attention: SpikingAttention, mlp: nn.Module, *, unused_norms: int = 0) -> None:
        super().__init__()
        self.attn = attention
        self.mlp = mlp
        if unused_norms:
            self.norm1 = nn.LayerNorm(unused_norms)
            self.norm2 = nn.LayerNorm(unused_norms)

    def forward(self, x: Tensor) -> Tensor:
        """Return [T, B, D, H, W] of [T, B, D, H, W]."""
        x = x + self.attn(x)
        out: Tensor = x + self.mlp(x)
        return out
