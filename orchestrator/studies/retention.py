"""Which ended trials keep their checkpoints, so that a study's disk use does not grow with its trials."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import Connection, bindparam, delete, exists, select

from orchestrator.reading.front import feasible_front
from orchestrator.storage.database import Database
from orchestrator.storage.study import Study
from orchestrator.storage.tables import CheckpointRow, EndReason, JobRow, JobState, MetricRow

BATCH = 500  # ids in one query; SQLite takes no more than some thousands
_FILES = ("ckpt-*.pt", ".ckpt-*.tmp")
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Ended:
    """What decides whether a trial that has ended keeps its checkpoints.

    Args:
        job_id: key in `sb_jobs`.
        run_dir: its folder.
        finished: it was trained to its last epoch.
        ended_at: when.
        values: objectives; NaN where one was not measured.
        violation: by how much it misses the constraints.
    """

    job_id: int
    run_dir: Path
    finished: bool
    ended_at: float
    values: tuple[float, ...]
    violation: float


class Retention:
    """Delete the checkpoints of ended trials that nobody needs: only those on the front and the latest one stay.

    Trials that run or wait keep theirs; they go on from them. Only the controller deletes, and only what belongs to
    jobs that have ended, so hosts that share the folder do not disturb one another. Where the controller does not see
    a trial's folder, nothing is deleted and nothing is forgotten.

    Args:
        database: an open database.
        study: the study; the caller holds its lease.
    """

    def __init__(self, database: Database, study: Study) -> None:
        self._database = database
        self._study_id = study.id
        self._space = study.checked.space
        self._directions = [objective.direction for objective in self._space.objectives]
        self._kept: list[Ended] = []

    def sweep(self) -> None:
        """Put in order what is there: after a restart, another setting, or a trial that wrote when it was given up."""
        if self._space.checkpoints.keep != "all":
            self._settle(self._read(self._with_checkpoints()))

    def ended(self, trial_numbers: Sequence[int]) -> None:
        """Decide anew now that some trials have ended.

        Args:
            trial_numbers: Optuna's numbers of them.
        """
        if self._space.checkpoints.keep == "all" or not trial_numbers:
            return
        with self._database.read() as connection:
            rows = connection.execute(_OF_TRIALS, {"study": self._study_id, "numbers": list(trial_numbers)}).all()
        ids = [row.id for row in rows if row[2] or any(any(Path(row.run_dir).glob(files)) for files in _FILES)]
        if ids:
            self._settle([*self._kept, *self._read(ids)])

    def _settle(self, candidates: list[Ended]) -> None:
        self._kept = self._chosen(candidates)
        stay = {trial.job_id for trial in self._kept}
        self._drop([trial for trial in candidates if trial.job_id not in stay])

    def _chosen(self, candidates: list[Ended]) -> list[Ended]:
        finished = [trial for trial in candidates if trial.finished]
        if self._space.checkpoints.keep == "none" or not finished:
            return []
        front = feasible_front(
            [trial.values for trial in finished], self._directions, [trial.violation for trial in finished]
        )
        latest = max(range(len(finished)), key=lambda index: (finished[index].ended_at, finished[index].job_id))
        return [finished[index] for index in sorted({*front.indices, latest})]

    def _drop(self, trials: list[Ended]) -> None:
        gone = [trial.job_id for trial in trials if _delete_files(trial.run_dir)]

        def action(connection: Connection) -> None:
            for some in _batches(gone):
                connection.execute(delete(CheckpointRow).where(CheckpointRow.job_id.in_(some)))

        if gone:
            self._database.write(action)

    def _with_checkpoints(self) -> list[int]:
        """Return the jobs of ended trials that have checkpoints, by the table or by what lies in the folders."""
        query = select(JobRow.id, JobRow.run_dir, _HAS_CHECKPOINTS).where(
            JobRow.study_id == self._study_id, JobRow.state.in_([JobState.DONE, JobState.FAILED])
        )
        with self._database.read() as connection:
            rows = connection.execute(query).all()
        folders = {Path(row.run_dir).parent for row in rows}
        holding = {str(path.parent) for folder in folders for files in _FILES for path in folder.glob(f"*/{files}")}
        return [row.id for row in rows if row[2] or row.run_dir in holding]

    def _read(self, job_ids: Sequence[int]) -> list[Ended]:
        """Return those of some jobs that have ended, with the last values of what the space judges them by."""
        objectives, constraints = self._space.objectives, self._space.constraints
        names = {item.metric for item in (*objectives, *constraints)}
        trials = []
        with self._database.read() as connection:
            for some in _batches(job_ids):
                last: dict[int, dict[str, float]] = {}
                values = select(MetricRow.job_id, MetricRow.name, MetricRow.value).where(
                    MetricRow.job_id.in_(some), MetricRow.name.in_(names)
                )
                for job_id, name, value in connection.execute(values.order_by(MetricRow.epoch)):
                    last.setdefault(job_id, {})[name] = value
                query = select(JobRow.id, JobRow.run_dir, JobRow.end_reason, JobRow.ended_at).where(
                    JobRow.id.in_(some), JobRow.state.in_([JobState.DONE, JobState.FAILED])
                )
                for row in connection.execute(query):
                    of = last.get(row.id, {})
                    excess = [item.excess(of[item.metric]) if item.metric in of else math.nan for item in constraints]
                    trials.append(
                        Ended(
                            row.id,
                            Path(row.run_dir),
                            row.end_reason == EndReason.FINISHED,
                            row.ended_at or 0.0,
                            tuple(of.get(item.metric, math.nan) for item in objectives),
                            math.nan if any(map(math.isnan, excess)) else max(excess, default=0.0),
                        )
                    )
        return trials


_HAS_CHECKPOINTS = exists().where(CheckpointRow.job_id == JobRow.id)
_OF_TRIALS = select(JobRow.id, JobRow.run_dir, _HAS_CHECKPOINTS).where(
    JobRow.study_id == bindparam("study"), JobRow.trial_number.in_(bindparam("numbers", expanding=True))
)


def _batches(ids: Sequence[int]) -> Iterable[Sequence[int]]:
    return (ids[start : start + BATCH] for start in range(0, len(ids), BATCH))


def _delete_files(run_dir: Path) -> bool:
    """Delete a trial's checkpoints; False when its folder is not to be seen from here or they cannot be deleted."""
    if not run_dir.is_dir():
        return False
    try:
        for files in _FILES:
            for path in run_dir.glob(files):
                path.unlink(missing_ok=True)
    except OSError as error:
        _log.warning("old checkpoints in %s cannot be deleted: %s", run_dir, error)
        return False
    return True
