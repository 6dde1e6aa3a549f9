"""Several processes that train one run: the same gradients, the same bits after a break, and one end for all."""

from __future__ import annotations

import math
import multiprocessing
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
import yaml
from PIL import Image
from same_bits import assert_same_bits
from torch import nn

from configs.resolve import resolve, to_dict
from trainers import checkpoint
from trainers.determinism import derive_seed
from trainers.distributed import Team, team_of
from trainers.optimisation import Updater
from trainers.protocol import DivergedError, Outcome, ProcessLostError, SilentReporter, TrainerError, Verdict
from trainers.tasks import ClassificationTask, StepOutput
from trainers.training import train

PAIR = {"training": {"processes": 2, "epochs": 2, "batch_size": 64}}
DROPOUT = {**PAIR, "encoder": {"drop_p": 0.3}, "loss": {"name": "ce_ss", "omega": 1e-4}}


class Squares(nn.Module):
    """A step without normalisation, in double precision, with a weight that takes no part if it is `idle`."""

    def __init__(self, idle: bool) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.layers = nn.Sequential(nn.Linear(5, 7), nn.Tanh(), nn.Linear(7, 1)).double()
        self.idle = nn.Parameter(torch.ones(1)) if idle else None

    def forward(self, images: torch.Tensor, targets: torch.Tensor, epoch: int) -> tuple[torch.Tensor, None]:
        return (self.layers(images).squeeze(1) - targets).square().mean(), None


def images_and_targets() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return torch.rand(14, 5, generator=generator).double(), torch.rand(14, generator=generator).double()


def gradients(team: Team, *, idle: bool) -> list[torch.Tensor | None]:
    """Return the gradients of two batches of 9 and 5 images, added up, each process with its slice of both."""
    images, targets = images_and_targets()
    step: nn.Module = Squares(idle)
    plain = step
    for first, last in ((0, 9), (9, 14)):
        size = last - first
        mine = slice(first + size * team.number // team.size, first + size * (team.number + 1) // team.size)
        if first == 0:
            step = team.replicate(step, (images[mine], targets[mine], 0))
        with team.adding_up(step, complete=last == 14):
            loss = step(images[mine], targets[mine], 0)[0]
            (loss * len(images[mine]) * team.size / 14).backward()
    return [weight.grad for weight in plain.parameters()]


def help_with_gradients(team: Team, folder: Path, idle: bool) -> None:
    team.meet(folder)
    gradients(team, idle=idle)
    team.part()


@pytest.mark.parametrize("idle", [False, True])
@pytest.mark.parametrize("size", [2, 3])
def test_the_gradient_is_the_mean_over_the_whole_batch_whatever_the_slices(size: int, idle: bool) -> None:
    wanted = gradients(Team(), idle=idle)
    with team_of(size, help_with_gradients, (idle,)) as team:
        found = gradients(team, idle=idle)
    for one, other in zip(found, wanted, strict=True):
        if other is None:
            assert one is None  # an optimiser passes it over, as it does with one process
        else:
            torch.testing.assert_close(one, other, rtol=0, atol=1e-12)


def test_two_processes_train_to_the_numbers_of_one(quick, recorder) -> None:
    sections = {
        "encoder": {"name": "latency"},
        "augmentation": {"mixup": 0.4, "cutmix": 1.0},
        "optimizer": {"name": "sgd"},
    }
    sections["training"] = {
        "epochs": 1,
        "batch_size": 64,
        "accumulation_steps": 2,
        "ema_decay": 0.9,
    }
    one, two = recorder(), recorder()
    train(quick(**sections), one, threads=1)
    train(quick(**{**sections, "training": {**sections["training"], "processes": 2}}), two, threads=2)
    assert one.facts[0].effective_batch == two.facts[0].effective_batch == 128
    assert two.facts[0].micro_batch == 32
    for name, value in one.numbers()[1].items():
        assert two.numbers()[1][name] == pytest.approx(value, rel=1e-5), name


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    """Folder for the run that is not disturbed."""
    return tmp_path_factory.mktemp("whole")


def test_a_run_of_two_that_was_preempted_equals_the_unbroken_one(quick, recorder, whole, run_dir) -> None:
    config, unbroken = quick(**DROPOUT), recorder()
    last = train(config, unbroken, run_dir=whole, threads=2).checkpoint.path
    cut = train(config, recorder(Verdict.PREEMPT, at=4), run_dir=run_dir, threads=2)
    assert (cut.outcome, cut.checkpoint.step) == (Outcome.PREEMPTED, 4)
    report = recorder()
    result = train(config, report, cut.checkpoint.path, run_dir=run_dir, threads=2)
    assert report.numbers() == unbroken.numbers()
    assert_same_bits(result.checkpoint.path, last)


def test_transformers_with_all_that_can_be_switched_on_go_on_as_well(recorder, tmp_path) -> None:
    """Blocks computed again, weights that take no part, mixed precision, accumulation, averaged weights."""
    words = {
        "data.val_fraction": 0.1, "data.test_fraction": 0.7, "augmentation.mixup": 0.5,
        "training.epochs": 1, "training.processes": 2, "training.batch_size": 64, "training.accumulation_steps": 2,
        "training.memory": "checkpoint", "training.amp": "bf16", "training.ema_decay": 0.9, "training.device": "cpu",
    }  # fmt: skip
    config = resolve("sdt/sdt_digits", [f"{key}={value}" for key, value in words.items()]).config
    whole = train(config, recorder(), run_dir=tmp_path / "whole", threads=2).checkpoint
    cut = train(config, recorder(Verdict.PREEMPT, at=2), run_dir=tmp_path / "cut", threads=2).checkpoint
    assert cut.step == 4
    again = train(config, recorder(), cut.path, run_dir=tmp_path / "cut", threads=2).checkpoint
    assert_same_bits(again.path, whole.path)


def test_slices_draw_other_numbers(quick, run_dir, recorder) -> None:
    saved = train(quick(**{**DROPOUT, "training": {**PAIR["training"], "epochs": 1}}), recorder(), run_dir=run_dir)
    content = checkpoint.load(saved.checkpoint.path)
    (other,) = content["others"]
    assert not torch.equal(other["rng"]["torch"], content["rng"]["torch"])
    assert other["rng"]["numpy"][2] == content["rng"]["numpy"][2]  # what a whole batch is mixed by
    assert derive_seed(1, "process", 1) != derive_seed(1, "process", 2)


def test_fewer_processes_go_on_with_a_warning(quick, recorder, run_dir, caplog) -> None:
    cut = train(quick(**PAIR), recorder(Verdict.PREEMPT, at=4), run_dir=run_dir, threads=2)
    alone = quick(training={**PAIR["training"], "processes": 1})
    report = recorder()
    assert train(alone, report, cut.checkpoint.path, run_dir=run_dir, threads=1).outcome is Outcome.FINISHED
    assert "written by 2 process(es), this run has 1" in caplog.text
    reference = recorder()
    train(alone, reference, threads=1)
    assert report.numbers()[1]["train_loss"] == pytest.approx(reference.numbers()[1]["train_loss"], rel=0.05)


def test_a_stop_while_the_leader_measures_ends_all(quick, recorder, run_dir) -> None:
    result = train(quick(**PAIR), recorder(Verdict.STOP, at=8), run_dir=run_dir, threads=2)
    assert (result.outcome, result.epochs) == (Outcome.STOPPED, 0)


def broken_images(folder: Path) -> dict[str, Any]:
    """Write a set of 8 images for each of 2 classes and split, one of which cannot be read."""
    for split in ("train", "val"):
        for kind in ("a", "b"):
            place = folder / split / kind
            place.mkdir(parents=True)
            for number in range(8):
                Image.new("RGB", (32, 32), (number * 9, 7, 200)).save(place / f"{number}.png")
    (folder / "train" / "b" / "5.png").write_bytes(b"no picture")
    return {"name": "image_folder", "data_dir": str(folder), "image_size": 32}


def test_what_another_process_fails_of_is_what_the_run_fails_of(quick, recorder, tmp_path) -> None:
    """The picture is in a slice of the second process with one of these seeds, and of the first with another."""
    data = broken_images(tmp_path / "images")
    notes = []
    for seed in (1, 2):
        config = quick(
            data=data, encoder={"hidden_channels": 6}, training={**PAIR["training"], "batch_size": 16, "seed": seed}
        )
        with pytest.raises(TrainerError, match=r"5\.png") as caught:
            train(config, recorder(), threads=2)
        notes.append(any("in process 1 of the run" in note for note in getattr(caught.value, "__notes__", ())))
    assert notes == [True, False]


class KillHelper(SilentReporter):
    """A reporter that kills the other process of its run at the third step."""

    def __init__(self) -> None:
        self._asked = 0

    def verdict(self) -> Verdict:
        self._asked += 1
        if self._asked == 3:
            (helper,) = multiprocessing.active_children()
            os.kill(helper.pid, signal.SIGKILL)
        return Verdict.CONTINUE


def test_a_process_that_is_killed_ends_the_run_at_once(quick) -> None:
    with pytest.raises(ProcessLostError, match=r"process 2 of the 2 that train this run .*signal 9") as caught:
        train(quick(**PAIR), KillHelper(), threads=2)
    assert caught.value.exitcode == -signal.SIGKILL


SCRIPT = """
import multiprocessing, os, signal, sys
from pathlib import Path
from configs.resolve import resolve
from trainers.protocol import SilentReporter
from trainers.tasks import ClassificationTask, StepOutput
from trainers.training import train

class Killed(SilentReporter):
    def checkpoint(self, saved):
        print(*(child.pid for child in multiprocessing.active_children()), flush=True)
        os.kill(os.getpid(), signal.SIGKILL)

train(resolve(sys.argv[1]).config, Killed(), run_dir=Path(sys.argv[2]), threads=2)
"""


@pytest.mark.system
def test_a_killed_run_of_two_leaves_nobody_and_goes_on_bit_for_bit(quick, recorder, whole, run_dir, tmp_path) -> None:
    config = quick(**DROPOUT)
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(to_dict(config)))
    command = [sys.executable, "-c", SCRIPT, str(tmp_path / "run.yaml"), str(run_dir)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as killed:
        (helper,) = map(int, killed.stdout.read().split())  # until nobody holds the pipe any more
    assert killed.returncode == -signal.SIGKILL
    assert not psutil.pid_exists(helper) or psutil.Process(helper).status() == psutil.STATUS_ZOMBIE
    result = train(config, recorder(), checkpoint.newest_valid(run_dir), run_dir=run_dir, threads=2)
    undisturbed = checkpoint.newest_valid(whole) or train(config, recorder(), run_dir=whole, threads=2).checkpoint.path
    assert_same_bits(result.checkpoint.path, undisturbed)


def test_a_loss_that_is_no_number_ends_all(quick, recorder, run_dir, monkeypatch) -> None:
    honest = ClassificationTask.step

    def step(self: ClassificationTask, *args: Any) -> StepOutput:
        output = honest(self, *args)
        return output._replace(loss=output.loss * math.nan)

    monkeypatch.setattr(ClassificationTask, "step", step)  # of the leader: the other process imports its own
    with pytest.raises(DivergedError, match=r"epoch 1, step 1: try a lower"):
        train(quick(**PAIR), recorder(), run_dir=run_dir, threads=2)
    assert multiprocessing.active_children() == []
    assert not run_dir.exists()


def test_a_process_of_a_group_of_torch_starts_no_other(quick, recorder, monkeypatch) -> None:
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    with pytest.raises(TrainerError, match=r"set training\.processes to 1"):
        train(quick(**PAIR), recorder())


def test_only_the_leader_averages_weights(quick) -> None:
    section = quick(training={"ema_decay": 0.9}).training
    model = nn.Linear(2, 2)
    optimizer = torch.optim.SGD(model.parameters())
    device = torch.device("cpu")
    assert Updater(model, optimizer, section, device).ema is not None
    assert Updater(model, optimizer, section, device, averaged=False).ema is None
