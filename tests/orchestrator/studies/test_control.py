from __future__ import annotations

import pytest
from sqlalchemy import insert, select, update

from orchestrator.errors import ControlError, TrialNotFoundError
from orchestrator.queue.jobs import Claim, WorkerIdentity, claim, finish, goes_on, hold, return_lost
from orchestrator.storage.database import Database
from orchestrator.storage.study import require_row
from orchestrator.storage.tables import AttemptRow, EndReason, JobRow, JobState, StudyRow, StudyState
from orchestrator.studies.control import begin, cancel, pause, resume, standing, stop
from trainers.protocol import Verdict


@pytest.fixture
def study(database: Database) -> StudyRow:
    """A study of three waiting trials."""
    with database.begin() as connection:
        connection.execute(
            insert(StudyRow).values(
                id=1, name="s", optuna_study_id=1, space_json="{}", space_hash="h", seed=1, budget_trials=3,
                created_at=0.0,
            )
        )  # fmt: skip
        for number in range(3):
            connection.execute(
                insert(JobRow).values(
                    study_id=1, trial_number=number, optuna_trial_id=number, config={}, config_hash="c",
                    params={}, trainer="t:t", threads=number, run_dir="/r", created_at=0.0,
                )
            )  # fmt: skip
    return require_row(database, "s")


def take(database: Database, threads: int = 1) -> Claim | None:
    worker = WorkerIdentity("w", "host/boot", 1, 0.0, "cpu", threads)
    return database.write(lambda connection: claim(connection, worker))


def held(database: Database) -> Claim:
    taken = take(database)
    assert taken is not None
    return taken


def wanted(database: Database, claimed: Claim) -> Verdict:
    with database.read() as connection:
        undisturbed = goes_on(connection, claimed)
    verdict, _ = database.write(lambda connection: hold(connection, claimed))
    assert undisturbed == (verdict is Verdict.CONTINUE)
    return verdict


def job(database: Database, number: int) -> tuple[str, str | None]:
    with database.read() as connection:
        query = select(JobRow.state, JobRow.end_reason).where(JobRow.trial_number == number)
        return tuple(connection.execute(query).one())


@pytest.mark.parametrize("rest", [pause, stop])
def test_a_resting_study_gives_no_trial_out_and_takes_back_those_that_run(
    database: Database, study: StudyRow, rest: object
) -> None:
    running = held(database)
    assert wanted(database, running) is Verdict.CONTINUE
    rest(database, study)
    assert take(database) is None
    assert wanted(database, running) is Verdict.PREEMPT
    assert database.write(lambda c: finish(c, running, EndReason.PREEMPTED)) == JobState.PENDING
    assert take(database) is None


def test_a_resumed_study_goes_on_with_the_trial_it_took_back(database: Database, study: StudyRow) -> None:
    first = held(database)
    pause(database, study)
    database.write(lambda c: finish(c, first, EndReason.PREEMPTED))
    resume(database, study)
    again = held(database)
    assert (again.trial_number, again.attempt) == (first.trial_number, 2)
    assert wanted(database, again) is Verdict.CONTINUE


def test_a_pause_outlives_a_new_controller_and_a_stop_does_not(database: Database, study: StudyRow) -> None:
    pause(database, study)
    begin(database, study.id, budget=9)
    assert standing(database, study.id).state is StudyState.PAUSED
    stop(database, study)
    begin(database, study.id, budget=9)
    assert standing(database, study.id).state is StudyState.RUNNING
    assert require_row(database, "s").budget_trials == 9


@pytest.mark.parametrize(
    ("state", "refused", "message"),
    [
        (StudyState.COMPLETE, (pause, resume, stop), r"'s' is complete: all its 3 trials.*--study s --trials 13"),
        (StudyState.STOPPED, (pause, resume), r"'s' is stopped: nothing runs.*spikebench controller --study s"),
    ],
)
def test_what_does_not_fit_the_study_is_refused_with_what_would(
    database: Database, study: StudyRow, state: StudyState, refused: tuple[object, ...], message: str
) -> None:
    with database.begin() as connection:
        connection.execute(update(StudyRow).values(state=state))
    for action in refused:
        with pytest.raises(ControlError, match=message):
            action(database, study)
    assert standing(database, study.id).state is state


def test_the_same_wish_twice_is_no_mistake(database: Database, study: StudyRow) -> None:
    for action, state in ((pause, "paused"), (resume, "running"), (stop, "stopped")):
        action(database, study)
        action(database, study)
        assert standing(database, study.id).state == state


def test_a_waiting_trial_is_cancelled_at_once_and_never_given_out(database: Database, study: StudyRow) -> None:
    assert cancel(database, study, 0) is False
    assert job(database, 0) == ("failed", "cancelled")
    assert held(database).trial_number == 1
    assert standing(database, study.id).open == 3  # it still has to be told


def test_a_running_trial_is_told_to_end(database: Database, study: StudyRow) -> None:
    running = held(database)
    assert cancel(database, study, 0) is True
    assert wanted(database, running) is Verdict.STOP
    assert database.write(lambda c: finish(c, running, EndReason.CANCELLED)) == JobState.FAILED
    assert job(database, 0) == ("failed", "cancelled")


def test_a_cancelled_trial_that_comes_back_otherwise_is_not_tried_again(database: Database, study: StudyRow) -> None:
    for number, reason in enumerate((EndReason.PREEMPTED, EndReason.CRASH)):
        running = held(database)
        cancel(database, study, number)
        assert database.write(lambda c, held=running, why=reason: finish(c, held, why)) == JobState.FAILED
        assert job(database, number) == ("failed", "cancelled")
    held(database)
    cancel(database, study, 2)
    assert database.write(lambda c: return_lost(c, ["w"])) == [2]
    assert job(database, 2) == ("failed", "cancelled")
    with database.read() as connection:
        reasons = connection.execute(select(AttemptRow.end_reason).order_by(AttemptRow.job_id)).scalars().all()
    assert reasons == ["preempted", "crash", "lost"]


def test_a_wrong_trial_is_named_with_those_there_are(database: Database, study: StudyRow) -> None:
    with pytest.raises(TrialNotFoundError, match="has no trial 7: its trials are 0 to 2"):
        cancel(database, study, 7)
    cancel(database, study, 1)
    with pytest.raises(ControlError, match=r"trial 1 of study 's' has ended already \(cancelled\)"):
        cancel(database, study, 1)


def test_threads_nobody_has_fixed_are_those_of_the_first_worker(database: Database, study: StudyRow) -> None:
    first = take(database, threads=4)
    assert first is not None
    assert first.threads == 4
    database.write(lambda c: finish(c, first, EndReason.PREEMPTED))
    again, second = take(database, threads=2), take(database, threads=2)
    assert again is not None
    assert second is not None
    assert (again.trial_number, again.threads) == (0, 4)
    assert (second.trial_number, second.threads) == (1, 1)
