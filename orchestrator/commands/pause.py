"""`spikebench pause`: let a study rest."""

from __future__ import annotations

from typing import Annotated

import typer

from orchestrator.commands.options import StorageOption, tell
from orchestrator.storage.schema import open_ready
from orchestrator.storage.study import require_row
from orchestrator.studies.control import pause


def command(
    study: Annotated[str, typer.Argument(help="Name of the study.")],
    storage: StorageOption = None,
) -> None:
    """Give no trial of a study out; those that run write a checkpoint and wait under their number.

    Its workers and its controller stay. A pause lasts until `spikebench resume`, whoever starts a controller meanwhile.
    """
    database = open_ready(storage)
    row = require_row(database, study)
    pause(database, row)
    tell(
        f"study {row.name} is paused",
        then="running trials write a checkpoint and wait under their numbers; workers and controller stay",
        undo=f"`spikebench resume {row.name}`",
    )
