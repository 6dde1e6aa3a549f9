"""A study and its trials as views show them: plain values, without a database behind them."""

from __future__ import annotations

import json
import math
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from orchestrator.reading.front import feasible_front, pareto_front
from orchestrator.storage.tables import EndReason, JobState, StudyRow, StudyState


class TrialState(StrEnum):
    """Where a trial is in its life; STOPPED is an early end by a rule or a person, FAILED an end by an error."""

    WAITING = "waiting"
    RUNNING = "running"
    FINISHED = "finished"
    STOPPED = "stopped"
    FAILED = "failed"


ENDED = (TrialState.FINISHED, TrialState.STOPPED, TrialState.FAILED)


@dataclass(frozen=True, slots=True)
class Objective:
    """A metric that the study improves."""

    metric: str
    direction: str


@dataclass(frozen=True, slots=True)
class Constraint:
    """A bound on a metric."""

    metric: str
    max: float | None
    min: float | None

    def violation(self, value: float | None) -> float:
        """Return by how much a value misses the bound, as a share of the bound; NaN when the metric is missing."""
        if value is None or math.isnan(value):
            return math.nan
        above = 0.0 if self.max is None else max(0.0, value - self.max) / (abs(self.max) or 1.0)
        below = 0.0 if self.min is None else max(0.0, self.min - value) / (abs(self.min) or 1.0)
        return above + below

    def __str__(self) -> str:
        bounds = [f"<= {self.max:g}"] if self.max is not None else []
        bounds += [f">= {self.min:g}"] if self.min is not None else []
        return f"{self.metric} {' and '.join(bounds)}"


@dataclass(frozen=True, slots=True)
class Parameter:
    """A searched parameter.

    Args:
        key: dotted key of the configuration.
        kind: "float", "int" or "categorical".
        low: smallest value of a number.
        high: largest value of a number.
        log: searched on a logarithmic scale.
        step: distance between allowed values; None for a continuous range.
        choices: values of a categorical parameter.
    """

    key: str
    kind: str
    low: float = 0.0
    high: float = 0.0
    log: bool = False
    step: float | None = None
    choices: tuple[object, ...] = ()


@dataclass(frozen=True, slots=True)
class StudyView:
    """What is fixed about a study, and what it is doing."""

    id: int
    name: str
    space: str
    space_hash: str
    seed: int
    budget: int
    state: str
    state_detail: str
    created_at: float
    optuna_id: int
    objectives: tuple[Objective, ...]
    constraints: tuple[Constraint, ...]
    parameters: tuple[Parameter, ...]
    budget_hours: float | None = None

    @property
    def directions(self) -> list[str]:
        """The direction of each objective."""
        return [objective.direction for objective in self.objectives]

    def values(self, metrics: Mapping[str, float]) -> tuple[float, ...] | None:
        """Return the objective values among the metrics of a trial's last epoch; None when one is missing."""
        found = tuple(metrics.get(objective.metric, math.nan) for objective in self.objectives)
        return None if any(math.isnan(value) for value in found) else found

    def violation(self, metrics: Mapping[str, float]) -> float:
        """Return by how much the constraints are missed in total: 0 keeps all, NaN was not measured."""
        return math.fsum(bound.violation(metrics.get(bound.metric)) for bound in self.constraints)


@dataclass(frozen=True, slots=True)
class TrialView:
    """One trial.

    Args:
        metrics: metrics of its last epoch, without those of single layers.
        values: its objectives, in the study's order; None while one is missing.
        violation: total share by which constraints are missed; 0 keeps all, NaN was not measured.
        attempts: how often it was started.
        epochs: epochs completed.
        epochs_planned: epochs its configuration asks for, or None.
        seconds: time on a device, all attempts together.
    """

    number: int
    job_id: int
    state: TrialState
    params: dict[str, Any]
    metrics: dict[str, float]
    values: tuple[float, ...] | None
    violation: float
    end_reason: str | None
    end_detail: str
    attempts: int
    epochs: int
    epochs_planned: int | None
    seconds: float
    started_at: float | None
    ended_at: float | None
    run_dir: str
    log_path: str
    device: str
    config_hash: str

    @property
    def replay_command(self) -> str:
        """The command that trains this trial's configuration again; its worker wrote the file."""
        return f"spikebench train --config {shlex.quote(str(Path(self.run_dir) / 'config.yaml'))}"


@dataclass(frozen=True, slots=True)
class TrialFront:
    """The trials nobody beats; with `feasible` false the least violating ones, as no trial keeps the constraints."""

    trials: tuple[TrialView, ...]
    feasible: bool


def trial_front(study: StudyView, finished: Sequence[TrialView]) -> TrialFront:
    """Return the front of finished trials, ordered by the first objective, best first."""
    points = [trial.values or () for trial in finished]
    if study.constraints:
        front = feasible_front(points, study.directions, [trial.violation for trial in finished])
        indices, feasible = front.indices, front.feasible
    else:
        indices, feasible = tuple(pareto_front(points, study.directions)), True
    members = [finished[index] for index in indices]
    if feasible and study.objectives:
        sign = -1.0 if study.objectives[0].direction == "maximize" else 1.0
        members.sort(key=lambda trial: (sign * (trial.values or (0.0,))[0], trial.number))
    return TrialFront(tuple(members), feasible)


def study_view(row: StudyRow, now: float) -> StudyView:
    """Return a study's row with its stored space taken apart; a study whose controller vanished is "interrupted".

    The space is read as plain JSON: a study must stay readable when the present schema would no longer accept it.
    """
    space = json.loads(row.space_json)["space"]
    interrupted = row.state == StudyState.RUNNING and row.controller_lease_until <= now
    return StudyView(
        id=row.id,
        name=row.name,
        space=space["name"],
        space_hash=row.space_hash,
        seed=row.seed,
        budget=row.budget_trials,
        state="interrupted" if interrupted else row.state,
        state_detail=row.state_detail,
        created_at=row.created_at,
        optuna_id=row.optuna_study_id,
        objectives=tuple(Objective(o["metric"], o["direction"]) for o in space["objectives"]),
        constraints=tuple(Constraint(c["metric"], c.get("max"), c.get("min")) for c in space.get("constraints") or ()),
        parameters=tuple(_parameter(key, p) for key, p in (space.get("parameters") or {}).items()),
        budget_hours=(space.get("budget") or {}).get("hours"),
    )


def _parameter(key: str, stored: Mapping[str, Any]) -> Parameter:
    if stored["type"] == "categorical":
        return Parameter(key, "categorical", choices=tuple(stored["choices"]))
    return Parameter(
        key, stored["type"], stored["low"], stored["high"], bool(stored.get("log")), step=stored.get("step")
    )


def trial_state(job_state: str, end_reason: str | None) -> TrialState:
    """Return where a trial is, from its job's state and end reason."""
    if job_state == JobState.DONE:
        return TrialState.FINISHED if end_reason == EndReason.FINISHED else TrialState.STOPPED
    if end_reason == EndReason.CANCELLED:
        return TrialState.STOPPED
    return {JobState.PENDING: TrialState.WAITING, JobState.LEASED: TrialState.RUNNING}.get(
        JobState(job_state), TrialState.FAILED
    )


def spread(trials: Sequence[TrialView], count: int) -> list[TrialView]:
    """Return at most `count` trials, evenly over the sequence, both ends among them."""
    if len(trials) <= count:
        return list(trials)
    step = (len(trials) - 1) / max(1, count - 1)
    return [trials[round(index * step)] for index in range(count)]
