"""Spiking neuron layers for input with time first, and the choice of the kernel that runs them."""

from __future__ import annotations

import functools
import os
import sys
import warnings

import torch
from torch import Tensor, nn

import trainers.torchvision_ops  # noqa: F401  # before spikingjelly

# isort: split
from spikingjelly.activation_based import functional, neuron
from spikingjelly.activation_based import surrogate as surrogate_functions

from trainers.neuron_kernels import SURROGATES, LifDynamics, RecurrentDynamics, lif, recurrent_lif

BACKENDS = ("auto", "torch", "triton", "cuda")
_SELECTION_VARIABLE = "SJ_LIF_CUDA_IMPLEMENTATION"  # spikingjelly reads it when its LIF operators are first loaded
_OPERATORS = "spikingjelly._ops.lif"
_FUSED_TYPES = (torch.float32, torch.float16, torch.bfloat16)


class Lif(neuron.LIFNode):  # type: ignore[misc]  # spikingjelly is untyped
    """LIF layer over [T, ...] whose every call starts from rest: it keeps no state that one could forget to reset.

    Args:
        dynamics: constants of the layer.
        backend: `auto`, `torch`, `triton` or `cuda`; see `choose_backend`. It is looked up for the device of the input.
    """

    def __init__(self, dynamics: LifDynamics, backend: str) -> None:
        shape = {"sigmoid": surrogate_functions.Sigmoid, "atan": surrogate_functions.ATan}[dynamics.surrogate]
        super().__init__(
            tau=dynamics.tau,
            decay_input=dynamics.decay_input,
            v_threshold=dynamics.v_threshold,
            v_reset=dynamics.v_reset,
            surrogate_function=shape(alpha=dynamics.alpha),
            detach_reset=dynamics.detach_reset,
            step_mode="m",
        )
        self.dynamics = dynamics
        self.backend = backend

    def multi_step_forward(self, x_seq: Tensor) -> Tensor:
        """Return the spikes, of the input's shape [T, ...] and type."""
        if x_seq.dtype not in _FUSED_TYPES or choose_backend(self.backend, x_seq.device) == "torch":
            return lif(x_seq, self.dynamics)
        return _fused_lif(x_seq, self.dynamics, self.surrogate_function)


def make_lif(
    *,
    tau: float = 2.0,
    v_threshold: float = 1.0,
    v_reset: float | None = 0.0,
    decay_input: bool = True,
    detach_reset: bool = True,
    surrogate: str = "sigmoid",
    surrogate_alpha: float = 4.0,
    backend: str = "auto",
) -> Lif:
    """Build a LIF layer: u = v + (x - v) / tau, spike where u >= v_threshold, then reset (Spikformer, 2023).

    Args:
        tau: membrane time constant in time steps, > 1.
        v_threshold: firing threshold; a tie fires.
        v_reset: value of the hard reset, or None to subtract the threshold.
        decay_input: divide the input by tau as well.
        detach_reset: let no gradient through the reset.
        surrogate: shape of the surrogate derivative, `sigmoid` or `atan`.
        surrogate_alpha: its slope, > 0.
        backend: `auto`, `torch`, `triton` or `cuda`.

    Returns:
        A layer for input [T, ...] that returns spikes of the same shape.

    Raises:
        ValueError: tau <= 1, or an unknown surrogate or backend.
    """
    _check_surrogate(surrogate)
    if tau <= 1:
        raise ValueError(f"tau must be greater than 1, got {tau}")
    if backend not in BACKENDS:
        raise ValueError(f"unknown neuron backend '{backend}'; known: {', '.join(BACKENDS)}")
    reset = None if v_reset is None else float(v_reset)
    dynamics = LifDynamics(
        float(tau), float(v_threshold), reset, decay_input, detach_reset, surrogate, float(surrogate_alpha)
    )
    return Lif(dynamics, backend)


class RecurrentLif(nn.Module):
    """LIF layer with all-to-all recurrence over [T, B, H] (the RLeaky neuron of snnTorch, Eshraghian et al., 2023).

    m_t = beta m_{t-1} + I_t + (R s_{t-1} + b) - threshold s_{t-1}; s_t = [m_t > threshold]. Every call starts from
    zero.

    Args:
        size: neurons H.
        beta: membrane decay, clamped to [0, 1].
        v_threshold: firing threshold, strict.
        surrogate: shape of the surrogate derivative, `sigmoid` or `atan`.
        surrogate_alpha: its slope; atan with 2 gives 1 / (1 + (pi x)^2).
    """

    def __init__(
        self,
        size: int,
        *,
        beta: float = 0.9,
        v_threshold: float = 1.0,
        surrogate: str = "atan",
        surrogate_alpha: float = 2.0,
    ) -> None:
        super().__init__()
        _check_surrogate(surrogate)
        self.recurrent = nn.Linear(size, size)
        self.dynamics = RecurrentDynamics(min(max(beta, 0.0), 1.0), v_threshold, surrogate, surrogate_alpha)

    def forward(self, current: Tensor) -> tuple[Tensor, Tensor]:
        """Return spikes and membranes.

        Args:
            current: input currents [T, B, H].

        Returns:
            Spikes and membranes, both [T, B, H], in the type of the weights.
        """
        weight, bias = self.recurrent.weight, self.recurrent.bias
        # The membrane integrates small differences from the threshold: it is not left to half precision.
        with torch.autocast(current.device.type, enabled=False):
            return recurrent_lif(current.to(weight.dtype), weight, bias, self.dynamics)


def spiking_layers(model: nn.Module) -> dict[str, nn.Module]:
    """Return the spiking layers of a model by name, in the order of its modules.

    Args:
        model: any module.

    Returns:
        Module names ("block.0.attn.q_lif") mapped to layers; a layer returns its spikes, or a tuple that starts with
        them.
    """
    kinds = (neuron.BaseNode, RecurrentLif)
    return {name: module for name, module in model.named_modules() if isinstance(module, kinds)}


def backend_of(model: nn.Module, device: torch.device) -> str:
    """Return the kernel that runs the spiking layers of a model; recurrent layers always run on torch.

    Args:
        model: any module.
        device: where it runs.
    """
    requested = next((layer.backend for layer in model.modules() if isinstance(layer, Lif)), "torch")
    return choose_backend(requested, device)


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


def _check_surrogate(surrogate: str) -> None:
    if surrogate not in SURROGATES:
        raise ValueError(f"unknown surrogate '{surrogate}'; known: {', '.join(SURROGATES)}")


def _warn_fallback(backend: str, device: torch.device, reason: str, instead: str) -> None:
    message = f"neuron backend '{backend}' is not used on {device}: {reason}; '{instead}' runs instead"
    warnings.warn(message, RuntimeWarning, stacklevel=4)


def _fused_lif(x: Tensor, d: LifDynamics, surrogate_function: object) -> Tensor:
    """Run spikingjelly's fused kernel; it wants a float32 membrane whatever the type of the input."""
    start = torch.full(x.shape[1:], d.rest, dtype=torch.float32, device=x.device)
    spikes, _, _ = functional.lif_multi_step(
        x, start, d.tau, d.decay_input, d.v_threshold, d.v_reset, surrogate_function, d.detach_reset
    )
    result: Tensor = spikes
    return result


def _agrees_with_torch(device: torch.device) -> bool:
    """Compare the fused kernel's spikes and gradients with torch on currents that make neurons fire, reset and rest."""
    dynamics = LifDynamics(2.0, 1.0, 0.0, decay_input=True, detach_reset=True, surrogate="sigmoid", alpha=4.0)
    steps = torch.arange(4 * 32, dtype=torch.float32, device=device).view(4, 32)
    fused = (torch.sin(steps) * 2 + 1).requires_grad_()
    plain = fused.detach().clone().requires_grad_()
    with torch.enable_grad():
        fused_spikes = _fused_lif(fused, dynamics, surrogate_functions.Sigmoid(alpha=4.0))
        plain_spikes = lif(plain, dynamics)
        weights = torch.cos(steps)
        (fused_grad,) = torch.autograd.grad((fused_spikes * weights).sum(), fused)
        (plain_grad,) = torch.autograd.grad((plain_spikes * weights).sum(), plain)
    return torch.equal(fused_spikes, plain_spikes) and torch.allclose(fused_grad, plain_grad, rtol=1e-4, atol=1e-6)
