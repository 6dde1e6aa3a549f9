"""Kinds of neurons that run on spikingjelly's own code: KLIF, CLIF, GLIF, PSN and I-LIF, each starting from rest.

Their membranes are float32 at least, under mixed precision too.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

import trainers.torchvision_ops  # noqa: F401  # before spikingjelly

# isort: split
from spikingjelly.activation_based import neuron
from spikingjelly.activation_based import surrogate as surrogate_functions

MAX_SPIKE_COUNT = 4  # D of I-LIF (arXiv 2407.20708)
_SURROGATE_FUNCTIONS = {
    "sigmoid": surrogate_functions.Sigmoid,
    "atan": surrogate_functions.ATan,
    "piecewise_quadratic": surrogate_functions.PiecewiseQuadratic,
    "rect": surrogate_functions.Rect,
}


def surrogate_function(surrogate: str, alpha: float) -> nn.Module:
    """Return spikingjelly's surrogate of a name.

    Args:
        surrogate: one of `trainers.neuron_kernels.SURROGATES`.
        alpha: its slope.
    """
    function: nn.Module = _SURROGATE_FUNCTIONS[surrogate](alpha=alpha)
    return function


class _FromRest:
    """Let every call of a spikingjelly node start from rest, unless its state is being carried."""

    carries = False
    needs_all_steps = False

    def forget(self) -> None:
        """Drop the state."""
        self.reset()  # type: ignore[attr-defined]

    def multi_step_forward(self, x_seq: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """Return the spikes, of the input's shape [T, ...] and type."""
        if not self.carries:
            self.forget()
        with torch.autocast(x_seq.device.type, enabled=False):
            currents = x_seq.to(torch.promote_types(x_seq.dtype, torch.float32))
            spikes: Tensor = super().multi_step_forward(currents, *args, **kwargs)  # type: ignore[misc]
        if not self.carries:
            self.forget()
        return spikes.to(x_seq.dtype)


class Klif(_FromRest, neuron.KLIFNode):  # type: ignore[misc]  # spikingjelly is untyped
    """LIF whose membrane is rectified and scaled by a learned k >= 0 before it fires (KLIF, arXiv 2302.09238)."""


class Clif(_FromRest, neuron.ComplementaryLIFNode):  # type: ignore[misc]
    """LIF with a second potential that strengthens the soft reset after recent spikes (CLIF, arXiv 2402.04663)."""


class Ilif(_FromRest, neuron.ILIFNode):  # type: ignore[misc]
    """LIF that emits a whole number of spikes 0, ..., 4 at once and resets softly (I-LIF, arXiv 2407.20708)."""


class Glif(_FromRest, neuron.GatedLIFNode):  # type: ignore[misc]
    """LIF with learned gates, leaks, threshold and conductances, shared by the layer (GLIF, arXiv 2210.13768).

    Args:
        time_steps: time steps T, each with a conductance of its own.
        v_threshold: threshold it starts with, in (0, 1), as the sigmoid of a parameter gives it.
        surrogate: spikingjelly's surrogate.
    """

    needs_all_steps = True

    def __init__(self, time_steps: int, v_threshold: float, surrogate: nn.Module) -> None:
        super().__init__(T=time_steps, init_v_threshold=v_threshold, surrogate_function=surrogate)
        for gate in (self.alpha, self.beta, self.gamma):  # as spikingjelly does, but from torch's generator
            nn.init.uniform_(gate, -0.1, 0.1)

    def multi_step_forward(self, x_seq: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """Return the spikes, of the input's shape [T, ...] and type."""
        _check_steps("glif", self.T, x_seq)
        flat = x_seq.reshape(len(x_seq), -1, 1, 1, 1)  # its parameters broadcast over four dimensions
        return super().multi_step_forward(flat, *args, **kwargs).view(x_seq.shape)


class Psn(neuron.PSN):  # type: ignore[misc]
    """Neuron without a reset that mixes all time steps by a learned matrix (PSN, arXiv 2304.12760).

    Args:
        time_steps: time steps T, the side of the matrix.
        v_threshold: threshold it starts with in every step; it is learned.
        surrogate: spikingjelly's surrogate.
    """

    carries = False
    needs_all_steps = True

    def __init__(self, time_steps: int, v_threshold: float, surrogate: nn.Module) -> None:
        super().__init__(T=time_steps, surrogate_function=surrogate)
        nn.init.constant_(self.bias, -v_threshold)

    def forget(self) -> None:
        """Do nothing: there is no state."""

    def forward(self, x_seq: Tensor) -> Tensor:
        """Return the spikes, of the input's shape [T, ...] and type."""
        _check_steps("psn", self.T, x_seq)
        with torch.autocast(x_seq.device.type, enabled=False):
            spikes: Tensor = super().forward(x_seq.to(self.weight.dtype))
        return spikes.to(x_seq.dtype)


def _check_steps(kind: str, time_steps: int, x: Tensor) -> None:
    if len(x) != time_steps:
        raise ValueError(
            f"a '{kind}' layer made for {time_steps} time steps got {len(x)}; it has parameters for each step: "
            f"build the model with time_steps={len(x)}, or choose a kind without such parameters"
        )
