"""Convolution and batch normalisation over time and batch: of one image once, and in one pass with the neurons."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from trainers.neurons import Lif


def convolve(conv: nn.Conv2d, x: Tensor) -> Tensor:
    """Convolve the T*B images of a batch.

    Args:
        conv: the convolution. Its attribute `repeats` then tells how many time steps shared one computation.
        x: [T, B, C, H, W].

    Returns:
        [T, B, C', H', W'], expanded over T if `x` is.
    """
    once = shows_one_image(x)
    conv.repeats = len(x) if once else 1  # type: ignore[assignment]  # a plain number on a module
    if once:
        out: Tensor = conv(x[0])
        return out.expand(len(x), *out.shape)
    return split_time(conv(x.flatten(0, 1)), len(x))


def fire(neuron: nn.Module, norm: nn.BatchNorm2d, x: Tensor, *, pools: bool = False) -> Tensor:
    """Normalise currents and run a spiking layer on them, in one pass where a kernel can do both.

    A hook on the layer may then see the currents before the normalisation; it always sees the spikes.

    Args:
        neuron: a spiking layer.
        norm: the normalisation.
        x: [T, B, C, H, W].
        pools: `halve` the sides of the maps between the two.

    Returns:
        Spikes [T, B, C, H, W], or of half the sides.
    """
    if isinstance(neuron, Lif) and neuron.can_normalise(x, norm, pools):
        together: Tensor = neuron(x, norm, pools)
        return together
    currents = normalise(norm, x)
    spikes: Tensor = neuron(halve(currents) if pools else currents)
    return spikes


def halve(x: Tensor) -> Tensor:
    """Max-pool 3 x 3 with stride 2 and padding 1: [T, B, C, H, W] to [T, B, C, ceil(H/2), ceil(W/2)]."""
    if shows_one_image(x):
        return halve(x[:1]).expand(len(x), -1, -1, -1, -1)
    pooled = F.max_pool2d(x.flatten(0, 1), kernel_size=3, stride=2, padding=1)
    return split_time(pooled, len(x))


def normalise(norm: nn.BatchNorm2d, x: Tensor) -> Tensor:
    """Normalise the T*B images of a batch.

    Copies change neither mean nor biased variance. Only the unbiased variance that enters the running one depends on
    the number of values: an image that is expanded over T is normalised once and counts T times.

    Args:
        norm: the normalisation.
        x: [T, B, C, H, W].

    Returns:
        [T, B, C, H, W], expanded over T if `x` is.
    """
    if not shows_one_image(x):
        return split_time(norm(x.flatten(0, 1)), len(x))
    return _normalise_copies(norm, x[0], len(x)).expand(x.shape)


def split_time(x: Tensor, time_steps: int) -> Tensor:
    """Turn [T*B, ...] into [T, B, ...] without copying, in whatever memory order."""
    return x.view(time_steps, len(x) // time_steps, *x.shape[1:])


def shows_one_image(x: Tensor) -> bool:
    """Return whether all time steps of [T, ...] are the same memory, so that what has no state need run once only."""
    return len(x) > 1 and x.stride(0) == 0


def _normalise_copies(norm: nn.BatchNorm2d, x: Tensor, copies: int) -> Tensor:
    """Normalise [B, C, H, W] and move the running statistics as if it had been repeated."""
    mean, var, batches = norm.running_mean, norm.running_var, norm.num_batches_tracked
    updates = norm.training and norm.track_running_stats
    if not updates or mean is None or var is None or batches is None or norm.momentum is None:
        out: Tensor = norm(x)
        return out
    # Autograd holds on to the buffers that batch_norm updates: it gets copies, so the module's own can change.
    new_mean, new_var = mean.clone(), var.clone()
    out = F.batch_norm(x, new_mean, new_var, norm.weight, norm.bias, True, norm.momentum, norm.eps)
    n = x.numel() // norm.num_features
    scale = copies * (n - 1) / (copies * n - 1)  # from n / (n - 1) to Tn / (Tn - 1)
    mean.copy_(new_mean)
    var.copy_((var * (1 - norm.momentum)).lerp(new_var, scale))
    batches.add_(1)
    return out
