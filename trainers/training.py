"""The training loop: epochs of steps, validation, reports and checkpoints, and how a run is continued."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from configs.resolve import config_hash, to_dict
from trainers import checkpoint as checkpoints
from trainers.allocator import keep_freed_memory
from trainers.data import DataBundle, load_data
from trainers.data.batches import TrainBatches
from trainers.determinism import capture_rng, derive_seed, reproducible, restore_rng
from trainers.distributed import Team, team_of
from trainers.evaluation import energy_meter, eval_batch_size, measure
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
    SilentReporter,
    Verdict,
)
from trainers.tasks import TrainingStep, make_task

if TYPE_CHECKING:
    from configs.schema import RunConfig

_VERDICTS = tuple(Verdict)
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
    with team_of(config.training.processes, _help, (config, resume_from, threads)) as team:
        return _train(
            team, config, _Saver(run_dir, config.training.keep_checkpoints, report, attempt), resume_from, threads
        )


def _train(team: Team, config: RunConfig, saver: _Saver, resume_from: Path | None, threads: int | None) -> Result:
    """Train as one of a team."""
    training = config.training
    device = choose_device(training.device, team.number, team.size)
    if device.type == "cuda":
        torch.cuda.set_device(device)
    keep_freed_memory(device)
    threads = team.threads_of(threads)
    with reproducible(training.seed, device, deterministic=training.deterministic, threads=threads):
        run = _Run(team, config, device, saver)
        if resume_from is not None:
            run.restore(resume_from)
        return run.go()


def _help(team: Team, folder: Path, config: RunConfig, resume_from: Path | None, threads: int | None) -> None:
    """Train as one of those that the leader of a team has started; nothing is reported or saved here."""
    team.meet(folder)
    _train(team, config, _Saver(None, 1, SilentReporter(), 1), resume_from, threads)
    team.part()


class _AskedToEnd(Exception):  # noqa: N818  (no error: the way out of nested loops)
    """The runner has asked for an end between two steps."""

    def __init__(self, verdict: Verdict) -> None:
        self.verdict = verdict


class _Run:
    """One run from its first step to its result.

    Args:
        team: the processes that train it.
        config: the whole configuration.
        device: where this process computes.
        saver: writes its checkpoints; whom it tells of them is told and asked.
    """

    def __init__(self, team: Team, config: RunConfig, device: torch.device, saver: _Saver) -> None:
        training = config.training
        data = team.in_turn(lambda: _load(config))
        model = build_model(config, data.shape, data.num_classes, device)
        learning_rate = effective_learning_rate(config.optimizer, training)
        optimizer = make_optimizer(model, config.optimizer, learning_rate)
        self._team = team
        self._config = config
        self._report = saver.report
        self._device = device
        self._classes = data.num_classes
        self._val = data.val.to(device)
        self._task = make_task(config, device)
        self._updater = Updater(model, optimizer, training, device, averaged=team.leads)
        self._step_of_model: nn.Module = TrainingStep(self._task, model)
        self._replicated = False
        self._mixup = make_mixup(config.augmentation, data.num_classes)
        self._batches = TrainBatches(
            data.train,
            batch_size=training.batch_size,
            seed=training.seed,
            device=device,
            even=self._mixup is not None,
            transform=data.transform,
            workers=config.data.workers,
            part=team.number,
            parts=team.size,
        )
        self._updates_per_epoch = math.ceil(len(self._batches) / training.accumulation_steps)
        self._schedule = make_schedule(optimizer, config.schedule, training.epochs, self._updates_per_epoch)
        self._guard = FiniteGuard(device)
        self._progress = Progress(device, classifies=self._task.classifies)
        self._saver = saver
        if not team.leads:  # what is drawn for an image must not be drawn for those of the other slices too
            torch.manual_seed(derive_seed(training.seed, "process", team.number))

    def restore(self, path: Path) -> None:
        """Put everything back to where a checkpoint was written, and report its epochs again."""
        content = checkpoints.load(path)
        checkpoints.check_same_run(content, self._config, path)
        processes = content["config"]["training"].get("processes", 1)
        if processes != self._team.size:
            _log.warning(
                "%s was written by %d process(es), this run has %d: batches are normalised in other slices",
                path, processes, self._team.size,
            )  # fmt: skip
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
            self._restore_own(content)
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            raise CheckpointError(f"{path} does not fit this version of the program: {error}") from error
        self._saver.newest = checkpoints.describe(path)

    def _restore_own(self, content: dict[str, Any]) -> None:
        """Put back what each process has of its own."""
        saved = [{"rng": content["rng"], "sums": content["progress"]["sums"]}, *content.get("others", ())]
        number, size = self._team.number, self._team.size
        if number < len(saved):
            restore_rng(saved[number]["rng"], self._device)
        sums = [each["sums"] for each in saved[number::size]]  # with fewer processes than before, of several
        self._progress.take_sums(torch.stack(sums).sum(0) if sums else torch.zeros_like(self._progress.sums))

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
            device=self._devices(),
            neuron_backend=backend_of(model, self._device),
            resumed_epoch=self._progress.epoch,
            parameters=sum(weight.numel() for weight in model.parameters() if weight.requires_grad),
            effective_batch=training.batch_size * training.accumulation_steps,
            micro_batch=math.ceil(training.batch_size / training.processes),
            learning_rate=effective_learning_rate(self._config.optimizer, training),
            seed=training.seed,
            deterministic=training.deterministic,
        )

    def _devices(self) -> str:
        """Return where all processes compute: "cpu", "cuda:0", "cuda:0,1"; the helpers only name their own."""
        first, *more = self._team.gather(str(self._device)) or [str(self._device)]
        return ",".join([first, *(name.rpartition(":")[2] for name in more if name != first)])

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
            complete = (step + 1) % accumulation == 0 or step + 1 == len(sizes)
            # the mean of all processes' gradients is that of the images, whatever the sizes of the slices
            share = len(labels) * self._team.size / sum(sizes[first : first + accumulation])
            self._step(images, labels, share, complete=complete)
            if complete:
                self._schedule.step_update(epoch * self._updates_per_epoch + step // accumulation)
                self._updater.update()
                self._ask()

    def _step(self, images: Tensor, labels: Tensor, share: float, *, complete: bool) -> None:
        """Add one batch's gradients and sums; the gradients of all processes meet in the last of an update."""
        progress, targets = self._progress, labels
        if self._mixup is not None:
            off_from = self._config.augmentation.mix_off_epoch
            self._mixup.mixup_enabled = not off_from or progress.epoch < off_from
            images, targets = self._mixup(images, labels)
        if not self._replicated:
            self._replicated = True
            self._step_of_model = self._team.replicate(self._step_of_model, (images, targets, progress.epoch))
        with self._team.adding_up(self._step_of_model, complete=complete):
            loss, logits = self._step_of_model(images, targets, progress.epoch)
            self._updater.backward(loss, share)
        progress.count(loss.detach(), logits, targets)
        self._guard.watch(loss.detach(), progress.epoch + 1, progress.step)

    def _finish_epoch(self) -> None:
        """Validate, report and save; the leader measures while the others wait."""
        training, progress = self._config.training, self._progress
        self._guard.check(progress.epoch + 1)
        found: dict[str, float] | Verdict = self._team.share(self._found(self._team.gather(progress.sums)))
        if isinstance(found, Verdict):
            raise _AskedToEnd(found)
        report = EpochReport(progress.epoch + 1, training.epochs, found, found["epoch_seconds"])
        progress.finish_epoch(report)
        self._report.epoch(report)
        if progress.epoch % training.checkpoint_every == 0 or progress.epoch == training.epochs:
            self._save()

    def _found(self, sums: Sequence[Tensor]) -> dict[str, float] | Verdict | None:
        """Return what the leader measures, or the verdict that ended it; None in the other processes."""
        if not self._team.leads:
            return None
        try:
            return self._measured(sums)
        except _AskedToEnd as asked:
            return asked.verdict

    def _measured(self, sums: Sequence[Tensor]) -> dict[str, float]:
        """Return the metrics of the epoch.

        Args:
            sums: of the epoch's training, from each process.
        """
        training, progress = self._config.training, self._progress
        metrics = {**progress.train_metrics(sums[1:]), "learning_rate": self._updater.learning_rate}
        measured = measure(
            self._task,
            self._updater.evaluated_model,
            self._val,
            epoch=progress.epoch,
            batch_size=eval_batch_size(training),
            seed=training.seed,
            num_classes=self._classes,
            energy=energy_meter(self._config, self._updater.evaluated_model),
            between=self._obey,
        )
        metrics.update({f"val_{name}": value for name, value in measured.items()})
        if self._device.type == "cuda":
            metrics["peak_memory_mb"] = torch.cuda.max_memory_allocated(self._device) / 2**20
        metrics["epoch_seconds"] = progress.seconds()
        return finite_metrics(metrics, progress.epoch + 1, "val_loss")

    def _ask(self) -> None:
        """Leave where the runner wants an end, all processes after the same step."""
        verdict = self._report.verdict() if self._team.leads else Verdict.CONTINUE
        verdict = _VERDICTS[self._team.decide(_VERDICTS.index(verdict))]
        if verdict is not Verdict.CONTINUE:
            raise _AskedToEnd(verdict)

    def _obey(self) -> None:
        """Leave a measurement where the runner wants an end; the other processes hear of it afterwards."""
        if (verdict := self._report.verdict()) is not Verdict.CONTINUE:
            raise _AskedToEnd(verdict)

    def _save(self) -> None:
        self._guard.check(self._progress.epoch + 1)  # what is saved is never poisoned
        epoch, step = self._progress.epoch, self._progress.step
        if self._team.decide(int(self._saver.wants(epoch, step))):
            own = self._team.gather({"rng": capture_rng(self._device), "sums": self._progress.sums})
            self._saver.save(lambda: self._state(own[1:]), epoch, step)

    def _state(self, others: list[dict[str, Any]]) -> dict[str, Any]:
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
            "others": others,
        }


def _load(config: RunConfig) -> DataBundle:
    """Return the data set with the splits that training needs, which are made when they are first asked for."""
    data = load_data(config.data, config.augmentation)
    _ = data.train, data.val
    return data


def _goodness(epoch: EpochReport) -> float:
    """Return what makes an epoch the best one: its accuracy, or its loss where nothing is classified."""
    metrics = epoch.metrics
    return metrics["val_accuracy"] if "val_accuracy" in metrics else -metrics["val_loss"]


class _Saver:
    """Write a run's checkpoints; one that cannot be written is a warning, not the end of the run.

    Args:
        run_dir: the run's folder; None writes nothing.
        keep: checkpoints kept.
        report: told of each that is safe; what else is to be told goes there too.
        attempt: number of this attempt at the run.
    """

    def __init__(self, run_dir: Path | None, keep: int, report: Reporter, attempt: int) -> None:
        self._run_dir = run_dir
        self._keep = keep
        self.report = report
        self._attempt = attempt
        self.newest: SavedCheckpoint | None = None
        self.failure = ""  # why the last one could not be written

    def wants(self, epoch: int, step: int) -> bool:
        """Tell whether a state is to be saved: unless the newest checkpoint is at this very position."""
        return self._run_dir is not None and not (
            self.newest and (self.newest.epoch, self.newest.step) == (epoch, step)
        )

    def save(self, state: Callable[[], dict[str, Any]], epoch: int, step: int) -> None:
        """Save the state, where there is a folder for it."""
        if self._run_dir is None:
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
            self.report.checkpoint(self.newest)

    def close(self) -> None:
        """Say so when the run leaves no checkpoint behind although it should."""
        if self.failure and self.newest is None:
            _log.error("no checkpoint of this run could be written: %s", self.failure)
