"""`spikebench cancel`: end one trial for good."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.console import Console

from orchestrator.commands.options import StorageOption
from orchestrator.storage.schema import open_ready
from orchestrator.storage.study import require_row
from orchestrator.studies.control import cancel


def command(
    study: Annotated[str, typer.Argument(help="Name of the study.")],
    trial: Annotated[int, typer.Argument(help="Number of the trial.", min=0)],
    storage: StorageOption = None,
) -> None:
    """End one trial for good: it counts as one of the study's trials, has no values and is not tried again."""
    database = open_ready(storage)
    row = require_row(database, study)
    running = cancel(database, row, trial)
    said = "is told to end; its worker takes the next" if running else "is cancelled"
    Console(highlight=False).print(f"trial {trial} of study {row.name} {said}", soft_wrap=True, markup=False)
