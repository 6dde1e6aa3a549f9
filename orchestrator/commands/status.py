"""`spikebench status`: studies, workers and failures."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.console import Console, ConsoleDimensions

from orchestrator.commands.options import StorageOption
from orchestrator.reading.overview import (
    failures_table,
    read_enqueued,
    read_failures,
    read_studies,
    read_workers,
    studies_table,
    workers_table,
)
from orchestrator.reading.snapshot import SnapshotReader
from orchestrator.storage.schema import open_ready
from orchestrator.storage.study import require_row
from orchestrator.terminal.panel import study_panel

LINES = 50  # a picture that may scroll


def command(
    study: Annotated[str | None, typer.Argument(help="Show this study in full; all studies by default.")] = None,
    storage: StorageOption = None,
) -> None:
    """Show studies with their trials and best values, workers, and the last failures with their logs."""
    console = Console(highlight=False)
    database = open_ready(storage)
    row = None if study is None else require_row(database, study)
    study_id = None if row is None else row.id
    if study_id is not None:
        console.print(study_panel(SnapshotReader(database, study_id).read(), ConsoleDimensions(console.width, LINES)))
    else:
        studies = read_studies(database)
        if not studies:
            console.print(f"{database.masked_url} holds no study yet: start one with `spikebench-search --space ...`")
            return
        console.print(studies_table(studies, read_enqueued(database), console.width))
    with database.read() as connection:
        now = database.now(connection)
    workers = read_workers(database, study_id)
    console.print()
    console.print(workers_table(workers, now) if workers else "No workers.")
    if failures := read_failures(database, study_id):
        console.print()
        console.print(failures_table(failures, now))
