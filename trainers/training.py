"""The training loop: epochs of steps, validation, reports and checkpoints, and how a run is continued."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from configs.resolve import config_hash, to_dict
from trainers import checkpoint as checkpoints
from trainers.allocator import keep_freed_memory
from trainers.data import load_data
from trainers.data.batches import TrainBatches
from trainers.determinism import capture_rng, reproducible, restore_rng
from trainers.evaluation import energy_meter, measure
from trainers.factory import build_model
from trainers.guards import FiniteGuard, check_spikes, choose_device, finite_metrics
from trainers.neurons import backend_of
from trainers.optimisation import (
    Updater,
    effective_learning_rate,
    make_mixup,
    make_optimizer,
    make_schedule,
)
from trainers.progress import Progress
from trainers.protocol import (
    CheckpointError,
    EpochReport,
    Outcome,
    Reporter,
    Result,
    RunFacts,
    SavedCheckpoint,
    Verdict,
)
from trainers.tasks import make_task

if TYPE_CHECKING:
    from configs.schema import RunConfig

_log = logging.getLogger(__name__)


def train(
    config: RunConfig,
    report: Reporter,
    resume_from: Path | None = None,
    *,
    run_dir: Path | None = None,
    threads: int | None = None,
    attempt: int = 1,
) -> Result:
    """Train one configuration; a run that is continued equals the unbroken one bit for bit on a CPU.

    Args:
        config: the whole resolved configuration of the run.
        report: told of epochs and checkpoints, asked for verdicts between steps.
        resume_from: a checkpoint of the same configuration to continue from; its epochs are reported again.
        run_dir: folder that belongs to this run; without one no checkpoint is written.
        threads: CPU threads to use; the same number gives the same bits. None leaves them as they are.
        attempt: number of this attempt at the run; its checkpoints carry it in their names.

    Returns:
        How the run ended and what it measured.

    Raises:
        CheckpointError: `resume_from` is missing, damaged or of another configuration.
        DataNotFoundError: the data set is not where the configuration says.
        DeadSpikesError: no layer fired for `training.spike_guard_epochs` epochs; SaturatedError: all did, always.
        DivergedError: a loss became NaN or infinite; the message has the epoch and step.
        TrainerError: the device, optimiser or augmentation asked for is not there.
    """
    device = choose_device(config.training.device)
    keep_freed_memory(device)
    with reproducible(config.training.seed, device, deterministic=config.training.deterministic, threads=threads):
        run = _Run(config, report, device, run_dir, attempt)
        if resume_from is not None:
            run.restore(resume_from)
        return run.go()


class _AskedToEnd(Exception):  # noqa: N818  (no error: the way out of nested loops)
    """The runner has asked for an end between two steps."""

    def __init__(self, verdict: Verdict) -> None:
        self.verdict = verdict


class _Run:
    """One run from its first step to its result.

    Args:
        config: the whole configuration.
        report: who is told and asked.
        device: where it computes.
        run_dir: where its checkpoints go, or None.
        attempt: number of this attempt at it.
    """

    def __init__(
        self, config: RunConfig, report: Reporter, device: torch.device, run_dir: Path | None, attempt: int
    ) -> None:
        training = config.training
        data = load_data(config.data, config.augmentation)
        model = build_model(config, data.shape, data.num_classes, device)
        learning_rate = effective_learning_rate(config.optimizer, training)
        optimizer = make_optimizer(model, config.optimizer, learning_rate)
        self._config = config
        self._report = report
        self._device = device
        self._classes = data.num_classes
        self._val = data.val.to(device)
        self._task = make_task(config, device)
        self._updater = Updater(model, optimizer, training, device)
        self._mixup = make_mixup(config.augmentation, data.num_classes)
        self._batches = TrainBatches(
            data.train,
            batch_size=training.batch_size,
            seed=training.seed,
            device=device,
            even=self._mixup is not None,
            transform=data.transform,
            workers=config.data.workers,
        )
        self._updates_per_epoch = math.ceil(len(self._batches) / training.accumulation_steps)
        self._schedule = make_schedule(optimizer, config.schedule, training.epochs, self._updates_per_epoch)
        self._guard = FiniteGuard(device)
        self._progress = Progress(device, classifies=self._task.classifies)
        self._saver = _Saver(run_dir, training.keep_checkpoints, report, attempt)

    def restore(self, path: Path) -> None:
        """Put everything back to where a checkpoint was written, and report its epochs again."""
        content = checkpoints.load(path)
        checkpoints.check_same_run(content, self._config, path)
        if content["threads"] != torch.get_num_threads():
            _log.warning(
                "%s was written with %d threads, this run has %d: its numbers may differ in the last bits",
                path, content["threads"], torch.get_num_threads(),
            )  # fmt: skip
        try:
            self._updater.load_state_dict(content["weights"])
            self._schedule.load_state_dict(content["schedule"])
            self._progress.load_state_dict(content["progress"])
            self._progress.step = self._position(content)
            restore_rng(content["rng"], self._device)
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            raise CheckpointError(f"{path} does not fit this version of the program: {error}") from error
        self._saver.newest = checkpoints.describe(path)

    def _position(self, content: dict[str, Any]) -> int:
        """Return how many of this run's batches are done in the epoch; those of the checkpoint may have been larger."""
        before: int = content["config"]["training"]["batch_size"]
        now = self._config.training.batch_size
        return min(math.ceil(self._progress.step * before / now), len(self._batches))

    def go(self) -> Result:
        """Train until the last epoch is done or the runner asks for an end."""
        self._report.started(self._facts())
        for epoch in self._progress.history:
            self._report.epoch(epoch)
        outcome, training = Outcome.FINISHED, self._config.training
        try:
            while self._progress.epoch < self._config.training.epochs:
                check_spikes(self._progress.history, training.spike_guard_epochs, training.spike_guard_grace)
                self._train_epoch()
                self._finish_epoch()
        except _AskedToEnd as asked:
            outcome = Outcome.STOPPED
            if asked.verdict is Verdict.PREEMPT:
                outcome = Outcome.PREEMPTED
                self._save()
        self._saver.close()
        history = self._progress.history
        return Result(
            outcome=outcome,
            epochs=self._progress.epoch,
            metrics=dict(history[-1].metrics) if history else {},
            best=dict(max(history, key=_goodness).metrics) if history else {},
            checkpoint=self._saver.newest,
            note=self._saver.failure,
        )

    def _facts(self) -> RunFacts:
        training, model = self._config.training, self._updater.model
        return RunFacts(
            device=str(self._device),
            neuron_backend=backend_of(model, self._device),
            resumed_epoch=self._progress.epoch,
            parameters=sum(weight.numel() for weight in model.parameters() if weight.requires_grad),
            effective_batch=training.batch_size * training.accumulation_steps,
            micro_batch=training.batch_size,
            learning_rate=effective_learning_rate(self._config.optimizer, training),
            seed=training.seed,
            deterministic=training.deterministic,
        )

    def _train_epoch(self) -> None:
        """Do what is left of the epoch's batches; the state is worth saving after each optimiser step."""
        epoch, accumulation = self._progress.epoch, self._config.training.accumulation_steps
        self._updater.model.train()
        self._schedule.step(epoch)
        self._progress.start_clock()
        if self._device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self._device)
        sizes = self._batches.sizes
        for images, labels in self._batches.epoch(epoch, start=self._progress.step):
            step = self._progress.step
            first = step - step % accumulation  # of the batches whose gradients are added up
            self._step(images, labels, share=sizes[step] / sum(sizes[first : first + accumulation]))
            if (step + 1) % accumulation == 0 or step + 1 == len(sizes):
                self._schedule.step_update(epoch * self._updates_per_epoch + step // accumulation)
                self._updater.update()
                self._ask()

    def _step(self, images: Tensor, labels: Tensor, share: float) -> None:
        """Add one batch's gradients and sums."""
        progress, targets = self._progress, labels
        if self._mixup is not None:
            off_from = self._config.augmentation.mix_off_epoch
            self._mixup.mixup_enabled = not off_from or progress.epoch < off_from
            images, targets = self._mixup(images, labels)
        output = self._task.step(self._updater.model, images, targets, progress.epoch)
        self._updater.backward(output.loss, share)
        logits = None if output.logits is None else output.logits.detach()
        progress.count(output.loss.detach(), logits, targets)
        self._guard.watch(output.loss.detach(), progress.epoch + 1, progress.step)

    def _finish_epoch(self) -> None:
        """Validate, report and save."""
        training, progress = self._config.training, self._progress
        self._guard.check(progress.epoch + 1)
        metrics = {**progress.train_metrics(), "learning_rate": self._updater.learning_rate}
        measured = measure(
            self._task,
            self._updater.evaluated_model,
            self._val,
            epoch=progress.epoch,
            batch_size=training.eval_batch_size or training.batch_size,
            seed=training.seed,
            num_classes=self._classes,
            energy=energy_meter(self._config, self._updater.evaluated_model),
            between=self._ask,
        )
        metrics.update({f"val_{name}": value for name, value in measured.items()})
        if self._device.type == "cuda":
            metrics["peak_memory_mb"] = torch.cuda.max_memory_allocated(self._device) / 2**20
        metrics["epoch_seconds"] = seconds = progress.seconds()
        metrics = finite_metrics(metrics, progress.epoch + 1, "val_loss")
        report = EpochReport(progress.epoch + 1, training.epochs, metrics, seconds)
        progress.finish_epoch(report)
        self._report.epoch(report)
        if progress.epoch % training.checkpoint_every == 0 or progress.epoch == training.epochs:
            self._save()

    def _ask(self) -> None:
        if (verdict := self._report.verdict()) is not Verdict.CONTINUE:
            raise _AskedToEnd(verdict)

    def _save(self) -> None:
        self._guard.check(self._progress.epoch + 1)  # what is saved is never poisoned
        self._saver.save(self._state, self._progress.epoch, self._progress.step)

    def _state(self) -> dict[str, Any]:
        return {
            "config": to_dict(self._config),
            "config_hash": config_hash(self._config),
            "epoch": self._progress.epoch,
            "step": self._progress.step,
            "threads": torch.get_num_threads(),
            "weights": self._updater.state_dict(),
            "schedule": self._schedule.state_dict(),
            "progress": self._progress.state_dict(),
            "rng": capture_rng(self._device),
        }


def _goodness(epoch: EpochReport) -> float:
    """Return what makes an epoch the best one: its accuracy, or its loss where nothing is classified."""
    metrics = epoch.metrics
    return metrics["val_accuracy"] if "val_accuracy" in metrics else -metrics["val_loss"]


class _Saver:
    """Write a run's checkpoints; one that cannot be written is a warning, not the end of the run.

    Args:
        run_dir: the run's folder; None writes nothing.
        keep: checkpoints kept.
        report: told of each that is safe.
        attempt: number of this attempt at the run.
    """

    def __init__(self, run_dir: Path | None, keep: int, report: Reporter, attempt: int) -> None:
        self._run_dir = run_dir
        self._keep = keep
        self._report = report
        self._attempt = attempt
        self.newest: SavedCheckpoint | None = None
        self.failure = ""  # why the last one could not be written

    def save(self, state: Callable[[], dict[str, Any]], epoch: int, step: int) -> None:
        """Save the state unless the newest checkpoint is at this very position."""
        if self._run_dir is None or (self.newest and (self.newest.epoch, self.newest.step) == (epoch, step)):
            return
        try:
            self.newest = checkpoints.save(
                self._run_dir, state(), epoch=epoch, step=step, keep=self._keep, attempt=self._attempt
            )
        except CheckpointError as error:
            self.failure = str(error)
            _log.warning("the run goes on without this checkpoint: %s", error)
        else:
            self.failure = ""
            self._report.checkpoint(self.newest)

    def close(self) -> None:
        """Say so when the run leaves no checkpoint behind although it should."""
        if self.failure and self.newest is None:
            _log.error("no checkpoint of this run could be written: %s", self.failure)
