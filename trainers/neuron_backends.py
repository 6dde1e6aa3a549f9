"""The choice of the kernel that runs LIF layers on a device, and its check against torch."""

from __future__ import annotations

import functools
import os
import sys
import warnings

import torch
from torch import Tensor

import trainers.torchvision_ops  # noqa: F401  # before spikingjelly

# isort: split
from spikingjelly.activation_based import functional
from spikingjelly.activation_based import surrogate as surrogate_functions

from trainers.neuron_kernels import LifDynamics, lif

BACKENDS = ("auto", "torch", "triton", "cuda")
FUSED_TYPES = (torch.float32, torch.float16, torch.bfloat16)
_SELECTION_VARIABLE = "SJ_LIF_CUDA_IMPLEMENTATION"  # spikingjelly reads it when its LIF operators are first loaded
_OPERATORS = "spikingjelly._ops.lif"


def choose_backend(requested: str, device: torch.device) -> str:
    """Decide which kernel runs LIF layers on a device, checking a fused one once against torch.

    The answer is kept per process. A fused kernel must give the same spikes and gradients as torch on a small case.

    Args:
        requested: `auto` (the fastest there is), `torch`, `triton` or `cuda`.
        device: where the layers run.

    Returns:
        `torch`, `triton` or `cuda`. What differs from an explicit request is warned about, once.
    """
    if device.type == "cuda" and device.index is None:
        device = torch.device("cuda", torch.cuda.current_device())
    return _choose_backend(requested, device)


@functools.cache
def _choose_backend(requested: str, device: torch.device) -> str:
    if device.type != "cuda" or requested == "torch":
        if requested in ("triton", "cuda"):
            _warn_fallback(requested, device, "it needs an NVIDIA GPU", "torch")
        return "torch"
    if requested != "auto" and _OPERATORS not in sys.modules:
        os.environ[_SELECTION_VARIABLE] = requested
    try:
        found = functional.neuron_implementation("lif", device)
        name = str(found["implementation"])
        if name not in ("triton", "cuda"):
            name = "torch"
        elif not _agrees_with_torch(device):
            _warn_fallback(name, device, "its spikes or gradients differ from those of torch on a small case", "torch")
            return "torch"
    except (RuntimeError, ImportError, OSError) as error:
        _warn_fallback(requested, device, str(error), "torch")
        return "torch"
    if requested not in ("auto", name):
        reason = found["unavailable"].get(requested, f"set {_SELECTION_VARIABLE}={requested} before starting")
        _warn_fallback(requested, device, str(reason), name)
    return name


def fused_lif(x: Tensor, start: Tensor | None, d: LifDynamics, surrogate_function: object) -> tuple[Tensor, Tensor]:
    """Run spikingjelly's fused kernel; it wants a float32 membrane whatever the type of the input.

    Args:
        x: input currents [T, ...].
        start: membranes [...] to start from, or None for rest.
        d: constants of the layer; tau is finite.
        surrogate_function: spikingjelly's surrogate.

    Returns:
        Spikes [T, ...] and the last membranes [...].
    """
    if start is None:
        start = torch.full(x.shape[1:], d.rest, dtype=torch.float32, device=x.device)
    spikes, last, _ = functional.lif_multi_step(
        x, start, d.tau, d.decay_input, d.v_threshold, d.v_reset, surrogate_function, d.detach_reset
    )
    return spikes, last.detach()


def _warn_fallback(backend: str, device: torch.device, reason: str, instead: str) -> None:
    message = f"neuron backend '{backend}' is not used on {device}: {reason}; '{instead}' runs instead"
    warnings.warn(message, RuntimeWarning, stacklevel=4)


def _agrees_with_torch(device: torch.device) -> bool:
    """Compare the fused kernel's spikes and gradients with torch on currents that make neurons fire, reset and rest."""
    dynamics = LifDynamics(2.0, 1.0, 0.0, decay_input=True, detach_reset=True, surrogate="sigmoid", alpha=4.0)
    steps = torch.arange(4 * 32, dtype=torch.float32, device=device).view(4, 32)
    fused = (torch.sin(steps) * 2 + 1).requires_grad_()
    plain = fused.detach().clone().requires_grad_()
    with torch.enable_grad():
        fused_spikes, _ = fused_lif(fused, None, dynamics, surrogate_functions.Sigmoid(alpha=4.0))
        plain_spikes = lif(plain, dynamics)
        weights = torch.cos(steps)
        (fused_grad,) = torch.autograd.grad((fused_spikes * weights).sum(), fused)
        (plain_grad,) = torch.autograd.grad((plain_spikes * weights).sum(), plain)
    return torch.equal(fused_spikes, plain_spikes) and torch.allclose(fused_grad, plain_grad, rtol=1e-4, atol=1e-6)
