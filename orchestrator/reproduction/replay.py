"""Train a stored trial again and compare what it reports with what is stored, digit by digit."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from configs.resolve import config_hash, from_dict
from orchestrator.errors import ReplayError
from orchestrator.machine.provenance import provenance
from orchestrator.machine.slots import gpus, names_of
from orchestrator.reading.labels import end_text
from orchestrator.reproduction.stored_trial import StoredTrial
from orchestrator.workers.trial_process import TrialSpec, load_trainer, write_config
from trainers.data_presence import require_data
from trainers.protocol import EpochReport, RunFacts, SavedCheckpoint, TrainerError, Verdict

CLOCK_AND_MEMORY = ("epoch_seconds", "peak_memory_mb")  # differ from run to run
HASHES = ("git_commit", "git_dirty_hash")


@dataclass(frozen=True, slots=True)
class Difference:
    """A number that is not the stored one; None where it is missing."""

    epoch: int
    metric: str
    stored: float | None
    replayed: float | None

    def __str__(self) -> str:
        stored, replayed = ("missing" if value is None else repr(value) for value in (self.stored, self.replayed))
        return f"epoch {self.epoch}, {self.metric}: stored {stored}, replayed {replayed}"


@dataclass(frozen=True, slots=True)
class Replay:
    """What a replay found.

    Args:
        epochs: how many were compared.
        numbers: how many numbers were compared.
        differences: all of them, by epoch and metric.
        failure: what the trainer raised before the last epoch that is stored; "" where it did not.
        surroundings: what is not as it was: code, packages, device; one line each.
    """

    epochs: int
    numbers: int
    differences: tuple[Difference, ...]
    failure: str
    surroundings: tuple[str, ...]

    @property
    def identical(self) -> bool:
        """Whether every stored number came out again."""
        return not self.differences and not self.failure


Told = Callable[[EpochReport, list[Difference]], None]


def replay(trial: StoredTrial, folder: Path, told: Told) -> Replay:
    """Train a trial from its start to its last stored epoch, as its worker did.

    This process then sees no GPU but the one of the replay.

    Args:
        trial: the trial; nothing but this is needed of its first run.
        folder: an empty folder for the replay's files.
        told: of each epoch with its differences.

    Raises:
        ReplayError: there is nothing to compare with.
        DataNotFoundError: the data set is not where the configuration says.
        ConfigError: this version of the program does not accept the stored configuration.
        TrainerNotFoundError: the trainer cannot be imported here.
    """
    if not trial.curves:
        ended = f"it ended before its first epoch was over ({end_text(trial.end_reason)})"
        raise ReplayError(
            f"trial {trial.number} of study '{trial.study}' has no numbers to compare with: "
            f"{ended if trial.end_reason else 'it has not finished an epoch yet'}"
        )
    config = trial.config()
    require_data(config.data)
    trainer = load_trainer(trial.trainer)
    device = same_kind_of_device(trial.attempts[-1].device if trial.attempts else "cpu")
    _see_only(device)
    folder.mkdir(parents=True, exist_ok=True)
    write_config(TrialSpec(config.model_dump(mode="json"), trial.trainer, folder, device, trial.threads, 1))
    comparer = Comparer(trial.curves, told)
    failure = ""
    try:
        trainer(config, comparer, None, run_dir=folder, threads=trial.threads)
    except TrainerError as error:
        failure = str(error)
    return comparer.found(failure, tuple(changes(trial, device, comparer.facts)))


class Comparer:
    """A reporter that compares each epoch with the stored one, and ends the run after the last of those.

    Args:
        curves: the stored numbers.
        told: of each epoch with its differences.
    """

    def __init__(self, curves: Mapping[int, Mapping[str, float]], told: Told) -> None:
        self._curves = curves
        self._told = told
        self._reached = 0
        self._differences: list[Difference] = []
        self.facts: RunFacts | None = None

    def started(self, facts: RunFacts) -> None:
        """Keep what the run runs on."""
        self.facts = facts

    def epoch(self, report: EpochReport) -> None:
        """Compare an epoch."""
        if report.epoch > max(self._curves):
            return
        self._reached = report.epoch
        found = list(differences(report.epoch, self._curves.get(report.epoch, {}), report.metrics))
        self._differences += found
        self._told(report, found)

    def checkpoint(self, saved: SavedCheckpoint) -> None:
        """Take no note."""

    def verdict(self) -> Verdict:
        """Stop after the last stored epoch: the first run ended there."""
        return Verdict.STOP if self._reached >= max(self._curves) else Verdict.CONTINUE

    def found(self, failure: str, surroundings: tuple[str, ...]) -> Replay:
        """Return what was found; epochs that were never reached are missing.

        Args:
            failure: what the trainer raised, or "".
            surroundings: what is not as it was.
        """
        for epoch in sorted(epoch for epoch in self._curves if epoch > self._reached):
            self._differences += differences(epoch, self._curves[epoch], {})
        numbers = sum(is_compared(name) for metrics in self._curves.values() for name in metrics)
        reached = self._reached >= max(self._curves)
        return Replay(len(self._curves), numbers, tuple(self._differences), "" if reached else failure, surroundings)


def differences(epoch: int, stored: Mapping[str, float], replayed: Mapping[str, float]) -> Iterator[Difference]:
    """Yield the metrics of an epoch that are not equal to the last bit; clock and memory are left out."""
    for name in sorted(filter(is_compared, {*stored, *replayed})):
        before, now = stored.get(name), replayed.get(name)
        if before != now and not (before is not None and now is not None and math.isnan(before) and math.isnan(now)):
            yield Difference(epoch, name, before, now)


def is_compared(metric: str) -> bool:
    """Tell whether a metric must come out again; times and memory need not."""
    return metric not in CLOCK_AND_MEMORY


def same_kind_of_device(recorded: str) -> str:
    """Return a device of this machine of the kind that a trial ran on; the CPU where there is none.

    Args:
        recorded: "cpu", "cuda:N", or "cuda:N,M" of a trial of two processes.
    """
    here = gpus()
    if not recorded.startswith("cuda") or not here:
        return "cpu"
    numbers = recorded.removeprefix("cuda:").split(",")
    same = [gpu for gpu in here if gpu.device.removeprefix("cuda:") in numbers]
    return names_of(same if len(same) == len(numbers) else here[: len(numbers)])


def changes(trial: StoredTrial, device: str, facts: RunFacts | None) -> Iterator[str]:
    """Yield what is not as it was in the trial's attempts, one line each.

    Args:
        trial: the stored trial.
        device: the device of the replay.
        facts: what its run runs on, where it came so far.
    """
    if (now := config_hash(from_dict(trial.stored_config))) != trial.config_hash:
        yield f"configuration: its hash was {trial.config_hash[:12]}, is {now[:12]}: defaults or keys have changed"
    if trial.attempts and trial.attempts[-1].device.partition(":")[0] != device.partition(":")[0]:
        yield f"device: was {trial.attempts[-1].device}, is {device}"
    backends = list(dict.fromkeys(attempt.neuron_backend for attempt in trial.attempts if attempt.neuron_backend))
    if facts is not None and backends and backends != [facts.neuron_backend]:
        yield f"neuron backend: was {' then '.join(backends)}, is {facts.neuron_backend}"
    sizes = list(dict.fromkeys(str(attempt.micro_batch) for attempt in trial.attempts if attempt.micro_batch))
    if len(sizes) > 1:
        yield f"micro-batch: was {' then '.join(sizes)}, is {sizes[-1]}: memory ran out in the first run"
    here = provenance(device).columns()
    lines: dict[str, None] = {}
    for attempt in trial.attempts:
        lines |= dict.fromkeys(environment_changes(attempt.environment, here))
    yield from lines


def environment_changes(before: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[str]:
    """Yield what differs between two environments, one line each, packages by name.

    Args:
        before: columns of a stored environment; empty where none was stored.
        now: those of this process.
    """
    if not before:
        return
    names = {"git_commit": "git commit", "git_dirty_hash": "uncommitted changes", "device_name": "device"}
    for column in (column for column in now if column != "packages"):
        if before[column] != now[column]:
            was, now_is = (str(value or "none") for value in (before[column], now[column]))
            if column in HASHES:
                was, now_is = was[:12], now_is[:12]
            yield f"{names.get(column, column)}: was {was}, is {now_is}"
    old, new = before["packages"], now["packages"]
    for name in sorted(old.keys() | new.keys(), key=str.lower):
        if old.get(name) != new.get(name):
            yield f"package {name}: was {old.get(name, 'absent')}, is {new.get(name, 'absent')}"


def fresh_folder(parent: Path, trial: int) -> Path:
    """Return a folder for a replay that does not exist yet.

    Args:
        parent: folder of the study's runs.
        trial: number of the trial.
    """
    count = 1
    while (folder := parent / f"replay_{trial:05d}{f'_{count}' if count > 1 else ''}").exists():
        count += 1
    return folder


def _see_only(device: str) -> None:
    os.environ["CUDA_VISIBLE_DEVICES"] = device.removeprefix("cuda:") if device.startswith("cuda:") else ""
