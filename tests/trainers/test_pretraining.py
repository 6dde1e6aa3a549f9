"""An encoder trained alone: its run, its metrics, and the classifier that takes it over."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from configs.metrics import metrics_of
from trainers import checkpoint
from trainers.evaluation import evaluate
from trainers.protocol import CheckpointError, Result, Verdict
from trainers.training import train

ENCODERS: dict[str, dict[str, Any]] = {
    "stal": {"name": "stal", "time_steps": 3, "l1_size": 64, "l2_size": 64},
    "ancestor": {"name": "ancestor", "time_steps": 3, "l1_size": 32, "l2_size": 64},
    "convstal": {"name": "convstal", "time_steps": 3, "hidden_channels": 4},
}
FAST = {"learning_rate": 0.01}


def encoder_of(path: Path) -> dict[str, torch.Tensor]:
    """Return the encoder's part of a run's weights."""
    weights = checkpoint.load(path)["weights"]["model"]
    return {name: value for name, value in weights.items() if name.startswith("encoder.")}


@pytest.fixture
def pretrained(quick, recorder, run_dir):
    def run(kind: str, **sections: dict[str, Any]) -> Result:
        config = quick("encoder", encoder=ENCODERS[kind], optimizer=FAST, **sections)
        return train(config, recorder(), run_dir=run_dir / kind, threads=1)

    return run


@pytest.mark.parametrize("kind", ENCODERS)
def test_a_classifier_takes_over_an_encoder_that_was_trained_alone(kind, pretrained, quick, recorder, run_dir) -> None:
    alone = pretrained(kind)
    learnt = encoder_of(alone.checkpoint.path)
    encoder = {**ENCODERS[kind], "checkpoint": str(alone.checkpoint.path)}
    config = quick(encoder={**encoder, "freeze": True}, optimizer=FAST)
    frozen = train(config, recorder(), run_dir=run_dir / "frozen", threads=1)
    kept = encoder_of(frozen.checkpoint.path)
    torch.testing.assert_close(kept, learnt, rtol=0, atol=0)
    tuned = train(quick(encoder=encoder), recorder(), run_dir=run_dir / "tuned", threads=1)
    changed = encoder_of(tuned.checkpoint.path)
    assert changed.keys() == learnt.keys()
    assert not torch.equal(changed["encoder.threshold_adder"], learnt["encoder.threshold_adder"])
    assert frozen.metrics["train_loss"] < 2.303  # that of guessing: its classifier has learnt


def test_an_encoder_learns_and_reports_what_needs_no_labels(pretrained) -> None:
    result = pretrained("stal", training={"epochs": 5})
    history = checkpoint.load(result.checkpoint.path)["progress"]["history"]
    losses = [epoch["metrics"]["train_loss"] for epoch in history]
    assert losses[-1] < 0.7 * losses[0]
    assert {name for name in result.metrics if name != "learning_rate"} == {*metrics_of("encoder_only")} - {
        "peak_memory_mb"
    }
    assert result.best["val_loss"] == min(epoch["metrics"]["val_loss"] for epoch in history)


def test_it_is_measured_again_from_its_checkpoint(pretrained) -> None:
    result = pretrained("convstal", training={"epochs": 1})
    measured = evaluate(result.checkpoint.path, "val", threads=1)
    assert measured == {name: value for name, value in result.metrics.items() if name.startswith("val_")}


def test_it_is_continued_to_the_last_bit(quick, recorder, run_dir) -> None:
    config = quick("encoder", optimizer=FAST, training={"epochs": 2})
    whole = train(config, recorder(), run_dir=run_dir / "whole", threads=1)
    broken = train(config, recorder(Verdict.PREEMPT, at=8), run_dir=run_dir / "broken", threads=1)
    rest = recorder()
    done = train(config, rest, broken.checkpoint.path, run_dir=run_dir / "broken", threads=1)
    one, other = (dict(result.metrics, epoch_seconds=0) for result in (whole, done))
    assert one == other
    weights = (encoder_of(result.checkpoint.path) for result in (whole, done))
    torch.testing.assert_close(*weights, rtol=0, atol=0)


def test_an_encoder_of_another_width_is_refused_by_name(quick, recorder, run_dir) -> None:
    narrow = {**ENCODERS["stal"], "l2_size": 1}  # what the published script trained (docs/stal.md, Q5)
    alone = train(quick("encoder", encoder=narrow, training={"epochs": 1}), recorder(), run_dir=run_dir)
    encoder = {**ENCODERS["stal"], "checkpoint": str(alone.checkpoint.path)}
    with pytest.raises(CheckpointError, match=r"Z2\.lin\.weight is \[1, 64\] there and \[64, 64\] here"):
        train(quick(encoder=encoder), recorder())
