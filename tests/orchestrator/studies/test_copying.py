"""A study moves from one database to another and goes on there as if nothing had happened."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import optuna
import pytest
import searching
import sqlalchemy as sa
from searching import write_space

from orchestrator.errors import ControlError, StudyBusyError, StudyNotFoundError
from orchestrator.queue.lease import ControllerLease
from orchestrator.reading.history import read_history
from orchestrator.storage.database import Database, open_database
from orchestrator.storage.tables import Base, EnvironmentRow, JobRow, MetricRow, StudyRow, WorkerRow
from orchestrator.studies import copying
from orchestrator.studies.copying import copy_study

TRIALS = 4


@pytest.fixture(scope="module")
def searched_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a study 'tiny' that has ended."""
    folder = tmp_path_factory.mktemp("moved")
    searched(folder, f"sqlite:///{folder / 'study.db'}", TRIALS)
    return folder


@pytest.fixture
def source(searched_once: Path, tmp_path: Path) -> Iterator[Database]:
    """Open a copy of that study's database."""
    shutil.copy(searched_once / "study.db", tmp_path / "source.db")
    opened = open_database(f"sqlite:///{tmp_path / 'source.db'}")
    yield opened
    opened.engine.dispose()


def searched(folder: Path, url: str, trials: int) -> None:
    """Run a search of quick trials with one worker to its end."""
    space = write_space(
        folder, trainer="fake_trainers:quick", sampler={"name": "tpe", "seed": 3}, workers={"count": 1, "threads": 1}
    )
    process = searching.start(folder, space, "--storage", url, "--trials", str(trials))
    assert "complete" in searching.finish(folder, process)


def params_of(database: Database, name: str) -> list[dict[str, Any]]:
    return [dict(trial.params) for trial in read_history(database, name).trials]


def test_a_copied_study_goes_on_as_the_original_would(source: Database, pg_url: str, tmp_path: Path) -> None:
    target = open_database(pg_url, create=True)
    copied = copy_study(source, target, "tiny")
    assert (copied.study, copied.trials) == ("tiny", TRIALS)
    before, after = read_history(source, "tiny"), read_history(target, "tiny")
    assert [trial.metrics for trial in after.trials] == [trial.metrics for trial in before.trials]
    assert after.curves("val_accuracy") == before.curves("val_accuracy")
    assert [trial.number for trial in after.front.trials] == [trial.number for trial in before.front.trials]
    searched(tmp_path, pg_url, TRIALS + 3)
    searched(tmp_path, source.url, TRIALS + 3)
    assert params_of(target, "tiny") == params_of(source, "tiny")
    target.engine.dispose()


def test_every_table_is_copied_or_left_for_a_reason() -> None:
    copied = {StudyRow, JobRow, EnvironmentRow, *copying.OF_JOBS}
    left = {WorkerRow}  # processes of the old database's hosts
    assert {mapper.class_ for mapper in Base.registry.mappers} == copied | left


def test_every_row_of_a_study_arrives(source: Database, database: Database) -> None:
    copy_study(source, database, "tiny")
    for table in (JobRow, *copying.OF_JOBS, EnvironmentRow):
        assert count(database, table) == count(source, table), table
    assert count(database, MetricRow) > 0
    copy = optuna.load_study(study_name="tiny", storage=database.url)
    original = optuna.load_study(study_name="tiny", storage=source.url)
    assert [(t.number, t.params, t.values, t.state) for t in copy.trials] == [
        (t.number, t.params, t.values, t.state) for t in original.trials
    ]
    with pytest.raises(ControlError, match=r"has a study 'tiny' already"):
        copy_study(source, database, "tiny")


def test_what_a_worker_held_is_free_in_the_copy(source: Database, local: Database) -> None:
    with source.begin() as connection:
        connection.execute(sa.update(JobRow).where(JobRow.trial_number == 2).values(state="leased", owner="gone"))
    copy_study(source, local, "tiny")
    with local.read() as connection:
        row = connection.execute(sa.select(JobRow.state, JobRow.owner).where(JobRow.trial_number == 2)).one()
    assert tuple(row) == ("pending", None)


def test_a_broken_copy_is_made_anew(source: Database, local: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    def power_cut(*_: object) -> int:
        raise KeyboardInterrupt

    with monkeypatch.context() as broken:
        broken.setattr(copying, "_copy_rows", power_cut)
        with pytest.raises(KeyboardInterrupt):
            copy_study(source, local, "tiny")
    assert copy_study(source, local, "tiny").trials == TRIALS
    assert len(read_history(local, "tiny").trials) == TRIALS


def test_what_cannot_be_copied_is_refused(source: Database, local: Database) -> None:
    with pytest.raises(StudyNotFoundError):
        copy_study(source, local, "nothing")
    with pytest.raises(ControlError, match="both source and target"):
        copy_study(source, source, "tiny")
    lease = ControllerLease(source, read_history(source, "tiny").study.id)
    lease.acquire()
    with pytest.raises(StudyBusyError, match="spikebench stop tiny"):
        copy_study(source, local, "tiny")
    lease.release()


def count(database: Database, table: type[Base]) -> int:
    with database.read() as connection:
        return int(connection.execute(sa.select(sa.func.count()).select_from(table)).scalar_one())
