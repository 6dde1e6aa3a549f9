"""Spiking neuron layers for input with time first; every call starts from rest unless its state is carried on."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

import trainers.torchvision_ops  # noqa: F401  # before spikingjelly

# isort: split
from spikingjelly.activation_based import neuron
from spikingjelly.activation_based.surrogate import MultiLevelSpikeCount

from trainers.native import lif as native
from trainers.native import pooled
from trainers.neuron_backends import BACKENDS, FUSED_TYPES, choose_backend, fused_lif
from trainers.neuron_kernels import SURROGATES, LifDynamics, RecurrentDynamics, lif_from, plif_from, recurrent_lif
from trainers.neuron_kinds import MAX_SPIKE_COUNT, Clif, Glif, Ilif, Klif, Psn, surrogate_function

NEURON_KINDS = ("lif", "if", "plif", "clif", "klif", "glif", "psn", "ilif")
GLIF_THRESHOLD = 0.5  # what a GLIF layer starts with (arXiv 2210.13768) where 1.0 is asked for, which it cannot have


class Lif(neuron.LIFNode):  # type: ignore[misc]  # spikingjelly is untyped
    """LIF layer over [T, ...] whose every call starts from rest: it keeps no state that one could forget to reset.

    Args:
        dynamics: constants of the layer.
        backend: `auto`, `torch`, `native`, `triton` or `cuda`; see `choose_backend`. It is looked up for the device of
            the input.
    """

    carries = False
    needs_all_steps = False

    def __init__(self, dynamics: LifDynamics, backend: str) -> None:
        super().__init__(
            tau=dynamics.tau,
            decay_input=dynamics.decay_input,
            v_threshold=dynamics.v_threshold,
            v_reset=dynamics.v_reset,
            surrogate_function=surrogate_function(dynamics.surrogate, dynamics.alpha),
            detach_reset=dynamics.detach_reset,
            step_mode="m",
        )
        self.dynamics = dynamics
        self.backend = backend
        self.last: Tensor | None = None

    def forget(self) -> None:
        """Drop the membranes of the last call."""
        self.last = None

    def multi_step_forward(self, x_seq: Tensor, norm: nn.BatchNorm2d | None = None, pools: bool = False) -> Tensor:
        """Return the spikes, of the input's shape [T, ...] and type; `norm` is applied first, see `can_normalise`.

        Between the two `pools` halves the sides of the maps.
        """
        if norm is not None:
            layer = pooled.pooled_lif if pools else native.normalised_lif
            return layer(x_seq, norm, self.dynamics)
        spikes, last = self._run(x_seq, self.last)
        if self.carries:
            self.last = last
        return spikes

    def can_normalise(self, x: Tensor, norm: nn.Module, pools: bool = False) -> bool:
        """Return whether a kernel does the normalisation of these currents [T, B, C, H, W], and a pool, as well."""
        can = not self.carries and native.can_normalise(x, norm) and self._kernel(x) == "native"
        return can and (not pools or pooled.can_pool(x))

    def _kernel(self, x: Tensor) -> str:
        """Return the kernel that runs currents of this type."""
        if self.carries and torch.is_grad_enabled():
            return "torch"  # no other has gradients from call to call
        backend = choose_backend(self.backend, x.device)
        if backend == "native":
            return backend if x.dtype in native.TYPES else "torch"
        # spikingjelly's divide by tau
        fused = math.isfinite(self.dynamics.tau) and not self.dynamics.detach_membrane and x.dtype in FUSED_TYPES
        return backend if fused else "torch"

    def _run(self, x: Tensor, start: Tensor | None) -> tuple[Tensor, Tensor]:
        kernel = self._kernel(x)
        if kernel == "torch":
            return lif_from(x, start, self.dynamics)
        if kernel == "native":
            return native.lif_from(x, self._rest_like(x) if self.carries and start is None else start, self.dynamics)
        return fused_lif(x, start, self.dynamics, self.surrogate_function)

    def _rest_like(self, x: Tensor) -> Tensor:
        return torch.full_like(x[0], self.dynamics.rest)


class Plif(neuron.ParametricLIFNode):  # type: ignore[misc]
    """LIF layer that learns its time constant, 1 / tau = sigmoid(w); every call starts from rest (arXiv 2007.05785).

    Args:
        dynamics: constants of the layer; tau is the one it starts with.
    """

    carries = False
    needs_all_steps = False

    def __init__(self, dynamics: LifDynamics) -> None:
        super().__init__(
            init_tau=dynamics.tau,
            decay_input=dynamics.decay_input,
            v_threshold=dynamics.v_threshold,
            v_reset=dynamics.v_reset,
            surrogate_function=surrogate_function(dynamics.surrogate, dynamics.alpha),
            detach_reset=dynamics.detach_reset,
            step_mode="m",
        )
        self.dynamics = dynamics
        self.last: Tensor | None = None

    def forget(self) -> None:
        """Drop the membranes of the last call."""
        self.last = None

    def multi_step_forward(self, x_seq: Tensor) -> Tensor:
        """Return the spikes, of the input's shape [T, ...] and type."""
        spikes, last = plif_from(x_seq, self.w.sigmoid(), self.last, self.dynamics)
        if self.carries:
            self.last = last
        return spikes


@dataclass(frozen=True, slots=True)
class _Rules:
    """What a kind of neuron cannot be told: argument -> the values that are let pass, the first being the default."""

    fixed: dict[str, tuple[object, ...]]
    needs_time_steps: bool = False


_BACK_THROUGH_TIME: dict[str, tuple[object, ...]] = {"detach_membrane": (False,)}  # spikingjelly's nodes do it
_RULES = {
    "lif": _Rules({}),
    "if": _Rules({"tau": (2.0,), "decay_input": (True, False)}),
    "plif": _Rules({}),
    "klif": _Rules(_BACK_THROUGH_TIME),
    "clif": _Rules(
        {"v_reset": (0.0, None), "decay_input": (True, False), "detach_reset": (True, False)} | _BACK_THROUGH_TIME
    ),
    "ilif": _Rules(
        {"v_reset": (0.0, None), "decay_input": (True, False), "surrogate": ("sigmoid",), "surrogate_alpha": (4.0,)}
        | _BACK_THROUGH_TIME
    ),
    "glif": _Rules(
        {"tau": (2.0,), "v_reset": (0.0,), "decay_input": (True,), "detach_reset": (True, False)} | _BACK_THROUGH_TIME,
        needs_time_steps=True,
    ),
    "psn": _Rules(
        {"tau": (2.0,), "v_reset": (0.0,), "decay_input": (True,), "detach_reset": (True,)} | _BACK_THROUGH_TIME,
        needs_time_steps=True,
    ),
}


def make_neuron(
    kind: str,
    *,
    tau: float = 2.0,
    v_threshold: float = 1.0,
    v_reset: float | None = 0.0,
    decay_input: bool = True,
    detach_reset: bool = True,
    surrogate: str = "sigmoid",
    surrogate_alpha: float = 4.0,
    backend: str = "auto",
    time_steps: int | None = None,
    detach_membrane: bool = False,
) -> nn.Module:
    """Build a spiking layer over [T, ...] that starts every call from rest.

    `lif`, `if` (no leak) and `plif` (learned tau) take every argument that their equations have. The others have
    arguments that they cannot use; such an argument must keep its default (or the value that the kind has anyway):

    | kind | not used | instead |
    |---|---|---|
    | `if` | tau, decay_input | u = v + x |
    | `clif` | v_reset, decay_input, detach_reset | soft reset by threshold + sigmoid(m), not detached; x whole |
    | `ilif` | v_reset, decay_input, surrogate | soft reset, x whole, rectangular derivative on [0, 4] |
    | `glif` | tau, v_reset, decay_input, detach_reset | all learned; v_threshold is the start, 1.0 means 0.5 |
    | `psn` | tau, v_reset, decay_input, detach_reset | no reset; v_threshold is the start of a learned threshold |

    `klif` uses all. `glif` and `psn` have parameters per time step. `backend` matters to `lif` alone.

    Args:
        kind: one of `NEURON_KINDS`.
        tau: membrane time constant in time steps, > 1.
        v_threshold: firing threshold; a tie fires.
        v_reset: value of the hard reset, or None to subtract the threshold.
        decay_input: divide the input by tau as well.
        detach_reset: let no gradient through the reset.
        surrogate: shape of the surrogate derivative: `sigmoid`, `atan`, `piecewise_quadratic` or `rect`.
        surrogate_alpha: its slope, > 0.
        backend: `auto`, `torch`, `native`, `triton` or `cuda`.
        time_steps: time steps T of every call, for `glif` and `psn`.
        detach_membrane: let no gradient go from one time step to the step before; for `lif`, `if` and `plif`.

    Returns:
        A layer for input [T, ...] that returns spikes of the same shape.

    Raises:
        ValueError: tau <= 1; an unknown kind, surrogate or backend; an argument that the kind cannot use is set; no
            `time_steps` for a kind that needs them; or a threshold of `glif` outside (0, 1).
    """
    given: dict[str, Any] = {"tau": tau, "v_reset": v_reset, "decay_input": decay_input, "detach_reset": detach_reset}
    given |= {"surrogate": surrogate, "surrogate_alpha": surrogate_alpha, "detach_membrane": detach_membrane}
    _check_arguments(kind, given, backend, time_steps)
    dynamics = LifDynamics(
        tau=float(tau),
        v_threshold=float(v_threshold),
        v_reset=None if v_reset is None else float(v_reset),
        decay_input=decay_input,
        detach_reset=detach_reset,
        surrogate=surrogate,
        alpha=float(surrogate_alpha),
        detach_membrane=detach_membrane,
    )
    if kind == "lif":
        return Lif(dynamics, backend)
    if kind == "plif":
        return Plif(dynamics)
    if kind == "if":
        return Lif(replace(dynamics, tau=math.inf, decay_input=False), backend)
    return _spikingjelly_kind(kind, dynamics, time_steps or 0)


def make_lif(**options: Any) -> Lif:
    """Build a LIF layer: u = v + (x - v) / tau, spike where u >= v_threshold, then reset (Spikformer, 2023).

    Args:
        options: see `make_neuron`.

    Returns:
        A layer for input [T, ...] that returns spikes of the same shape.

    Raises:
        ValueError: see `make_neuron`.
    """
    layer = make_neuron("lif", **options)
    assert isinstance(layer, Lif)
    return layer


class RecurrentLif(nn.Module):
    """LIF layer with all-to-all recurrence over [T, B, H] (the RLeaky neuron of snnTorch, Eshraghian et al., 2023).

    m_t = beta m_{t-1} + I_t + (R s_{t-1} + b) - threshold s_{t-1}; s_t = [m_t > threshold]. Every call starts from
    zero.

    Args:
        size: neurons H.
        beta: membrane decay, clamped to [0, 1].
        v_threshold: firing threshold, strict.
        surrogate: shape of the surrogate derivative, as in `make_neuron`.
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
    kinds = (neuron.BaseNode, Glif, Psn, RecurrentLif)
    return {name: module for name, module in model.named_modules() if isinstance(module, kinds)}


@contextmanager
def carried_state(model: nn.Module) -> Iterator[None]:
    """Let everything with a state start a call where its previous call ended, inside the `with` block.

    Calls with the slices of an input, one after the other, then give the spikes of one call with all time steps, and,
    unless it is switched off, the gradients. The states are dropped at entry and at exit. Besides the spiking layers,
    every module with an attribute `carries` and a method `forget` takes part.

    Args:
        model: any module.

    Raises:
        RuntimeError: a layer works on all time steps at once (`glif`, `psn`) or keeps no state (RLIF).
    """
    layers: dict[str, Any] = dict(spiking_layers(model))
    for name, layer in layers.items():
        if isinstance(layer, RecurrentLif) or layer.needs_all_steps:
            kind = type(layer).__name__
            raise RuntimeError(
                f"layer '{name}' ({kind}) works on all time steps at once: run the model with all of them in one call"
            )
    carriers: list[Any] = [module for module in model.modules() if hasattr(module, "carries")]
    try:
        for carrier in carriers:
            carrier.forget()
            carrier.carries = True
        yield
    finally:
        for carrier in carriers:
            carrier.forget()
            carrier.carries = False


def backend_of(model: nn.Module, device: torch.device) -> str:
    """Return the kernel that runs the LIF layers of a model; all other kinds always run on torch.

    Args:
        model: any module.
        device: where it runs.
    """
    requested = next((layer.backend for layer in model.modules() if isinstance(layer, Lif)), "torch")
    return choose_backend(requested, device)


def _spikingjelly_kind(kind: str, d: LifDynamics, time_steps: int) -> nn.Module:
    """Build a layer of a kind that runs on spikingjelly's code."""
    surrogate = surrogate_function(d.surrogate, d.alpha)
    if kind == "klif":
        return Klif(
            tau=d.tau,
            decay_input=d.decay_input,
            v_threshold=d.v_threshold,
            v_reset=d.v_reset,
            surrogate_function=surrogate,
            detach_reset=d.detach_reset,
            step_mode="m",
        )
    if kind == "clif":
        return Clif(tau=d.tau, v_threshold=d.v_threshold, surrogate_function=surrogate, step_mode="m")
    if kind == "ilif":
        counts = MultiLevelSpikeCount(MAX_SPIKE_COUNT)
        return Ilif(d.tau, d.v_threshold, counts, detach_reset=d.detach_reset, step_mode="m")
    if kind == "psn":
        return Psn(time_steps, d.v_threshold, surrogate)
    threshold = GLIF_THRESHOLD if d.v_threshold == 1 else d.v_threshold
    if not 0 < threshold < 1:
        raise ValueError(f"the threshold of a 'glif' layer must be between 0 and 1, got {threshold}")
    return Glif(time_steps, threshold, surrogate)


def _check_arguments(kind: str, given: dict[str, Any], backend: str, time_steps: int | None) -> None:
    if kind not in _RULES:
        raise ValueError(f"unknown kind of neuron '{kind}'; known: {', '.join(NEURON_KINDS)}")
    _check_surrogate(given["surrogate"])
    if given["tau"] <= 1:
        raise ValueError(f"tau must be greater than 1, got {given['tau']}")
    if backend not in BACKENDS:
        raise ValueError(f"unknown neuron backend '{backend}'; known: {', '.join(BACKENDS)}")
    rules = _RULES[kind]
    for name, allowed in rules.fixed.items():
        if given[name] not in allowed:
            raise ValueError(f"a '{kind}' layer has no use for {name} = {given[name]}; leave it at {allowed[0]}")
    if rules.needs_time_steps and not time_steps:
        raise ValueError(f"a '{kind}' layer has parameters for each time step and needs time_steps, got {time_steps}")


def _check_surrogate(surrogate: str) -> None:
    if surrogate not in SURROGATES:
        raise ValueError(f"unknown surrogate '{surrogate}'; known: {', '.join(SURROGATES)}")
