"""One trial as the database alone tells it: what was trained, on what, and every number it reported."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, func, select

from configs.resolve import from_dict
from configs.schema import RunConfig
from orchestrator.errors import TrialNotFoundError
from orchestrator.queue.faults import with_smaller_batches
from orchestrator.reading.history import AnyRow
from orchestrator.storage.database import Database
from orchestrator.storage.study import require_row
from orchestrator.storage.tables import AttemptRow, EnvironmentRow, JobRow, MetricRow, StudyRow

Curves = dict[int, dict[str, float]]  # epoch -> metric -> value


@dataclass(frozen=True, slots=True)
class StoredAttempt:
    """One attempt at a trial and what it ran on.

    Args:
        number: of the attempt.
        device: "cpu" or "cuda:N".
        neuron_backend: kernel of the spiking layers; "" where the attempt ended before it was known.
        micro_batch: images that went through the model at once; None where that was not told.
        environment: columns of its `sb_environments` row; empty where the attempt ended before it was written.
    """

    number: int
    device: str
    neuron_backend: str
    micro_batch: int | None
    environment: dict[str, Any]


@dataclass(frozen=True, slots=True)
class StoredTrial:
    """A trial as it is in the database.

    Args:
        study: name of its study.
        number: of the trial.
        stored_config: the configuration as it was queued.
        config_hash: its hash then.
        halvings: how often its batches were halved because memory ran out.
        params: what was drawn for it, dotted key -> value.
        trainer: "module:function".
        threads: CPU threads it ran with.
        end_reason: why it ended; None while it has not.
        curves: its learning curves.
        attempts: at it, the first one first.
    """

    study: str
    number: int
    stored_config: dict[str, Any]
    config_hash: str
    halvings: int
    params: dict[str, Any]
    trainer: str
    threads: int
    end_reason: str | None
    curves: Curves
    attempts: tuple[StoredAttempt, ...]

    def config(self) -> RunConfig:
        """Return the configuration that was trained, with the batches halved as they were.

        Raises:
            ConfigError: this version of the program does not accept what another one has stored.
        """
        return from_dict(with_smaller_batches(self.stored_config, self.halvings))


def read_trial(database: Database, study_name: str | None, number: int) -> StoredTrial:
    """Read a trial.

    Args:
        database: an open database.
        study_name: its study; None takes the only one there is.
        number: of the trial.

    Raises:
        StudyNotFoundError: there is no such study.
        TrialNotFoundError: the study has no such trial.
    """
    study = require_row(database, study_name)
    with database.read() as connection:
        query = select(JobRow.__table__).where(JobRow.study_id == study.id, JobRow.trial_number == number)
        job = connection.execute(query).first()
        if job is None:
            raise _no_trial(connection, study, number)
        return StoredTrial(
            study=study.name,
            number=number,
            stored_config=job.config,
            config_hash=job.config_hash,
            halvings=job.micro_batch_halvings,
            params=job.params,
            trainer=job.trainer,
            threads=job.threads,
            end_reason=job.end_reason,
            curves=_curves(connection, job.id),
            attempts=_attempts(connection, job.id),
        )


def _no_trial(connection: Connection, study: StudyRow, number: int) -> TrialNotFoundError:
    query = select(func.max(JobRow.trial_number)).where(JobRow.study_id == study.id)
    last = connection.execute(query).scalar_one_or_none()
    there = "it has no trial yet" if last is None else f"its trials are 0 to {last}"
    return TrialNotFoundError(f"study '{study.name}' has no trial {number}: {there}")


def _curves(connection: Connection, job_id: int) -> Curves:
    query = select(MetricRow.epoch, MetricRow.name, MetricRow.value).where(MetricRow.job_id == job_id)
    curves: Curves = defaultdict(dict)
    for epoch, name, value in connection.execute(query.order_by(MetricRow.epoch, MetricRow.name)):
        curves[epoch][name] = value
    return dict(curves)


def _attempts(connection: Connection, job_id: int) -> tuple[StoredAttempt, ...]:
    query = (
        select(
            AttemptRow.attempt, AttemptRow.device, AttemptRow.neuron_backend, AttemptRow.micro_batch, *_surroundings()
        )
        .outerjoin(EnvironmentRow, EnvironmentRow.id == AttemptRow.environment_id)
        .where(AttemptRow.job_id == job_id)
        .order_by(AttemptRow.attempt)
    )
    return tuple(_attempt(row) for row in connection.execute(query))


def _surroundings() -> list[Any]:
    return [column for column in EnvironmentRow.__table__.columns if column.name != "id"]


def _attempt(row: AnyRow) -> StoredAttempt:
    environment = {column.name: row._mapping[column] for column in _surroundings()} if row.python else {}
    return StoredAttempt(row.attempt, row.device, row.neuron_backend, row.micro_batch, environment)
