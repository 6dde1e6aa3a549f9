"""A run that is broken off and continued equals the unbroken one, bit for bit."""

import math
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from same_bits import assert_same_bits

from configs.schema import RunConfig
from trainers import checkpoint
from trainers.optimisation import Updater
from trainers.protocol import CheckpointError, Outcome, Verdict
from trainers.training import train

KINDS: dict[str, dict[str, Any]] = {
    "srnn, sparsity, dropout": {
        "model": "srnn",
        "loss": {"name": "ce_ss", "omega": 1e-4, "c": 0.5},
        "encoder": {"drop_p": 0.3},
    },
    "srnn, rate coding, averaged weights, accumulation": {
        "model": "srnn",
        "encoder": {"name": "rate", "time_steps": 3},
        "training": {"ema_decay": 0.9, "accumulation_steps": 4, "clip_grad_norm": 0.5, "checkpoint_every": 2},
    },
    "spikformer, mixup, cosine": {
        "model": "spikformer",
        "loss": {"name": "ce_ss", "omega": 1e-4, "label_smoothing": 0.1},
        "augmentation": {"mixup": 0.4, "cutmix": 1.0, "mix_off_epoch": 2},
        "schedule": {"name": "cosine", "warmup_epochs": 1},
        "optimizer": {"name": "lamb"},
    },
    "spikformer, augmented images, bf16": {
        "model": "spikformer",
        "encoder": {"name": "sps", "time_steps": 2},
        "augmentation": {"crop_scale": [0.6, 1.0], "rand_augment": "rand-m5-n1", "random_erasing": 0.3},
        "training": {"amp": "bf16", "epochs": 2},
    },
}


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory) -> Callable[[str, RunConfig, Any], tuple[Any, Path]]:
    """Return a function that gives the unbroken run of a kind: what it reported and its last checkpoint."""
    done: dict[str, tuple[Any, Path]] = {}

    def run(kind: str, config: RunConfig, report: Any) -> tuple[Any, Path]:
        if kind not in done:
            result = train(config, report, run_dir=tmp_path_factory.mktemp("unbroken"), threads=1)
            assert result.checkpoint is not None
            done[kind] = report, result.checkpoint.path
        return done[kind]

    return run


@pytest.mark.parametrize("kind", KINDS)
@settings(
    max_examples=5,
    deadline=None,
    derandomize=True,
    phases=[Phase.generate],  # each example trains a network: shrinking a failure would take minutes
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(data=st.data())
def test_continued_run_equals_the_unbroken_one(kind: str, quick, recorder, unbroken, data: st.DataObject) -> None:
    config = quick(**KINDS[kind])
    whole, last = unbroken(kind, config, recorder())
    cuts = data.draw(st.lists(st.integers(1, whole.asked), min_size=1, max_size=3), label="steps of each part")
    reported: dict[int, dict[str, float]] = {}
    with TemporaryDirectory() as folder:
        for at in [*cuts, math.inf]:
            report = recorder(Verdict.PREEMPT, at)
            resume_from = checkpoint.newest_valid(Path(folder))
            result = train(config, report, resume_from, run_dir=Path(folder), threads=1)
            for epoch, numbers in report.numbers().items():
                assert reported.setdefault(epoch, numbers) == numbers  # told again, the same
            if result.outcome is Outcome.FINISHED:
                break
            assert result.outcome is Outcome.PREEMPTED
            assert result.checkpoint.path == checkpoint.newest_valid(Path(folder))
        assert reported == whole.numbers()
        assert_same_bits(result.checkpoint.path, last)


def test_a_killed_run_goes_on_from_any_of_its_checkpoints(quick, recorder, tmp_path) -> None:
    config = quick("srnn", training={"ema_decay": 0.8})
    train(config, recorder(), run_dir=tmp_path / "killed", threads=1)
    files = sorted((tmp_path / "killed").glob("*.pt"))
    assert len(files) == 3
    for number, path in enumerate(files):
        report = recorder()
        result = train(config, report, path, run_dir=tmp_path / f"again {number}", threads=1)
        assert [epoch.epoch for epoch in report.epochs] == [1, 2, 3]
        assert result.outcome is Outcome.FINISHED
        assert_same_bits(result.checkpoint.path, files[-1])


@pytest.mark.parametrize("asked", [2, 4, 9])  # after two updates, after the epoch's last, within its validation
def test_a_run_goes_on_with_smaller_batches_at_its_place_in_the_epoch(
    quick, recorder, tmp_path, monkeypatch, asked: int
) -> None:
    updates, update = [], Updater.update
    monkeypatch.setattr(Updater, "update", lambda self: (updates.append(1), update(self)))
    sections = {"encoder": {"name": "rate", "time_steps": 3}, "data": {"name": "digits", "test_fraction": 0.8}}
    large = quick("srnn", **sections, training={"batch_size": 64, "epochs": 2})
    small = quick("srnn", **sections, training={"batch_size": 16, "accumulation_steps": 4, "epochs": 2})
    whole = recorder()
    train(large, whole, threads=1)
    unbroken = len(updates)
    cut = train(large, recorder(Verdict.PREEMPT, asked), run_dir=tmp_path, threads=1)
    report = recorder()
    result = train(small, report, cut.checkpoint.path, run_dir=tmp_path, threads=1, attempt=2)
    assert result.outcome is Outcome.FINISHED
    assert len(updates) == 2 * unbroken
    assert report.facts[0].effective_batch == whole.facts[0].effective_batch == 64
    assert report.facts[0].micro_batch == 16
    for epoch, numbers in whole.numbers().items():
        assert report.numbers()[epoch]["train_loss"] == pytest.approx(numbers["train_loss"], rel=0.05)


def test_loader_processes_change_nothing(quick, recorder, tmp_path) -> None:
    kind = KINDS["spikformer, augmented images, bf16"]
    whole = recorder()
    train(quick(**kind), whole, threads=1)
    with_worker, cut = quick(**kind, data={"workers": 1}), recorder(Verdict.PREEMPT, 3)
    result = train(with_worker, cut, run_dir=tmp_path, threads=1)
    report = recorder()
    train(with_worker, report, result.checkpoint.path, run_dir=tmp_path, threads=1)
    assert report.numbers() == whole.numbers()


def test_same_seed_same_bits_other_seed_other_bits(quick, recorder, tmp_path) -> None:
    last = []
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        torch.rand(3)  # what was drawn before does not matter
        config = quick("spikformer", training={"seed": seed, "epochs": 1})
        last.append(train(config, recorder(), run_dir=tmp_path / name, threads=1).checkpoint.path)
    assert_same_bits(last[0], last[1])
    weights = [checkpoint.load(path)["weights"]["model"]["head.weight"] for path in last]
    assert not torch.equal(weights[0], weights[2])


def test_another_number_of_threads_is_warned_of(quick, recorder, run_dir, caplog) -> None:
    config = quick("srnn", training={"epochs": 1})
    saved = train(config, recorder(), run_dir=run_dir, threads=1).checkpoint
    train(config, recorder(), saved.path, threads=2)
    assert "written with 1 threads, this run has 2" in caplog.text


def test_a_checkpoint_of_another_configuration_is_refused(quick, recorder, run_dir) -> None:
    saved = train(quick("srnn", training={"epochs": 1}), recorder(), run_dir=run_dir, threads=1).checkpoint
    with pytest.raises(CheckpointError, match=r"training\.epochs is 1 there and 2 here"):
        train(quick("srnn", training={"epochs": 2}), recorder(), saved.path)


def test_a_damaged_newest_checkpoint_falls_back_to_the_one_before(quick, recorder, run_dir, caplog) -> None:
    config, whole = quick("srnn"), recorder()
    last = train(config, whole, run_dir=run_dir, threads=1).checkpoint.path
    last.write_bytes(last.read_bytes()[:-500])
    with pytest.raises(CheckpointError, match="damaged"):
        train(config, recorder(), last)
    before = checkpoint.newest_valid(run_dir)
    assert before is not None
    assert before.name == "ckpt-00002-0000000.pt"
    report = recorder()
    train(config, report, before, run_dir=run_dir, threads=1)
    assert report.numbers() == whole.numbers()
