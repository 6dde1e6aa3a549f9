"""`spikebench artifacts`: figures, configuration and checkpoint of front trials, for the dashboard."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from orchestrator.commands.options import StorageOption
from orchestrator.reports.artifacts import keep_artifacts
from orchestrator.storage.schema import open_ready
from orchestrator.storage.study import require_row


def command(
    study: Annotated[str | None, typer.Argument(help="Study; may be left out where the database holds one.")] = None,
    folder: Annotated[Path, typer.Option(help="Folder of the artifact store, as the dashboard has it.")] = Path(
        "runs/artifacts"
    ),
    storage: StorageOption = None,
) -> None:
    """Put figures, configuration and checkpoint beside every trial of a study's front, for `spikebench dashboard`.

    A search does this by itself. What is there stays; trials that have left the front lose theirs.
    """
    console = Console(highlight=False)
    database = open_ready(storage)
    name = require_row(database, study).name
    kept = keep_artifacts(database, name, folder, lambda line: console.print(line, markup=False, soft_wrap=True))
    made = ", ".join(map(str, kept.made)) or "none"
    console.print(f"{name}: {kept.front} trials on the front, files made for: {made}", markup=False, soft_wrap=True)
    if kept.cleared:
        console.print(f"{kept.cleared} trials have left the front; their files were removed")
    if kept.lacking:
        raise typer.Exit(1)
