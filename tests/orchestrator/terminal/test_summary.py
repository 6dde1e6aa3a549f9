from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from seeded import seed_study

from orchestrator.storage.database import Database
from orchestrator.storage.tables import StudyState
from orchestrator.terminal.summary import print_summary


def summary(database: Database, **changes: Any) -> tuple[bool, str]:
    seed_study(database, **changes)
    console = Console(file=io.StringIO(), width=120)
    finished = print_summary(console, database, "stal_loss", Path("runs/stal_loss/report.html"))
    return finished, console.file.getvalue()


def test_the_end_of_a_search_says_what_came_out_and_how_to_repeat_it(local: Database) -> None:
    finished, text = summary(local, state=StudyState.COMPLETE)
    assert finished
    assert text.startswith("study stal_loss is complete: 40 of 40 trials ended (35 finished, 2 stopped, 3 failed)")
    assert "repeat trial" in text
    assert "spikebench train --config /data/runs/" in text
    assert text.rstrip().endswith("report: runs/stal_loss/report.html")


@pytest.mark.parametrize("trials", [0, 1])
def test_without_a_finished_trial_it_says_so_and_offers_nothing_to_repeat(local: Database, trials: int) -> None:
    finished, text = summary(local, trials=trials, running=1, state=StudyState.STOPPED)
    assert finished == bool(trials)
    assert ("repeat trial" in text) == bool(trials)
    assert f"study stal_loss is stopped: {trials} of" in text
