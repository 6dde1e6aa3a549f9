"""What the encoders share: two shapes of output, the registry and the soft threshold."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from trainers.registry import Registry

THRESHOLD_RANGE = (1e-3, 1.0)  # learnable thresholds of STAL and ConvSTAL are clamped to it after every use


class Encoded(NamedTuple):
    """Output of an encoder of the STAL family.

    Args:
        spikes: soft or binary spikes; the encoder says in which shape.
        z1: output of the first hidden block, matched to the input's size; None where there is no such block.
        z2: the same of the second block.
    """

    spikes: Tensor
    z1: Tensor | None = None
    z2: Tensor | None = None


class StepEncoder(nn.Module):
    """Encoder that turns images [B, C, H, W] into spikes with batch first, for a recurrent classifier.

    Args:
        time_steps: time steps T.
        step_size: values per sample and step.
    """

    def __init__(self, time_steps: int, step_size: int) -> None:
        super().__init__()
        self.time_steps = time_steps
        self.step_size = step_size

    def steps(self, spikes: Tensor) -> Tensor:
        """Return the spikes as [B, T, ...]: what a classifier reads step by step.

        Args:
            spikes: the first entry of what `forward` returns.

        Returns:
            A view of them.
        """
        return spikes


class TokenEncoder(nn.Module):
    """Encoder that turns images [B, C, H, W] into tokens [T, B, N, D], for a transformer.

    Args:
        time_steps: time steps T.
        num_tokens: tokens N.
        embed_dims: token width D.
    """

    def __init__(self, time_steps: int, num_tokens: int, embed_dims: int) -> None:
        super().__init__()
        self.time_steps = time_steps
        self.num_tokens = num_tokens
        self.embed_dims = embed_dims


ENCODERS: Registry[StepEncoder | TokenEncoder] = Registry("encoder")


def register_encoder(*names: str) -> Callable[[Callable[..., nn.Module]], Callable[..., nn.Module]]:
    """Return a decorator that registers an encoder under its names.

    Args:
        names: the name and its synonyms.

    Returns:
        A decorator for a class or function that takes `in_channels`, `img_size` and `time_steps`.

    Raises:
        ValueError: a name is taken already.
    """
    return ENCODERS.register(*names)


def initial_thresholds(*shape: int) -> nn.Parameter:
    """Return learnable thresholds drawn from U(0.4, 0.6)."""
    return nn.Parameter(torch.empty(shape).uniform_(0.4, 0.6))


def soft_threshold(values: Tensor, thresholds: Tensor, alpha: float) -> Tensor:
    """Return sigma(alpha (values - thresholds)): spikes that are never binarised (STAL, arXiv 2407.08362).

    Args:
        values: any shape that broadcasts with the thresholds.
        thresholds: learnable thresholds.
        alpha: slope.

    Returns:
        Values in (0, 1); only this one tensor of the broadcast shape is allocated.
    """
    return torch.add(thresholds * -alpha, values, alpha=alpha).sigmoid_()


@torch.no_grad()
def clamp_thresholds(thresholds: Tensor) -> None:
    """Clamp thresholds in place."""
    thresholds.clamp_(*THRESHOLD_RANGE)
