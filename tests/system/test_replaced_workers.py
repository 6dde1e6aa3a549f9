"""A worker that was silent for longer than its lease is replaced, and nothing it does afterwards counts."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import leash
import psutil
import pytest
from studies import DisturbedStudy, lives

from configs.resolve import from_dict
from trainers import checkpoint
from trainers.protocol import EpochReport, SilentReporter
from trainers.training import train

pytestmark = pytest.mark.system

EPOCHS = 12


class Keeper(SilentReporter):
    """Keep the curve of a run."""

    def __init__(self) -> None:
        self.curve: list[dict[str, float]] = []

    def epoch(self, report: EpochReport) -> None:
        self.curve.append(timeless(report.metrics))


def timeless(metrics: dict[str, float]) -> dict[str, float]:
    return {name: value for name, value in metrics.items() if "seconds" not in name}


def test_late_writes_and_checkpoints_of_a_worker_that_slept_do_not_count(any_url: str, tmp_path: Path) -> None:
    study = DisturbedStudy(
        tmp_path,
        any_url,
        trials=1,
        epochs=EPOCHS,
        trainer="faulty_trainers:leashed",
        overrides={
            "loss.name": "ce_ss",
            "training.epochs": EPOCHS,
            "encoder.hidden_channels": 4,
            "data.test_fraction": 0.7,
            "tracking.mlflow": False,
        },
        objectives=[{"metric": "val_accuracy", "direction": "maximize"}],
    )
    study.tie(3)
    study.start()
    study.wait_for("SELECT count(*) = 3 FROM sb_epochs")
    ((sleeper, trial),) = study.query(
        "SELECT sb_workers.pid, sb_attempts.pid FROM sb_attempts JOIN sb_workers ON sb_workers.id = worker"
    )
    folder = study.runs / "trial_00000"
    study.wait_until(lambda: leash.standing(folder) == {trial: 3}, "the first attempt stands")
    os.kill(sleeper, signal.SIGSTOP)
    study.execute("UPDATE sb_jobs SET lease_until = 1.0")  # as when it slept for a minute
    study.wait_for("SELECT count(*) = 3 FROM sb_epochs WHERE attempt = 2")
    study.tie(6)  # both go on, and save
    study.wait_until(lambda: list(leash.standing(folder).values()) == [6, 6], "both attempts stand")
    assert psutil.pid_exists(trial)
    mine = folder / "ckpt-00006-0000000-a0002.pt"
    assert mine.exists()
    os.kill(sleeper, signal.SIGCONT)
    study.wait_until(lambda: not psutil.pid_exists(trial), "the end of the first attempt's process")
    study.untie()
    assert study.running(), study.output()
    assert "is complete: 1 of 1" in study.finish()
    assert study.attempts() == {0: ["lost", "finished"]}
    assert study.query("SELECT DISTINCT attempt FROM sb_epochs") == [(2,)]
    newest = checkpoint.newest_valid(folder)
    assert newest is not None
    assert newest.name == f"ckpt-{EPOCHS:05d}-0000000-a0002.pt"
    whole = Keeper()
    train(from_dict(checkpoint.load(newest)["config"]), whole, threads=1)
    assert [timeless(metrics) for metrics in study.curves()[0]] == whole.curve


def test_a_trial_that_outlives_its_killed_worker_changes_nothing(any_url: str, tmp_path: Path) -> None:
    study = DisturbedStudy(tmp_path, any_url, trials=1, epochs=EPOCHS)
    study.tie(3)
    study.start()
    study.wait_for("SELECT count(*) = 3 FROM sb_epochs")
    study.wait_until(lambda: study.standing(3), "the trial stands")
    trial = study.process_of("trial")
    ((worker,),) = study.query("SELECT sb_workers.pid FROM sb_attempts JOIN sb_workers ON sb_workers.id = worker")
    os.kill(trial, signal.SIGSTOP)  # it does not see that its worker has gone
    os.kill(worker, signal.SIGKILL)
    study.tie(6)
    study.wait_for("SELECT count(*) = 6 FROM sb_epochs WHERE attempt = 2")
    os.kill(trial, signal.SIGCONT)
    study.wait_until(lambda: not lives(trial), "the end of the first attempt's process")
    study.untie()
    assert "is complete: 1 of 1" in study.finish()
    study.assert_whole()
    assert study.attempts() == {0: ["lost", "finished"]}
    assert study.repeated() == {0: [0]}
