"""The last lines of a search: its front, how to repeat the best trial, and where the report lies."""

from __future__ import annotations

import shlex
from collections import Counter
from pathlib import Path

from rich.console import Console
from rich.table import Table

from orchestrator.database import Database
from orchestrator.history import StudyHistory, read_history
from orchestrator.study import require_row
from orchestrator.tables import StudyState
from orchestrator.views import TrialState, TrialView

MOST_ROWS = 20


def print_summary(console: Console, database: Database, study_name: str, report: Path) -> bool:
    """Print what came out of a study; return whether any trial has finished.

    Args:
        console: where to.
        database: an open database.
        study_name: the study.
        report: path of its report.
    """
    history = read_history(database, study_name)
    row = require_row(database, study_name)
    console.print(headline(history, row.state, row.state_detail), soft_wrap=True)
    if history.front.trials:
        console.print(front_table(history))
        best = history.front.trials[0]
        console.print(f"repeat trial {best.number}: ", replay_command(best), sep="", soft_wrap=True)
    console.print(f"report: {report}", soft_wrap=True)
    return bool(history.finished)


def headline(history: StudyHistory, state: str, detail: str) -> str:
    """Return one line: how many trials ended how, and what the study is doing."""
    counts = Counter(trial.state for trial in history.trials)
    parts = [f"{counts[state]} {state}" for state in TrialState if counts[state]]
    total = f"{counts[TrialState.FINISHED] + counts[TrialState.STOPPED] + counts[TrialState.FAILED]}"
    done = "complete" if state == StudyState.COMPLETE else f"{state}: {detail}" if detail else state
    return f"study {history.study.name} is {done}: {total} of {history.study.budget} trials ended ({', '.join(parts)})"


def front_table(history: StudyHistory) -> Table:
    """Return the front as a table, best first in the first objective."""
    study, front = history.study, history.front
    title = "Pareto front" if front.feasible else "no trial keeps the constraints; the least violating"
    if len(study.objectives) == 1:
        title = "best trial" if front.feasible else title
    table = Table(title=title, title_justify="left", box=None, header_style="bold", pad_edge=False)
    for heading in ("trial", *(objective.metric for objective in study.objectives), *(p.key for p in study.parameters)):
        table.add_column(heading, justify="right")
    for trial in front.trials[:MOST_ROWS]:
        values = [f"{value:.4g}" for value in trial.values or ()]
        params = [_short(trial.params.get(parameter.key, "-")) for parameter in study.parameters]
        table.add_row(str(trial.number), *values, *params)
    if len(front.trials) > MOST_ROWS:
        table.caption = f"and {len(front.trials) - MOST_ROWS} more in the report"
    return table


def replay_command(trial: TrialView) -> str:
    """Return the command that trains a trial's configuration again."""
    return f"spikebench train --config {shlex.quote(str(Path(trial.run_dir) / 'config.yaml'))}"


def _short(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
