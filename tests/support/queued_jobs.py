"""Jobs in the queue of a study that needs no Optuna."""

from __future__ import annotations

from typing import Any

from sqlalchemy import insert, select

from orchestrator.queue.jobs import Claim, WorkerIdentity, claim
from orchestrator.storage.database import Database
from orchestrator.storage.tables import JobRow, StudyRow


def worker(name: str = "w") -> WorkerIdentity:
    return WorkerIdentity(name, "host/boot", 1, 0.0, "cpu", 1)


def seed(database: Database, jobs: int, config: dict[str, Any] | None = None) -> None:
    """Add a study with pending jobs, trial numbers from 0."""
    with database.begin() as connection:
        connection.execute(
            insert(StudyRow).values(
                id=1,
                name="s",
                optuna_study_id=1,
                space_json="{}",
                space_hash="h",
                seed=1,
                budget_trials=jobs,
                created_at=0.0,
            )
        )
        for number in range(jobs):
            connection.execute(
                insert(JobRow).values(
                    study_id=1, trial_number=number, optuna_trial_id=number, config=config or {}, config_hash="c",
                    params={"a": 1}, trainer="t:t", threads=2, run_dir="/r", created_at=0.0,
                )
            )  # fmt: skip


def take(database: Database, name: str = "w") -> Claim:
    held = database.write(lambda connection: claim(connection, worker(name)))
    assert held is not None
    return held


def rows(database: Database, table: type[Any]) -> list[Any]:
    with database.read() as connection:
        return list(connection.execute(select(table.__table__).order_by(*table.__table__.primary_key)).all())
