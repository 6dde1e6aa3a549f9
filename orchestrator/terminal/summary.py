"""The last lines of a search: its front, how to repeat the best trial, and where the report lies."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from rich.console import Console

from orchestrator.reading.history import StudyHistory, read_history
from orchestrator.reading.views import TrialState
from orchestrator.storage.database import Database
from orchestrator.storage.tables import StudyState
from orchestrator.terminal.panel import front_table

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
    console.print(headline(history), soft_wrap=True)
    if (table := front_table(history.study, history.front, MOST_ROWS, console.width)) is not None:
        best = history.front.trials[0]
        console.print(table)
        console.print(f"repeat trial {best.number}: {best.replay_command}", soft_wrap=True)
    console.print(f"report: {report}", soft_wrap=True)
    return bool(history.finished)


def headline(history: StudyHistory) -> str:
    """Return one line: what the study is doing, and how many trials ended how."""
    study = history.study
    counts = Counter(trial.state for trial in history.trials)
    ended = counts[TrialState.FINISHED] + counts[TrialState.STOPPED] + counts[TrialState.FAILED]
    shares = ", ".join(f"{counts[state]} {state}" for state in TrialState if counts[state])
    doing = (
        "complete" if study.state == StudyState.COMPLETE else ": ".join(filter(None, (study.state, study.state_detail)))
    )
    return f"study {study.name} is {doing}: {ended} of {study.budget} trials ended ({shares})"
