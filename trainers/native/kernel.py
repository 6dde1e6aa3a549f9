"""One call of the C kernels of LIF layers: its constants, its memory order, and the normalisation before it."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from trainers.native.library import Layer, load
from trainers.neuron_kernels import SURROGATES, LifDynamics

_BLOCK = 1024  # values per block, about
_FEWEST_PER_THREAD = 16384  # values that are worth waking a thread for


@dataclass(frozen=True, slots=True)
class Layout:
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
class Statistics:
    """Mean and reciprocal deviation by channel, float64, and the values per channel they are of; 0 if running ones."""

    mean: Tensor
    inverse: Tensor
    count: int

    def scale_and_shift(self, weight: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
        """Return the two constants by channel, float64, that normalisation amounts to."""
        scale = weight.double() * self.inverse
        return scale, bias.double() - self.mean * scale

    def backward(self, scale: Tensor, grad_bias: Tensor, products: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the gradient of the weight and the constants of the gradient of x: factor of x and summand.

        Args:
            scale: of `scale_and_shift`.
            grad_bias: sum by channel of the gradient of the normalised values.
            products: sum by channel of its products with x.
        """
        grad_weight = (products - self.mean * grad_bias) * self.inverse
        if not self.count:
            return grad_weight, torch.zeros_like(scale), torch.zeros_like(scale)
        by_x = -scale * self.inverse * grad_weight / self.count
        return grad_weight, by_x, -scale * grad_bias / self.count - by_x * self.mean


class Kernel:
    """The C kernels for one input.

    Args:
        x: input [T, ...], or one step [...] that is shown in all.
        steps: 0, or T where `x` is one step.
        dynamics: constants of the layer.
        layout: where the channels are.
    """

    def __init__(self, x: Tensor, steps: int, dynamics: LifDynamics, layout: Layout) -> None:
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


def channel_kernel(x: Tensor, steps: int, dynamics: LifDynamics) -> Kernel:
    """Return the kernels for currents [T, B, C, ...] or, with `steps`, [B, C, ...], that are normalised by channel."""
    return Kernel(x, steps, dynamics, channel_layout(x if steps else x[0]))


def statistics_of(kernel: Kernel, norm: nn.BatchNorm1d | nn.BatchNorm2d) -> Statistics:
    """Return what a normalisation takes for its mean and deviation; in training its running statistics move.

    Args:
        kernel: on the values that are normalised.
        norm: the normalisation.
    """
    if norm.training or norm.running_mean is None or norm.running_var is None:
        mean, var, count = kernel.statistics()
        _update(norm, mean, var, count * max(kernel.steps, 1))
    else:
        mean, var, count = norm.running_mean.double(), norm.running_var.double(), 0
    return Statistics(mean, torch.rsqrt(var + norm.eps), count)


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


def without_copies(x: Tensor, channels: bool = False) -> tuple[Tensor, int]:
    """Return one step and T where all steps share their memory, else x, without gaps, and 0."""
    if len(x) > 1 and x.stride(0) == 0:
        step, steps = x[0], len(x)
        return (step if _usable(step, channels) else step.contiguous()), steps
    usable = is_dense(x) and (len(x) == 1 or x.stride(0) == x[0].numel()) and _usable(x[0], channels)
    return (x if usable else x.contiguous()), 0


def _usable(step: Tensor, channels: bool) -> bool:
    return is_dense(step) and (not channels or step.stride(1) == 1 or step.is_contiguous())


def is_dense(x: Tensor) -> bool:
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


def plain_layout() -> Layout:
    """Return the layout of values that have no channels."""
    return Layout(_BLOCK, 1, per_value=False)


def channel_layout(step: Tensor) -> Layout:
    """Return where the channels of [B, C, ...] are: in the last place in memory, or before the pixels."""
    channels = step.shape[1]
    pixels = step[0, 0].numel()
    if pixels > 1 and (channels == 1 or step.stride(1) == pixels):
        return Layout(pixels, channels, per_value=False)
    repeats = max(1, _BLOCK // channels)
    return Layout(channels * repeats, channels * repeats, per_value=True, repeats=repeats)
