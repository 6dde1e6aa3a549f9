"""`spikebench resume`: go on with a paused study."""

from __future__ import annotations

from typing import Annotated

import typer

from orchestrator.commands.options import StorageOption, goes_on_by, tell
from orchestrator.queue.lease import has_controller
from orchestrator.storage.schema import open_ready
from orchestrator.storage.study import require_row
from orchestrator.studies.control import resume


def command(
    study: Annotated[str, typer.Argument(help="Name of the study.")],
    storage: StorageOption = None,
) -> None:
    """Go on with a paused study: its trials continue from their checkpoints, under the same numbers."""
    database = open_ready(storage)
    row = require_row(database, study)
    resume(database, row)
    there = has_controller(database, row)
    tell(
        f"study {row.name} goes on",
        then="its trials continue from their checkpoints"
        if there
        else f"nothing before it has a controller: {goes_on_by(row.name)}",
        undo=f"`spikebench pause {row.name}`",
    )
