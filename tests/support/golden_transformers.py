"""Reference runs of the published spiking transformers: fill a model as they were filled, run it, compare everything.

Weights and inputs are drawn from numpy's generator by the names of the published keys, so a case holds no weights.
"""

from __future__ import annotations

import json
import os
import zlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from golden_cases import DEFAULT_DIR
from golden_families import build_case
from torch import Tensor, nn

from trainers.keymaps.keymap import KeyMap
from trainers.losses import LOSSES
from trainers.neurons import spiking_layers

LOGITS, RATES, GRADIENTS = 1e-9, 1e-12, 1e-7  # absolute, absolute, relative
_CASE_ENTRIES = {
    "id", "model", "official", "constructor_kwargs", "T", "B", "input", "fill", "overrides", "targets", "loss", "tet",
    "param_count", "keys", "unused_keys", "probe", "variants",
}  # fmt: skip
_RUN_ENTRIES = {
    "logits", "loss", "firing_rates", "grad_norms", "grad_norm_total", "no_grad_keys_count", "bn_after",
}  # fmt: skip
MODES = ("eval", "train")


@dataclass
class Run:
    """One variant of one case in one mode, computed with our model; `changes` of its arguments make it another one."""

    case: dict[str, Any] = field(repr=False)
    variant: str
    mode: str
    changes: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.model, self.keymap = build_case(self.case, self.variant, **self.changes)
        self.expected: dict[str, Any] = self.case["variants"][self.variant][self.mode]
        self.ours = {key: self._our(key) for key, _ in self.case["keys"]}

    def check(self) -> None:
        """Fail unless everything the case says is so."""
        unknown = (self.case.keys() - _CASE_ENTRIES) | (self.expected.keys() - _RUN_ENTRIES)
        assert not unknown, f"entries nobody compares: {sorted(unknown)}"
        weights = self._filled()
        self.model.load_state_dict(self.keymap.convert(weights, self.model))
        self._check_probe(weights)
        self._check_parameters()
        self._check_neurons()
        self.model.train(self.mode == "train")
        rates = self._watch_rates()
        logits, loss = self._forward()
        assert _distance(logits.detach(), self.expected["logits"]) <= LOGITS, "logits"
        assert abs(float(loss.detach()) - self.expected["loss"]) <= LOGITS, "loss"
        self._check_rates(rates)
        if "grad_norms" in self.expected:
            loss.backward()
            self._check_gradients()
        self._check_statistics()

    def _our(self, key: str) -> str:
        name = self.keymap.rename(key)
        assert name is not None, f"{self.case['id']}: no rule of {self.keymap.source} knows '{key}'"
        return name

    def _filled(self) -> dict[str, Tensor]:
        """Return the published state dict with every entry drawn by its key."""
        seed, gain, shift = (self.case["fill"][name] for name in ("seed", "g", "b0"))
        keys = {key for key, _ in self.case["keys"]}
        weights = {}
        for key, shape in self.case["keys"]:
            prefix, _, last = key.rpartition(".")
            if last == "num_batches_tracked":
                weights[key] = torch.zeros((), dtype=torch.int64)
                continue
            z = _normal(key, seed, shape)
            if last == "running_mean":
                value = 0.1 * z
            elif last == "running_var":
                value = 0.8 + 0.2 * z**2
            elif len(shape) >= 2:
                value = gain * z / np.sqrt(np.prod(shape[1:]))
            elif len(shape) == 1 and last == "weight":
                value = 1 + 0.1 * z
            else:
                is_shift = len(shape) == 1 and last == "bias" and f"{prefix}.running_mean" in keys
                value = (shift if is_shift else 0.0) + 0.1 * z
            weights[key] = torch.from_numpy(np.asarray(value))
        return weights

    def _input(self) -> Tensor:
        recipe = self.case["input"]
        z = _normal("input", self.case["fill"]["seed"], recipe["shape"])
        match recipe["kind"]:
            case "gaussian":
                return torch.from_numpy(z)
            case "event_counts":
                return torch.from_numpy(np.floor(np.abs(z)))
            case kind:
                raise AssertionError(f"unknown kind of input '{kind}'")

    def _forward(self) -> tuple[Tensor, Tensor]:
        logits = self.model(self._input())
        targets = torch.tensor(self.case["targets"])
        match self.case["loss"]:
            case "cross_entropy":
                loss = nn.functional.cross_entropy(logits, targets)
            case "tet":
                tet = self.case["tet"]
                function = LOSSES.create("tet", lamb=tet["lamb"], mean=tet["means"], label_smoothing=0.0)
                loss = function(logits, targets)
            case kind:
                raise AssertionError(f"unknown loss '{kind}'")
        return logits, loss

    def _check_probe(self, weights: dict[str, Tensor]) -> None:
        probe, inputs = self.case["probe"], self._input()
        first = weights[probe["weight_key"]].flatten()[:3]
        assert _distance(first, probe["first3"]) < 1e-12, "numpy's generator gives another stream"
        assert _distance(inputs.flatten()[:3], probe["input_first3"]) < 1e-12
        assert abs(float(inputs.sum()) - probe["input_sum"]) < 1e-8

    def _check_parameters(self) -> None:
        total = sum(parameter.numel() for parameter in self.model.parameters())
        assert total == self.case["param_count"], f"{total} trainable parameters, expected {self.case['param_count']}"
        assert set(self.ours.values()) == set(self.model.state_dict()), "the state dict has other entries"

    def _check_neurons(self) -> None:
        layers = spiking_layers(self.model)
        for name, tau, threshold in self.case["variants"][self.variant]["lif"]:
            layer = layers[self._our(name)]
            assert layer.v_threshold == pytest.approx(threshold), f"threshold of {name}"
            if tau != "plif":
                assert layer.tau == pytest.approx(tau), f"time constant of {name}"

    def _watch_rates(self) -> dict[str, list[Tensor]]:
        """Collect the spikes of every layer; one may run several times."""
        seen: dict[str, list[Tensor]] = {}
        for name, layer in spiking_layers(self.model).items():
            spikes = seen.setdefault(name, [])
            layer.register_forward_hook(lambda _layer, _args, out, spikes=spikes: spikes.append(out.detach()))
        return seen

    def _check_rates(self, seen: dict[str, list[Tensor]]) -> None:
        for name, expected in self.expected["firing_rates"]:
            spikes = seen[self._our(name)]
            assert spikes, f"{name} did not run"
            rate = float(sum(s.sum() for s in spikes) / sum(s.numel() for s in spikes))
            assert abs(rate - expected) <= RATES, f"firing rate of {name}: {rate}, expected {expected}"

    def _check_gradients(self) -> None:
        gradients = {name: parameter.grad for name, parameter in self.model.named_parameters()}
        unused = {name for name, gradient in gradients.items() if gradient is None or not gradient.any()}
        expected_unused = {self._our(key) for key in self.case.get("unused_keys", [])}
        without = {name for name, gradient in gradients.items() if gradient is None}
        assert without == expected_unused, "other parameters take no part in the forward pass"
        assert self.expected["no_grad_keys_count"] == len(without)
        for key, expected in self.expected["grad_norms"].items():
            gradient = gradients[self._our(key)]
            norm = 0.0 if gradient is None else float(gradient.norm())
            assert norm == pytest.approx(expected, rel=GRADIENTS, abs=1e-12), f"gradient of {key}; {len(unused)} zero"
        total = float(torch.stack([g.norm() for g in gradients.values() if g is not None]).norm())
        assert total == pytest.approx(self.expected["grad_norm_total"], rel=GRADIENTS), "norm of all gradients"

    def _check_statistics(self) -> None:
        for name, sums in self.expected.get("bn_after", {}).items():
            prefix = self._our(f"{name}.running_mean").removesuffix(".running_mean")
            layer = self.model.get_submodule(prefix)
            assert isinstance(layer, nn.modules.batchnorm._BatchNorm)
            assert layer.running_mean is not None
            assert layer.running_var is not None
            assert float(layer.running_mean.sum()) == pytest.approx(sums["running_mean_sum"], abs=LOGITS), name
            assert float(layer.running_var.sum()) == pytest.approx(sums["running_var_sum"], abs=LOGITS), name


def check(case: dict[str, Any], variant: str, mode: str) -> None:
    """Fail unless our model gives the numbers of a recorded run.

    The recorder asked the published neurons for other thresholds and for the soft reset after they were built. Cases
    with other thresholds show in their list of neurons that this had no effect; of the reset nothing is listed. The
    numbers of such a case must be those of one of the two resets, all of them.
    """
    try:
        Run(case, variant, mode).check()
    except AssertionError:
        if not case["overrides"].get("soft_reset"):
            raise
        overrides = {key: value for key, value in case["overrides"].items() if key != "soft_reset"}
        Run({**case, "overrides": overrides}, variant, mode).check()


def _normal(key: str, seed: int, shape: list[int]) -> np.ndarray[Any, Any]:
    return np.asarray(np.random.default_rng(zlib.crc32(key.encode()) + seed).standard_normal(shape))


def _distance(value: Tensor, expected: Any) -> float:
    wanted = torch.as_tensor(expected, dtype=torch.float64)
    assert value.shape == wanted.shape, f"shape {list(value.shape)}, expected {list(wanted.shape)}"
    return float((value - wanted).abs().max())


def cases() -> list[tuple[str, dict[str, Any]]]:
    """Return (id, case) of every file; the folder is the one of `golden_cases`."""
    root = Path(os.environ.get("SPIKEBENCH_GOLDEN_DIR") or DEFAULT_DIR) / "transformers"
    found = [json.loads(file.read_text()) for file in sorted(root.glob("*.json"))]
    if not found:
        raise pytest.UsageError(f"there are no reference numbers in {root}; correct SPIKEBENCH_GOLDEN_DIR")
    return [(case["id"], case) for case in found]


def runs() -> list[Any]:
    """Return (case, variant, mode) of every run of every case as pytest parameters."""
    return [
        pytest.param(case, variant, mode, id=f"{name}-{variant}-{mode}")
        for name, case in cases()
        for variant, content in case["variants"].items()
        for mode in MODES
        if mode in content
    ]


def family(case: dict[str, Any], variant: str = "as_released") -> tuple[nn.Module, KeyMap]:
    """Return our model of a case, filled with its weights, and the map of its keys."""
    run = Run(case, variant, "eval")
    run.model.load_state_dict(run.keymap.convert(run._filled(), run.model))
    return run.model.eval(), run.keymap
