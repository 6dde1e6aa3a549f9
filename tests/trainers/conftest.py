"""What the tests of the training loop share: a reporter that keeps what it is told, and small, quick configurations."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from configs.resolve import from_dict
from configs.schema import RunConfig
from trainers.protocol import EpochReport, RunFacts, SavedCheckpoint, Verdict

# 359 training images in 6 batches, 180 validation images in 3
QUICK_DATA = {"name": "digits", "val_fraction": 0.1, "test_fraction": 0.7}
QUICK_TRAINING = {"epochs": 3, "batch_size": 64, "keep_checkpoints": 50}


class Recorder:
    """Keep what a trainer reports; answer with a verdict at the n-th time of asking."""

    def __init__(self, verdict: Verdict = Verdict.CONTINUE, at: int = 0) -> None:
        self.epochs: list[EpochReport] = []
        self.saved: list[SavedCheckpoint] = []
        self.events: list[tuple[str, int]] = []
        self.facts: list[RunFacts] = []
        self.asked = 0
        self._verdict, self._at = verdict, at

    def started(self, facts: RunFacts) -> None:
        self.facts.append(facts)

    def epoch(self, report: EpochReport) -> None:
        self.epochs.append(report)
        self.events.append(("epoch", report.epoch))

    def checkpoint(self, saved: SavedCheckpoint) -> None:
        self.saved.append(saved)
        self.events.append(("checkpoint", saved.epoch))

    def verdict(self) -> Verdict:
        self.asked += 1
        return self._verdict if self.asked == self._at else Verdict.CONTINUE

    def numbers(self) -> dict[int, dict[str, float]]:
        """Metrics by epoch, without the one that is a wall time."""
        return {
            report.epoch: {name: value for name, value in report.metrics.items() if name != "epoch_seconds"}
            for report in self.epochs
        }


@pytest.fixture
def recorder() -> type[Recorder]:
    return Recorder


@pytest.fixture
def quick() -> Callable[..., RunConfig]:
    """Return a function that makes a small configuration of a classifier or an encoder alone, changed by sections."""

    def make(model: str = "srnn", **sections: dict[str, Any]) -> RunConfig:
        base: dict[str, dict[str, Any]] = {
            "srnn": {"model": {"name": "stal_srnn", "hidden_size": 16}, "encoder": {"hidden_channels": 4}},
            "spikformer": {
                "model": {"name": "stal_spikformer", "embed_dims": 16, "num_heads": 2, "depth": 1},
                "encoder": {"time_steps": 2},
            },
            "encoder": {"model": {"name": "encoder_only"}, "encoder": {"hidden_channels": 4}},
        }[model]
        base |= {"data": QUICK_DATA, "training": QUICK_TRAINING}
        for name, section in sections.items():
            replaces = name in ("data", "encoder", "loss") and "name" in section
            base[name] = section if replaces else {**base.get(name, {}), **section}
        return from_dict(base)

    return make


@pytest.fixture
def run_dir(tmp_path: Path) -> Path:
    return tmp_path / "run"
