"""Spiking attention: projections to spikes, a product of spikes without softmax, and a projection back."""

from __future__ import annotations

from typing import Literal, get_args

from torch import Tensor, nn

from trainers.models.layers import ConvBn, ConvBnNeuron, SpikeProduct, merge_heads, split_heads
from trainers.models.neuron_options import Neurons
from trainers.registry import Registry

ProjState = Literal["per_sample", "batch_leak"]

PRODUCTS: Registry[SpikeProduct] = Registry("attention")


@PRODUCTS.register("ssa")
class SpikingSelfAttention(SpikeProduct):
    """Fire on scale (q k^T) v; there is no softmax (SSA, Spikformer, arXiv 2209.15425, eq. 6).

    Args:
        neurons: makes the layer that fires on the product.
        scale: constant factor.
    """

    needs_v = True

    def __init__(self, neurons: Neurons, scale: float) -> None:
        super().__init__()
        self.scale = scale
        self.neuron = neurons.after_product()

    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Return spikes [T, B, heads, d, N] of spikes q, k, v of that shape."""
        product = _product_of_rows(q, k, v) if q.stride(-2) == 1 else _product_of_columns(q, k, v)
        spikes: Tensor = self.neuron(product * self.scale)
        return spikes

    def accumulations(self, *inputs: Tensor) -> Tensor:
        """Count pairs of q and k spikes that meet in a channel, and what they add up of v."""
        q, k, v = (x.float() for x in inputs)  # whole numbers far below 2^24: exact in single precision
        meetings = (k.sum(-1) * q.sum(-1)).double().sum()
        looked_at = (k.transpose(-2, -1) @ q > 0).sum(-1)  # [T, B, heads, N]: queries that meet each token's key
        return meetings + (v.sum(-2) * looked_at).double().sum()


@PRODUCTS.register("sdsa")
class SpikeDrivenSelfAttention(SpikeProduct):
    """Mask the channels of q by whether the sum over tokens of k * v fires (SDSA-1, SDT, arXiv 2307.01694, eq. 7).

    Args:
        neurons: makes the layer that fires on the sum.
        scale: not used; the sum has no factor.
    """

    needs_v = True

    def __init__(self, neurons: Neurons, scale: float = 1.0) -> None:  # noqa: ARG002 - one signature for all products
        super().__init__()
        self.neuron = neurons.after_product()

    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Return spikes [T, B, heads, d, N] of spikes q, k, v of that shape."""
        mask: Tensor = self.neuron((k * v).sum(-1, keepdim=True))  # [T, B, heads, d, 1]
        return q * mask

    def accumulations(self, *inputs: Tensor) -> Tensor:
        """Count the spikes of k * v that are summed; masking is a selection."""
        _, k, v = inputs
        return (k * v).sum(-1).double().sum()


class _Mask(SpikeProduct):
    """Mask k by whether a sum of q fires.

    Args:
        neurons: makes the layer that fires on the sum.
        scale: not used; the sum has no factor.
    """

    needs_v = False
    summed_axis: int

    def __init__(self, neurons: Neurons, scale: float = 1.0) -> None:  # noqa: ARG002 - one signature for all products
        super().__init__()
        self.neuron = neurons.after_product()

    def forward(self, q: Tensor, k: Tensor) -> Tensor:
        """Return spikes [T, B, heads, d, N] of spikes q, k of that shape."""
        mask: Tensor = self.neuron(q.sum(self.summed_axis, keepdim=True))
        return k * mask  # in this order the result keeps k's order in memory

    def accumulations(self, *inputs: Tensor) -> Tensor:
        """Count the spikes of q that are summed; masking is a selection."""
        return inputs[0].sum(-1).double().sum()


@PRODUCTS.register("qk_token")
class QkTokenAttention(_Mask):
    """Mask the tokens of k by whether the sum over channels of q fires (QKTA, QKFormer, arXiv 2403.16552, eq. 5)."""

    summed_axis = -2


@PRODUCTS.register("qk_channel")
class QkChannelAttention(_Mask):
    """Mask the channels of k by whether the sum over tokens of q fires (QKCA, QKFormer, arXiv 2403.16552, eq. 6)."""

    summed_axis = -1


class SpikingAttention(nn.Module):
    """Project maps to spikes q, k and v, take their product, and project it back.

    Args:
        dim: width D.
        num_heads: heads; must divide D.
        neurons: makes the spiking layers.
        product: the product, by its name in `PRODUCTS`, or a module like those in it.
        scale: constant factor of the product.
        qkv_bias: give q, k and v a bias.
        proj_bias: give the projection back a bias.
        input_neuron: fire on the input first, for blocks with membrane shortcuts.
        output_neuron: fire on the output, for blocks that add spikes.
        proj_state: `batch_leak` lets the last neuron run over the T*B images of a batch as if they were one time axis,
            as the code that QKFormer's checkpoints were trained with does.

    Raises:
        ValueError: the heads do not divide D, the product is unknown, or the last neuron cannot leak.
    """

    def __init__(
        self,
        dim: int,
        num_heads: int,
        neurons: Neurons,
        *,
        product: str | SpikeProduct = "ssa",
        scale: float = 0.125,
        qkv_bias: bool = False,
        proj_bias: bool = True,
        input_neuron: bool = False,
        output_neuron: bool = True,
        proj_state: ProjState = "per_sample",
    ) -> None:
        super().__init__()
        if dim % num_heads:
            raise ValueError(f"num_heads ({num_heads}) must divide the width ({dim})")
        self.num_heads = num_heads
        self.proj_state = proj_state
        self.neuron = neurons.make("attention") if input_neuron else nn.Identity()
        self.product = (
            product if isinstance(product, SpikeProduct) else PRODUCTS.create(product, neurons=neurons, scale=scale)
        )
        names = ("q", "k", "v") if self.product.needs_v else ("q", "k")
        self.projections = nn.ModuleDict(
            {name: ConvBnNeuron(dim, dim, neuron=neurons.make("attention"), bias=qkv_bias) for name in names}
        )
        self.proj = ConvBn(dim, dim, bias=proj_bias)
        self.proj_neuron = neurons.make("attention") if output_neuron else nn.Identity()
        if proj_state not in get_args(ProjState):
            raise ValueError(f"proj_state must be one of {', '.join(get_args(ProjState))}, got '{proj_state}'")
        if proj_state == "batch_leak" and getattr(self.proj_neuron, "needs_all_steps", False):
            kind = type(self.proj_neuron).__name__
            raise ValueError(f"proj_state 'batch_leak' has T*B time steps, but {kind} has parameters for each of T")

    def forward(self, x: Tensor) -> Tensor:
        """Return [T, B, D, H, W] of [T, B, D, H, W]."""
        height, width = x.shape[-2:]
        maps = self.project(self.neuron(x))
        heads = [split_heads(spikes, self.num_heads) for spikes in maps.values()]
        merged = merge_heads(self.product(*heads), height, width)
        if self.proj_state == "batch_leak":
            out: Tensor = self.proj(merged)
            leaked: Tensor = self.proj_neuron(out.flatten(0, 1))  # one "time" axis of T*B images
            return leaked.view_as(out)
        return self.proj.fire(merged, self.proj_neuron)

    def project(self, spikes: Tensor) -> dict[str, Tensor]:
        """Return the spikes q, k and v, maps [T, B, D, H, W], of the input's."""
        return {name: projection(spikes) for name, projection in self.projections.items()}


# q, k, v are 0 or 1: every product is a whole number, so the cheaper order gives the same bits


def _product_of_columns(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Return v k^T q of [T, B, heads, d, N]."""
    width, tokens = q.shape[-2:]
    return (v @ k.transpose(-2, -1)) @ q if tokens > width else v @ (k.transpose(-2, -1) @ q)


def _product_of_rows(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Return the same of tensors whose channels are the innermost in memory: whole rows are copied, forth and back."""
    width, tokens = q.shape[-2:]
    q, k, v = (x.transpose(-2, -1).contiguous() for x in (q, k, v))
    rows = q @ (k.transpose(-2, -1) @ v) if tokens > width else (q @ k.transpose(-2, -1)) @ v
    return rows.transpose(-2, -1)
