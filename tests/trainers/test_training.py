"""What the loop reports, when it ends, and what it does when something goes wrong."""

import errno
import logging
import math
import os
import random
import subprocess
import sys

import numpy as np
import pytest
import torch

import trainers
from configs import metrics as known_metrics
from trainers import checkpoint, tasks, training
from trainers.guards import FiniteGuard
from trainers.optimisation import Updater
from trainers.protocol import (
    CheckpointError,
    DataNotFoundError,
    DeadSpikesError,
    DivergedError,
    Outcome,
    TrainerError,
    Verdict,
)
from trainers.tasks import ClassificationTask, StepOutput
from trainers.training import train


def test_every_epoch_is_reported_before_its_checkpoint(quick, recorder, run_dir) -> None:
    report = recorder()
    result = train(quick(), report, run_dir=run_dir)
    assert report.events == [(kind, epoch) for epoch in (1, 2, 3) for kind in ("epoch", "checkpoint")]
    assert (result.outcome, result.epochs) == (Outcome.FINISHED, 3)
    assert result.metrics == report.epochs[-1].metrics
    assert result.best == max(report.epochs, key=lambda epoch: epoch.metrics["val_accuracy"]).metrics
    assert result.checkpoint == report.saved[-1] == checkpoint.describe(result.checkpoint.path)
    assert all(math.isfinite(value) for epoch in report.epochs for value in epoch.metrics.values())
    assert all(epoch.seconds == epoch.metrics["epoch_seconds"] > 0 for epoch in report.epochs)


def test_the_facts_of_a_run_come_once_and_first(quick, recorder, run_dir) -> None:
    report = recorder()
    saved = train(quick(training={"batch_size": 16, "accumulation_steps": 2}), report, run_dir=run_dir).checkpoint
    (facts,) = report.facts
    assert (facts.device, facts.neuron_backend, facts.resumed_epoch) == ("cpu", "torch", 0)
    assert facts.effective_batch == 32
    assert facts.parameters > 0
    again = recorder()
    train(quick(training={"batch_size": 16, "accumulation_steps": 2}), again, saved.path, run_dir=run_dir)
    assert [facts.resumed_epoch for facts in again.facts] == [3]


@pytest.mark.parametrize("model", ["srnn", "spikformer"])
def test_metrics_are_those_that_spaces_may_use(quick, recorder, model: str) -> None:
    reported = train(quick(model, training={"epochs": 1}), recorder()).metrics
    assert all(known_metrics.is_metric(name) for name in reported if name != "learning_rate")
    only_on_a_gpu = {"peak_memory_mb"}
    assert set(known_metrics.METRICS) - only_on_a_gpu == {name for name in reported if "." not in name} - {
        "learning_rate"
    }
    assert any(name.startswith("val_firing_rate.") for name in reported)


def test_it_learns(quick, recorder) -> None:
    config = quick("srnn", encoder={"name": "rate"}, optimizer={"learning_rate": 0.02}, training={"epochs": 8})
    metrics = train(config, recorder(), threads=1).metrics
    assert metrics["val_accuracy"] > 0.6
    assert metrics["train_loss"] < 1.6


def test_without_a_folder_nothing_is_written(quick, recorder, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    report = recorder(Verdict.PREEMPT, at=3)
    result = train(quick(), report)
    assert (result.outcome, result.checkpoint, report.saved) == (Outcome.PREEMPTED, None, [])
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("every", "epochs"), [(1, [1, 2, 3]), (2, [2, 3]), (10, [3])])
def test_checkpoints_come_as_often_as_asked_and_after_the_last_epoch(quick, recorder, run_dir, every, epochs) -> None:
    report = recorder()
    train(quick(training={"checkpoint_every": every, "keep_checkpoints": 1}), report, run_dir=run_dir)
    assert [saved.epoch for saved in report.saved] == epochs
    assert [path.name for path in run_dir.iterdir()] == ["ckpt-00003-0000000.pt"]


def test_a_stop_keeps_what_was_measured(quick, recorder, run_dir) -> None:
    report = recorder(Verdict.STOP, at=12)  # 6 steps and 3 validation batches an epoch
    result = train(quick(), report, run_dir=run_dir)
    assert (result.outcome, result.epochs, report.asked) == (Outcome.STOPPED, 1, 12)
    assert result.metrics == report.epochs[0].metrics
    assert [saved.epoch for saved in report.saved] == [1]


def test_a_stop_in_the_first_epoch_has_no_metrics(quick, recorder, run_dir) -> None:
    result = train(quick(), recorder(Verdict.STOP, at=1), run_dir=run_dir)
    assert (result.outcome, result.epochs, result.metrics, result.best) == (Outcome.STOPPED, 0, {}, {})
    assert not run_dir.exists()


def test_a_finished_run_is_not_trained_again(quick, recorder, run_dir) -> None:
    config, first = quick(), recorder()
    done = train(config, first, run_dir=run_dir)
    report = recorder()
    again = train(config, report, done.checkpoint.path, run_dir=run_dir)
    assert (again, report.epochs, report.asked, report.saved) == (done, first.epochs, 0, [])


def test_the_callers_random_numbers_and_threads_are_left_alone(quick, recorder) -> None:
    def surroundings() -> tuple[object, ...]:
        return random.random(), np.random.rand(), float(torch.rand(())), torch.get_num_threads()

    config = quick(training={"epochs": 1})
    for module in (random, np.random):
        module.seed(3)
    torch.manual_seed(3)
    before = surroundings()
    for module in (random, np.random):
        module.seed(3)
    torch.manual_seed(3)
    train(config, recorder(), threads=1)
    assert surroundings() == before
    assert not torch.are_deterministic_algorithms_enabled()


def test_the_images_of_an_update_weigh_the_same_also_in_the_last_group(quick, recorder, monkeypatch) -> None:
    calls: list[float | str] = []
    backward, update = Updater.backward, Updater.update
    monkeypatch.setattr(
        Updater, "backward", lambda self, loss, share: (calls.append(share), backward(self, loss, share))
    )
    monkeypatch.setattr(Updater, "update", lambda self: (calls.append("update"), update(self)))
    train(quick(training={"accumulation_steps": 4, "epochs": 1}), recorder())
    last = 359 % 64  # images of the last batch
    assert calls == [0.25, 0.25, 0.25, 0.25, "update", 64 / (64 + last), last / (64 + last), "update"]


def test_layers_that_say_nothing_end_the_run_after_its_last_report(quick, recorder, run_dir) -> None:
    report = recorder()
    guarded = quick(training={"epochs": 9, "spike_guard_epochs": 2}, neuron={"v_threshold": 1e9})
    with pytest.raises(DeadSpikesError, match=r"no spiking layer fired for 2 epoch.s. on end, epoch 3 the last"):
        train(guarded, report, run_dir=run_dir)
    assert [epoch.metrics["val_firing_rate"] for epoch in report.epochs] == [0.0, 0.0, 0.0]
    with pytest.raises(DeadSpikesError, match="epoch 3 the last"):  # also when it is taken up again
        train(guarded, recorder(), checkpoint.newest_valid(run_dir), run_dir=run_dir)


def poison(monkeypatch, *, from_call: int) -> None:
    """Make the loss of the n-th batch (validation batches count) NaN, and all after it."""
    calls = iter(range(1, 10**6))
    honest = ClassificationTask.step

    def step(self: ClassificationTask, *args: object) -> StepOutput:
        output = honest(self, *args)
        return output._replace(loss=output.loss * math.nan) if next(calls) >= from_call else output

    monkeypatch.setattr(tasks.ClassificationTask, "step", step)


def test_a_loss_that_is_no_number_ends_the_run_at_its_step(quick, recorder, run_dir, monkeypatch) -> None:
    poison(monkeypatch, from_call=6 + 3 + 2)
    report = recorder()
    with pytest.raises(DivergedError, match=r"epoch 2, step 2: try a lower optimizer.learning_rate"):
        train(quick(), report, run_dir=run_dir)
    assert report.events == [("epoch", 1), ("checkpoint", 1)]


def test_poisoned_weights_are_never_saved(quick, recorder, run_dir, monkeypatch) -> None:
    def as_on_a_gpu(device: torch.device) -> FiniteGuard:
        guard = FiniteGuard(device)
        guard._on_cpu = False  # looks at the losses from time to time only
        return guard

    monkeypatch.setattr(training, "FiniteGuard", as_on_a_gpu)
    poison(monkeypatch, from_call=2)
    with pytest.raises(DivergedError, match="epoch 1, step 2"):
        train(quick(), recorder(Verdict.PREEMPT, at=4), run_dir=run_dir)
    assert not run_dir.exists()


def test_a_validation_loss_that_is_no_number_ends_the_run(quick, recorder, run_dir, monkeypatch) -> None:
    poison(monkeypatch, from_call=6 + 3)
    report = recorder()
    with pytest.raises(DivergedError, match="val_loss is nan after epoch 1"):
        train(quick(), report, run_dir=run_dir)
    assert report.events == []


def fail_saving(monkeypatch, *, epochs: set[int]) -> None:
    honest = os.fsync
    position = {"epoch": 0}
    save = checkpoint.save

    def remember(*args: object, epoch: int, **kwargs: object) -> object:
        position["epoch"] = epoch
        return save(*args, epoch=epoch, **kwargs)

    def full(descriptor: int) -> None:
        if position["epoch"] in epochs:
            raise OSError(errno.ENOSPC, "No space left on device")
        honest(descriptor)

    monkeypatch.setattr(checkpoint, "save", remember)
    monkeypatch.setattr(checkpoint.os, "fsync", full)


def test_a_full_disk_costs_a_checkpoint_but_not_the_run(quick, recorder, run_dir, monkeypatch, caplog) -> None:
    fail_saving(monkeypatch, epochs={2, 3})
    report = recorder()
    result = train(quick(), report, run_dir=run_dir)
    assert (result.outcome, result.epochs) == (Outcome.FINISHED, 3)
    assert result.checkpoint == report.saved[0]
    assert [saved.epoch for saved in report.saved] == [1]
    assert checkpoint.newest_valid(run_dir) == report.saved[0].path
    assert caplog.text.count("No space left on device") == 2
    assert all(record.levelno == logging.WARNING for record in caplog.records)


def test_a_run_that_could_never_save_says_so_at_its_end(quick, recorder, run_dir, monkeypatch, caplog) -> None:
    fail_saving(monkeypatch, epochs={1, 2, 3})
    result = train(quick(), recorder(), run_dir=run_dir)
    assert (result.outcome, result.checkpoint) == (Outcome.FINISHED, None)
    assert caplog.records[-1].levelno == logging.ERROR
    assert "no checkpoint of this run could be written: cannot write" in caplog.text


def test_fp16_scaler_is_part_of_a_checkpoint(quick, recorder, run_dir) -> None:
    config = quick("srnn", encoder={"name": "rate"}, training={"amp": "fp16", "epochs": 1})
    saved = train(config, recorder(), run_dir=run_dir, threads=1).checkpoint
    assert checkpoint.load(saved.path)["weights"]["scaler"]["scale"] > 0
    assert train(config, recorder(), saved.path, run_dir=run_dir, threads=1).outcome is Outcome.FINISHED


@pytest.mark.parametrize(
    ("sections", "error", "words"),
    [
        ({"data": {"name": "mnist_files", "data_dir": "nowhere"}}, DataNotFoundError, "nowhere"),
        ({"training": {"device": "cuda:77"}}, TrainerError, "CUDA device"),
        ({"optimizer": {"name": "adamww"}}, TrainerError, "did you mean 'adamw'"),
        ({"augmentation": {"rand_augment": "nonsense"}}, TrainerError, "rand_augment"),
    ],
)
def test_what_is_not_there_is_one_clear_error(quick, recorder, sections, error, words) -> None:
    with pytest.raises(error, match=words):
        train(quick(**sections), recorder())


def test_a_missing_checkpoint_to_continue_from_is_an_error(quick, recorder, run_dir) -> None:
    with pytest.raises(CheckpointError, match="there is no checkpoint"):
        train(quick(), recorder(), run_dir / "ckpt-00001-0000000.pt", run_dir=run_dir)


def test_importing_the_package_does_not_import_torch() -> None:
    script = "import sys, trainers, trainers.protocol; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0
    assert trainers.train is train
