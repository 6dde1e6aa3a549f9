"""What a person asks of a study: pause, resume, stop, end one trial. Each is one transaction on the database.

Nobody has to be told: a controller reads its study's state at every tick, workers get no job of a study that rests,
and a worker with a trial looks once a second whether the trial shall go on. So it all works without a controller.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, bindparam, func, select, update

from orchestrator.errors import ControlError, TrialNotFoundError
from orchestrator.storage.database import Database, database_now
from orchestrator.storage.tables import EndReason, JobRow, JobState, StudyRow, StudyState
from trainers.protocol import Verdict

STOPPED_BY_A_PERSON = "by a person"
_STANDING = select(
    StudyRow.state,
    select(func.count()).where(JobRow.study_id == bindparam("study"), JobRow.told.is_(False)).scalar_subquery(),
).where(StudyRow.id == bindparam("study"))


@dataclass(frozen=True, slots=True)
class Standing:
    """What a controller reads of its study at every tick.

    Args:
        state: what people want it to do.
        open: jobs that are pending, running, or ended but not yet told to Optuna.
    """

    state: StudyState
    open: int


def standing(database: Database, study_id: int) -> Standing:
    """Read a study's state and how much of its work is open, in one query."""
    with database.read() as connection:
        row = connection.execute(_STANDING, {"study": study_id}).one()
    return Standing(StudyState(row[0]), int(row[1]))


def begin(database: Database, study_id: int, budget: int) -> None:
    """Write that a controller works on a study; a paused one stays paused, whoever starts a controller for it.

    Args:
        database: an open database.
        study_id: the study; its lease is held.
        budget: trials it shall have in total.
    """

    def action(connection: Connection) -> None:
        connection.execute(update(StudyRow).where(StudyRow.id == study_id).values(budget_trials=budget))
        connection.execute(
            update(StudyRow)
            .where(StudyRow.id == study_id, StudyRow.state != StudyState.PAUSED)
            .values(state=StudyState.RUNNING, state_detail="")
        )

    database.write(action)


def pause(database: Database, study: StudyRow) -> None:
    """Give no trial of a study out any more; those that run write a checkpoint and are given back.

    Raises:
        ControlError: the study is complete or stopped.
    """
    _turn(database, study, {StudyState.RUNNING, StudyState.PAUSED}, StudyState.PAUSED, STOPPED_BY_A_PERSON)


def resume(database: Database, study: StudyRow) -> None:
    """Go on with a paused study.

    Raises:
        ControlError: the study is complete or stopped.
    """
    _turn(database, study, {StudyState.RUNNING, StudyState.PAUSED}, StudyState.RUNNING, "")


def stop(database: Database, study: StudyRow) -> None:
    """End the work on a study: like a pause, but its controller ends too.

    Raises:
        ControlError: the study is complete.
    """
    allowed = {StudyState.RUNNING, StudyState.PAUSED, StudyState.STOPPED}
    _turn(database, study, allowed, StudyState.STOPPED, STOPPED_BY_A_PERSON)


def cancel(database: Database, study: StudyRow, number: int) -> bool:
    """End one trial for good; it counts as one of the study's trials and fails without values.

    Optuna is told FAIL, not PRUNED: a pruned trial is one that did badly, and samplers learn from that; that a person
    ended it says nothing about its parameters.

    Args:
        database: an open database.
        study: the study.
        number: the trial's number.

    Returns:
        Whether the trial was running: its worker ends it within a second. One that waited has ended already.

    Raises:
        TrialNotFoundError: the study has no such trial.
        ControlError: the trial has ended.
    """
    this = (JobRow.study_id == study.id) & (JobRow.trial_number == number)

    def action(connection: Connection) -> bool | None:
        ended = {"state": JobState.FAILED, "end_reason": EndReason.CANCELLED, "ended_at": database_now()}
        waiting = update(JobRow).where(this, JobRow.state == JobState.PENDING)
        if connection.execute(waiting.values(**ended, end_detail="cancelled while it waited for a worker")).rowcount:
            return False
        running = update(JobRow).where(this, JobRow.state == JobState.LEASED)
        wish = {"verdict": Verdict.STOP, "verdict_reason": EndReason.CANCELLED}
        return True if connection.execute(running.values(**wish)).rowcount else None

    done = database.write(action)
    if done is None:
        raise _not_cancelled(database, study, number)
    return done


def parameters_of(database: Database, study: StudyRow, number: int) -> dict[str, Any]:
    """Return the parameters that a trial of a study was drawn with."""
    query = select(JobRow.params).where(JobRow.study_id == study.id, JobRow.trial_number == number)
    with database.read() as connection:
        return dict(connection.execute(query).scalar_one())


def _not_cancelled(database: Database, study: StudyRow, number: int) -> ControlError | TrialNotFoundError:
    query = select(JobRow.trial_number, JobRow.end_reason).where(JobRow.study_id == study.id)
    with database.read() as connection:
        reasons = {row.trial_number: row.end_reason for row in connection.execute(query)}
    if number in reasons:
        return ControlError(f"trial {number} of study '{study.name}' has ended already ({reasons[number]})")
    there = f"its trials are 0 to {max(reasons)}" if reasons else "it has no trial yet"
    there += "; one that is enqueued can be cancelled when it has its turn" if number > max(reasons, default=-1) else ""
    return TrialNotFoundError(f"study '{study.name}' has no trial {number}: {there}")


def _turn(database: Database, study: StudyRow, allowed: set[StudyState], to: StudyState, detail: str) -> None:
    """Change a study's state if it is one of those allowed, whatever else happens at that moment."""
    turned = database.write(
        lambda connection: (
            connection.execute(
                update(StudyRow)
                .where(StudyRow.id == study.id, StudyRow.state.in_(allowed))
                .values(state=to, state_detail=detail)
            ).rowcount
        )
    )
    if not turned:
        raise ControlError(_why_not(database, study))


def _why_not(database: Database, study: StudyRow) -> str:
    state = standing(database, study.id).state
    if state is StudyState.COMPLETE:
        return (
            f"study '{study.name}' is complete: all its {study.budget_trials} trials have ended. "
            f"More of them: its search command with --trials {study.budget_trials + 10}, or `spikebench controller "
            f"--study {study.name} --trials {study.budget_trials + 10}` with workers from elsewhere"
        )
    return (
        f"study '{study.name}' is {state}: nothing runs. "
        f"The same search command goes on with it, or `spikebench controller --study {study.name}`"
    )
