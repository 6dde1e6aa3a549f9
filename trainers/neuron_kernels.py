"""LIF, parametric LIF and recurrent LIF layers over all time steps, with hand-written backward passes, in plain torch.

For the backward pass they keep membranes and spikes alone (and inputs, where a parameter needs them), where automatic
differentiation of the same loop keeps several tensors per time step. They run on every device and in every
floating-point type, and are the reference that fused kernels are checked against.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

SURROGATES = ("sigmoid", "atan", "piecewise_quadratic", "rect")


def surrogate_backward(grad: Tensor, distance: Tensor, surrogate: str, alpha: float) -> tuple[Tensor, float]:
    """Back-propagate through spikes with the derivative that stands in for the one of their step function.

    Args:
        grad: gradient of the spikes, any shape.
        distance: membrane minus threshold, same shape and type; overwritten.
        surrogate: `sigmoid` for alpha s (1 - s) with s = sigma(alpha x), `atan` for
            (alpha / 2) / (1 + (pi alpha x / 2)^2), `piecewise_quadratic` for alpha max(0, 1 - alpha |x|), or `rect`
            for alpha where |x| < 1 / (2 alpha).
        alpha: slope.

    Returns:
        A tensor and a factor, whose product is the gradient of the membrane: the caller has something to scale anyway.
    """
    if surrogate == "sigmoid":
        return torch.ops.aten.sigmoid_backward(grad, distance.mul_(alpha).sigmoid_()), alpha
    if surrogate == "atan":
        return grad / distance.mul_(math.pi / 2 * alpha).square_().add_(1), alpha / 2
    if surrogate == "piecewise_quadratic":
        return grad * distance.abs_().mul_(-alpha).add_(1).clamp_(min=0), alpha
    return grad * (distance.abs_() < 0.5 / alpha), alpha


def _slope(membrane: Tensor, threshold: float, surrogate: str, alpha: float) -> Tensor:
    """Return the surrogate derivative itself."""
    shape, factor = surrogate_backward(torch.ones_like(membrane), membrane - threshold, surrogate, alpha)
    return shape.mul_(factor)


@dataclass(frozen=True, slots=True)
class LifDynamics:
    """The constants of one LIF layer; see `trainers.neurons.make_neuron`.

    An infinite `tau` without `decay_input` is the layer that never leaks (IF). A layer that learns tau (PLIF) does not
    read it here.
    """

    tau: float
    v_threshold: float
    v_reset: float | None
    decay_input: bool
    detach_reset: bool
    surrogate: str
    alpha: float
    detach_membrane: bool = False

    @property
    def rest(self) -> float:
        """The membrane a run starts from and leaks to."""
        return 0.0 if self.v_reset is None else self.v_reset


class _Lif(torch.autograd.Function):
    """See `lif_from`."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, start: Tensor | None, dynamics: LifDynamics) -> tuple[Tensor, Tensor]:
        """Run the layer."""
        membrane, spikes = _empty_states(x)
        v = start
        for u, s, current in zip(membrane, spikes, x, strict=True):
            _charge(u, current.to(u.dtype), v, dynamics)
            v = _fire(u, s, dynamics)
        ctx.save_for_backward(membrane, spikes)
        ctx.dynamics = dynamics
        ctx.dtype = x.dtype
        ctx.set_materialize_grads(False)
        return spikes.to(x.dtype), x.new_empty(0) if v is None else v

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_spikes: Tensor | None, grad_last: Tensor | None) -> tuple[Tensor, Tensor | None, None]:
        """Back-propagate through time with the surrogate derivative."""
        membrane, spikes = ctx.saved_tensors
        d: LifDynamics = ctx.dynamics
        keep = 1 - 1 / d.tau
        grad, factor = _grad_membrane(grad_spikes, grad_last, membrane, spikes, keep, d)
        grad_start = _grad_start(grad, keep * factor, d) if ctx.needs_input_grad[1] else None
        return grad.mul_(factor / d.tau if d.decay_input else factor).to(ctx.dtype), grad_start, None


class _Plif(torch.autograd.Function):
    """See `plif_from`."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, rate: Tensor, start: Tensor | None, dynamics: LifDynamics
    ) -> tuple[Tensor, Tensor]:
        """Run the layer."""
        membrane, spikes = _empty_states(x)
        before = torch.empty_like(membrane)  # the membrane each step starts from, above rest
        v = torch.full_like(membrane[0], dynamics.rest) if start is None else start
        for u, s, above_rest, current in zip(membrane, spikes, before, x, strict=True):
            torch.sub(v, dynamics.rest, out=above_rest)
            if dynamics.decay_input:
                torch.sub(current.to(u.dtype), above_rest, out=u).mul_(rate).add_(v)
            else:
                torch.sub(v, above_rest * rate, out=u).add_(current)
            v = _fire(u, s, dynamics)
        ctx.save_for_backward(membrane, spikes, before, x, rate)
        ctx.dynamics = dynamics
        ctx.set_materialize_grads(False)
        return spikes.to(x.dtype), v

    @staticmethod
    @once_differentiable
    def backward(
        ctx: Any, grad_spikes: Tensor | None, grad_last: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor | None, None]:
        """Back-propagate through time with the surrogate derivative, to the input and to the rate."""
        membrane, spikes, before, x, rate = ctx.saved_tensors
        d: LifDynamics = ctx.dynamics
        keep = float(1 - rate)
        grad, factor = _grad_membrane(grad_spikes, grad_last, membrane, spikes, keep, d)
        grad_start = _grad_start(grad, keep * factor, d) if ctx.needs_input_grad[2] else None
        driven = x - before if d.decay_input else -before
        grad_rate = torch.sum(grad * driven).mul_(factor).to(rate.dtype)
        if d.decay_input:
            grad.mul_(rate)
        return grad.mul_(factor).to(x.dtype), grad_rate, grad_start, None


def _empty_states(x: Tensor) -> tuple[Tensor, Tensor]:
    """Return room for the membranes before the reset and for the spikes, both [T, ...], at least float32."""
    membrane = torch.empty(x.shape, dtype=torch.promote_types(x.dtype, torch.float32), device=x.device)
    return membrane, torch.empty_like(membrane)


def _charge(u: Tensor, current: Tensor, v: Tensor | None, d: LifDynamics) -> None:
    """Write the membrane after charging into `u`; `v` is None where it is at rest."""
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


def _fire(u: Tensor, s: Tensor, d: LifDynamics) -> Tensor:
    """Write the spikes of membranes `u` into `s` and return the membranes after the reset."""
    torch.ge(u, d.v_threshold, out=s)
    # s is 0 or 1, so both give the exact values of a choice between two, several times as fast on a CPU
    return torch.sub(u, s, alpha=d.v_threshold) if d.v_reset is None else torch.lerp(u, u.new_full((), d.rest), s)


def _grad_membrane(  # noqa: PLR0917 - what both kinds of layer keep
    grad_spikes: Tensor | None,
    grad_last: Tensor | None,
    membrane: Tensor,
    spikes: Tensor,
    keep: float,
    d: LifDynamics,
) -> tuple[Tensor, float]:
    """Return a tensor and a factor whose product is dL/du; `keep` is the share of a membrane that does not leak."""
    given = torch.zeros_like(membrane) if grad_spikes is None else grad_spikes.to(membrane.dtype)
    grad, factor = surrogate_backward(given, membrane - d.v_threshold, d.surrogate, d.alpha)
    if d.detach_membrane:
        return grad, factor
    if grad_last is not None:
        through_reset = _carry(membrane[-1:], spikes[-1:], 1.0, d)
        grad[-1] += (grad_last if through_reset is None else grad_last * through_reset[0]) / factor
    carry = _carry(membrane, spikes, keep, d)
    for t in range(len(grad) - 2, -1, -1):  # from the last step to the first; all is linear in the gradient
        if carry is None:
            grad[t].add_(grad[t + 1], alpha=keep)
        else:
            grad[t].addcmul_(grad[t + 1], carry[t])
    return grad, factor


def _grad_start(grad: Tensor, share: float, d: LifDynamics) -> Tensor:
    """Return the gradient of the membranes that the first step started from."""
    return torch.zeros_like(grad[0]) if d.detach_membrane else grad[0] * share


def _carry(membrane: Tensor, spikes: Tensor, keep: float, d: LifDynamics) -> Tensor | None:
    """Return du_{t+1}/du_t, through reset and leak, or None where it is `keep` everywhere."""
    if d.v_reset is None and d.detach_reset:
        return None
    if d.detach_reset:
        return torch.add(keep, spikes, alpha=-keep)
    slope = _slope(membrane, d.v_threshold, d.surrogate, d.alpha)
    if d.v_reset is None:
        return slope.mul_(-d.v_threshold).add_(1).mul_(keep)
    return (1 - spikes).addcmul_(d.rest - membrane, slope).mul_(keep)


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
        slope = _slope(membrane, d.v_threshold, d.surrogate, d.alpha)
        grad = torch.zeros_like(membrane) if grad_spikes is None else grad_spikes * slope  # becomes dL/dm
        if grad_membrane is not None:
            grad += grad_membrane
        for t in range(len(grad) - 2, -1, -1):
            later = grad[t + 1]
            grad[t].addcmul_(later @ weight, slope[t]).add_(later, alpha=d.beta)
        grad_weight = grad[1:].flatten(0, 1).t() @ spikes[:-1].flatten(0, 1)
        return grad, grad_weight, grad.sum((0, 1)), None


def lif(x: Tensor, dynamics: LifDynamics) -> Tensor:
    """Return the spikes of a LIF layer that starts from rest; see `lif_from`."""
    return lif_from(x, None, dynamics)[0]


def lif_from(x: Tensor, start: Tensor | None, dynamics: LifDynamics) -> tuple[Tensor, Tensor]:
    """Return the spikes of a LIF layer and the membranes it ends with.

    u_t = v_{t-1} + (x_t - (v_{t-1} - rest)) / tau with `decay_input`, else v_{t-1} - (v_{t-1} - rest) / tau + x_t;
    s_t = [u_t >= threshold]; v_t = v_reset where it spiked (hard reset) or u_t - threshold s_t (soft reset).

    Args:
        x: input currents [T, ...]; half-precision input gets a float32 membrane.
        start: membranes v_0 [...], or None for rest.
        dynamics: constants of the layer; `detach_membrane` lets no gradient go from one step to the step before.

    Returns:
        Spikes, of the shape and type of `x`, and the last membranes [...], after the reset.
    """
    spikes, last = _Lif.apply(x, start, dynamics)  # type: ignore[no-untyped-call]
    return spikes, last


def plif_from(x: Tensor, rate: Tensor, start: Tensor | None, dynamics: LifDynamics) -> tuple[Tensor, Tensor]:
    """Return the spikes of a LIF layer with a learned rate instead of 1 / tau, and the membranes it ends with.

    Args:
        x: input currents [T, ...]; half-precision input gets a float32 membrane.
        rate: 1 / tau, a scalar that gets a gradient.
        start: membranes v_0 [...], or None for rest.
        dynamics: constants of the layer, whose `tau` is not read; see `lif_from`.

    Returns:
        Spikes, of the shape and type of `x`, and the last membranes [...], after the reset.
    """
    spikes, last = _Plif.apply(x, rate, start, dynamics)  # type: ignore[no-untyped-call]
    return spikes, last


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
