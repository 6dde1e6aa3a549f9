"""`spikebench report`: the report of a study as one HTML file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from orchestrator.commands.options import StorageOption
from orchestrator.reports.report import write_report
from orchestrator.storage.schema import open_ready
from orchestrator.storage.study import require_row


def command(
    study: Annotated[str | None, typer.Argument(help="Study; may be left out where the database holds one.")] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="The HTML file; runs/STUDY/report.html by default.")
    ] = None,
    storage: StorageOption = None,
) -> None:
    """Write the report of a study, also while it runs, as one HTML file that opens without a network."""
    database = open_ready(storage)
    name = require_row(database, study).name
    path = write_report(database, name, output or Path("runs") / name / "report.html")
    Console(highlight=False).print(f"report of {name}: {path.resolve()}", markup=False, soft_wrap=True)
