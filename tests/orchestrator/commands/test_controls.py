"""Pause, resume, stop, cancel, enqueue and controller as a person types them, without anybody running the study."""

from __future__ import annotations

from pathlib import Path

import pytest
from searching import write_space
from sqlalchemy import insert, update

from orchestrator.cli import main
from orchestrator.storage.database import Database
from orchestrator.storage.study import open_study, require_row
from orchestrator.storage.tables import JobRow, JobState, StudyRow, StudyState
from search_spaces.load import load_space


@pytest.fixture
def study(local: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Database:
    """A study of four trials, of which 0 is done, 1 runs and 2 waits."""
    monkeypatch.setenv("SPIKEBENCH_STORAGE", local.url)
    monkeypatch.setenv("COLUMNS", "200")
    opened = open_study(local, load_space(write_space(tmp_path)))
    opened.close()
    with local.begin() as connection:
        for number, state in enumerate((JobState.DONE, JobState.LEASED, JobState.PENDING)):
            reason = "finished" if state is JobState.DONE else None
            connection.execute(
                insert(JobRow).values(
                    study_id=opened.id, trial_number=number, optuna_trial_id=number, config={}, config_hash="c",
                    params={"loss.omega": 1e-4, "loss.c": 2.5}, trainer="t:t", threads=1, run_dir="/r", created_at=0.0,
                    state=state, end_reason=reason,
                )
            )  # fmt: skip
    return local


def say(capsys: pytest.CaptureFixture[str], *arguments: str, code: int = 0) -> str:
    """Run a command and return what it said."""
    with pytest.raises(SystemExit) as ended:
        main(list(arguments))
    captured = capsys.readouterr()
    assert (ended.value.code or 0) == code, captured
    assert "Traceback" not in captured.err
    return captured.err if code else captured.out


def state(database: Database) -> str:
    return require_row(database, "tiny").state


def test_a_study_is_paused_and_resumed(study: Database, capsys: pytest.CaptureFixture[str]) -> None:
    said = say(capsys, "pause", "tiny")
    assert said == (
        "study tiny is paused\n"
        "  then: running trials write a checkpoint and wait under their numbers; workers and controller stay\n"
        "  undo: `spikebench resume tiny`\n"
    )
    assert state(study) == "paused"
    said = say(capsys, "resume", "tiny")
    assert said == (
        "study tiny goes on\n"
        "  then: nothing before it has a controller: its search command, or `spikebench controller --study tiny`\n"
        "  undo: `spikebench pause tiny`\n"
    )
    assert state(study) == "running"


def test_a_study_with_a_controller_just_goes_on(study: Database, capsys: pytest.CaptureFixture[str]) -> None:
    with study.begin() as connection:
        connection.execute(update(StudyRow).values(controller="h/b 1 1.0 x", controller_lease_until=1e12))
    say(capsys, "pause", "tiny")
    assert "then: its trials continue from their checkpoints\n" in say(capsys, "resume", "tiny")
    assert "then: it is tried before the sampler is asked again" in say(capsys, "enqueue", "tiny", "c=1")
    assert "then its controller ends" in say(capsys, "stop", "tiny")


def test_a_study_is_stopped_and_says_how_it_goes_on(study: Database, capsys: pytest.CaptureFixture[str]) -> None:
    assert say(capsys, "stop", "tiny") == (
        "study tiny is stopped\n"
        "  then: no trial of it is given out\n"
        "  undo: its search command, or `spikebench controller --study tiny`\n"
    )
    assert state(study) == "stopped"
    assert "study 'tiny' is stopped: nothing runs" in say(capsys, "resume", "tiny", code=2)


@pytest.mark.parametrize("command", ["pause", "resume", "stop"])
def test_a_complete_study_says_how_to_have_more(
    command: str, study: Database, capsys: pytest.CaptureFixture[str]
) -> None:
    with study.begin() as connection:
        connection.execute(update(StudyRow).values(state=StudyState.COMPLETE))
    said = say(capsys, command, "tiny", code=2)
    assert "is complete: all its 4 trials have ended" in said
    assert "--trials 14" in said


def test_trials_are_cancelled_by_number(study: Database, capsys: pytest.CaptureFixture[str]) -> None:
    assert say(capsys, "cancel", "tiny", "1") == (
        "trial 1 of study tiny is cancelled\n"
        "  then: its worker ends it within a second or so and takes the next\n"
        "  undo: nothing; `spikebench enqueue tiny loss.omega=0.0001 loss.c=2.5` tries its parameters again, "
        "under a new number\n"
    )
    assert "then: it is given to no worker\n" in say(capsys, "cancel", "tiny", "2")
    assert "trial 0 of study 'tiny' has ended already (finished)" in say(capsys, "cancel", "tiny", "0", code=2)
    assert "has no trial 9: its trials are 0 to 2" in say(capsys, "cancel", "tiny", "9", code=2)
    assert "Error" in say(capsys, "cancel", "tiny", "nine", code=2)


def test_parameters_are_enqueued_and_checked(study: Database, capsys: pytest.CaptureFixture[str]) -> None:
    said = say(capsys, "enqueue", "tiny", "omega=1e-4", "loss.c=2")
    assert said == (
        "trial 0 of study tiny is enqueued: loss.omega=0.0001, loss.c=2.0\n"
        "  then: nothing before the study has a controller: its search command, "
        "or `spikebench controller --study tiny`\n"
        "  undo: `spikebench cancel tiny 0`, when it has its turn\n"
    )
    said = say(capsys, "enqueue", "tiny", "omegga=1", "loss.c=99", code=2)
    assert "2 problems found, nothing was enqueued:" in said
    assert "did you mean 'loss.omega'?" in said
    assert "the nearest is 10" in said
    assert "no parameter is given" in say(capsys, "enqueue", "tiny", code=2)
    with study.begin() as connection:
        connection.execute(update(StudyRow).values(budget_trials=1))
    assert "its search command with --trials 2, or" in say(capsys, "enqueue", "tiny", "c=1")
    assert "2 enqueued" in say(capsys, "status")


@pytest.mark.parametrize(
    "arguments", [["pause"], ["resume"], ["stop"], ["cancel"], ["enqueue"], ["status"], ["controller"]]
)
def test_a_wrong_name_gets_the_right_one(
    arguments: list[str], study: Database, capsys: pytest.CaptureFixture[str]
) -> None:
    name = ["--study", "tinny"] if arguments == ["controller"] else ["tinny"]
    rest = {"cancel": ["1"], "enqueue": ["c=1"]}.get(arguments[0], [])
    assert "no study 'tinny'" in (said := say(capsys, *arguments, *name, *rest, code=2))
    assert "did you mean 'tiny'?" in said


@pytest.mark.parametrize("arguments", [["pause", "tiny"], ["cancel", "tiny", "1"], ["controller", "--study", "tiny"]])
def test_a_missing_database_is_one_clear_line(
    arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    said = say(capsys, *arguments, "--storage", f"sqlite:///{tmp_path}/none.db", code=2)
    assert said.startswith(f"no database at {tmp_path}/none.db")
    assert said.count("\n") == 1


def test_a_controller_needs_a_study_or_a_space(study: Database, capsys: pytest.CaptureFixture[str]) -> None:
    assert "--space SPACE, or --study NAME" in say(capsys, "controller", code=2)
    said = say(capsys, "controller", "--study", "tiny", "--training.epochs", "3", code=2)
    assert "keeps its configuration" in said
