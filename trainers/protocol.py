"""What a trainer and whoever runs it say to each other.

A trainer is any callable with the signature of `Trainer`; `trainers.train` is the one that is shipped. It
knows nothing of studies or databases: it tells a `Reporter` what happened and asks it whether to go on.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from configs.problems import SpikebenchError

if TYPE_CHECKING:
    from configs.schema import RunConfig


class TrainerError(SpikebenchError):
    """A run ended for a reason the trainer understands."""


class DataNotFoundError(TrainerError):
    """The data set is not in the folder the configuration names."""

    wrong_input = True


class CheckpointError(TrainerError):
    """A checkpoint is missing, corrupt, of another schema version or of another model."""

    wrong_input = True


class DivergedError(TrainerError):
    """The loss or an output became NaN or infinite."""


class DeadSpikesError(TrainerError):
    """No spiking layer fires any more."""


class SaturatedError(TrainerError):
    """Every neuron of every spiking layer fires at every time step."""


class ProcessLostError(TrainerError):
    """One of the processes that train a run together has ended without a word.

    Args:
        number: of the process.
        processes: how many there were.
        exitcode: how it ended; negative for a signal, None where nobody knows.
    """

    def __init__(self, number: int, processes: int, exitcode: int | None) -> None:
        how = f"killed by signal {-exitcode}" if exitcode is not None and exitcode < 0 else f"exit code {exitcode}"
        super().__init__(f"process {number + 1} of the {processes} that train this run ended without a word ({how})")
        self.exitcode = exitcode


class Verdict(StrEnum):
    """What the runner wants of a running trial."""

    CONTINUE = "continue"
    STOP = "stop"  # end now, keep what was measured (a stop rule has decided)
    PREEMPT = "preempt"  # write a checkpoint and leave; the run goes on later from there


class Outcome(StrEnum):
    """How a call of a trainer ended when it did not raise."""

    FINISHED = "finished"
    STOPPED = "stopped"
    PREEMPTED = "preempted"


@dataclass(frozen=True, slots=True)
class RunFacts:
    """What a run turned out to run on, told before its first step.

    Args:
        device: "cpu", "cuda:0", ...
        neuron_backend: kernel the spiking layers really use.
        resumed_epoch: epochs that were completed in the checkpoint it goes on from; 0 for a fresh start.
        parameters: trainable parameters.
        effective_batch: images per optimiser step, accumulation included.
        micro_batch: images that go through the model at once.
        learning_rate: base learning rate of the optimiser.
        seed: seed of the run.
        deterministic: operations that are not reproducible are refused.
    """

    device: str
    neuron_backend: str
    resumed_epoch: int
    parameters: int
    effective_batch: int
    micro_batch: int | None = None
    learning_rate: float | None = None
    seed: int | None = None
    deterministic: bool | None = None


@dataclass(frozen=True, slots=True)
class EpochReport:
    """The numbers of one finished epoch.

    Args:
        epoch: 1-based number of the epoch that has ended.
        epochs: how many the run will have.
        metrics: finite values only, named `train_*`, `val_*`, `test_*` or plain (`learning_rate`, `peak_memory_mb`).
        seconds: wall time of the epoch, validation included.
    """

    epoch: int
    epochs: int
    metrics: dict[str, float]
    seconds: float


@dataclass(frozen=True, slots=True)
class SavedCheckpoint:
    """A checkpoint that is on disk, complete and verified.

    Args:
        path: the file.
        epoch: epochs completed in it (0 before the first ends).
        step: optimiser-loader steps done in the epoch that follows.
        sha256: digest of the file's bytes.
        size: bytes.
    """

    path: Path
    epoch: int
    step: int
    sha256: str
    size: int


class Reporter(Protocol):
    """Receive what a trainer reports and tell it whether to go on."""

    def started(self, facts: RunFacts) -> None:
        """Take note of what the run runs on; comes once, before the first epoch."""

    def epoch(self, report: EpochReport) -> None:
        """Take the numbers of one epoch; the same epoch may come twice after a resume, with equal numbers."""

    def checkpoint(self, saved: SavedCheckpoint) -> None:
        """Take note of a checkpoint that is safe on disk."""

    def verdict(self) -> Verdict:
        """Say whether to go on; asked between steps, so it must be quick and must not block.

        That it is asked is the sign of life of a run: one that neither asks nor reports for long is taken to hang.
        """


class SilentReporter:
    """A reporter that keeps nothing and never stops a run."""

    def started(self, facts: RunFacts) -> None:
        """Drop the facts."""

    def epoch(self, report: EpochReport) -> None:
        """Drop the report."""

    def checkpoint(self, saved: SavedCheckpoint) -> None:
        """Drop the note."""

    def verdict(self) -> Verdict:
        """Always go on."""
        return Verdict.CONTINUE


@dataclass(frozen=True, slots=True)
class Result:
    """What became of a run.

    Args:
        outcome: finished, stopped by a verdict, or preempted with a checkpoint to go on from.
        epochs: epochs completed.
        metrics: the metrics of the last completed epoch; empty when none was completed.
        best: the metrics of the epoch with the highest `val_accuracy`, or with the lowest `val_loss` where nothing is
            classified.
        checkpoint: the newest checkpoint, or None when the run keeps none.
        note: what a person should know although the run ended well: a checkpoint that could not be written.
    """

    outcome: Outcome
    epochs: int
    metrics: dict[str, float]
    best: dict[str, float]
    checkpoint: SavedCheckpoint | None
    note: str = ""


class Trainer(Protocol):
    """Train one configuration.

    A trainer that also takes the keyword `attempt` is told the number of the attempt at this run. It is for names of
    files: an earlier attempt that was given up for lost may still be writing into the same folder.
    """

    def __call__(
        self,
        config: RunConfig,
        report: Reporter,
        resume_from: Path | None = None,
        *,
        run_dir: Path | None = None,
        threads: int | None = None,
    ) -> Result:
        """Train, reporting each epoch, and return how it ended.

        Args:
            config: the whole resolved configuration of the run.
            report: told of epochs and checkpoints, asked for verdicts.
            resume_from: a checkpoint of the same configuration to continue from.
            run_dir: folder that belongs to this run; without one no checkpoint is written.
            threads: CPU threads to use; the same number gives the same bits.
        """
