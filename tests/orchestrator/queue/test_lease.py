from __future__ import annotations

import pytest
from sqlalchemy import insert, select, update

from orchestrator.errors import StudyBusyError
from orchestrator.machine.identity import host_identity
from orchestrator.queue.lease import ControllerLease
from orchestrator.storage.database import Database
from orchestrator.storage.tables import StudyRow


@pytest.fixture
def study_id(database: Database) -> int:
    with database.begin() as connection:
        connection.execute(
            insert(StudyRow).values(
                id=7, name="s", optuna_study_id=1, space_json="", space_hash="", seed=1, budget_trials=1, created_at=0.0
            )
        )
    return 7


def set_row(database: Database, **values: object) -> None:
    with database.begin() as connection:
        connection.execute(update(StudyRow).values(**values))


def test_a_second_controller_is_refused_until_the_first_lets_go(database: Database, study_id: int) -> None:
    first, second = ControllerLease(database, study_id), ControllerLease(database, study_id)
    first.acquire()
    with pytest.raises(StudyBusyError, match=r"another controller \(process \d+ on "):
        second.acquire()
    first.release()
    second.acquire()


def test_a_dead_holder_of_this_host_is_followed_at_once(database: Database, study_id: int) -> None:
    set_row(database, controller=f"{host_identity()} 999999 1.00 abc", controller_lease_until=1e12)
    ControllerLease(database, study_id).acquire()


def test_a_holder_on_another_host_is_respected_until_its_time_is_over(database: Database, study_id: int) -> None:
    set_row(database, controller="elsewhere/boot 1 1.00 abc", controller_lease_until=1e12)
    with pytest.raises(StudyBusyError, match="process 1 on elsewhere"):
        ControllerLease(database, study_id).acquire()
    set_row(database, controller_lease_until=1.0)
    ControllerLease(database, study_id).acquire()


def test_a_controller_that_was_replaced_notices_at_its_next_renewal(
    database: Database, study_id: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("orchestrator.queue.lease.beat_seconds", lambda: 0.0)
    lease = ControllerLease(database, study_id)
    lease.acquire()
    lease.renew()
    set_row(database, controller="elsewhere/boot 1 1.00 abc")
    with pytest.raises(StudyBusyError, match="taken the study over"):
        lease.renew()


def test_renewing_pushes_the_end_of_the_lease(
    database: Database, study_id: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("orchestrator.queue.lease.beat_seconds", lambda: 0.0)
    lease = ControllerLease(database, study_id)
    lease.acquire()
    set_row(database, controller_lease_until=1.0)
    lease.renew()
    with database.read() as connection:
        until = connection.execute(select(StudyRow.controller_lease_until)).scalar_one()
        assert until > database.now(connection) + 30
