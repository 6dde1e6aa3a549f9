"""A search whose trials are trained by two processes each, on CPUs: nothing is lost and nothing left behind."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
from searching import curves, finish, query, start, wait_for, write_space

from configs.resolve import resolve
from trainers.protocol import EpochReport, SilentReporter
from trainers.training import train

pytestmark = pytest.mark.system

EPOCHS = 6
SAYS_NOTHING_OF_TIME = ("epoch_seconds",)


class Notes(SilentReporter):
    """Keep the metrics of each epoch."""

    def __init__(self) -> None:
        self.epochs: dict[int, dict[str, float]] = {}

    def epoch(self, report: EpochReport) -> None:
        self.epochs[report.epoch] = report.metrics


def disturb(folder: Path, attempt: int, number: signal.Signals) -> None:
    """Send a signal to the trial's process when its attempt has finished another epoch."""
    wait_for(folder, f"SELECT count(*) FROM sb_epochs WHERE attempt = {attempt}")
    ((pid,),) = query(folder, f"SELECT pid FROM sb_attempts WHERE attempt = {attempt}")
    os.kill(pid, number)


def test_a_disturbed_trial_of_two_processes_has_the_numbers_of_an_undisturbed_one(tmp_path: Path) -> None:
    space = write_space(
        tmp_path,
        trainer="gated_trainer:train",
        budget={"trials": 1},
        workers={"count": 1, "threads": 2},
        overrides={
            "training.processes": 2,
            "training.epochs": EPOCHS,
            "training.device": "cpu",
            "loss.name": "ce_ss",
            "encoder.hidden_channels": 4,
            "encoder.drop_p": 0.2,
            "tracking.mlflow": False,
        },
    )
    process = start(tmp_path, space)
    disturb(tmp_path, 1, signal.SIGTERM)
    disturb(tmp_path, 2, signal.SIGKILL)
    assert "is complete: 1 of 1" in finish(tmp_path, process)
    attempts = query(tmp_path, "SELECT end_reason, effective_batch, micro_batch FROM sb_attempts ORDER BY attempt")
    assert attempts == [("preempted", 128, 64), ("lost", 128, 64), ("finished", 128, 64)]
    notes = Notes()
    train(resolve(tmp_path / "runs" / "tiny" / "trial_00000" / "config.yaml").config, notes, threads=2)
    told = {
        (0, epoch, name): value
        for epoch, metrics in notes.epochs.items()
        for name, value in metrics.items()
        if name not in SAYS_NOTHING_OF_TIME
    }
    found = {key: value for key, value in curves(tmp_path).items() if key[2] not in SAYS_NOTHING_OF_TIME}
    assert found == told
