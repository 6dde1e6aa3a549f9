"""`spikebench resume`: go on with a paused study."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.console import Console

from orchestrator.commands.options import StorageOption
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
    absent = f", once it has a controller: `spikebench controller --study {row.name}`, or its search command"
    Console(highlight=False).print(
        f"study {row.name} goes on{'' if has_controller(database, row) else absent}", soft_wrap=True, markup=False
    )
