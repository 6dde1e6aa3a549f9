"""The reader of reference numbers fails where it must: nothing is skipped, nothing passes unseen."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from golden_cases import GoldenCase, golden_cases


def case(**changes: Any) -> GoldenCase:
    raw = {
        "id": "case",
        "settings": {},
        "params": {},
        "inputs": {"x": {"kind": "const", "shape": [2], "value": 0.5, "checksum": 1.0}},
        "expected": {"y": {"shape": [2], "data": [1.0, 2000.0]}},
        "notes": [],
    }
    return GoldenCase("component", {**raw, **changes})


def test_agreement_is_relative_to_the_largest_value() -> None:
    case().compare({"y": torch.tensor([1.0 + 1.9e-6, 2000.0], dtype=torch.float64)})
    with pytest.raises(AssertionError, match=r"case/y: off by 2\.1e-06, allowed 2e-06"):
        case().compare({"y": torch.tensor([1.0 + 2.1e-6, 2000.0], dtype=torch.float64)})


@pytest.mark.parametrize(
    ("actual", "message"),
    [
        ({}, r"expected, but not computed: \['y'\]"),
        ({"y": [1.0, float("nan")]}, "off by nan"),
        ({"y": [[1.0, 2000.0]]}, r"shape \[1, 2\], expected \[2\]"),
    ],
)
def test_what_is_missing_or_no_number_fails(actual: dict[str, Any], message: str) -> None:
    with pytest.raises(AssertionError, match=message):
        case().compare(actual)


def test_entries_nobody_compares_fail() -> None:
    with pytest.raises(AssertionError, match=r"entries nobody compares: \['variants'\]"):
        case(variants={}).compare({"y": [1.0, 2000.0]})
    with pytest.raises(AssertionError, match="entries nobody compares"):
        case(expected={"y": {"shape": [2], "data": [1.0, 2000.0], "max": 2000.0}}).compare({"y": [1.0, 2000.0]})


@pytest.mark.parametrize("entry", ["sum", "abs_sum", "sq_sum", "head", "tail"])
def test_every_figure_of_a_summary_is_compared(entry: str) -> None:
    summary = {"shape": [3], "sum": 2.0, "abs_sum": 4.0, "sq_sum": 6.0, "head": [-1.0, 1.0], "tail": [2.0]}
    case(expected={"y": summary}).compare({"y": [-1.0, 1.0, 2.0]})
    wrong = {**summary, entry: [0.5] * len(summary[entry]) if isinstance(summary[entry], list) else 0.5}
    with pytest.raises(AssertionError, match=f"case/y {entry}: off by"):
        case(expected={"y": wrong}).compare({"y": [-1.0, 1.0, 2.0]})


def test_a_changed_random_stream_is_noticed() -> None:
    recipe = {"kind": "uniform", "shape": [2], "lo": 0.0, "hi": 1.0, "checksum": 5.0}
    with pytest.raises(
        AssertionError, match=r"case/x: the drawn array sums to .*, not 5\.0: numpy's stream has changed"
    ):
        _ = case(inputs={"x": recipe}).inputs


def test_all_files_of_the_folder_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "family").mkdir()
    for name in ("a", "b"):
        content = {"component": name, "cases": [{**case().raw, "id": f"{name}{i}"} for i in range(2)]}
        (tmp_path / "family" / f"{name}.json").write_text(json.dumps(content))
    monkeypatch.setenv("SPIKEBENCH_GOLDEN_DIR", str(tmp_path))
    assert [parameter.id for parameter in golden_cases("family")] == ["a-a0", "a-a1", "b-b0", "b-b1"]
    with pytest.raises(pytest.UsageError, match=r"no reference numbers in .*other"):
        golden_cases("other")
