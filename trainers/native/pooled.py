"""Batch normalisation, max-pool and LIF layer on the C kernels."""

from __future__ import annotations

import ctypes
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from trainers.native.kernel import Statistics, channel_kernel, statistics_of
from trainers.native.library import Maps, load
from trainers.neuron_kernels import LifDynamics


def can_pool(x: Tensor) -> bool:
    """Return whether `pooled_lif` takes maps of this memory order: channels last, and one map per time step.

    Args:
        x: [T, B, C, H, W].
    """
    return x.ndim == 5 and x.permute(0, 1, 3, 4, 2).is_contiguous()


def pooled_lif(x: Tensor, norm: nn.BatchNorm2d, dynamics: LifDynamics) -> Tensor:
    """Return the spikes of batch normalisation, a 3 x 3 max-pool of stride 2 and padding 1, and a LIF layer.

    What is normalised is what the pool takes. Of values that rounding alone makes equal once they are normalised, it
    takes the one that is larger before.

    Args:
        x: [T, B, C, H, W], float32 or float64, on the CPU, see `can_pool`.
        norm: the normalisation, see `trainers.native.lif.can_normalise`; its running statistics move in training.
        dynamics: constants of the layer.

    Returns:
        Spikes [T, B, C, ceil(H/2), ceil(W/2)], of the type of `x`.
    """
    statistics = statistics_of(channel_kernel(x, 0, dynamics), norm)
    spikes: Tensor = _PooledLif.apply(x, norm.weight, norm.bias, dynamics, statistics)  # type: ignore[no-untyped-call]
    return spikes


class _PooledLif(torch.autograd.Function):
    """See `pooled_lif`."""

    @staticmethod
    def forward(  # noqa: PLR0917 - autograd passes by position
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, dynamics: LifDynamics, statistics: Statistics
    ) -> Tensor:
        """Pool, normalise and run the layer."""
        scale, shift = statistics.scale_and_shift(weight, bias)
        pooled, places = _pool(x, scale.sign().to(x.dtype))
        ctx.save_for_backward(x, weight, bias, pooled, places)
        ctx.rest = dynamics, statistics
        kernel = channel_kernel(pooled, 0, dynamics)
        return kernel.forward(kernel.spread(scale, shift))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_spikes: Tensor) -> tuple[Tensor, Tensor, Tensor, None, None]:
        """Back-propagate through time, the pool and the normalisation."""
        x, weight, bias, pooled, places = ctx.saved_tensors
        dynamics, statistics = ctx.rest
        kernel = channel_kernel(pooled, 0, dynamics)
        scale, shift = statistics.scale_and_shift(weight, bias)
        grad_pooled, (grad_bias, products) = kernel.backward(grad_spikes, kernel.spread(scale, shift))
        grad_weight, by_x, constant = statistics.backward(scale, grad_bias, products)
        constants = [values.to(x.dtype) for values in (scale, by_x, constant)]
        grad = torch.empty_like(x)
        _call("pool_backward", x, *constants, grad_pooled, places, grad)
        return grad, grad_weight.to(weight.dtype), grad_bias.to(bias.dtype), None, None


def _pool(x: Tensor, sign: Tensor) -> tuple[Tensor, Tensor]:
    """Return the value of each window whose product with the sign is largest, and which of the nine it is."""
    steps, batch, channels, height, width = x.shape
    shape = (steps, batch, (height + 1) // 2, (width + 1) // 2, channels)
    pooled, places = torch.empty(shape, dtype=x.dtype), torch.empty(shape, dtype=torch.uint8)
    _call("pool_forward", x, sign, pooled, places)
    return pooled.permute(0, 1, 4, 2, 3), places


def _call(function: str, x: Tensor, *tensors: Tensor) -> None:
    steps, batch, channels, height, width = x.shape
    maps = Maps(steps * batch, height, width, channels, min(torch.get_num_threads(), steps * batch))
    pointers = [tensor.data_ptr() for tensor in (x, *tensors)]
    getattr(load(x.dtype == torch.float64), function)(ctypes.byref(maps), *pointers)
