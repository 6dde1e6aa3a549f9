"""The choice of the kernel that runs LIF layers on a device, and its check against torch."""

from __future__ import annotations

import functools
import logging
import os
import sys
import warnings
from collections.abc import Callable

import torch
from torch import Tensor, nn

import trainers.torchvision_ops  # noqa: F401  # before spikingjelly

# isort: split
from spikingjelly.activation_based import functional
from spikingjelly.activation_based import surrogate as surrogate_functions

from trainers.native import lif as native
from trainers.native import pooled
from trainers.native.library import NoCompilerError
from trainers.neuron_kernels import LifDynamics, lif

BACKENDS = ("auto", "torch", "native", "triton", "cuda")
FUSED_TYPES = (torch.float32, torch.float16, torch.bfloat16)
_SELECTION_VARIABLE = "SJ_LIF_CUDA_IMPLEMENTATION"  # spikingjelly reads it when its LIF operators are first loaded
_OPERATORS = "spikingjelly._ops.lif"
_DISAGREES = "its spikes or gradients differ from those of torch on a small case"
_NO_TRITON = "Triton not available, find_triton_kernels = []"
_TRIAL = LifDynamics(2.0, 1.0, 0.0, decay_input=True, detach_reset=True, surrogate="sigmoid", alpha=4.0)


def _without_the_remark_on_triton(record: logging.LogRecord) -> bool:
    """Refuse what torch says for each operator that spikingjelly registers where Triton is missing: it needs none."""
    return record.msg != _NO_TRITON


logging.getLogger("torch._library.triton").addFilter(_without_the_remark_on_triton)


def choose_backend(requested: str, device: torch.device) -> str:
    """Decide which kernel runs LIF layers on a device, checking a fused one once against torch.

    The answer is kept per process. A fused kernel must give the same spikes and gradients as torch on a small case.

    Args:
        requested: `auto` (the fastest there is), `torch`, `native` (C, for a CPU), `triton` or `cuda`.
        device: where the layers run.

    Returns:
        `torch`, `native`, `triton` or `cuda`. What differs from an explicit request is warned about, once.
    """
    if device.type == "cuda" and device.index is None:
        device = torch.device("cuda", torch.cuda.current_device())
    return _choose_backend(requested, device)


@functools.cache
def _choose_backend(requested: str, device: torch.device) -> str:
    if requested == "torch":
        return "torch"
    if device.type == "cpu":
        return _choose_on_cpu(requested, device)
    if device.type == "cuda" and requested != "native":
        return _choose_on_gpu(requested, device)
    if requested != "auto":
        needs = "it needs a CPU" if requested == "native" else "it needs an NVIDIA GPU"
        _warn_fallback(requested, device, needs, "torch")
    return "torch"


def _choose_on_cpu(requested: str, device: torch.device) -> str:
    try:
        name = "native" if _native_agrees_with_torch() else "torch"
        reason = _DISAGREES
    except NoCompilerError as error:
        name, reason = "torch", str(error)
        if requested == "auto":
            return name  # nothing is wrong with a machine without a compiler
    except OSError as error:
        name, reason = "torch", str(error)
    if requested in ("triton", "cuda"):
        _warn_fallback(requested, device, "it needs an NVIDIA GPU", name)
    elif name != "native":
        _warn_fallback("native", device, reason, name)
    return name


def _choose_on_gpu(requested: str, device: torch.device) -> str:
    if requested != "auto" and _OPERATORS not in sys.modules:
        os.environ[_SELECTION_VARIABLE] = requested
    try:
        found = functional.neuron_implementation("lif", device)
        name = str(found["implementation"])
        if name not in ("triton", "cuda"):
            name = "torch"
        elif not _agrees_with_torch(device):
            _warn_fallback(name, device, _DISAGREES, "torch")
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
    warnings.warn(message, RuntimeWarning, stacklevel=5)


@torch.inference_mode(mode=False)
def _agrees_with_torch(device: torch.device) -> bool:
    """Compare the fused kernel's spikes and gradients with torch."""
    surrogate = surrogate_functions.Sigmoid(alpha=_TRIAL.alpha)
    return _agree(lambda x: fused_lif(x, None, _TRIAL, surrogate)[0], lambda x: lif(x, _TRIAL), device)


@torch.inference_mode(mode=False)
def _native_agrees_with_torch() -> bool:
    """Compare the C kernels with torch: neurons alone, behind a normalisation, and behind one with a pool."""
    device = torch.device("cpu")
    norm = nn.BatchNorm2d(4)

    def maps(x: Tensor) -> Tensor:
        return x.view(4, 2, 2, 2, 4).permute(0, 1, 4, 2, 3)

    def plain(x: Tensor, pool: Callable[[Tensor], Tensor]) -> Tensor:
        currents = pool(norm(maps(x).flatten(0, 1)))
        return lif(currents.view(4, 2, *currents.shape[1:]).expand(4, 2, 4, 2, 2).reshape(4, 32), _TRIAL)

    return (
        _agree(lambda x: native.lif_from(x, None, _TRIAL)[0], lambda x: lif(x, _TRIAL), device)
        and _agree(
            lambda x: native.normalised_lif(maps(x), norm, _TRIAL).reshape(4, 32),
            lambda x: plain(x, nn.Identity()),
            device,
        )
        and _agree(
            lambda x: pooled.pooled_lif(maps(x), norm, _TRIAL).expand(4, 2, 4, 2, 2).reshape(4, 32),
            lambda x: plain(x, nn.MaxPool2d(3, 2, 1)),
            device,
        )
    )


def _agree(run: Callable[[Tensor], Tensor], plain_run: Callable[[Tensor], Tensor], device: torch.device) -> bool:
    """Compare two layers on currents [4, 32] that make neurons fire, reset and rest."""
    steps = torch.arange(4 * 32, dtype=torch.float32, device=device).view(4, 32)
    x = (torch.sin(steps) * 2 + 1).requires_grad_()
    with torch.enable_grad():
        spikes, plain_spikes = run(x), plain_run(x)
        weights = torch.cos(steps)
        (grad,) = torch.autograd.grad((spikes * weights).sum(), x)
        (plain_grad,) = torch.autograd.grad((plain_spikes * weights).sum(), x)
    return torch.equal(spikes, plain_spikes) and torch.allclose(grad, plain_grad, rtol=1e-4, atol=1e-5)
