from __future__ import annotations

import math

import pytest

from orchestrator.reading.labels import (
    END_REASONS,
    ago,
    duration,
    end_text,
    hours,
    metric_label,
    metric_text,
    number_text,
    roughly,
    short_keys,
)
from orchestrator.storage.tables import EndReason


@pytest.mark.parametrize(
    ("name", "label"),
    [
        ("val_accuracy", "Validation accuracy [%]"),
        ("val_spike_density", "Validation spike density"),
        ("train_loss", "Training loss"),
        ("epoch_seconds", "Epoch [s]"),
        ("peak_memory_mb", "Peak memory [MB]"),
        ("val_firing_rate.blocks.0.q_lif", "Validation firing rate, blocks.0.q_lif"),
    ],
)
def test_metrics_have_names_and_units(name: str, label: str) -> None:
    assert metric_label(name, unit=True) == label


def test_values_have_units_and_few_digits() -> None:
    assert metric_text("val_accuracy", 0.92511) == "92.51 %"
    assert metric_text("val_spike_density", 0.00353831) == "0.003538"
    assert metric_text("peak_memory_mb", 412.0) == "412 MB"
    assert metric_text("val_loss", math.nan) == metric_text("val_loss", None) == "-"
    assert [number_text(value) for value in (True, 12, 3.0, 1.23456e-6, "adamw")] == [
        "True",
        "12",
        "3",
        "1.235e-06",
        "adamw",
    ]


@pytest.mark.parametrize(
    ("seconds", "exact", "rough"),
    [
        (4.24, "4.2 s", "about 5 s"),
        (43, "43 s", "about 45 s"),
        (200, "3 min 20 s", "about 3 min"),
        (7500, "2 h 05 min", "about 2 h"),
        (9000, "2 h 30 min", "about 2 h 30 min"),
        (3 * 86400 + 4 * 3600, "3 d 4 h", "about 3.2 days"),
        (math.nan, "-", "-"),
    ],
)
def test_times_read_well(seconds: float, exact: str, rough: str) -> None:
    assert (duration(seconds), roughly(seconds)) == (exact, rough)


def test_age_is_coarse() -> None:
    assert [ago(s) for s in (1, 40, 420, 7200, 300_000)] == [
        "just now",
        "40 s ago",
        "7 min ago",
        "2 h ago",
        "3 days ago",
    ]
    assert [hours(s) for s in (156, 26_100, 4_334_400)] == ["0.0433 h", "7.25 h", "1,204 h"]


def test_short_keys_tell_parameters_apart() -> None:
    keys = ["loss.omega", "loss.c", "neuron.beta", "encoder.beta", "optimizer.name"]
    assert list(short_keys(keys).values()) == ["omega", "loss.c", "neuron.beta", "encoder.beta", "optimizer.name"]


def test_every_end_reason_has_words() -> None:
    assert set(END_REASONS) == set(EndReason)
    assert end_text("invented later") == "invented later"
