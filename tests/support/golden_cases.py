"""Reference numbers: read a case, draw its arrays from their recipes, compare what was computed with it."""

from __future__ import annotations

import json
import os
import zlib
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

TOLERANCE = 1e-9  # times max(1, largest expected magnitude)
DEFAULT_DIR = Path(__file__).parents[1] / "golden" / "data"
_CASE_KEYS = {"id", "settings", "params", "inputs", "expected", "notes"}
_SUMMARY_KEYS = {"shape", "sum", "abs_sum", "sq_sum", "head", "tail"}


@dataclass(frozen=True)
class GoldenCase:
    """One case of one component."""

    component: str
    raw: dict[str, Any] = field(repr=False)

    @property
    def id(self) -> str:
        return str(self.raw["id"])

    @property
    def settings(self) -> dict[str, Any]:
        return dict(self.raw.get("settings", {}))

    @property
    def expected(self) -> dict[str, Any]:
        return dict(self.raw["expected"])

    @cached_property
    def params(self) -> dict[str, torch.Tensor]:
        return {name: self._fill(name, recipe) for name, recipe in self.raw.get("params", {}).items()}

    @cached_property
    def inputs(self) -> dict[str, torch.Tensor]:
        return {name: self._fill(name, recipe) for name, recipe in self.raw.get("inputs", {}).items()}

    def _fill(self, name: str, recipe: dict[str, Any]) -> torch.Tensor:
        array = _draw(recipe, np.random.default_rng(zlib.crc32(f"{self.id}/{name}".encode())))
        assert list(array.shape) == recipe["shape"], f"{name}: shape {array.shape}"
        total = float(array.sum())
        assert abs(total - recipe["checksum"]) <= TOLERANCE * max(1.0, abs(recipe["checksum"])), (
            f"{self.id}/{name}: the drawn array sums to {total}, not {recipe['checksum']}: numpy's stream has changed"
        )
        return torch.from_numpy(np.ascontiguousarray(array))

    def compare(self, actual: dict[str, Any]) -> None:
        """Fail unless every expected entry was computed and agrees."""
        unknown = self.raw.keys() - _CASE_KEYS
        assert not unknown, f"{self.id} has entries nobody compares: {sorted(unknown)}"
        expected = self.expected
        missing = expected.keys() - actual.keys()
        assert not missing, f"{self.id}: expected, but not computed: {sorted(missing)}"
        for name, wanted in expected.items():
            value = torch.as_tensor(actual[name], dtype=torch.float64).detach()
            _compare_array(f"{self.id}/{name}", value, wanted)


def _draw(recipe: dict[str, Any], rng: np.random.Generator) -> np.ndarray[Any, Any]:
    shape = tuple(recipe["shape"])
    match recipe["kind"]:
        case "normal":
            return np.asarray(recipe.get("shift", 0.0) + recipe["scale"] * rng.standard_normal(shape))
        case "uniform":
            return rng.uniform(recipe["lo"], recipe["hi"], shape)
        case "bernoulli":
            return (rng.random(shape) < recipe["p"]).astype(np.float64)
        case "integers":
            return rng.integers(recipe["lo"], recipe["hi"], shape)
        case "const":
            return np.full(shape, recipe["value"], dtype=np.float64)
        case "literal":
            return np.asarray(recipe["value"], dtype=np.float64).reshape(shape)
        case kind:
            raise AssertionError(f"unknown recipe '{kind}'")


def _compare_array(where: str, value: torch.Tensor, wanted: dict[str, Any]) -> None:
    assert list(value.shape) == wanted["shape"], f"{where}: shape {list(value.shape)}, expected {wanted['shape']}"
    flat = value.reshape(-1)
    if "data" in wanted:
        assert wanted.keys() == {"shape", "data"}, f"{where}: entries nobody compares in {sorted(wanted)}"
        _close(where, flat, wanted["data"])
        return
    assert wanted.keys() == _SUMMARY_KEYS, f"{where}: entries nobody compares in {sorted(wanted)}"
    _close(f"{where} sum", flat.sum().view(1), [wanted["sum"]])
    _close(f"{where} abs_sum", flat.abs().sum().view(1), [wanted["abs_sum"]])
    _close(f"{where} sq_sum", flat.square().sum().view(1), [wanted["sq_sum"]])
    _close(f"{where} head", flat[: len(wanted["head"])], wanted["head"])
    _close(f"{where} tail", flat[len(flat) - len(wanted["tail"]) :], wanted["tail"])


def _close(where: str, value: torch.Tensor, wanted: list[float]) -> None:
    expected = torch.tensor(wanted, dtype=torch.float64)
    assert value.shape == expected.shape, f"{where}: {value.numel()} values, expected {expected.numel()}"
    if not expected.numel():
        return
    worst = (value - expected).abs().max().item()
    allowed = TOLERANCE * max(1.0, expected.abs().max().item())
    assert worst <= allowed, f"{where}: off by {worst:.3g}, allowed {allowed:.3g}"  # NaN fails too


def _unfold(case: dict[str, Any]) -> dict[str, Any]:
    """Give the history of a search, which lists its entries side by side, the shape of the other cases."""
    if "points" not in case:
        return case
    results = ("front_indices", "score", "best_score_index")
    expected = {name: np.asarray(case[name], dtype=np.float64) for name in results}
    return {
        "id": case["id"],
        "settings": {name: value for name, value in case.items() if name not in ("id", *results)},
        "expected": {name: {"shape": list(a.shape), "data": a.reshape(-1).tolist()} for name, a in expected.items()},
    }


def golden_cases(folder: str) -> list[Any]:
    """Return every case of every file of a folder as pytest parameters.

    The folder is looked for in the directory SPIKEBENCH_GOLDEN_DIR, by default the one beside the tests.
    """
    root = Path(os.environ.get("SPIKEBENCH_GOLDEN_DIR") or DEFAULT_DIR) / folder
    files = sorted(root.glob("*.json"))
    if not files:
        raise pytest.UsageError(f"there are no reference numbers in {root}; correct SPIKEBENCH_GOLDEN_DIR")
    found = []
    for file in files:
        content = json.loads(file.read_text())
        found += [
            pytest.param(GoldenCase(content["component"], _unfold(case)), id=f"{content['component']}-{case['id']}")
            for case in content["cases"]
        ]
    return found
