"""Names of metrics."""

from __future__ import annotations

from pathlib import Path

import pytest

from configs.metrics import METRICS, is_metric, metrics_of


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


@pytest.mark.parametrize(
    ("name", "known"),
    [
        ("val_loss", True),
        ("train_loss", True),
        ("val_spike_density", True),
        ("val_temporal_sparsity", True),
        ("epoch_seconds", True),
        ("val_accuracy", False),
        ("train_accuracy", False),
        ("val_f1", False),
        ("val_firing_rate", False),
        ("val_firing_rate.rlif1", False),
    ],
)
def test_an_encoder_alone_has_the_metrics_that_need_no_labels(name: str, known: bool) -> None:
    assert is_metric(name, "encoder_only") is known
    assert (name in metrics_of("encoder_only")) is known
    assert is_metric(name, "stal_srnn")


def test_every_metric_is_explained_and_none_is_of_the_test_split() -> None:
    assert all(METRICS.values())
    assert not [name for name in METRICS if name.startswith("test_")]


def test_the_documentation_lists_every_metric() -> None:
    page = (Path(__file__).parents[2] / "docs" / "search-spaces.md").read_text()
    assert {name for name in METRICS if f"| `{name}` | {METRICS[name]} |" in page} == set(METRICS)
