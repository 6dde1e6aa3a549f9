from __future__ import annotations

import pytest
from sqlalchemy import insert, update

from orchestrator.errors import StorageError
from orchestrator.machine.identity import host_identity
from orchestrator.queue.one_machine import refuse_other_machines
from orchestrator.storage.database import Database, database_now
from orchestrator.storage.tables import WorkerRow


def add_worker(database: Database, host: str) -> None:
    with database.begin() as connection:
        connection.execute(
            insert(WorkerRow).values(
                id=host, host=host, pid=1, process_started=0.0, device="cpu", threads=1,
                started_at=database_now(), last_beat=database_now(),
            )
        )  # fmt: skip


def test_another_machine_in_an_sqlite_file_is_refused_with_the_way_out(local: Database) -> None:
    add_worker(local, "gpubox/0000aaaa")
    with pytest.raises(StorageError, match=r"by another machine \(gpubox\)(?s:.)*docker run(?s:.)*export SPIKE"):
        refuse_other_machines(local)


def test_workers_of_this_machine_its_containers_and_before_its_reboot_are_welcome(local: Database) -> None:
    name, _, boot = host_identity().rpartition("/")
    for host in (host_identity(), f"container/{boot}", f"{name}/0000aaaa"):
        add_worker(local, host)
    refuse_other_machines(local)


@pytest.mark.parametrize("gone", [{"ended_at": 1.0}, {"last_beat": database_now() - 61}])
def test_a_machine_that_has_left_is_forgotten(local: Database, gone: dict[str, object]) -> None:
    add_worker(local, "gpubox/0000aaaa")
    with local.begin() as connection:
        connection.execute(update(WorkerRow).values(gone))
    refuse_other_machines(local)


@pytest.mark.parametrize("any_url", ["postgresql"], indirect=True)
def test_postgresql_is_for_all(database: Database) -> None:
    add_worker(database, "gpubox/0000aaaa")
    refuse_other_machines(database)
