"""Between Optuna and the job table: ask for trials and queue them as jobs, tell what became of them."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import Trial, TrialState
from sqlalchemy import Connection, Row, bindparam, func, insert, select, update

from configs.problems import ConfigError
from orchestrator.machine.placement import shape_of
from orchestrator.storage.database import Database, database_now
from orchestrator.storage.study import Study
from orchestrator.storage.tables import EndReason, JobRow, JobState, MetricRow
from orchestrator.studies.duplicates import Duplicates, Source, copy_curves
from orchestrator.studies.ledger import ForeignTrialError, Ledger
from orchestrator.studies.sampler import make_sampler
from search_spaces.suggest import configure, suggest

PRUNED_REASONS = {EndReason.RUNG, EndReason.DOMINATED, EndReason.CONSTRAINT, EndReason.DEAD_SPIKES, EndReason.SATURATED}

EndedJob = Row[int, int, int, str, str | None]  # id, trial number, Optuna's trial id, state, end reason

# Built once: building a statement takes longer than running it.
_ENDED = (
    select(JobRow.id, JobRow.trial_number, JobRow.optuna_trial_id, JobRow.state, JobRow.end_reason)
    .where(JobRow.study_id == bindparam("study"), JobRow.told.is_(False))
    .where(JobRow.state.in_([JobState.DONE, JobState.FAILED]))
    .order_by(JobRow.ended_at, JobRow.id)
)
_LAST_METRICS = (
    select(MetricRow.job_id, MetricRow.name, MetricRow.epoch, MetricRow.value)
    .where(MetricRow.job_id.in_(bindparam("jobs", expanding=True)))
    .where(MetricRow.name.in_(bindparam("names", expanding=True)))
    .order_by(MetricRow.epoch)
)
_TOLD = update(JobRow).where(JobRow.id.in_(bindparam("jobs", expanding=True))).values(told=True)
_NEW_JOB = insert(JobRow).values(created_at=database_now()).returning(JobRow.id)
_ENDED_JOB = _NEW_JOB.values(ended_at=database_now())  # one that nobody has to train


class AskTell:
    """The only place where a study's trials are asked and told.

    Args:
        database: an open database.
        study: the study.
        runs_dir: folder under which every trial gets its own.
        threads: CPU threads each trial gets, for its whole life.
    """

    def __init__(self, database: Database, study: Study, runs_dir: Path, threads: int) -> None:
        self._database = database
        self._study = study
        self._runs_dir = runs_dir
        self._threads = threads
        self._duplicates = Duplicates(database, study.id, study.checked.space)
        self.told = self._count_told()
        self.failures_in_row = 0

    @cached_property
    def _ledger(self) -> Ledger:
        """Optuna's record; read when it is first needed, which is when the controller holds the study."""
        return Ledger(self._study.storage, self._study.optuna._study_id)

    @cached_property
    def _optuna(self) -> optuna.Study:
        return optuna.Study(self._study.name, self._ledger)

    @property
    def asked(self) -> int:
        """Trials that were asked so far."""
        return self._ledger.asked

    def adopt_orphans(self) -> None:
        """Make jobs of trials that were asked but not queued, by a program that was killed in between.

        Their parameters are drawn by the same seeds again, so the study goes on as if nothing had happened.
        """
        with self._database.read() as connection:
            query = select(JobRow.trial_number).where(JobRow.study_id == self._study.id)
            known = set(connection.execute(query).scalars())
        for trial in self._ledger.get_all_trials(0, deepcopy=False, states=(TrialState.RUNNING,)):
            if trial.number not in known:
                self._seed_sampler(trial.number)
                self._queue(Trial(self._optuna, trial._trial_id))

    def recover(self) -> None:
        """Read everything again after the database was away: nobody knows what of the last write has reached it."""
        self._ledger.reload()
        self._duplicates.forget()
        self.told = self._count_told()

    def ask(self) -> int | None:
        """Ask Optuna for one trial and queue it.

        Returns:
            Its number; None where another trial has come first, so that there may be none left to ask for. It was
            enqueued at this very moment, or it is this one, whose first write had arrived although its answer was lost.
        """
        with self._database.read() as connection:
            self._ledger.notice(connection)
        self._seed_sampler(self._ledger.next_number)
        trial = self._optuna.ask()
        try:
            self._queue(trial)
        except ForeignTrialError:
            self._ledger.reload()
            self._duplicates.forget()
            return None
        return trial.number

    def tell_ended(self) -> list[int]:
        """Tell Optuna of every job that has ended since; return the trial numbers, in the order they ended."""
        ended = self._ended_jobs()
        if not ended:
            return []
        curves = self._last_metrics([row.id for row in ended])
        for row in ended:
            self._tell(row, curves.get(row.id, {}))
        self._write(lambda connection, _: connection.execute(_TOLD, {"jobs": [row.id for row in ended]}))
        for row in ended:
            self.told += 1
            if row.end_reason != EndReason.CANCELLED:  # that a person ended it says nothing about the study
                self.failures_in_row = self.failures_in_row + 1 if row.state == JobState.FAILED else 0
        return [row.trial_number for row in ended]

    def _write(self, beside: Callable[[Connection, Mapping[int, int]], object]) -> None:
        """Write what Optuna has changed, and something of ours, in one transaction.

        Args:
            beside: writes ours; is given the real ids of new trials by the ids they have had so far.
        """

        def action(connection: Connection) -> dict[int, int]:
            ids = self._ledger.write(connection)
            beside(connection, ids)
            return ids

        self._ledger.written(self._database.write(action))

    def _seed_sampler(self, number: int) -> None:
        self._optuna.sampler = make_sampler(self._study.checked.space.sampler, self._study.seed, number)

    def _queue(self, trial: Trial) -> None:
        params = suggest(self._study.checked.space, trial)
        values: dict[str, Any] = {
            "study_id": self._study.id,
            "trial_number": trial.number,
            "params": params,
            "trainer": self._study.checked.space.trainer,
            "threads": self._threads,
            "run_dir": str(self._runs_dir / self._study.name / f"trial_{trial.number:05d}"),
        }
        try:
            settled = self._duplicates.settle(configure(self._study.checked, params))
        except ConfigError as error:
            self._insert_job(trial, values | self._refused(error), None)
            return
        plain = settled.config.model_dump(mode="json")
        values |= {"config": plain, "config_hash": settled.hash}
        values |= {"shape_hash": shape_of(plain, self._study.checked.space.trainer)}
        if settled.source is not None:
            trial.set_user_attr("same_as", settled.source.number)
            values |= settled.source.as_result()
        self._insert_job(trial, values, settled.source)
        self._duplicates.remember(settled)

    def _refused(self, error: ConfigError) -> dict[str, Any]:
        """Return what makes a failed job of parameters that together make no valid configuration: no GPU time."""
        base = self._study.checked.base.model_dump(mode="json")
        end = {"state": JobState.FAILED, "end_reason": EndReason.ERROR}
        return {"config": base, "config_hash": "", "end_detail": str(error), **end}

    def _insert_job(self, trial: Trial, values: Mapping[str, Any], source: Source | None) -> None:
        """Write a trial and its job, with the curves of another trial where it has the result of that one."""

        def action(connection: Connection, ids: Mapping[int, int]) -> None:
            row = {**values, "optuna_trial_id": ids.get(trial._trial_id, trial._trial_id)}
            statement = _ENDED_JOB if "state" in values else _NEW_JOB
            job_id = connection.execute(statement, row).scalar_one()
            if source is not None:
                copy_curves(connection, source.job_id, job_id)

        self._write(action)

    def _ended_jobs(self) -> Sequence[EndedJob]:
        with self._database.read() as connection:
            return connection.execute(_ENDED, {"study": self._study.id}).all()

    def _last_metrics(self, job_ids: Sequence[int]) -> dict[int, dict[str, dict[int, float]]]:
        """Return {job: {metric: {epoch: value}}} of the metrics that objectives and constraints name."""
        space = self._study.checked.space
        names = {item.metric for item in (*space.objectives, *space.constraints)}
        wanted = {"jobs": job_ids, "names": list(names)}
        curves: dict[int, dict[str, dict[int, float]]] = defaultdict(lambda: defaultdict(dict))
        with self._database.read() as connection:
            for job_id, name, epoch, value in connection.execute(_LAST_METRICS, wanted):
                curves[job_id][name][epoch] = value
        return curves

    def _tell(self, row: EndedJob, curves: dict[str, dict[int, float]]) -> None:
        last = {name: next(reversed(curve.values())) for name, curve in curves.items()}
        values = [last.get(objective.metric, math.nan) for objective in self._study.checked.space.objectives]
        measured = all(math.isfinite(value) for value in values)
        if row.end_reason in PRUNED_REASONS:
            state = TrialState.PRUNED
        elif row.state == JobState.DONE and measured:
            state = TrialState.COMPLETE
        else:
            state = TrialState.FAIL
        self._annotate(row, curves, last)
        told = values if state is TrialState.COMPLETE else None
        self._optuna.tell(row.trial_number, told, state=state, skip_if_finished=True)

    def _annotate(self, row: EndedJob, curves: dict[str, dict[int, float]], last: dict[str, float]) -> None:
        """Write what Optuna shows and learns beside the values: end reason, constraints, and a single curve."""
        space = self._study.checked.space
        excess = {c.metric: c.excess(last[c.metric]) for c in space.constraints if c.metric in last}
        curve = curves.get(space.objectives[0].metric, {}) if len(space.objectives) == 1 else {}
        if row.end_reason == EndReason.FINISHED and not excess and not curve:
            return
        known = self._ledger.get_trial(row.optuna_trial_id)
        if known.state.is_finished():  # told, and a person has set its job back
            return
        trial = Trial(self._optuna, row.optuna_trial_id)
        if row.end_reason != EndReason.FINISHED:
            trial.set_user_attr("end_reason", row.end_reason)
        for metric in excess.keys() - known.constraints.keys():
            trial.set_constraint(metric, excess[metric])
        for epoch in curve.keys() - known.intermediate_values.keys():
            trial.report(curve[epoch], epoch)

    def _count_told(self) -> int:
        with self._database.read() as connection:
            query = select(func.count()).where(JobRow.study_id == self._study.id, JobRow.told.is_(True))
            return int(connection.execute(query).scalar_one())
