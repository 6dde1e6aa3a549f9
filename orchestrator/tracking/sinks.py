"""What a sink is: a service that shows the numbers of a study elsewhere, such as MLflow or Weights & Biases."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from orchestrator.errors import OrchestratorError
from orchestrator.reading.views import StudyView


class DeliveryRefusedError(OrchestratorError):
    """The service will never take this trial; trying again is of no use."""


@dataclass(frozen=True, slots=True)
class TrialFacts:
    """A trial, or a run that belongs to no study, as a sink is told of it.

    Args:
        number: the trial's number in its study; 0 for a run that belongs to none.
        name: what people know it by.
        config: the resolved configuration; None unless the trial is opened.
        end_reason: why it ended; None while it goes on.
        failed: it ended by an error.
    """

    number: int
    name: str
    params: dict[str, Any]
    config: dict[str, Any] | None
    config_hash: str
    attempt: int
    run_dir: str
    started_at: float
    ended_at: float | None
    end_reason: str | None
    failed: bool


@dataclass(frozen=True, slots=True)
class EpochMetrics:
    """The numbers of one epoch, and when they were reported."""

    epoch: int
    reported_at: float
    metrics: dict[str, float]


class Sink(Protocol):
    """Take the numbers of one study, or of one run that belongs to none.

    Every call may come twice: the caller may have died before it noted the first.

    A call raises `DeliveryRefusedError` when it can never work, and anything else when it may work later.
    """

    name: str  # in the database
    service: str  # in messages

    def open_study(self, study: StudyView) -> None:
        """Find or make the place of the study; this or `open_alone` comes before any other call."""

    def open_alone(self, name: str) -> None:
        """Find or make the place of a run that belongs to no study, called by its configuration."""

    def open_trial(self, trial: TrialFacts, run_id: str | None) -> str:
        """Find or make the place of a trial, mark it as running and return its id.

        Args:
            trial: the trial, with its configuration when `run_id` is None.
            run_id: what this call returned for the trial in an earlier process.
        """

    def log(self, run_id: str, epochs: Sequence[EpochMetrics]) -> None:
        """Take epochs, oldest first."""

    def close_trial(self, run_id: str, trial: TrialFacts) -> None:
        """Take the end of a trial; without an end reason it is only interrupted and will go on."""

    def close_study(self, state: str, report: Path | None) -> None:
        """Take what the study is doing when its controller leaves.

        Args:
            state: what it is doing.
            report: its report, if there is one.
        """
