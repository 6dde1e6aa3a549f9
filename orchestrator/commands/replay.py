"""`spikebench replay`: train a stored trial again and compare its curves digit by digit."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from orchestrator.commands.options import StorageOption
from orchestrator.reading.labels import metric_text
from orchestrator.reproduction.replay import CLOCK_AND_MEMORY, Difference, Replay, fresh_folder, replay
from orchestrator.reproduction.stored_trial import StoredTrial, read_trial
from orchestrator.storage.schema import open_ready
from trainers.protocol import EpochReport

MOST_LINES = 20


def command(
    study: Annotated[str, typer.Argument(help="Name of the study.")],
    trial: Annotated[int, typer.Argument(help="Number of the trial.", min=0)],
    storage: StorageOption = None,
    runs_dir: Annotated[Path, typer.Option(help="Folder under which the replay gets one of its own.")] = Path("runs"),
) -> None:
    """Train a trial again and compare its curves with the stored ones, digit by digit.

    The database is all that is needed of the first run. Exit code 0: identical; 1: not.
    """
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s: %(message)s")
    console = Console(highlight=False)
    database = open_ready(storage)
    stored = read_trial(database, study, trial)
    database.engine.dispose()
    folder = fresh_folder(runs_dir / stored.study, trial).resolve()
    print_start(console, stored, folder)

    def told(report: EpochReport, found: list[Difference]) -> None:
        verdict = f"{len(found)} of its numbers differ" if found else "identical"
        console.print(f"epoch {report.epoch}/{max(stored.curves)}: {verdict}; {report.seconds:.1f} s")

    result = replay(stored, folder, told)
    print_result(console, stored, result)
    if not result.identical:
        raise typer.Exit(1)


def print_start(console: Console, trial: StoredTrial, folder: Path) -> None:
    """Print what is replayed and where."""
    halved = f", batches halved {trial.halvings} times" if trial.halvings else ""
    threads = f"{trial.threads} thread{'s' * (trial.threads != 1)}"
    console.print(f"trial {trial.number} of {trial.study} again, {threads}{halved}, in {folder}", soft_wrap=True)


def print_result(console: Console, trial: StoredTrial, result: Replay) -> None:
    """Print the verdict, the first number that differs, and what is not as it was."""
    compared = f"{result.numbers} numbers of {result.epochs} epochs ({' and '.join(CLOCK_AND_MEMORY)} left out)"
    if result.identical:
        console.print(f"identical: {compared}", soft_wrap=True)
        return
    console.print(f"not identical: {len(result.differences)} of {compared} differ", soft_wrap=True)
    if result.failure:
        console.print(f"the replay ended early: {result.failure}", soft_wrap=True, markup=False)
    if result.differences:
        console.print(f"first: {result.differences[0]}", soft_wrap=True, markup=False)
        print_last(console, trial, result)
    if not result.surroundings:
        console.print("nothing that is recorded about code, packages and device has changed since")
        return
    console.print("what is not as it was:")
    for line in result.surroundings[:MOST_LINES]:
        console.print(f"  {line}", soft_wrap=True, markup=False)
    if (more := len(result.surroundings) - MOST_LINES) > 0:
        console.print(f"  and {more} more")


def print_last(console: Console, trial: StoredTrial, result: Replay) -> None:
    """Print how far the validation metrics of the last epoch are apart, so that one sees what the difference means."""
    last = max(trial.curves)
    for difference in result.differences:
        is_shown = difference.epoch == last and difference.metric.startswith("val_") and "." not in difference.metric
        if is_shown and difference.replayed is not None:
            before, now = (metric_text(difference.metric, value) for value in (difference.stored, difference.replayed))
            console.print(f"  epoch {last}, {difference.metric}: stored {before}, replayed {now}", soft_wrap=True)
