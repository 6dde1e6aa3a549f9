"""End trials early that are behind at a rung or break a hard constraint; decided by our tables alone."""

from __future__ import annotations

import math
from bisect import insort
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count, takewhile

import numpy as np
from sqlalchemy import Connection, and_, or_, select, update

from orchestrator.reading.front import pareto_front
from orchestrator.reading.history import VARIABLES, AnyRow, AnySelect
from orchestrator.storage.database import Database
from orchestrator.storage.tables import EndReason, EpochRow, JobRow, JobState, MetricRow
from search_spaces.space import Constraint, HardConstraints, Rungs, Space
from trainers.protocol import Verdict

Losses = tuple[float, ...]  # objectives at one epoch, smaller is better
Curve = Mapping[int, float]  # epoch -> value
Arrival = tuple[float, int, Losses]  # when a trial's epoch was reported, its job, its losses then


def is_behind(candidate: int, losses: Sequence[Losses], rungs: Rungs) -> bool:
    """Tell whether a trial is not among the best 1/factor of those that reached a rung, itself included.

    With one objective trials are ordered by value, with several by non-domination rank and then by crowding distance,
    as NSGA-II does (Deb et al. 2002). A trial that no other one dominates is never behind; equal trials share a fate.

    Args:
        candidate: position of the trial in `losses`.
        losses: `[N, M]` objectives at the rung, smaller is better; finite. Their order does not matter.
        rungs: the rule.
    """
    if len(losses) < rungs.min_trials:
        return False
    places = math.ceil(len(losses) / rungs.factor)
    own = losses[candidate]
    if len(own) == 1:
        return sum(other < own for other in losses) >= places
    points = np.asarray(losses)
    left = np.arange(len(losses))
    first_front = True
    while places > 0:
        front = left[pareto_front(points[left], ["minimize"] * len(own))]
        if candidate in front:
            return not first_front and _crowded(own, [losses[index] for index in front]) >= places
        left = np.setdiff1d(left, front, assume_unique=True)
        places -= len(front)
        first_front = False
    return True


def crowding_distances(front: Iterable[Losses]) -> dict[Losses, float]:
    """Return how lonely each point of a front is (Deb et al. 2002).

    It is the distance between its two neighbours, as a share of the front's extent, summed over the objectives, and
    infinite at the ends. Equal points count once.
    """
    points = sorted(set(front))
    distances = dict.fromkeys(points, 0.0)
    for objective in range(len(points[0])):
        line = sorted(points, key=lambda point: (point[objective], point))
        extent = line[-1][objective] - line[0][objective]
        distances[line[0]] = distances[line[-1]] = math.inf
        for before, point, after in zip(line, line[1:], line[2:], strict=False):
            distances[point] += (after[objective] - before[objective]) / extent if extent else 0.0
    return distances


def _crowded(own: Losses, front: Sequence[Losses]) -> int:
    """Return how many members of a front stand in a less crowded place than one of them."""
    distances = crowding_distances(front)
    return sum(distances[other] > distances[own] for other in front)


def breaks(constraint: Constraint, curve: Curve, rule: HardConstraints) -> bool:
    """Tell whether a constraint was broken so many epochs in a row, the first ones left out.

    Args:
        constraint: the bound.
        curve: its metric.
        rule: how many epochs, and how many are left out.
    """
    row = 0
    for epoch in sorted(epoch for epoch in curve if epoch > rule.grace):
        row = row + 1 if constraint.excess(curve[epoch]) > 0 else 0
        if row >= rule.epochs:
            return True
    return False


def rung_epochs(rungs: Rungs, epochs: int) -> list[int]:
    """Return the rungs that a trial meets: all before its last epoch.

    Args:
        rungs: the rule.
        epochs: epochs the trial will have.
    """
    return list(takewhile(lambda epoch: epoch < epochs, (rungs.first * rungs.factor**step for step in count())))


@dataclass(slots=True)
class _Trial:
    """What is known of a trial that has not ended."""

    epochs: int
    reason: EndReason | None = None  # once found, it stays: an attempt may be lost before it has heard of it
    weighed: set[int] = field(default_factory=set)  # at these rungs
    curves: dict[str, dict[int, float]] = field(default_factory=lambda: defaultdict(dict))  # metric -> epoch -> value


class StopRules:
    """Apply a space's stop rules to the running trials of a study.

    A trial is weighed once at each rung, against the trials that had been there when it came. All that is read from the
    tables and depends on nothing else, so a controller that takes a study over decides as the one before it.

    Args:
        database: an open database.
        study_id: the study.
        space: its space.
    """

    def __init__(self, database: Database, study_id: int, space: Space) -> None:
        self._database = database
        self._study_id = study_id
        self._rungs = space.stop.rungs
        self._signs = {o.metric: -1.0 if o.direction == "maximize" else 1.0 for o in space.objectives}
        self._hard = [constraint for constraint in space.constraints if constraint.hard]
        self._hard_rule = space.stop.constraint or HardConstraints()
        self._arrivals: dict[int, list[Arrival]] = defaultdict(list)  # by rung, in the order of their times
        self._arrived: set[tuple[int, int]] = set()  # rung and job
        self._trials: dict[int, _Trial] = {}  # those that have not ended, by job
        self._newest_id = 0
        self._most_epochs = 0  # that any trial will have

    def apply(self) -> list[int]:
        """Read what is new, and ask every trial that a rule ends to stop; return their numbers."""
        if self._rungs is None and not self._hard:
            return []
        with self._database.read() as connection:
            jobs = connection.execute(self._jobs_query()).all()
            self._note(jobs)
            self._read_rungs(connection, [job.id for job in jobs])
            self._read_hard_metrics(connection)
        for job_id, trial in self._trials.items():
            trial.reason = trial.reason or self._decide(job_id, trial)
        ended = [
            job
            for job in jobs
            if job.state == JobState.LEASED and job.verdict == Verdict.CONTINUE and self._trials[job.id].reason
        ]
        if ended:
            self._database.write(lambda connection: self._ask_to_stop(connection, ended))
        return [job.trial_number for job in ended]

    def _jobs_query(self) -> AnySelect:
        epochs = JobRow.config[("training", "epochs")].as_integer().label("epochs")
        columns = (JobRow.id, JobRow.trial_number, JobRow.state, JobRow.verdict, JobRow.attempt, epochs)
        # Those that had not ended when last read, and those that were queued since: ids only grow.
        new = or_(JobRow.id > self._newest_id, JobRow.id.in_(list(self._trials)))
        return select(*columns).where(JobRow.study_id == self._study_id, new)

    def _note(self, jobs: Sequence[AnyRow]) -> None:
        for job in jobs:
            self._newest_id = max(self._newest_id, job.id)
            self._most_epochs = max(self._most_epochs, job.epochs)
            if job.state in (JobState.PENDING, JobState.LEASED):
                self._trials.setdefault(job.id, _Trial(job.epochs))
            else:
                self._trials.pop(job.id, None)

    def _read_rungs(self, connection: Connection, job_ids: Sequence[int]) -> None:
        """Enter what trials had at the rungs, those that have ended since the last time included."""
        if self._rungs is None:
            return
        rungs = rung_epochs(self._rungs, self._most_epochs)
        found: dict[tuple[int, int, float], dict[str, float]] = defaultdict(dict)
        query = _metrics(self._signs).where(MetricRow.epoch.in_(rungs))
        for start in range(0, len(job_ids), VARIABLES):
            some = MetricRow.job_id.in_(job_ids[start : start + VARIABLES])
            for job_id, epoch, reported_at, name, value in connection.execute(query.where(some)):
                found[epoch, job_id, reported_at][name] = value
        for (rung, job_id, reported_at), metrics in found.items():
            self._arrive(rung, job_id, reported_at, metrics)

    def _read_hard_metrics(self, connection: Connection) -> None:
        """Read the curves that hard constraints are about, of open trials, up to the last epoch but one."""
        if not self._hard or not self._trials:
            return
        query = _metrics({constraint.metric for constraint in self._hard})
        for job_id, epoch, _, name, value in connection.execute(query.where(MetricRow.job_id.in_(list(self._trials)))):
            if epoch < self._trials[job_id].epochs:
                self._trials[job_id].curves[name][epoch] = value

    def _arrive(self, rung: int, job_id: int, at: float, metrics: Mapping[str, float]) -> None:
        """Enter a trial at a rung; one that lacks an objective there is neither weighed nor counted."""
        losses = tuple(sign * metrics.get(name, math.nan) for name, sign in self._signs.items())
        if (rung, job_id) not in self._arrived and all(map(math.isfinite, losses)):
            self._arrived.add((rung, job_id))
            insort(self._arrivals[rung], (at, job_id, losses))

    def _decide(self, job_id: int, trial: _Trial) -> EndReason | None:
        """Return the reason for which a trial shall end, or None."""
        for constraint in self._hard:
            if breaks(constraint, trial.curves[constraint.metric], self._hard_rule):
                return EndReason.CONSTRAINT
        if self._rungs is not None:
            for rung in rung_epochs(self._rungs, trial.epochs):
                if rung not in trial.weighed and (rung, job_id) in self._arrived:
                    trial.weighed.add(rung)
                    if self._falls(rung, job_id, self._rungs):
                        # of several objectives: who is behind is dominated by one of a better front
                        return EndReason.RUNG if len(self._signs) == 1 else EndReason.DOMINATED
        return None

    def _falls(self, rung: int, job_id: int, rungs: Rungs) -> bool:
        """Weigh a trial against those that had reached a rung when it came."""
        arrivals = self._arrivals[rung]
        own = next(index for index, arrival in enumerate(arrivals) if arrival[1] == job_id)
        return is_behind(own, [losses for _, _, losses in arrivals[: own + 1]], rungs)

    def _ask_to_stop(self, connection: Connection, jobs: Sequence[AnyRow]) -> None:
        for job in jobs:
            connection.execute(
                update(JobRow)
                .where(JobRow.id == job.id, JobRow.attempt == job.attempt, JobRow.state == JobState.LEASED)
                .where(JobRow.verdict == Verdict.CONTINUE)  # a person may have cancelled it since
                .values(verdict=Verdict.STOP, verdict_reason=self._trials[job.id].reason)
            )


def _metrics(names: Iterable[str]) -> AnySelect:
    """Select metrics with the times at which they were reported."""
    return (
        select(MetricRow.job_id, MetricRow.epoch, EpochRow.reported_at, MetricRow.name, MetricRow.value)
        .join(EpochRow, and_(EpochRow.job_id == MetricRow.job_id, EpochRow.epoch == MetricRow.epoch))
        .where(MetricRow.name.in_(names))
    )
