"""A study as it is in the database, read with a constant number of set queries, whatever the number of trials."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from math import fsum
from typing import Any

from sqlalchemy import Connection, Row, Select, func, select

from orchestrator.reading.views import (
    StudyView,
    TrialFront,
    TrialState,
    TrialView,
    study_view,
    trial_front,
    trial_state,
)
from orchestrator.storage.database import Database
from orchestrator.storage.tables import AttemptRow, EpochRow, JobRow, MetricRow

LAYER_RATE = "val_firing_rate."  # followed by the layer's name
VARIABLES = 500  # ids per IN list; databases limit the variables of one statement

AnyRow = Row[*tuple[Any, ...]]
AnySelect = Select[*tuple[Any, ...]]


@dataclass(frozen=True)
class StudyHistory:
    """A study and its trials at one moment, the moment `read_at` of the database's clock."""

    study: StudyView
    trials: tuple[TrialView, ...]
    read_at: float
    database: Database = field(repr=False)

    @cached_property
    def finished(self) -> tuple[TrialView, ...]:
        """The trials that ran to their end and have every objective."""
        return tuple(t for t in self.trials if t.state is TrialState.FINISHED and t.values is not None)

    @cached_property
    def front(self) -> TrialFront:
        """The Pareto front of the finished trials."""
        return trial_front(self.study, self.finished)

    @property
    def device_seconds(self) -> float:
        """Time on devices, all attempts of all trials together."""
        return fsum(trial.seconds for trial in self.trials)

    @property
    def wall_seconds(self) -> float:
        """Time from the first start to the last end, or to now while something runs."""
        starts = [trial.started_at for trial in self.trials if trial.started_at is not None]
        ends = [trial.ended_at for trial in self.trials if trial.ended_at is not None]
        if not starts:
            return 0.0
        running = any(trial.state is TrialState.RUNNING for trial in self.trials)
        return (self.read_at if running or not ends else max(ends)) - min(starts)

    def curves(self, metric: str, trials: Iterable[TrialView] | None = None) -> dict[int, list[tuple[int, float]]]:
        """Return a metric's learning curves.

        Args:
            metric: name of the metric.
            trials: the trials to read; all by default.

        Returns:
            Trial number -> `[(epoch, value), ...]` by epoch; trials without the metric are left out.
        """
        number_of = {trial.job_id: trial.number for trial in (self.trials if trials is None else trials)}
        query = (
            select(MetricRow.job_id, MetricRow.epoch, MetricRow.value)
            .where(MetricRow.name == metric)
            .order_by(MetricRow.job_id, MetricRow.epoch)
        )
        curves: dict[int, list[tuple[int, float]]] = defaultdict(list)
        chosen = None if trials is None else list(number_of)
        with self.database.read() as connection:
            for job_id, epoch, value in _rows_of(connection, query, MetricRow.job_id, chosen, self.study.id):
                if job_id in number_of:  # one that was queued since is not in this history
                    curves[number_of[job_id]].append((epoch, value))
        return dict(curves)

    def layer_rates(self, trials: Iterable[TrialView]) -> dict[int, dict[str, float]]:
        """Return the firing rate of each layer at the last epoch of the given trials.

        Returns:
            Trial number -> layer -> spikes per neuron and time step; trials without such metrics are left out.
        """
        rates: dict[int, dict[str, float]] = {}
        chosen = {trial.job_id: trial.number for trial in trials}
        with self.database.read() as connection:
            for job_id, metrics in last_metrics(connection, list(chosen), layers=True).items():
                layers = {n.removeprefix(LAYER_RATE): v for n, v in metrics.items() if n.startswith(LAYER_RATE)}
                if layers:
                    rates[chosen[job_id]] = layers
        return rates


def read_history(database: Database, study_name: str) -> StudyHistory:
    """Read a study and all its trials in one transaction.

    Args:
        database: an open database.
        study_name: the study.

    Raises:
        StudyNotFoundError: there is no such study; the message names the nearest.
    """
    from orchestrator.storage.study import require_row  # noqa: PLC0415 - brings Optuna, which the live view does without

    stored = require_row(database, study_name)
    with database.read() as connection:
        now = database.now(connection)
        study = study_view(stored, now)
        jobs = connection.execute(
            select(*job_columns()).where(JobRow.study_id == study.id).order_by(JobRow.trial_number)
        )
        rows = jobs.all()
        metrics = _all_last_metrics(connection, study.id)
        epochs = _epoch_counts(connection, study.id)
        attempts = read_attempts(connection, None, study.id, now)
    trials = tuple(
        trial_of(study, row, metrics.get(row.id, {}), epochs.get(row.id, 0), attempts.get(row.id, Attempts()))
        for row in rows
    )
    return StudyHistory(study, trials, now, database)


def job_columns() -> list[Any]:
    """Return the columns of a job that views show; the whole configuration is not among them."""
    return [
        JobRow.id,
        JobRow.trial_number,
        JobRow.state,
        JobRow.params,
        JobRow.attempt,
        JobRow.end_reason,
        JobRow.end_detail,
        JobRow.started_at,
        JobRow.ended_at,
        JobRow.run_dir,
        JobRow.config_hash,
        JobRow.config[("training", "epochs")].as_integer().label("epochs_planned"),
    ]


@dataclass(frozen=True, slots=True)
class Attempts:
    """The attempts of one trial, added up; text is of the newest."""

    count: int = 0
    seconds: float = 0.0
    device: str = ""
    host: str = ""
    log_path: str = ""
    started_at: float | None = None


def read_attempts(
    connection: Connection, job_ids: Sequence[int] | None, study_id: int, now: float
) -> dict[int, Attempts]:
    """Return the attempts of the given jobs, or of all jobs of the study."""
    columns = (AttemptRow.job_id, AttemptRow.device, AttemptRow.host, AttemptRow.log_path, AttemptRow.started_at)
    query = select(*columns, func.coalesce(AttemptRow.ended_at, now).label("until")).order_by(
        AttemptRow.job_id, AttemptRow.attempt
    )
    attempts: dict[int, Attempts] = {}
    for row in _rows_of(connection, query, AttemptRow.job_id, job_ids, study_id):
        before = attempts.get(row.job_id, Attempts())
        seconds = before.seconds + max(0.0, row.until - row.started_at)
        attempts[row.job_id] = Attempts(
            before.count + 1, seconds, row.device, row.host, row.log_path or before.log_path, row.started_at
        )
    return attempts


def last_metrics(
    connection: Connection, job_ids: Sequence[int], names: Sequence[str] = (), *, layers: bool = False
) -> dict[int, dict[str, float]]:
    """Return the metrics of the last epoch of the given jobs.

    Args:
        connection: a reading transaction.
        job_ids: the jobs.
        names: only these metrics; every metric when empty.
        layers: take the metrics of single layers too, which are many.
    """
    last = select(func.max(EpochRow.epoch)).where(EpochRow.job_id == MetricRow.job_id).scalar_subquery()
    query = select(MetricRow.job_id, MetricRow.name, MetricRow.value).where(MetricRow.epoch == last)
    if names:
        query = query.where(MetricRow.name.in_(names))
    elif not layers:
        query = query.where(MetricRow.name.not_like("%.%"))
    return _by_job(_rows_of(connection, query, MetricRow.job_id, job_ids, 0))


def _all_last_metrics(connection: Connection, study_id: int) -> dict[int, dict[str, float]]:
    last = (
        select(EpochRow.job_id, func.max(EpochRow.epoch).label("epoch"))
        .join(JobRow, JobRow.id == EpochRow.job_id)
        .where(JobRow.study_id == study_id)
        .group_by(EpochRow.job_id)
        .subquery()
    )
    query = (
        select(MetricRow.job_id, MetricRow.name, MetricRow.value)
        .join(last, (MetricRow.job_id == last.c.job_id) & (MetricRow.epoch == last.c.epoch))
        .where(MetricRow.name.not_like("%.%"))
    )
    return _by_job(connection.execute(query))


def _by_job(rows: Iterable[AnyRow]) -> dict[int, dict[str, float]]:
    metrics: dict[int, dict[str, float]] = defaultdict(dict)
    for job_id, name, value in rows:
        metrics[job_id][name] = value
    return metrics


def _epoch_counts(connection: Connection, study_id: int) -> dict[int, int]:
    query = (
        select(EpochRow.job_id, func.max(EpochRow.epoch).label("epoch"))
        .join(JobRow, JobRow.id == EpochRow.job_id)
        .where(JobRow.study_id == study_id)
        .group_by(EpochRow.job_id)
    )
    return {row.job_id: row.epoch for row in connection.execute(query)}


def _rows_of(
    connection: Connection, query: AnySelect, key: Any, job_ids: Sequence[int] | None, study_id: int
) -> Iterable[AnyRow]:
    """Run a query for a list of jobs in pieces, or for all jobs of the study."""
    if job_ids is None:
        yield from connection.execute(query.join(JobRow, JobRow.id == key).where(JobRow.study_id == study_id))
        return
    for start in range(0, len(job_ids), VARIABLES):
        yield from connection.execute(query.where(key.in_(job_ids[start : start + VARIABLES])))


def trial_of(study: StudyView, row: AnyRow, metrics: dict[str, float], epochs: int, attempts: Attempts) -> TrialView:
    """Return the trial of a job's row, put together with what the other tables say of it."""
    return TrialView(
        number=row.trial_number,
        job_id=row.id,
        state=trial_state(row.state, row.end_reason),
        params=row.params,
        metrics=metrics,
        values=study.values(metrics),
        violation=study.violation(metrics),
        end_reason=row.end_reason,
        end_detail=row.end_detail,
        attempts=row.attempt,
        epochs=epochs,
        epochs_planned=row.epochs_planned,
        seconds=attempts.seconds,
        started_at=row.started_at,
        ended_at=row.ended_at,
        run_dir=row.run_dir,
        log_path=attempts.log_path,
        device=attempts.device,
        config_hash=row.config_hash,
    )
