"""`spikebench pause`: let a study rest."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.console import Console

from orchestrator.commands.options import StorageOption
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
    Console(highlight=False).print(
        f"study {row.name} is paused: running trials write a checkpoint and wait; "
        f"`spikebench resume {row.name}` goes on",
        soft_wrap=True,
        markup=False,
    )
