from __future__ import annotations

from pathlib import Path

import pytest
from alembic import command
from sqlalchemy import text

from orchestrator.cli import main
from orchestrator.migrations.upgrade import configuration
from orchestrator.storage.database import open_database, schema_lock
from orchestrator.storage.schema import NEWEST


def db(capsys: pytest.CaptureFixture[str], action: str, url: str, code: int = 0) -> str:
    """Run `spikebench db ACTION` and return what it said."""
    with pytest.raises(SystemExit) as ended:
        main(["db", action, "--storage", url])
    captured = capsys.readouterr()
    assert (ended.value.code or 0) == code, captured
    return captured.out + captured.err


def change(url: str, *statements: str) -> None:
    database = open_database(url)
    with database.begin() as connection:
        for statement in statements:
            connection.execute(text(statement))
    database.engine.dispose()


@pytest.fixture(autouse=True)
def _wide(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")


def test_init_makes_both_sets_of_tables_and_check_finds_all_well(
    any_url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert f"tables made, revision {NEWEST}" in db(capsys, "init", any_url)
    assert f"up to date, revision {NEWEST}" in db(capsys, "init", any_url)
    found = db(capsys, "check", any_url)
    assert "Everything is well." in found
    assert f"revision {NEWEST}, the newest" in found
    for words in ("every table, column and index as declared", "tables of version v", "this machine's"):
        assert words in found
    assert ("write-ahead log" in found) == any_url.startswith("sqlite")


def test_old_tables_are_refused_found_and_migrated(any_url: str, capsys: pytest.CaptureFixture[str]) -> None:
    db(capsys, "init", any_url)
    database = open_database(any_url)
    with schema_lock(database) as connection:
        command.downgrade(configuration(connection), "0001")
    database.engine.dispose()
    assert "migrate them with `spikebench db upgrade`" in db(capsys, "check", any_url, code=1)
    with pytest.raises(SystemExit):
        main(["status", "--storage", any_url])
    assert f"its tables are of revision 0001, expected {NEWEST}: migrate them" in capsys.readouterr().err
    assert f"migrated from revision 0001 to {NEWEST}" in db(capsys, "upgrade", any_url)
    assert "Everything is well." in db(capsys, "check", any_url)


def test_tables_of_a_later_version_are_left_alone(any_url: str, capsys: pytest.CaptureFixture[str]) -> None:
    db(capsys, "init", any_url)
    change(any_url, "UPDATE sb_alembic_version SET version_num = '9999'")
    assert "newer than this spikebench knows" in db(capsys, "upgrade", any_url, code=1)
    assert "install a newer one" in db(capsys, "check", any_url, code=1)


def test_tables_changed_by_hand_are_named(any_url: str, capsys: pytest.CaptureFixture[str]) -> None:
    db(capsys, "init", any_url)
    change(any_url, "ALTER TABLE sb_jobs ADD COLUMN mine INTEGER", "DROP INDEX ix_sb_metrics_name_job_id")
    found = db(capsys, "check", any_url, code=1)
    assert "unknown column sb_jobs.mine" in found
    assert "missing index sb_metrics.ix_sb_metrics_name_job_id" in found
    assert "1 wrong." in found


def test_a_database_without_tables_says_how_to_make_them(
    pg_url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = db(capsys, "check", pg_url, code=1)
    assert found.count("make them with `spikebench db init`") == 2
    for arguments in (["status"], ["db", "copy", "--to", f"sqlite:///{tmp_path}/to.db"]):
        with pytest.raises(SystemExit) as caught:
            main([*arguments, "--storage", pg_url])
        assert caught.value.code == 2
        assert "has no tables of spikebench yet" in capsys.readouterr().err
    assert not (tmp_path / "to.db").exists()


def test_a_missing_file_or_server_is_one_clear_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for action in ("check", "upgrade"):
        assert f"no database at {tmp_path}/none.db" in db(capsys, action, f"sqlite:///{tmp_path}/none.db", code=2)
    wrong = "postgresql+psycopg://u:s3cr3t@127.0.0.1:1/x"
    said = db(capsys, "init", wrong, code=1)
    assert "cannot open postgresql+psycopg://u:***@127.0.0.1:1/x" in said
    assert "s3cr3t" not in said
