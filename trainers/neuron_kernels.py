"""LIF and recurrent LIF layers over all time steps at once, with hand-written backward passes, in plain torch.

For the backward pass they keep the membrane before the reset and little else, where automatic differentiation of the
same loop keeps several tensors per time step. They run on every device and in every floating-point type, and are the
reference that fused kernels are checked against.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

SURROGATES = ("sigmoid", "atan")


def surrogate_slope(distance: Tensor, surrogate: str, alpha: float) -> Tensor:
    """Return the derivative that stands in for the one of the spike's step function.

    Args:
        distance: membrane minus threshold, any shape; overwritten.
        surrogate: `sigmoid` for alpha s (1 - s) with s = sigma(alpha x), or `atan` for
            (alpha / 2) / (1 + (pi alpha x / 2)^2).
        alpha: slope.

    Returns:
        A tensor of the same shape.
    """
    if surrogate == "sigmoid":
        s = distance.mul_(alpha).sigmoid_()
        return (1 - s).mul_(s).mul_(alpha)
    return distance.mul_(math.pi / 2 * alpha).square_().add_(1).reciprocal_().mul_(alpha / 2)


@dataclass(frozen=True, slots=True)
class LifDynamics:
    """The constants of one LIF layer; see `trainers.neurons.make_lif`."""

    tau: float
    v_threshold: float
    v_reset: float | None
    decay_input: bool
    detach_reset: bool
    surrogate: str
    alpha: float

    @property
    def rest(self) -> float:
        """The membrane a run starts from and leaks to."""
        return 0.0 if self.v_reset is None else self.v_reset


class _Lif(torch.autograd.Function):
    """See `lif`."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, dynamics: LifDynamics) -> Tensor:
        """Run the layer."""
        dtype = torch.promote_types(x.dtype, torch.float32)
        membrane = torch.empty(x.shape, dtype=dtype, device=x.device)  # before the reset, [T, ...]
        v: Tensor | None = None
        for u, current in zip(membrane, x, strict=True):
            _charge(u, current.to(dtype), v, dynamics)
            fired = u >= dynamics.v_threshold
            soft = dynamics.v_reset is None
            v = u - fired * dynamics.v_threshold if soft else u.masked_fill(fired, dynamics.rest)
        ctx.save_for_backward(membrane)
        ctx.dynamics = dynamics
        return (membrane >= dynamics.v_threshold).to(x.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_spikes: Tensor) -> tuple[Tensor, None]:
        """Back-propagate through time with the surrogate slope."""
        (membrane,) = ctx.saved_tensors
        d: LifDynamics = ctx.dynamics
        slope = surrogate_slope(membrane - d.v_threshold, d.surrogate, d.alpha)
        grad = grad_spikes * slope  # becomes dL/du, from the last step to the first
        keep = 1 - 1 / d.tau
        for t in range(len(grad) - 2, -1, -1):
            carried = grad[t + 1] * keep  # dL/dv_t
            through_reset = _reset_slope(membrane[t], slope[t], d)
            grad[t] += carried if through_reset is None else carried.mul_(through_reset)
        return (grad.div_(d.tau) if d.decay_input else grad).to(grad_spikes.dtype), None


def _charge(u: Tensor, current: Tensor, v: Tensor | None, d: LifDynamics) -> None:
    """Write the membrane after charging into `u`; `v` is None in the first step, where the membrane is at rest."""
    if v is None:
        u.copy_(current)
        if d.decay_input:
            u.div_(d.tau)
        if d.rest:
            u.add_(d.rest)
        return
    above_rest = v - d.rest if d.rest else v
    if d.decay_input:
        torch.sub(current, above_rest, out=u).div_(d.tau).add_(v)
    else:
        torch.sub(v, above_rest / d.tau, out=u).add_(current)


def _reset_slope(u: Tensor, slope: Tensor, d: LifDynamics) -> Tensor | None:
    """Return dv/du across the reset, or None where it is 1."""
    if d.v_reset is None:
        return None if d.detach_reset else 1 - d.v_threshold * slope
    kept = (u < d.v_threshold).to(u.dtype)
    return kept if d.detach_reset else kept.addcmul_(d.v_reset - u, slope)


@dataclass(frozen=True, slots=True)
class RecurrentDynamics:
    """The constants of one recurrent LIF layer; see `trainers.neurons.RecurrentLif`."""

    beta: float
    v_threshold: float
    surrogate: str
    alpha: float


class _RecurrentLif(torch.autograd.Function):
    """See `recurrent_lif`."""

    @staticmethod
    def forward(
        ctx: Any, current: Tensor, weight: Tensor, bias: Tensor, dynamics: RecurrentDynamics
    ) -> tuple[Tensor, Tensor]:
        """Run the layer."""
        membrane, spikes = torch.empty_like(current), torch.empty_like(current)
        torch.add(current[0], bias, out=membrane[0])
        torch.gt(membrane[0], dynamics.v_threshold, out=spikes[0])
        for t in range(1, len(current)):
            m = torch.addmm(bias, spikes[t - 1], weight.t(), out=membrane[t])
            m.add_(current[t]).add_(membrane[t - 1], alpha=dynamics.beta)
            m.sub_(spikes[t - 1], alpha=dynamics.v_threshold)
            torch.gt(m, dynamics.v_threshold, out=spikes[t])
        ctx.save_for_backward(membrane, spikes, weight)
        ctx.set_materialize_grads(False)
        ctx.dynamics = dynamics
        return spikes, membrane

    @staticmethod
    @once_differentiable
    def backward(
        ctx: Any, grad_spikes: Tensor | None, grad_membrane: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor, None]:
        """Back-propagate through time, through the recurrent weights and the leak."""
        membrane, spikes, weight = ctx.saved_tensors
        d: RecurrentDynamics = ctx.dynamics
        slope = surrogate_slope(membrane - d.v_threshold, d.surrogate, d.alpha)
        grad = torch.zeros_like(membrane) if grad_spikes is None else grad_spikes * slope  # becomes dL/dm
        if grad_membrane is not None:
            grad += grad_membrane
        for t in range(len(grad) - 2, -1, -1):
            later = grad[t + 1]
            grad[t].addcmul_(later @ weight, slope[t]).add_(later, alpha=d.beta)
        grad_weight = grad[1:].flatten(0, 1).t() @ spikes[:-1].flatten(0, 1)
        return grad, grad_weight, grad.sum((0, 1)), None


def lif(x: Tensor, dynamics: LifDynamics) -> Tensor:
    """Return the spikes of a LIF layer that starts from rest.

    u_t = v_{t-1} + (x_t - (v_{t-1} - rest)) / tau with `decay_input`, else v_{t-1} - (v_{t-1} - rest) / tau + x_t;
    s_t = [u_t >= threshold]; v_t = v_reset where it spiked (hard reset) or u_t - threshold s_t (soft reset).

    Args:
        x: input currents [T, ...]; half-precision input gets a float32 membrane.
        dynamics: constants of the layer.

    Returns:
        Spikes, of the shape and type of `x`.
    """
    spikes: Tensor = _Lif.apply(x, dynamics)  # type: ignore[no-untyped-call]
    return spikes


def recurrent_lif(current: Tensor, weight: Tensor, bias: Tensor, dynamics: RecurrentDynamics) -> tuple[Tensor, Tensor]:
    """Return spikes and membranes of a LIF layer with all-to-all recurrence that starts from zero.

    m_t = beta m_{t-1} + I_t + (R s_{t-1} + b) - threshold s_{t-1}; s_t = [m_t > threshold]. No gradient goes through
    the subtracted reset.

    Args:
        current: input currents [T, B, H].
        weight: recurrent weights R [H, H].
        bias: their bias b [H], added in every step.
        dynamics: constants of the layer.

    Returns:
        Spikes and membranes, both [T, B, H].
    """
    spikes, membrane = _RecurrentLif.apply(current, weight, bias, dynamics)  # type: ignore[no-untyped-call]
    return spikes, membrane
