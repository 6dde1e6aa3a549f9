from __future__ import annotations

from pathlib import Path

import pytest
from sqlalchemy import create_engine, text

from orchestrator.errors import StorageError
from orchestrator.findings import Health
from orchestrator.storage.database import Database
from orchestrator.storage.schema import NEWEST, create_or_upgrade, examine, open_ready, revision


def test_a_file_that_is_not_hardened_is_found(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/plain.db"
    database = Database(create_engine(url), url)
    found = {finding.topic: finding for finding in examine(database)}
    assert found["hardening"].health is Health.WRONG
    assert found["hardening"].found == "journal_mode delete, foreign_keys 0; expected wal and 1"
    database.engine.dispose()


def test_every_topic_is_looked_at_although_one_of_them_fails(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(_: object) -> None:
        raise StorageError("the disk is gone")

    create_or_upgrade(database)
    monkeypatch.setattr("orchestrator.storage.schema.declared_differences", broken)
    found = {finding.topic: finding for finding in examine(database)}
    assert list(found) == ["database", "server", "hardening", "tables", "columns", "Optuna", "clock"]
    assert [topic for topic, finding in found.items() if finding.health is Health.WRONG] == ["columns"]
    assert found["columns"].found == "the disk is gone"


def test_the_revision_is_read_and_another_one_is_refused(database: Database) -> None:
    assert revision(database) == NEWEST
    open_ready(database.url).engine.dispose()
    with database.begin() as connection:
        connection.execute(text("UPDATE sb_alembic_version SET version_num = '0000'"))
    with pytest.raises(StorageError, match=rf"of revision 0000, expected {NEWEST}: .*db upgrade"):
        open_ready(database.url)
