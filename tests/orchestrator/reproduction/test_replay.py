"""Replays: what is compared, what is told when it differs, and that the database is all they need."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from fake_trainers import metrics_of
from sqlalchemy import insert

from configs.resolve import config_hash, resolve, to_dict
from configs.schema import RunConfig
from orchestrator.cli import main
from orchestrator.errors import ReplayError, StudyNotFoundError, TrialNotFoundError
from orchestrator.machine.provenance import provenance
from orchestrator.machine.slots import Gpu
from orchestrator.reproduction import replay as replay_module
from orchestrator.reproduction.replay import (
    Difference,
    Replay,
    changes,
    differences,
    environment_changes,
    fresh_folder,
    replay,
    same_kind_of_device,
)
from orchestrator.reproduction.stored_trial import StoredTrial, read_trial
from orchestrator.storage.database import Database
from orchestrator.storage.tables import (
    AttemptRow,
    EndReason,
    EnvironmentRow,
    EpochRow,
    JobRow,
    JobState,
    MetricRow,
    StudyRow,
)
from trainers.protocol import EpochReport, RunFacts, SilentReporter
from trainers.training import train

EPOCHS = 4


@pytest.fixture(autouse=True)
def _same_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")  # a replay chooses its device; the tests after it must not feel that


def configuration(**changes: str) -> RunConfig:
    words = {"loss.name": "ce_ss", "training.epochs": str(EPOCHS), "encoder.hidden_channels": "4", **changes}
    return resolve("stal/srnn_digits", [f"--{key}={value}" for key, value in words.items()]).config


def store(
    database: Database, config: RunConfig, curves: Mapping[int, Mapping[str, float]], **columns: Any
) -> StoredTrial:
    """Write a study whose trial 3 has reported some curves; return the trial as it is read back."""
    here = provenance("cpu")
    with database.begin() as connection:
        connection.execute(
            insert(StudyRow).values(
                id=1, name="tiny", optuna_study_id=1, space_json=json.dumps({"space": {}}), space_hash="h", seed=1,
                budget_trials=4, created_at=0.0,
            )
        )  # fmt: skip
        job = {
            "id": 1, "study_id": 1, "trial_number": 3, "optuna_trial_id": 4, "config": to_dict(config),
            "config_hash": config_hash(config), "params": {}, "trainer": "fake_trainers:quick", "threads": 1,
            "run_dir": "/gone", "created_at": 0.0, "state": JobState.DONE, "end_reason": EndReason.FINISHED,
        }  # fmt: skip
        connection.execute(insert(JobRow).values({**job, **columns}))
        connection.execute(insert(EnvironmentRow).values(id=here.digest, **here.columns()))
        attempt = {"job_id": 1, "worker": "w", "host": "h", "device": "cpu", "started_at": 0.0}
        connection.execute(
            insert(AttemptRow),
            [{**attempt, "attempt": 1, "neuron_backend": "none", "environment_id": here.digest, "micro_batch": 16}],
        )
        for epoch, metrics in curves.items():
            connection.execute(insert(EpochRow).values(job_id=1, epoch=epoch, attempt=1, seconds=1.0, reported_at=0.0))
            rows = [{"job_id": 1, "epoch": epoch, "name": name, "value": value} for name, value in metrics.items()]
            connection.execute(insert(MetricRow), rows)
    return read_trial(database, "tiny", 3)


def fake_curves(config: RunConfig, epochs: int = EPOCHS) -> dict[int, dict[str, float]]:
    return {epoch: metrics_of(config, epoch) for epoch in range(1, epochs + 1)}


def again(trial: StoredTrial, folder: Path) -> tuple[Replay, list[int]]:
    told: list[int] = []
    return replay(trial, folder, lambda report, _: told.append(report.epoch)), told


class Recorder(SilentReporter):
    def __init__(self) -> None:
        self.curves: dict[int, dict[str, float]] = {}

    def epoch(self, report: EpochReport) -> None:
        self.curves[report.epoch] = dict(report.metrics)


def test_a_real_trial_comes_out_again_digit_by_digit(database: Database, tmp_path: Path) -> None:
    config, first = configuration(**{"training.epochs": "2"}), Recorder()
    train(config, first, run_dir=tmp_path / "first", threads=1)
    trial = store(database, config, first.curves, trainer="trainers:train")
    found, told = again(trial, tmp_path / "again")
    assert found.identical
    assert (found.differences, found.epochs, told) == ((), 2, [1, 2])
    assert found.numbers == sum(len(metrics) - 1 for metrics in first.curves.values())  # without epoch_seconds
    assert found.numbers > 2 * 10


def test_another_seed_is_another_run(local: Database, tmp_path: Path) -> None:
    config, first = configuration(**{"training.epochs": "1"}), Recorder()
    train(config, first, run_dir=tmp_path / "first", threads=1)
    other = configuration(**{"training.epochs": "1", "training.seed": "43"})
    trial = store(local, other, first.curves, trainer="trainers:train")
    assert not again(trial, tmp_path / "again")[0].identical


@pytest.mark.parametrize(
    ("epoch", "metric", "change"),
    [
        (3, "val_loss", lambda value: math.nextafter(value, 9.0)),
        (2, "val_accuracy", lambda value: -value),
        (4, "val_accuracy", lambda value: math.nan),
    ],
)
def test_one_digit_that_differs_is_found(local: Database, tmp_path: Path, epoch: int, metric: str, change: Any) -> None:
    config = configuration()
    curves = fake_curves(config)
    right = curves[epoch][metric]
    trial = store(local, config, curves)
    trial.curves[epoch][metric] = change(right)
    found, told = again(trial, tmp_path / "again")
    (difference,) = found.differences
    assert (difference.epoch, difference.metric, difference.replayed) == (epoch, metric, right)
    assert not found.identical
    assert told == [1, 2, 3, 4]


def test_times_and_memory_may_differ_and_a_missing_metric_may_not() -> None:
    stored = {"epoch_seconds": 1.0, "peak_memory_mb": 1.0, "val_loss": 1.0, "val_f1": math.nan}
    now = {"epoch_seconds": 2.0, "val_accuracy": 0.5, "val_f1": math.nan}
    assert list(differences(2, stored, now)) == [
        Difference(2, "val_accuracy", None, 0.5),
        Difference(2, "val_loss", 1.0, None),
    ]
    assert str(Difference(2, "val_loss", 0.1, None)) == "epoch 2, val_loss: stored 0.1, replayed missing"


def test_a_trial_that_was_stopped_is_replayed_as_far_as_it_came(local: Database, tmp_path: Path) -> None:
    config = configuration()
    trial = store(local, config, fake_curves(config, 2), trainer="fake_trainers:steady", end_reason=EndReason.RUNG)
    found, told = again(trial, tmp_path / "again")
    assert (found.identical, found.epochs, told) == (True, 2, [1, 2])


def test_a_trainer_that_fails_before_the_last_stored_epoch_is_a_difference(local: Database, tmp_path: Path) -> None:
    config = configuration()
    trial = store(local, config, fake_curves(config), trainer="fake_trainers:diverges")
    found, told = again(trial, tmp_path / "again")
    assert (found.identical, told) == (False, [])
    assert found.failure == "loss is nan at epoch 2, step 3"
    assert found.differences[0] == Difference(1, "val_accuracy", trial.curves[1]["val_accuracy"], None)


def test_batches_that_were_halved_are_halved_again(local: Database, tmp_path: Path) -> None:
    config = configuration(**{"training.batch_size": "16"})
    trial = store(local, config, fake_curves(config), micro_batch_halvings=2)
    training = trial.config().training
    assert (training.batch_size, training.accumulation_steps) == (4, 4)
    assert again(trial, tmp_path / "again")[0].surroundings == ()


def test_a_trial_without_an_epoch_has_nothing_to_compare_with(local: Database, tmp_path: Path) -> None:
    trial = store(local, configuration(), {}, end_reason=EndReason.OOM)
    with pytest.raises(ReplayError, match=r"trial 3 of study 'tiny' has no numbers .*\(out of memory\)"):
        again(trial, tmp_path / "again")
    with pytest.raises(ReplayError, match="it has not finished an epoch yet"):
        again(replace(trial, end_reason=None), tmp_path / "again")


def test_unknown_studies_and_trials_are_told(local: Database) -> None:
    store(local, configuration(), {})
    with pytest.raises(TrialNotFoundError, match="study 'tiny' has no trial 9: its trials are 0 to 3"):
        read_trial(local, "tiny", 9)
    with pytest.raises(StudyNotFoundError):
        read_trial(local, "other", 3)


def test_what_has_changed_is_named(database: Database) -> None:
    config = configuration()
    trial = store(database, config, fake_curves(config))
    facts = RunFacts("cpu", "none", 0, 1, 16)
    assert list(changes(trial, "cpu", facts)) == []
    (attempt,) = trial.attempts
    old = {**attempt.environment, "torch": "2.10.0", "git_commit": "a" * 40}
    old["packages"] = {**old["packages"], "torch": "2.10.0", "gone": "1"}
    del old["packages"]["timm"]
    before = replace(attempt, device="cuda:3", neuron_backend="triton", environment=old, micro_batch=64)
    lines = list(changes(replace(trial, attempts=(before, attempt), config_hash="0" * 64), "cpu", facts))
    here = attempt.environment
    assert lines[0].startswith("configuration: its hash was 000000000000, is ")
    assert "device: was cuda:3, is cpu" not in lines  # the last attempt ran on the CPU
    assert lines[1:] == [
        "neuron backend: was triton then none, is none",
        "micro-batch: was 64 then 16, is 16: memory ran out in the first run",
        f"git commit: was aaaaaaaaaaaa, is {(here['git_commit'] or 'none')[:12]}",
        f"torch: was 2.10.0, is {here['torch']}",
        "package gone: was 1, is absent",
        f"package timm: was absent, is {here['packages']['timm']}",
        f"package torch: was 2.10.0, is {here['packages']['torch']}",
    ]
    on_gpu = replace(trial, attempts=(replace(attempt, device="cuda:3"),))
    assert list(changes(on_gpu, "cpu", facts)) == ["device: was cuda:3, is cpu"]


def test_an_attempt_that_ended_before_it_told_its_surroundings_says_nothing() -> None:
    assert list(environment_changes({}, provenance("cpu").columns())) == []


@pytest.mark.parametrize(
    ("recorded", "device"),
    [("cpu", "cpu"), ("cuda:2", "cuda:2"), ("cuda:9", "cuda:1"), ("cuda:1,2", "cuda:1,2"), ("cuda:2,9", "cuda:1,2")],
)
def test_a_replay_takes_as_many_gpus(monkeypatch: pytest.MonkeyPatch, recorded: str, device: str) -> None:
    there = tuple(Gpu(f"cuda:{number}", "H100", 1000, "570") for number in (1, 2, 3))
    monkeypatch.setattr(replay_module, "gpus", lambda: there)
    assert same_kind_of_device(recorded) == device
    monkeypatch.setattr(replay_module, "gpus", lambda: ())
    assert same_kind_of_device(recorded) == "cpu"


def test_a_replay_never_goes_on_from_another(tmp_path: Path) -> None:
    first = fresh_folder(tmp_path, 7)
    first.mkdir()
    second = fresh_folder(tmp_path, 7)
    second.mkdir()
    assert [first.name, second.name, fresh_folder(tmp_path, 7).name] == [
        "replay_00007",
        "replay_00007_2",
        "replay_00007_3",
    ]


def test_the_command_says_identical_or_what_differs(
    local: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SPIKEBENCH_STORAGE", local.url)
    monkeypatch.chdir(tmp_path)
    config = configuration()
    store(local, config, fake_curves(config))
    with pytest.raises(SystemExit) as done:
        main(["replay", "tiny", "3"])
    assert not done.value.code
    output = capsys.readouterr().out
    assert "identical: 12 numbers of 4 epochs (epoch_seconds and peak_memory_mb left out)" in output
    assert (tmp_path / "runs/tiny/replay_00003/config.yaml").exists()
    with local.begin() as connection:
        connection.exec_driver_sql("UPDATE sb_metrics SET value = value + 1 WHERE epoch = 2 AND name = 'val_loss'")
        connection.exec_driver_sql("UPDATE sb_environments SET python = '3.1.4'")
    with pytest.raises(SystemExit) as done:
        main(["replay", "tiny", "3"])
    assert done.value.code == 1
    output = capsys.readouterr().out
    assert "epoch 2/4: 1 of its numbers differ" in output
    assert "first: epoch 2, val_loss: stored 1.5, replayed 0.5" in output
    assert "python: was 3.1.4, is " in output
