"""LIF layers on the C kernels: alone, or together with the batch normalisation before them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from trainers.native.kernel import (
    Kernel,
    Statistics,
    channel_kernel,
    plain_layout,
    statistics_of,
    without_copies,
)
from trainers.neuron_kernels import LifDynamics

TYPES = (torch.float32, torch.float64)


def lif_from(x: Tensor, start: Tensor | None, dynamics: LifDynamics) -> tuple[Tensor, Tensor]:
    """Do what `trainers.neuron_kernels.lif_from` does.

    Args:
        x: input currents [T, ...], float32 or float64, on the CPU; an image expanded over T is not copied.
        start: membranes [...] that no gradient goes to, or None for rest. Where it is given, `x` gets none either.
        dynamics: constants of the layer.

    Returns:
        Spikes, of the shape and type of `x`, and the last membranes [...], an empty tensor where there is no `start`.
    """
    current, steps = without_copies(x)
    if start is None:
        spikes: Tensor = _Lif.apply(current, steps, dynamics)  # type: ignore[no-untyped-call]
        return spikes, x.new_empty(0)
    kernel = Kernel(current, steps, dynamics, plain_layout())
    state = kernel.arranged(torch.empty_like(current if steps else current[0]).copy_(start), one_step=True)
    return kernel.forward(state=state), state


def normalised_lif(x: Tensor, norm: nn.BatchNorm1d | nn.BatchNorm2d, dynamics: LifDynamics) -> Tensor:
    """Return the spikes of batch normalisation and a LIF layer, and update the running statistics in training.

    Args:
        x: [T, B, C, ...], float32 or float64, on the CPU. An image expanded over T is not copied, but counts T times in
            the running statistics.
        norm: the normalisation, with affine constants, of the type of `x`.
        dynamics: constants of the layer.

    Returns:
        Spikes, of the shape and type of `x`.
    """
    current, steps = without_copies(x, channels=True)
    statistics = statistics_of(channel_kernel(current, steps, dynamics), norm)
    spikes: Tensor = _NormalisedLif.apply(current, norm.weight, norm.bias, steps, dynamics, statistics)  # type: ignore[no-untyped-call]
    return spikes


def can_normalise(x: Tensor, norm: nn.Module) -> bool:
    """Return whether `normalised_lif` takes this input and this normalisation.

    Args:
        x: input currents.
        norm: a module.
    """
    if not isinstance(norm, nn.BatchNorm1d | nn.BatchNorm2d) or norm._forward_hooks or norm._forward_pre_hooks:
        return False
    plain = norm.affine and norm.momentum is not None and norm.weight.dtype == x.dtype
    return plain and x.dtype in TYPES and x.ndim > 2 and x[:, :, 0].numel() > len(x)


class _Lif(torch.autograd.Function):
    """See `lif_from`."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, steps: int, dynamics: LifDynamics) -> Tensor:
        """Run the layer."""
        ctx.save_for_backward(x)
        ctx.steps, ctx.dynamics = steps, dynamics
        return Kernel(x, steps, dynamics, plain_layout()).forward()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_spikes: Tensor) -> tuple[Tensor, None, None]:
        """Back-propagate through time with the surrogate derivative."""
        (x,) = ctx.saved_tensors
        return Kernel(x, ctx.steps, ctx.dynamics, plain_layout()).backward(grad_spikes)[0], None, None


class _NormalisedLif(torch.autograd.Function):
    """See `normalised_lif`."""

    @staticmethod
    def forward(  # noqa: PLR0917 - autograd passes by position
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, steps: int, dynamics: LifDynamics, statistics: Statistics
    ) -> Tensor:
        """Normalise and run the layer."""
        ctx.save_for_backward(x, weight, bias)
        ctx.rest = steps, dynamics, statistics
        kernel = channel_kernel(x, steps, dynamics)
        return kernel.forward(kernel.spread(*statistics.scale_and_shift(weight, bias)))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_spikes: Tensor) -> tuple[Tensor, Tensor, Tensor, None, None, None]:
        """Back-propagate through time, then through the normalisation."""
        x, weight, bias = ctx.saved_tensors
        steps, dynamics, statistics = ctx.rest
        kernel = channel_kernel(x, steps, dynamics)
        scale, shift = statistics.scale_and_shift(weight, bias)
        grad, (grad_bias, products) = kernel.backward(grad_spikes, kernel.spread(scale, shift))
        grad_weight, by_x, constant = statistics.backward(scale, grad_bias, products)
        grad = kernel.denormalise(grad, kernel.spread(scale, by_x, constant))
        return grad, grad_weight.to(weight.dtype), grad_bias.to(bias.dtype), None, None, None
