"""LIF layers on the C kernels: alone, or together with the batch normalisation before them."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from trainers.native.library import Layer, load
from trainers.neuron_kernels import SURROGATES, LifDynamics

TYPES = (torch.float32, torch.float64)
_BLOCK = 1024  # values per block, about
_FEWEST_PER_THREAD = 16384  # values that are worth waking a thread for


def lif_from(x: Tensor, start: Tensor | None, dynamics: LifDynamics) -> tuple[Tensor, Tensor]:
    """Do what `trainers.neuron_kernels.lif_from` does.

    Args:
        x: input currents [T, ...], float32 or float64, on the CPU; an image expanded over T is not copied.
        start: membranes [...] that no gradient goes to, or None for rest. Where it is given, `x` gets none either.
        dynamics: constants of the layer.

    Returns:
        Spikes, of the shape and type of `x`, and the last membranes [...], an empty tensor where there is no `start`.
    """
    current, steps = _without_copies(x)
    if start is None:
        spikes: Tensor = _Lif.apply(current, steps, dynamics)  # type: ignore[no-untyped-call]
        return spikes, x.new_empty(0)
    kernel = _Kernel(current, steps, dynamics, _plain_layout())
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
    current, steps = _without_copies(x, channels=True)
    layout = _channel_layout(current if steps else current[0])
    by_batch = norm.training or norm.running_mean is None or norm.running_var is None
    if by_batch:
        mean, var, count = _Kernel(current, steps, dynamics, layout).statistics()
        _update(norm, mean, var, count * max(steps, 1))
    else:
        assert norm.running_mean is not None
        assert norm.running_var is not None
        mean, var, count = norm.running_mean.double(), norm.running_var.double(), 0
    statistics = _Statistics(mean, torch.rsqrt(var + norm.eps), count)
    arguments = (current, norm.weight, norm.bias, steps, dynamics, layout, statistics)
    spikes: Tensor = _NormalisedLif.apply(*arguments)  # type: ignore[no-untyped-call]
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


@dataclass(frozen=True, slots=True)
class _Layout:
    """How channels lie in the memory of one time step; see lif.c.

    Args:
        block: values per block.
        channels: constants of the kernel.
        per_value: each value of a block has a constant of its own.
        repeats: how often the channels are repeated within a block.
    """

    block: int
    channels: int
    per_value: bool
    repeats: int = 1


@dataclass(frozen=True, slots=True)
class _Statistics:
    """Mean and reciprocal deviation by channel, float64, and the values per channel they are of; 0 if running ones."""

    mean: Tensor
    inverse: Tensor
    count: int


class _Kernel:
    """The C kernels for one input.

    Args:
        x: input [T, ...], or one step [...] that is shown in all.
        steps: 0, or T where `x` is one step.
        dynamics: constants of the layer.
        layout: where the channels are.
    """

    def __init__(self, x: Tensor, steps: int, dynamics: LifDynamics, layout: _Layout) -> None:
        self.x, self.steps, self.layout = x, steps, layout
        self.library = load(x.dtype == torch.float64)
        values = x.numel() if steps else x[0].numel()
        time = steps or len(x)
        self.threads = max(1, min(torch.get_num_threads(), time * values // _FEWEST_PER_THREAD))
        self.layer = Layer(
            steps=time,
            step_stride=0 if steps else values,
            values=values,
            block=layout.block,
            channels=layout.channels,
            per_value=layout.per_value,
            threads=self.threads,
            hard_reset=dynamics.v_reset is not None,
            decay_input=dynamics.decay_input,
            detach_reset=dynamics.detach_reset,
            surrogate=SURROGATES.index(dynamics.surrogate),
            tau=dynamics.tau,
            keep=0.0 if dynamics.detach_membrane else 1 - 1 / dynamics.tau,
            threshold=dynamics.v_threshold,
            rest=dynamics.rest,
            alpha=dynamics.alpha,
        )

    def forward(self, constants: list[Tensor] | None = None, state: Tensor | None = None) -> Tensor:
        """Return the spikes [T, ...] of x, or of x * constants[0] + constants[1] by channel."""
        spikes = self._room(one_step=False)
        scale, shift = constants or (None, None)
        self._call("lif_forward", scale, shift, state, spikes)
        return spikes

    def backward(self, grad_spikes: Tensor, constants: list[Tensor] | None = None) -> tuple[Tensor, Tensor]:
        """Return the gradient of the (normalised) input and by channel its sum and that of its product with x."""
        grad = self._room(one_step=bool(self.steps))
        scale, shift = constants or (None, None)
        sums = self._sums() if constants else None
        grad_spikes = self.arranged(grad_spikes, one_step=False)
        if self._call("lif_backward", scale, shift, grad_spikes, grad, sums):
            raise MemoryError("no memory for the membranes of a LIF layer")
        return grad, grad.new_empty(0) if sums is None else self._by_channel(sums)

    def statistics(self) -> tuple[Tensor, Tensor, int]:
        """Return mean and biased variance by channel, float64, and how many values each is of."""
        sums = self._sums()
        self._call("sum_channels", sums)
        total, squares = self._by_channel(sums)
        count = self.x.numel() // len(total)
        mean = total / count
        return mean, (squares / count - mean.square()).clamp_(min=0), count

    def denormalise(self, grad: Tensor, constants: list[Tensor]) -> Tensor:
        """Return grad * constants[0] + x * constants[1] + constants[2] by channel, computed in place."""
        self._call("denormalise", *constants, grad)
        return grad

    def spread(self, *constants: Tensor) -> list[Tensor]:
        """Return constants by channel as the kernels read them."""
        return [constant.to(self.x.dtype).repeat(self.layout.repeats) for constant in constants]

    def arranged(self, values: Tensor, one_step: bool) -> Tensor:
        """Return values in the memory order of the input."""
        if _same_order(values, _strides(self.x, self.steps, one_step)):
            return values
        return self._room(one_step).copy_(values)

    def _room(self, one_step: bool) -> Tensor:
        shape = self.x.shape if self.steps else self.x.shape[1:]
        size = tuple(shape) if one_step else (self.layer.steps, *shape)
        return torch.empty_strided(size, _strides(self.x, self.steps, one_step), dtype=self.x.dtype)

    def _sums(self) -> Tensor:
        return torch.zeros(self.threads, 2, self.layout.channels, dtype=torch.float64)

    def _by_channel(self, sums: Tensor) -> Tensor:
        return sums.sum(0).view(2, self.layout.repeats, -1).sum(1)

    def _call(self, function: str, *tensors: Tensor | None) -> int:
        pointers = [None if tensor is None else tensor.data_ptr() for tensor in tensors]
        result: int | None = getattr(self.library, function)(ctypes.byref(self.layer), self.x.data_ptr(), *pointers)
        return result or 0


class _Lif(torch.autograd.Function):
    """See `lif_from`."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, steps: int, dynamics: LifDynamics) -> Tensor:
        """Run the layer."""
        ctx.save_for_backward(x)
        ctx.steps, ctx.dynamics = steps, dynamics
        return _Kernel(x, steps, dynamics, _plain_layout()).forward()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_spikes: Tensor) -> tuple[Tensor, None, None]:
        """Back-propagate through time with the surrogate derivative."""
        (x,) = ctx.saved_tensors
        return _Kernel(x, ctx.steps, ctx.dynamics, _plain_layout()).backward(grad_spikes)[0], None, None


class _NormalisedLif(torch.autograd.Function):
    """See `normalised_lif`."""

    @staticmethod
    def forward(  # noqa: PLR0917 - autograd passes by position
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        bias: Tensor,
        steps: int,
        dynamics: LifDynamics,
        layout: _Layout,
        statistics: _Statistics,
    ) -> Tensor:
        """Normalise and run the layer."""
        ctx.save_for_backward(x, weight, bias)
        ctx.rest = steps, dynamics, layout, statistics
        kernel = _Kernel(x, steps, dynamics, layout)
        return kernel.forward(kernel.spread(*_scale_and_shift(weight, bias, statistics)))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_spikes: Tensor) -> tuple[Tensor, Tensor, Tensor, None, None, None, None]:
        """Back-propagate through time, then through the normalisation."""
        x, weight, bias = ctx.saved_tensors
        steps, dynamics, layout, s = ctx.rest
        kernel = _Kernel(x, steps, dynamics, layout)
        scale, shift = _scale_and_shift(weight, bias, s)
        grad, (grad_bias, products) = kernel.backward(grad_spikes, kernel.spread(scale, shift))
        grad_weight = (products - s.mean * grad_bias) * s.inverse
        by_x = -scale * s.inverse * grad_weight / s.count if s.count else torch.zeros_like(scale)
        constant = -scale * grad_bias / s.count - by_x * s.mean if s.count else by_x
        grad = kernel.denormalise(grad, kernel.spread(scale, by_x, constant))
        return grad, grad_weight.to(weight.dtype), grad_bias.to(bias.dtype), None, None, None, None


def _scale_and_shift(weight: Tensor, bias: Tensor, statistics: _Statistics) -> tuple[Tensor, Tensor]:
    """Return the two constants by channel, float64, that normalisation amounts to."""
    scale = weight.double() * statistics.inverse
    return scale, bias.double() - statistics.mean * scale


def _update(norm: nn.BatchNorm1d | nn.BatchNorm2d, mean: Tensor, var: Tensor, count: int) -> None:
    """Move the running statistics towards those of a batch of `count` values per channel."""
    if not norm.track_running_stats or norm.running_mean is None or norm.running_var is None:
        return
    assert norm.momentum is not None
    assert norm.num_batches_tracked is not None
    with torch.no_grad():
        norm.running_mean.lerp_(mean.to(norm.running_mean.dtype), norm.momentum)
        unbiased = var * (count / (count - 1))
        norm.running_var.lerp_(unbiased.to(norm.running_var.dtype), norm.momentum)
        norm.num_batches_tracked.add_(1)


def _without_copies(x: Tensor, channels: bool = False) -> tuple[Tensor, int]:
    """Return one step and T where all steps share their memory, else x, without gaps, and 0."""
    if len(x) > 1 and x.stride(0) == 0:
        step, steps = x[0], len(x)
        return (step if _usable(step, channels) else step.contiguous()), steps
    usable = _is_dense(x) and (len(x) == 1 or x.stride(0) == x[0].numel()) and _usable(x[0], channels)
    return (x if usable else x.contiguous()), 0


def _usable(step: Tensor, channels: bool) -> bool:
    return _is_dense(step) and (not channels or step.stride(1) == 1 or step.is_contiguous())


def _is_dense(x: Tensor) -> bool:
    """Whether the values fill their memory without gaps, in whatever order of the dimensions."""
    expected = 1
    for stride, size in sorted((s, n) for s, n in zip(x.stride(), x.shape, strict=True) if n > 1):
        if stride != expected:
            return False
        expected *= size
    return True


def _same_order(values: Tensor, strides: tuple[int, ...]) -> bool:
    return all(n == 1 or a == b for n, a, b in zip(values.shape, values.stride(), strides, strict=True))


def _strides(x: Tensor, steps: int, one_step: bool) -> tuple[int, ...]:
    """Return the strides of a step of the input, or of all of them one after the other."""
    step = x.stride() if steps else x.stride()[1:]
    return step if one_step else ((x.numel() if steps else x[0].numel()), *step)


def _plain_layout() -> _Layout:
    return _Layout(_BLOCK, 1, per_value=False)


def _channel_layout(step: Tensor) -> _Layout:
    """Return where the channels of [B, C, ...] are: in the last place in memory, or before the pixels."""
    channels = step.shape[1]
    pixels = step[0, 0].numel()
    if pixels > 1 and (channels == 1 or step.stride(1) == pixels):
        return _Layout(pixels, channels, per_value=False)
    repeats = max(1, _BLOCK // channels)
    return _Layout(channels * repeats, channels * repeats, per_value=True, repeats=repeats)
