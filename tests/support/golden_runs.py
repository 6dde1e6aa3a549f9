"""Run a module or a loss on a reference case: fill it, call it, take the gradients, margins and buffers it asks for."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import pytest
import torch
from golden_cases import GoldenCase
from torch import Tensor, nn

from trainers.neurons import Lif, RecurrentLif


class Settings(dict[str, Any]):
    """Settings of a case, each of which must be used."""

    def done(self, *ignored: str) -> None:
        left = self.keys() - set(ignored)
        assert not left, f"settings nobody used: {sorted(left)}"


def prepare(module: nn.Module, params: Mapping[str, Tensor], mode: str) -> nn.Module:
    """Fill a module; each of its weights must be given and each given one must have a place."""
    module = module.double().train(mode == "train")
    state = module.state_dict()
    counters = {name for name in state if name.endswith("num_batches_tracked")}
    weights = {name: value for name, value in params.items() if not neuron_constant(module, name, value)}
    assert weights.keys() == state.keys() - counters
    module.load_state_dict({**state, **weights})
    return module


def neuron_constant(module: nn.Module, name: str, value: Tensor) -> bool:
    """Check a constant of a recurrent neuron against the module's; return whether it is one."""
    layer, _, constant = name.rpartition(".")
    if constant not in ("beta", "threshold", "graded_spikes_factor"):
        return False
    neuron = module.get_submodule(layer)
    assert isinstance(neuron, RecurrentLif)
    dynamics = neuron.dynamics
    own = {"beta": dynamics.beta, "threshold": dynamics.v_threshold, "graded_spikes_factor": 1.0}[constant]
    given = min(max(value.item(), 0.0), 1.0) if constant == "beta" else value.item()
    assert given == pytest.approx(own, abs=0)
    return True


class Run:
    """One forward pass of a module, with everything a case may expect of it."""

    def __init__(self, case: GoldenCase, module: nn.Module, mode: str) -> None:
        self.case = case
        self.module = prepare(module, case.params, mode)
        self.inputs = {
            name: value.clone().requires_grad_(value.is_floating_point()) for name, value in case.inputs.items()
        }
        self.margins: list[Tensor] = []
        for layer in self.module.modules():
            if isinstance(layer, Lif | RecurrentLif):
                layer.register_forward_hook(self._note_margin)

    def _note_margin(self, layer: nn.Module, args: tuple[Tensor, ...], output: Any) -> None:
        if isinstance(layer, RecurrentLif):
            membranes, threshold = output[1], layer.dynamics.v_threshold
        else:
            membranes, threshold = lif_membranes(args[0], layer), layer.v_threshold
        self.margins.append((membranes - threshold).abs().min().detach())

    def results(self, outputs: dict[str, Tensor], cotangent_of: Mapping[str, str] | None = None) -> dict[str, Any]:
        """Return the outputs and, as far as the case expects them, margins, gradients and buffers."""
        found: dict[str, Any] = dict(outputs)
        pairs = {name: name for name in outputs} if cotangent_of is None else cotangent_of
        objective = sum(
            (self.case.inputs[f"cotangent_{name}"] * outputs[output]).sum()
            for name, output in pairs.items()
            if f"cotangent_{name}" in self.case.inputs
        )
        cotangents = {name for name in self.case.inputs if name.startswith("cotangent_")}
        assert cotangents <= {f"cotangent_{name}" for name in pairs}
        for name in self.case.expected:
            if name == "min_margin":
                found[name] = torch.stack(self.margins).min()
            elif name == "objective":
                found[name] = objective
            elif name.startswith("grad:"):
                found[name] = gradient(objective, self.module.get_parameter(name.removeprefix("grad:")))
            elif name.startswith("grad_"):
                found[name] = gradient(objective, self.inputs[name.removeprefix("grad_")])
            elif name.endswith(("_after", "_after_forward")):
                found[name] = self._state_after(name)
        return found

    def _state_after(self, name: str) -> Tensor:
        key = re.sub("_after(_forward)?$", "", name)
        if block := re.fullmatch(r"bn(\d)_(running_\w+)", key):
            key = f"Z{block[1]}.bn.{block[2]}"
        return self.module.state_dict()[key]


def gradient(objective: Any, of: Tensor) -> Tensor:
    return torch.autograd.grad(objective, of, retain_graph=True)[0]


def lif_membranes(x: Tensor, layer: Lif) -> Tensor:
    """Membranes of a LIF layer before the reset, written down plainly."""
    assert layer.v_reset is not None
    assert layer.decay_input
    v, membranes = torch.full_like(x[0], layer.v_reset), []
    for current in x:
        v = v + (current - (v - layer.v_reset)) / layer.tau
        membranes.append(v)
        v = torch.where(v >= layer.v_threshold, torch.full_like(v, layer.v_reset), v)
    return torch.stack(membranes)


def trainable_inputs(case: GoldenCase) -> dict[str, Tensor]:
    return {name: value.clone().requires_grad_(value.is_floating_point()) for name, value in case.inputs.items()}


def loss_and_gradients(case: GoldenCase, inputs: Mapping[str, Tensor], loss: Tensor) -> dict[str, Any]:
    gradients = {}
    for name in case.expected:
        if name.startswith("grad_"):
            (grad,) = torch.autograd.grad(
                loss, inputs[name.removeprefix("grad_")], retain_graph=True, allow_unused=True
            )
            gradients[name] = torch.zeros_like(inputs[name.removeprefix("grad_")]) if grad is None else grad
    return {"loss": loss, **gradients}
