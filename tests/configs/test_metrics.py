"""Names of metrics."""

from __future__ import annotations

from pathlib import Path

import pytest

from configs.metrics import METRICS, is_metric


@pytest.mark.parametrize(
    ("name", "known"),
    [
        ("val_accuracy", True),
        ("val_firing_rate", True),
        ("val_firing_rate.block.0.attn.q_lif", True),
        ("val_firing_rate.", False),
        ("val_accuracy.block", False),
        ("test_accuracy", False),
        ("val_acc", False),
    ],
)
def test_the_shipped_trainer_s_metrics_are_known(name: str, known: bool) -> None:
    assert is_metric(name) is known


def test_every_metric_is_explained_and_none_is_of_the_test_split() -> None:
    assert all(METRICS.values())
    assert not [name for name in METRICS if name.startswith("test_")]


def test_the_documentation_lists_every_metric() -> None:
    page = (Path(__file__).parents[2] / "docs" / "search-spaces.md").read_text()
    assert {name for name in METRICS if f"| `{name}` | {METRICS[name]} |" in page} == set(METRICS)
