from __future__ import annotations

import multiprocessing
import time
from pathlib import Path

import pytest
from sqlalchemy import inspect, select, text
from sqlalchemy.exc import OperationalError

from orchestrator.errors import StorageError
from orchestrator.migrations.upgrade import VERSION_TABLE, upgrade
from orchestrator.storage.database import Database, file_system_of, first_line, mask, open_database, storage_url
from orchestrator.storage.tables import Base, WorkerRow


def add_workers(url: str, first: int, count: int) -> None:
    """Write rows one transaction each; runs in a process of its own."""
    database = open_database(url)
    for number in range(first, first + count):
        row = {
            "id": str(number), "host": "h", "pid": 1, "process_started": 0.0, "device": "cpu", "threads": 1,
            "started_at": 0.0, "last_beat": 0.0,
        }  # fmt: skip
        database.write(lambda connection, row=row: connection.execute(WorkerRow.__table__.insert().values(row)))


def test_migrations_make_exactly_the_tables_that_are_declared(database: Database) -> None:
    made = set(inspect(database.engine).get_table_names())
    assert made == set(Base.metadata.tables) | {VERSION_TABLE}
    for name, table in Base.metadata.tables.items():
        columns = {column["name"]: column["nullable"] for column in inspect(database.engine).get_columns(name)}
        assert columns == {column.name: bool(column.nullable) for column in table.columns}
        indexes = {frozenset(index["column_names"]) for index in inspect(database.engine).get_indexes(name)}
        assert {frozenset(column.name for column in index.columns) for index in table.indexes} <= indexes


def test_upgrading_twice_changes_nothing(database: Database) -> None:
    upgrade(database)
    with database.read() as connection:
        assert connection.execute(text(f"SELECT count(*) FROM {VERSION_TABLE}")).scalar_one() == 1


def test_the_clock_is_the_databases_own(database: Database) -> None:
    with database.read() as connection:
        assert database.now(connection) == pytest.approx(time.time(), abs=5.0)


def test_many_processes_write_without_errors_or_losses(any_url: str) -> None:
    database = open_database(any_url, create=True)
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=add_workers, args=(any_url, 100 * k, 25)) for k in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0] * 4
    with database.read() as connection:
        assert len(connection.execute(select(WorkerRow.id)).all()) == 100
    database.engine.dispose()


def test_a_write_is_tried_again_until_the_database_is_back(database: Database) -> None:
    calls = []

    def action(connection: object) -> str:
        calls.append(connection)
        if len(calls) < 3:
            raise OperationalError("x", {}, Exception("database is locked"))
        return "done"

    assert database.write(action, patience=30.0) == "done"
    assert len(calls) == 3


def test_a_write_gives_up_after_its_patience(database: Database) -> None:
    def action(connection: object) -> None:
        raise OperationalError("x", {}, Exception("database is locked"))

    with pytest.raises(StorageError, match=r"cannot write to .*database is locked"):
        database.write(action, patience=0.0)


def test_an_error_that_stays_is_not_tried_again(database: Database) -> None:
    with pytest.raises(Exception, match="no_such_table"):
        database.write(lambda connection: connection.execute(text("DELETE FROM no_such_table")), patience=30.0)


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("mysql://u:s3cr3t@h/x", "expected a sqlite or postgresql"),
        ("nonsense", "is not a database URL"),
        ("sqlite:///:memory:", "cannot be shared"),
        ("postgresql+psycopg://u:s3cr3t@127.0.0.1:1/x", "cannot open postgresql"),
    ],
)
def test_a_wrong_url_gives_one_clear_message_without_the_password(url: str, message: str) -> None:
    with pytest.raises(StorageError, match=message) as caught:
        open_database(url, create=True)
    assert "s3cr3t" not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_file_is_only_created_when_asked(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match=r"no database at .*run a search first"):
        open_database(f"sqlite:///{tmp_path}/none.db")
    assert not (tmp_path / "none.db").exists()


def test_a_file_that_is_no_database_is_named(tmp_path: Path) -> None:
    path = tmp_path / "text.db"
    path.write_text("no database " * 100)
    with pytest.raises(StorageError, match=r"cannot open .*text\.db: file is not a database"):
        open_database(f"sqlite:///{path}", create=True)


def test_the_url_comes_from_option_environment_or_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SPIKEBENCH_STORAGE", raising=False)
    assert storage_url() == "sqlite:///runs/spikebench.db"
    monkeypatch.setenv("SPIKEBENCH_STORAGE", "sqlite:///other.db")
    assert storage_url() == "sqlite:///other.db"
    monkeypatch.setenv("PASSWORD", "s3cr3t")
    assert storage_url("postgresql://u:${PASSWORD}@h/x") == "postgresql://u:s3cr3t@h/x"
    with pytest.raises(StorageError, match=r"export NOT_SET"):
        storage_url("postgresql://u:${NOT_SET}@h/x")


def test_passwords_are_masked() -> None:
    assert mask("postgresql+psycopg://u:s3cr3t@h/x") == "postgresql+psycopg://u:***@h/x"
    assert "s3cr3t" not in mask("post gres://u:s3cr3t@h/x")
    assert mask("postgresql+psycopg://h/x?password=s3cr3t&user=u") == "postgresql+psycopg://h/x?password=***&user=u"
    assert first_line(ValueError("no route to postgresql://u:s3cr3t@h/x\nmore")) == "no route to postgresql://u:***@h/x"


def test_a_password_on_the_command_line_brings_a_warning(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, sqlite_url: str
) -> None:
    monkeypatch.setenv("PASSWORD", "s3cr3t")
    monkeypatch.setenv("SPIKEBENCH_STORAGE", "postgresql://u:s3cr3t@h/x")
    assert [storage_url(given) for given in (None, "postgresql://u:${PASSWORD}@h/x")] == [
        "postgresql://u:s3cr3t@h/x"
    ] * 2
    assert caplog.text == ""
    assert storage_url("postgresql://u:s3cr3t@h/x") == "postgresql://u:s3cr3t@h/x"
    assert "every user of this machine can read the password" in caplog.text
    assert "s3cr3t" not in caplog.text
    database = open_database(sqlite_url, create=True)
    assert sqlite_url not in repr(database).replace(repr(database.engine), "")
    database.engine.dispose()


def test_the_file_system_of_a_path_is_known(tmp_path: Path) -> None:
    assert file_system_of(tmp_path) != ""


def test_sqlite_on_a_network_file_system_is_refused_with_the_way_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("orchestrator.storage.database.file_system_of", lambda path: "nfs4")
    with pytest.raises(StorageError, match=r"network file system \(nfs4\)") as caught:
        open_database(f"sqlite:///{tmp_path}/s.db", create=True)
    assert "\n  docker run -d --name spikebench-db -p 5432:5432 " in str(caught.value)
    assert "\n  export SPIKEBENCH_STORAGE='postgresql+psycopg://postgres:${POSTGRES_PASSWORD}@" in str(caught.value)
    assert not (tmp_path / "s.db").exists()


def test_sqlite_on_another_machine_is_refused_with_the_way_out() -> None:
    with pytest.raises(StorageError, match=r"names the machine gpubox.*write sqlite:///data/s.db(?s:.)*docker run"):
        open_database("sqlite://gpubox/data/s.db", create=True)
