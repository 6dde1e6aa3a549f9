"""Rows of Optuna's own tables, gathered while a trial changes and written in one transaction."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from functools import cache
from typing import Any

from optuna.distributions import BaseDistribution, distribution_to_json
from optuna.storages._rdb import models
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy import Connection, Insert, Table, bindparam, insert, select, update
from sqlalchemy.dialects import postgresql, sqlite


def _table(model: type[models.BaseModel]) -> Table:
    table: Table = model.__table__
    return table


STUDIES = _table(models.StudyModel)
TRIALS = _table(models.TrialModel)
PARAMS = _table(models.TrialParamModel)
VALUES = _table(models.TrialValueModel)
STEPS = _table(models.TrialIntermediateValueModel)
USER_ATTRS = _table(models.TrialUserAttributeModel)
SYSTEM_ATTRS = _table(models.TrialSystemAttributeModel)
STUDY_USER_ATTRS = _table(models.StudyUserAttributeModel)
STUDY_SYSTEM_ATTRS = _table(models.StudySystemAttributeModel)
KEYS = {  # what makes a row of each table unique
    PARAMS: ("trial_id", "param_name"),
    VALUES: ("trial_id", "objective"),
    STEPS: ("trial_id", "step"),
    USER_ATTRS: ("trial_id", "key"),
    SYSTEM_ATTRS: ("trial_id", "key"),
    STUDY_USER_ATTRS: ("study_id", "key"),
    STUDY_SYSTEM_ATTRS: ("study_id", "key"),
}
INSERT_TRIAL = insert(TRIALS).returning(TRIALS.c.trial_id)
NEWER_TRIALS = (
    select(TRIALS.c.trial_id)
    .where(TRIALS.c.study_id == bindparam("study"), TRIALS.c.trial_id > bindparam("newest"))
    .order_by(TRIALS.c.trial_id)
)
UPDATE_STATE = (  # a finished trial is never changed again
    update(TRIALS)
    .where(TRIALS.c.trial_id == bindparam("of"))
    .where((TRIALS.c.state == TrialState.RUNNING) | (TRIALS.c.state == TrialState.WAITING))
    .values(state=bindparam("new_state"), datetime_start=bindparam("started"), datetime_complete=bindparam("completed"))
)


class OptunaRows:
    """What is to be written to Optuna's tables."""

    def __init__(self) -> None:
        self._rows: dict[Table, list[dict[str, Any]]] = defaultdict(list)

    def param(self, trial_id: int, name: str, value: float, distribution: BaseDistribution) -> None:
        """Note a parameter, its value in Optuna's internal form."""
        row = {"param_name": name, "param_value": value, "distribution_json": distribution_to_json(distribution)}
        self._rows[PARAMS].append({"trial_id": trial_id, **row})

    def values(self, trial_id: int, values: Sequence[float]) -> None:
        """Note the values of all objectives."""
        for objective, value in enumerate(values):
            stored, kind = models.TrialValueModel.value_to_stored_repr(value)
            row = {"trial_id": trial_id, "objective": objective, "value": stored, "value_type": kind}
            self._rows[VALUES].append(row)

    def step(self, trial_id: int, step: int, value: float) -> None:
        """Note the value of one step."""
        stored, kind = models.TrialIntermediateValueModel.intermediate_value_to_stored_repr(value)
        row = {"step": step, "intermediate_value": stored, "intermediate_value_type": kind}
        self._rows[STEPS].append({"trial_id": trial_id, **row})

    def user_attr(self, trial_id: int, key: str, value: Any) -> None:
        """Note an attribute that people read."""
        self._attr(USER_ATTRS, "trial_id", trial_id, key, value)

    def system_attr(self, trial_id: int, key: str, value: Any) -> None:
        """Note an attribute that samplers read."""
        self._attr(SYSTEM_ATTRS, "trial_id", trial_id, key, value)

    def study_user_attr(self, study_id: int, key: str, value: Any) -> None:
        """Note an attribute of the study that people read."""
        self._attr(STUDY_USER_ATTRS, "study_id", study_id, key, value)

    def study_system_attr(self, study_id: int, key: str, value: Any) -> None:
        """Note an attribute of the study that samplers read."""
        self._attr(STUDY_SYSTEM_ATTRS, "study_id", study_id, key, value)

    def write(self, connection: Connection, ids: Mapping[int, int]) -> None:
        """Write everything noted, over what is there.

        Args:
            connection: a writing transaction.
            ids: real ids of trials that were noted under another.
        """
        for table, rows in self._rows.items():
            real = [
                {**row, "trial_id": ids.get(row["trial_id"], row["trial_id"])} if "trial_id" in row else row
                for row in rows
            ]
            connection.execute(upsert(table, connection.dialect.name), real)

    def _attr(self, table: Table, owner: str, owner_id: int, key: str, value: Any) -> None:
        self._rows[table].append({owner: owner_id, "key": key, "value_json": json.dumps(value)})


@cache
def upsert(table: Table, dialect: str) -> Insert:
    """Return the statement that writes rows of a table over what is there; building it takes longer than running it."""
    statement = (postgresql if dialect == "postgresql" else sqlite).insert(table)
    keys = KEYS[table]
    changed = {c.name: statement.excluded[c.name] for c in table.columns if not c.primary_key and c.name not in keys}
    complete: Insert = statement.on_conflict_do_update(index_elements=keys, set_=changed)
    return complete


def lock_study(connection: Connection, study_id: int) -> None:
    """Hold the study as Optuna does while it numbers a new trial; SQLite has locked everything already."""
    if connection.dialect.name == "postgresql":
        connection.execute(select(STUDIES.c.study_id).where(STUDIES.c.study_id == study_id).with_for_update())


def newer_trials(connection: Connection, study_id: int, newest_id: int) -> list[int]:
    """Return the ids of the trials that were added after one."""
    return list(connection.execute(NEWER_TRIALS, {"study": study_id, "newest": newest_id}).scalars())


def insert_trial(connection: Connection, study_id: int, trial: FrozenTrial) -> int:
    """Write a new trial without its parameters, values and attributes; return its id."""
    row = {
        "number": trial.number,
        "study_id": study_id,
        "state": trial.state,
        "datetime_start": _utc(trial.datetime_start),
        "datetime_complete": _utc(trial.datetime_complete),
    }
    return int(connection.execute(INSERT_TRIAL, row).scalar_one())


def update_states(connection: Connection, trials: Iterable[FrozenTrial]) -> None:
    """Write the states and times of trials that are in the database."""
    rows = [
        {
            "of": trial._trial_id,
            "new_state": trial.state,
            "started": _utc(trial.datetime_start),
            "completed": _utc(trial.datetime_complete),
        }
        for trial in trials
    ]
    if rows:
        connection.execute(UPDATE_STATE, rows)


def _utc(moment: datetime | None) -> datetime | None:
    """Return a local time as Optuna stores it, in UTC without a time zone."""
    return None if moment is None else moment.astimezone(UTC).replace(tzinfo=None)
