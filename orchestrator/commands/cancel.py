"""`spikebench cancel`: end one trial for good."""

from __future__ import annotations

import shlex
from typing import Annotated

import typer

from orchestrator.commands.options import StorageOption, tell
from orchestrator.storage.schema import open_ready
from orchestrator.storage.study import require_row
from orchestrator.studies.control import cancel, parameters_of
from search_spaces.assign import assigned


def command(
    study: Annotated[str, typer.Argument(help="Name of the study.")],
    trial: Annotated[int, typer.Argument(help="Number of the trial.", min=0)],
    storage: StorageOption = None,
) -> None:
    """End one trial for good: it counts as one of the study's trials, has no values and is not tried again."""
    database = open_ready(storage)
    row = require_row(database, study)
    running = cancel(database, row, trial)
    words = shlex.join(assigned(parameters_of(database, row, trial)))
    tell(
        f"trial {trial} of study {row.name} is cancelled",
        then="its worker ends it within a second or so and takes the next" if running else "it is given to no worker",
        undo=f"nothing; `spikebench enqueue {row.name} {words}` tries its parameters again, under a new number",
    )
