"""Copy a study from one database to another, under its name and its trials' numbers: from SQLite to PostgreSQL, say."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import optuna
from sqlalchemy import Connection, func, insert, select
from sqlalchemy.dialects import postgresql, sqlite

from orchestrator.errors import ControlError, StudyBusyError
from orchestrator.queue.lease import has_controller
from orchestrator.storage.database import Database
from orchestrator.storage.optuna_noise import experimental_allowed
from orchestrator.storage.study import find_row, optuna_storage, require_row
from orchestrator.storage.tables import (
    AttemptRow,
    Base,
    CheckpointRow,
    DeliveryRow,
    EnvironmentRow,
    EpochRow,
    JobRow,
    JobState,
    MetricRow,
    StudyRow,
)

CHUNK = 500  # rows per statement
OF_JOBS: tuple[type[Base], ...] = (AttemptRow, EpochRow, MetricRow, CheckpointRow, DeliveryRow)


@dataclass(frozen=True, slots=True)
class Copied:
    """What was copied.

    Args:
        study: name of the study.
        trials: trials of it.
        metrics: numbers of its curves.
    """

    study: str
    trials: int
    metrics: int


def copy_study(source: Database, target: Database, name: str) -> Copied:
    """Copy a study with everything that is known of it; checkpoints and logs stay where they are.

    A copy that was broken off leaves nothing that a search would find, and the same call makes it anew.

    Args:
        source: database that has the study.
        target: another database, with its tables.
        name: the study.

    Raises:
        StudyNotFoundError: the source has no such study.
        StudyBusyError: the study is being run.
        ControlError: the target has a study of that name, or is the source.
    """
    study = require_row(source, name)
    if source.url == target.url:
        raise ControlError(f"{source.masked_url} is both source and target: name another database with --to")
    if has_controller(source, study):
        raise StudyBusyError(f"study '{name}' is being run: `spikebench stop {name}` first, then copy it")
    if find_row(target, name) is not None:
        raise ControlError(f"{target.masked_url} has a study '{name}' already: it is not overwritten")
    optuna_id, trial_ids = _copy_optuna(source, target, name)
    copied = target.write(lambda connection: _copy_rows(source, connection, study, optuna_id, trial_ids))
    return Copied(name, len(trial_ids), copied)


def _copy_optuna(source: Database, target: Database, name: str) -> tuple[int, dict[int, int]]:
    """Copy Optuna's side; return its id of the study and, by trial number, of the trials."""
    ours, theirs = optuna_storage(source), optuna_storage(target)
    try:
        with experimental_allowed():
            if name in [
                summary.study_name for summary in optuna.get_all_study_summaries(theirs, include_best_trial=False)
            ]:
                optuna.delete_study(study_name=name, storage=theirs)  # left by a copy that was broken off
            optuna.copy_study(from_study_name=name, from_storage=ours, to_storage=theirs)
            copy = optuna.load_study(study_name=name, storage=theirs)
        return copy._study_id, {trial.number: trial._trial_id for trial in copy.get_trials(deepcopy=False)}
    finally:
        for storage in (ours, theirs):
            storage.remove_session()
            storage.engine.dispose()


def _copy_rows(source: Database, target: Connection, study: StudyRow, optuna_id: int, trial_ids: dict[int, int]) -> int:
    """Copy our rows; ids are given anew. Return how many numbers of curves there were."""
    with source.read() as reading:
        values = _plain(reading, StudyRow, StudyRow.id == study.id)[0]
        values |= {"optuna_study_id": optuna_id, "controller": None, "controller_lease_until": 0.0}
        study_id = _insert_one(target, StudyRow, values)
        jobs = _plain(reading, JobRow, JobRow.study_id == study.id)
        ids = {job["id"]: _insert_one(target, JobRow, _moved(job, study_id, trial_ids)) for job in jobs}
        _copy_environments(reading, target, list(ids))
        for table in OF_JOBS:
            for chunk in _chunks(list(ids)):
                rows = _plain(reading, table, table.__table__.c.job_id.in_(chunk))
                for row in rows:
                    row["job_id"] = ids[row["job_id"]]
                    if table is CheckpointRow:
                        del row["id"]
                _insert_all(target, table, rows)
        count = (
            select(func.count())
            .select_from(MetricRow)
            .where(MetricRow.job_id.in_(select(JobRow.id).where(JobRow.study_id == study.id)))
        )
        return int(reading.execute(count).scalar_one())


def _moved(job: dict[str, Any], study_id: int, trial_ids: dict[int, int]) -> dict[str, Any]:
    """Return a job's row for the other database; one that is held is free there."""
    held = job["state"] == JobState.LEASED
    free = {"state": JobState.PENDING, "owner": None, "lease_until": 0.0} if held else {}
    return {**job, **free, "study_id": study_id, "optuna_trial_id": trial_ids[job["trial_number"]]}


def _copy_environments(reading: Connection, target: Connection, job_ids: Sequence[int]) -> None:
    """Copy the surroundings that attempts ran in; equal ones are there once in any database."""
    dialect = postgresql if target.dialect.name == "postgresql" else sqlite
    for chunk in _chunks(job_ids):
        used = select(AttemptRow.environment_id).where(AttemptRow.job_id.in_(chunk))
        for row in _plain(reading, EnvironmentRow, EnvironmentRow.id.in_(used)):
            target.execute(dialect.insert(EnvironmentRow).values(**row).on_conflict_do_nothing(index_elements=["id"]))


def _plain(reading: Connection, table: type[Base], condition: Any) -> list[dict[str, Any]]:
    columns = table.__table__.c
    return [dict(row) for row in reading.execute(select(*columns).where(condition)).mappings()]


def _insert_one(target: Connection, table: type[Base], row: dict[str, Any]) -> int:
    values = {key: value for key, value in row.items() if key != "id"}
    return int(target.execute(insert(table).values(**values).returning(table.__table__.c.id)).scalar_one())


def _insert_all(target: Connection, table: type[Base], rows: list[dict[str, Any]]) -> None:
    for start in range(0, len(rows), CHUNK):
        target.execute(insert(table), rows[start : start + CHUNK])


def _chunks(ids: Sequence[int]) -> Iterable[Sequence[int]]:
    return (ids[start : start + CHUNK] for start in range(0, len(ids), CHUNK))
