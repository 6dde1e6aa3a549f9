"""`spikebench stop`: end the work on a study."""

from __future__ import annotations

from typing import Annotated

import typer

from orchestrator.commands.options import StorageOption, goes_on_by, tell
from orchestrator.queue.lease import has_controller
from orchestrator.storage.schema import open_ready
from orchestrator.storage.study import require_row
from orchestrator.studies.control import stop


def command(
    study: Annotated[str, typer.Argument(help="Name of the study.")],
    storage: StorageOption = None,
) -> None:
    """End the work on a study: running trials write a checkpoint and are given back, then its controller ends.

    Nothing is lost: the same search command goes on with it.
    """
    database = open_ready(storage)
    row = require_row(database, study)
    stop(database, row)
    there = has_controller(database, row)
    tell(
        f"study {row.name} is stopped",
        then="running trials write a checkpoint, then its controller ends" if there else "no trial of it is given out",
        undo=goes_on_by(row.name),
    )
