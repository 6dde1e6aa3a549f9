"""What the dashboard shows beside the trials of the front: figures of the model, configuration, checkpoint."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from sqlalchemy import select

from configs.problems import SpikebenchError
from orchestrator.reading.history import StudyHistory, read_history
from orchestrator.reading.labels import metric_label, metric_text
from orchestrator.reading.views import StudyView, TrialView
from orchestrator.reports.artifact_shelf import Shelf
from orchestrator.storage.database import Database
from orchestrator.storage.tables import CheckpointRow, JobRow

CONFUSION, RATES, RASTER, CONFIG = "confusion_matrix.png", "firing_rates.png", "spike_raster.png", "config.yaml"
OUR_TRAINER = "trainers:train"  # whose checkpoints can be looked into


@dataclass(frozen=True, slots=True)
class FrontTrial:
    """A trial of the front and what can be put beside it.

    Args:
        view: the trial.
        optuna_id: Optuna's id of it.
        config: its resolved configuration.
        checkpoint: its newest checkpoint that is to be seen from here, if any.
        drawable: figures can be made of the checkpoint.
    """

    view: TrialView
    optuna_id: int
    config: Mapping[str, Any]
    checkpoint: Path | None
    drawable: bool

    def lacks(self, there: set[str]) -> bool:
        """Tell whether something is missing beside the trial.

        Args:
            there: names of the files that are there. Of the figures only the raster is there for every kind of model.
        """
        wanted = {CONFIG, *([RASTER] if self.drawable else [])}
        return not wanted <= there


@dataclass(frozen=True, slots=True)
class Kept:
    """What was done.

    Args:
        front: trials on the front.
        made: trials that were given files now.
        cleared: trials whose files were taken away, because they have left the front.
        lacking: trials that still have no figures, by their number.
    """

    front: int
    made: tuple[int, ...]
    cleared: int
    lacking: tuple[int, ...]


def lacking(database: Database, study_name: str, folder: Path) -> tuple[int, ...]:
    """Return the numbers of the front's trials that something is missing beside.

    Args:
        database: an open database.
        study_name: the study.
        folder: of the artifact store.
    """
    history = read_history(database, study_name)
    there = Shelf(database, history.study, folder).names()
    return tuple(t.view.number for t in front_trials(history) if t.lacks(there.get(t.optuna_id, set())))


def keep_artifacts(database: Database, study_name: str, folder: Path, told: Callable[[str], None]) -> Kept:
    """Put files beside every trial of the front, and take them away from those that have left it.

    Args:
        database: an open database.
        study_name: the study.
        folder: of the artifact store.
        told: in one line of each trial whose figures could not be made, and why.
    """
    history = read_history(database, study_name)
    shelf = Shelf(database, history.study, folder)
    there = shelf.names()
    front = front_trials(history)
    left = there.keys() - {trial.optuna_id for trial in front}
    for optuna_id in left:
        shelf.clear(optuna_id, there[optuna_id])
    made, still = [], []
    for trial in front:
        if not trial.lacks(there.get(trial.optuna_id, set())):
            continue
        try:
            if trial.drawable:
                for name, image in figures(history.study, trial):
                    shelf.put(trial.optuna_id, name, image)
        except Exception as error:  # a model of any kind; one that cannot be drawn must not cost the others theirs
            reason = str(error) if isinstance(error, SpikebenchError) else f"{type(error).__name__}: {error}"
            told(f"trial {trial.view.number} has no figures: {reason}")
            still.append(trial.view.number)
        if trial.checkpoint is not None:
            shelf.link(trial.optuna_id, trial.checkpoint.name, trial.checkpoint)
        shelf.put(trial.optuna_id, CONFIG, yaml.safe_dump(dict(trial.config), sort_keys=False).encode())
        made.append(trial.view.number)
    return Kept(len(front), tuple(made), len(left), tuple(still))


def front_trials(history: StudyHistory) -> list[FrontTrial]:
    """Return the trials of a study's front.

    Args:
        history: the study.
    """
    views = {trial.job_id: trial for trial in history.front.trials}
    jobs = select(JobRow.id, JobRow.optuna_trial_id, JobRow.config, JobRow.trainer).where(JobRow.id.in_(views))
    saved = select(CheckpointRow.job_id, CheckpointRow.path).where(CheckpointRow.job_id.in_(views))
    newest: dict[int, Path] = {}
    with history.database.read() as connection:
        for job_id, path in connection.execute(saved.order_by(CheckpointRow.epoch, CheckpointRow.step)):
            if Path(path).is_file():
                newest[job_id] = Path(path)
        rows = connection.execute(jobs.order_by(JobRow.trial_number)).all()
    return [
        FrontTrial(
            views[row.id], row.optuna_trial_id, row.config, newest.get(row.id),
            row.id in newest and row.trainer == OUR_TRAINER,
        )
        for row in rows
    ]  # fmt: skip


def figures(study: StudyView, trial: FrontTrial) -> Iterator[tuple[str, bytes]]:
    """Yield the name and the image of each figure of a trial's model.

    Args:
        study: its study.
        trial: the trial, whose checkpoint is there.

    Raises:
        CheckpointError: the checkpoint cannot be used.
        DataNotFoundError: the data set is not where the configuration says.
    """
    from orchestrator.reports.artifact_figures import confusion_figure, raster_figure, rates_figure  # noqa: PLC0415 - seconds
    from trainers.inspection import inspect  # noqa: PLC0415 - seconds to load, and only for those who draw

    assert trial.checkpoint is not None
    seen = inspect(trial.checkpoint, threads=1)
    samples = "all" if seen.samples == seen.available else f"{seen.samples:,} of"
    about = f"trial {trial.view.number} after epoch {seen.epoch}, {samples} {seen.available:,} validation samples"
    if seen.confusion is not None:
        yield (
            CONFUSION,
            confusion_figure(seen.confusion.double().numpy(), seen.classes, f"{about}\n{values(study, trial.view)}"),
        )
    if seen.rates:
        yield RATES, rates_figure(seen.rates, about)
    title = f"trial {trial.view.number}: spikes for a validation sample of class {seen.classes[seen.label]}"
    yield RASTER, raster_figure({name: spikes.double().numpy() for name, spikes in seen.raster.items()}, title)


def values(study: StudyView, trial: TrialView) -> str:
    """Return the objectives of a trial for a caption."""
    metrics: Sequence[str] = [objective.metric for objective in study.objectives]
    return ", ".join(f"{metric_label(name).lower()} {metric_text(name, trial.metrics.get(name))}" for name in metrics)
