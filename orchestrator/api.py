"""Searches from Python: run one, load one, and look at it as data frames and figures (`examples/notebook.py`)."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import pandas as pd
import yaml
from rich.console import Console

from configs.schema import RunConfig
from orchestrator.crew import Request
from orchestrator.errors import TrialNotFoundError
from orchestrator.launch import Search, require_means, run_search
from orchestrator.reading.history import StudyHistory, read_history
from orchestrator.reading.views import TrialView
from orchestrator.reproduction.export import best_trial
from orchestrator.reproduction.stored_trial import read_trial
from orchestrator.storage.database import Database, open_database, storage_url
from orchestrator.storage.study import require_row
from orchestrator.terminal.summary import headline
from search_spaces.load import load_space

if TYPE_CHECKING:
    import plotly.graph_objects as go


class Results:
    """A study as it is in its database; every question reads it anew, also while it runs.

    Args:
        database: an open database.
        name: the study.
    """

    def __init__(self, database: Database, name: str) -> None:
        self._database = database
        self.name = name

    def __repr__(self) -> str:
        """Return one line: what the study is doing, and how many trials ended how."""
        return f"<{headline(self.history())}>"

    def close(self) -> None:
        """Close the connections to the database; the next question opens them again."""
        self._database.engine.dispose()

    def history(self) -> StudyHistory:
        """Return the study and all its trials as plain objects."""
        return read_history(self._database, self.name)

    @property
    def state(self) -> str:
        """What the study is doing: running, paused, complete, stopped or interrupted."""
        return self.history().study.state

    def best(self) -> TrialView:
        """Return the trial of the front that keeps the constraints and is best in the first objective.

        Raises:
            TrialNotFoundError: no trial has finished, or none keeps the constraints.
        """
        return best_trial(self.history())

    def front(self) -> pd.DataFrame:
        """Return the Pareto front, best in the first objective first; `feasible` says whether the constraints are kept.

        Returns:
            One row per trial, with the columns of `trials_dataframe`.
        """
        history = self.history()
        front = history.front
        frame = _frame(history, front.trials)
        frame["feasible"] = front.feasible
        return frame

    def trials_dataframe(self) -> pd.DataFrame:
        """Return one row per trial, by number.

        Returns:
            Columns `state`, `end_reason`, `epochs`, `attempts`, `seconds` and `run_dir`; `params.<key>` per searched
            key; one column per metric, of the last epoch. The index is the trial's number.
        """
        history = self.history()
        return _frame(history, history.trials)

    def curves(self, metric: str) -> pd.DataFrame:
        """Return the learning curves of a metric.

        Args:
            metric: its name, such as `val_accuracy`.

        Returns:
            One row per epoch and one column per trial number; NaN where a trial has no such epoch.
        """
        curves = self.history().curves(metric)
        return pd.DataFrame({number: dict(curve) for number, curve in curves.items()}).sort_index().rename_axis("epoch")

    def config(self, trial: int) -> RunConfig:
        """Return the whole configuration that a trial was trained with.

        Args:
            trial: number of the trial.

        Raises:
            TrialNotFoundError: there is no such trial.
        """
        return read_trial(self._database, self.name, trial).config()

    def plot_front(self) -> go.Figure:
        """Return the front of the first two objectives as a figure.

        Raises:
            TrialNotFoundError: no trial has finished, or there is one objective only.
        """
        from orchestrator.reports.report_figures import front_figures  # noqa: PLC0415 - plotly takes seconds to load

        history = self._finished()
        figures = front_figures(history)
        if not figures:
            raise TrialNotFoundError(f"study '{self.name}' has one objective, so no front: use plot_history()")
        return figures[0]

    def plot_history(self, objective: int = 0) -> go.Figure:
        """Return the values of an objective by trial number, with the best so far, as a figure.

        Args:
            objective: which, from 0.

        Raises:
            TrialNotFoundError: no trial has finished.
        """
        from orchestrator.reports.report_figures import history_figure  # noqa: PLC0415 - plotly takes seconds to load

        return history_figure(self._finished(), objective)

    def plot_importances(self) -> go.Figure:
        """Return how much each parameter mattered for each objective, as a figure.

        Raises:
            TrialNotFoundError: no trial has finished.
        """
        from orchestrator.reading.importance import importances  # noqa: PLC0415 - loads Optuna's evaluators
        from orchestrator.reports.report_figures import importance_figure  # noqa: PLC0415 - plotly takes seconds to load

        history = self._finished()
        return importance_figure(history, importances(history))

    def plot_curves(self, metric: str) -> go.Figure:
        """Return the learning curves of a metric as a figure.

        Args:
            metric: its name, such as `val_accuracy`.

        Raises:
            TrialNotFoundError: no trial has reported such a metric.
        """
        from orchestrator.reports.report_figures import curve_figure  # noqa: PLC0415 - plotly takes seconds to load

        drawn = curve_figure(self.history(), metric)
        if drawn is None:
            raise TrialNotFoundError(f"no trial of study '{self.name}' has reported '{metric}'")
        return drawn

    def report(self, path: str | Path) -> Path:
        """Write the report, one HTML file that opens offline, and return its path.

        Args:
            path: the file; an older one is replaced.
        """
        from orchestrator.reports.report import write_report  # noqa: PLC0415 - plotly takes seconds to load

        return write_report(self._database, self.name, Path(path))

    def _finished(self) -> StudyHistory:
        history = self.history()
        if not history.finished:
            raise TrialNotFoundError(f"no trial of study '{self.name}' has finished yet")
        return history


def search(
    space: str | Path | Mapping[str, Any],
    *,
    trials: int | None = None,
    study: str | None = None,
    workers: int | Literal["auto"] | None = None,
    threads: int | Literal["auto"] | None = None,
    storage: str | None = None,
    runs_dir: str | Path = "runs",
    overrides: Mapping[str, object] | Sequence[str] = (),
    quiet: bool = False,
) -> Results:
    """Create or continue a study and run it to its end, as `spikebench-search` does.

    An interrupt (Ctrl-C, the stop button of a notebook) has running trials write a checkpoint; the same call goes on.

    Args:
        space: a file, the name of a shipped space, or the content of such a file as a dictionary.
        trials: trials in the study, in total; the space's budget by default.
        study: name of the study; the space's own name by default.
        workers: worker processes, or "auto"; what the space says by default.
        threads: CPU threads per trial, or "auto"; what the space says by default.
        storage: database URL; `SPIKEBENCH_STORAGE` or a file under `runs/` by default.
        runs_dir: folder for checkpoints, logs and reports.
        overrides: dotted keys of the base configuration to values, or words of a command line.
        quiet: print nothing.

    Returns:
        The study.

    Raises:
        ConfigError: the space or an override is wrong; all problems are told at once.
        StudyMismatchError: there is a study of that name with another space.
        StudyBusyError: another process runs the study.
    """
    words = [f"{key}={value}" for key, value in overrides.items()] if isinstance(overrides, Mapping) else overrides
    with tempfile.TemporaryDirectory() as folder:
        checked = load_space(_as_file(space, Path(folder)), list(words))
    require_means(checked)
    database = open_database(storage_url(storage), create=True)
    section = checked.space.workers
    request = Request(workers or section.count, threads or section.threads, section.per_gpu, section.gpu_fraction)
    wanted = Search(checked, request, study, trials, Path(runs_dir))
    run_search(Console(quiet=quiet, highlight=False), database, wanted)
    return Results(database, study or checked.space.name)


def load(study: str | None = None, *, storage: str | None = None) -> Results:
    """Open a study for looking at it.

    Args:
        study: its name; may be left out where the database has one study only.
        storage: database URL; `SPIKEBENCH_STORAGE` or a file under `runs/` by default.

    Raises:
        StorageError: there is no such database.
        StudyNotFoundError: there is no such study; the message names the nearest.
    """
    database = open_database(storage_url(storage))
    return Results(database, require_row(database, study).name)


def _as_file(space: str | Path | Mapping[str, Any], folder: Path) -> str | Path:
    if not isinstance(space, Mapping):
        return space
    path = folder / "space.yaml"
    path.write_text(yaml.safe_dump(dict(space), sort_keys=False), encoding="utf-8")
    return path


def _frame(history: StudyHistory, trials: Sequence[TrialView]) -> pd.DataFrame:
    keys = [parameter.key for parameter in history.study.parameters]
    metrics = dict.fromkeys(name for trial in history.trials for name in trial.metrics)
    rows = [
        {
            "state": str(trial.state),
            "end_reason": trial.end_reason,
            "epochs": trial.epochs,
            "attempts": trial.attempts,
            "seconds": trial.seconds,
            "run_dir": trial.run_dir,
            **{f"params.{key}": trial.params.get(key) for key in keys},
            **{name: trial.metrics.get(name) for name in metrics},
        }
        for trial in trials
    ]
    index = pd.Index([trial.number for trial in trials], name="trial")
    return pd.DataFrame(rows, index=index)
