"""A study: Optuna's record of the trials and our row beside it, created or opened again."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import optuna
from optuna.storages import RDBStorage
from sqlalchemy import insert, select, update
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import NullPool

from configs.problems import did_you_mean
from orchestrator.errors import StorageError, StudyMismatchError, StudyNotFoundError
from orchestrator.storage.database import Database, database_now, first_line, harden_sqlite, schema_lock
from orchestrator.storage.optuna_noise import experimental_allowed
from orchestrator.storage.tables import StudyRow, StudyState
from search_spaces.space import CheckedSpace, differences

MOST_NAMED = 10  # studies that a message names


@dataclass(frozen=True, slots=True)
class Study:
    """A study that is open in this process.

    Args:
        id: key in `sb_studies`.
        name: its name, in our table and in Optuna's.
        checked: the space it searches, as stored.
        seed: seed of the study.
        budget: trials it shall have in total.
        optuna: Optuna's side of it.
        storage: Optuna's connections.
        resumed: it was there before.
    """

    id: int
    name: str
    checked: CheckedSpace
    seed: int
    budget: int
    optuna: optuna.Study
    storage: RDBStorage
    resumed: bool

    def close(self) -> None:
        """Close Optuna's connections to the database."""
        self.storage.remove_session()
        self.storage.engine.dispose()


def optuna_storage(database: Database) -> RDBStorage:
    """Open Optuna's storage on a database, hardened like our own engine.

    Args:
        database: an open database. Optuna's tables are created under the schema lock, because two processes that
            create them at the same moment fail on PostgreSQL.

    Raises:
        StorageError: Optuna cannot use the database.
    """
    options: dict[str, Any] = {"connect_args": {"timeout": 60}} if database.is_sqlite else {"pool_pre_ping": True}
    try:
        if database.is_sqlite:
            storage = _create_on_sqlite(database, options)
        else:
            with schema_lock(database):
                storage = RDBStorage(database.url, engine_kwargs={**options, "pool_size": 2, "max_overflow": 2})
    except (DBAPIError, RuntimeError) as error:
        raise StorageError(f"Optuna cannot use {database.masked_url}: {first_line(error)}") from error
    return storage


def _create_on_sqlite(database: Database, options: dict[str, Any]) -> RDBStorage:
    """Optuna's start-up check opens two connections at once: the write lock may only be demanded after it."""
    storage = RDBStorage(database.url, engine_kwargs={**options, "poolclass": NullPool})
    harden_sqlite(storage.engine)
    return storage


def open_study(
    database: Database, checked: CheckedSpace, *, name: str | None = None, trials: int | None = None
) -> Study:
    """Create a study, or open the one of that name and check that it searches the same space.

    Args:
        database: an open database with its tables.
        checked: the space to search.
        name: name of the study; the space's own name by default.
        trials: total number of trials; overrides the space's budget and what the study had before.

    Raises:
        StudyMismatchError: the study exists with another space; the message names each difference.
    """
    name = name or checked.space.name
    existing = find_row(database, name)
    if existing is not None:
        _refuse_other_space(existing, checked)
    storage = optuna_storage(database)
    with experimental_allowed():
        study = optuna.create_study(
            storage=storage,
            study_name=name,
            directions=[objective.direction for objective in checked.space.objectives],
            load_if_exists=True,
        )
        study.set_metric_names([objective.metric for objective in checked.space.objectives])
    budget = trials or checked.space.budget.trials
    study_id = _insert_row(database, checked, name, study, budget) if existing is None else existing.id
    return Study(study_id, name, checked, checked.space.sampler.seed, budget, study, storage, existing is not None)


def find_row(database: Database, name: str) -> StudyRow | None:
    """Return the row of a study, or None."""
    with database.read() as connection:
        row = connection.execute(select(StudyRow.__table__).where(StudyRow.name == name)).first()
    return None if row is None else StudyRow(**row._mapping)


def require_row(database: Database, name: str | None) -> StudyRow:
    """Return the row of a study; without a name the only one there is.

    Raises:
        StudyNotFoundError: there is no such study, or a name is needed to choose one.
    """
    if name is not None and (row := find_row(database, name)) is not None:
        return row
    with database.read() as connection:
        names = list(connection.execute(select(StudyRow.name).order_by(StudyRow.id)).scalars())
    if name is None and len(names) == 1:
        return require_row(database, names[0])
    if not names:
        raise StudyNotFoundError(
            f"{database.masked_url} holds no study yet: start one with `spikebench-search --space ...`"
        )
    if name is None:
        raise StudyNotFoundError(f"which study? {database.masked_url} holds: {', '.join(names)}")
    near = did_you_mean(name, names)
    hint = near if near.startswith("did you mean") else f"there is: {', '.join(names[:MOST_NAMED])}"
    raise StudyNotFoundError(f"no study '{name}' in {database.masked_url}; {hint}")


def set_state(database: Database, study_id: int, state: StudyState, detail: str = "") -> None:
    """Write what a study is doing."""
    database.write(
        lambda connection: connection.execute(
            update(StudyRow).where(StudyRow.id == study_id).values(state=state, state_detail=detail)
        )
    )


def _refuse_other_space(existing: StudyRow, checked: CheckedSpace) -> None:
    if existing.space_hash == checked.space_hash:
        return
    changes = differences(CheckedSpace.from_json(existing.space_json), checked)
    if changes:
        raise StudyMismatchError(
            f"study '{existing.name}' searches another space than the one given:\n  "
            + "\n  ".join(changes)
            + "\nUndo the change to go on with the study, or start a new one with --study NEW_NAME."
        )


def _insert_row(database: Database, checked: CheckedSpace, name: str, study: optuna.Study, budget: int) -> int:
    def action(connection: Any) -> int:
        return int(
            connection.execute(
                insert(StudyRow)
                .values(
                    name=name,
                    optuna_study_id=study._study_id,
                    space_json=checked.to_json(),
                    space_hash=checked.space_hash,
                    seed=checked.space.sampler.seed,
                    budget_trials=budget,
                    state=StudyState.RUNNING,
                    created_at=database_now(),
                )
                .returning(StudyRow.id)
            ).scalar_one()
        )

    return database.write(action)
