"""`spikebench enqueue`: have a study try chosen parameters."""

from __future__ import annotations

from typing import Annotated

import typer

from orchestrator.commands.options import StorageOption, goes_on_by, tell
from orchestrator.queue.lease import has_controller
from orchestrator.storage.schema import open_ready
from orchestrator.storage.study import require_row
from orchestrator.storage.tables import StudyRow
from orchestrator.studies.enqueue import Queued, enqueue
from search_spaces.assign import read_assignments
from search_spaces.space import CheckedSpace


def command(
    study: Annotated[str, typer.Argument(help="Name of the study.")],
    parameters: Annotated[
        list[str] | None, typer.Argument(metavar="KEY=VALUE", help="The parameters that you choose.")
    ] = None,
    storage: StorageOption = None,
) -> None:
    """Have a study try parameters of your choice before it asks its sampler; those you leave out are sampled.

    The trial is one of the study's budget. A key may be shortened to an ending that no other parameter has.
    """
    database = open_ready(storage)
    row = require_row(database, study)
    params = read_assignments(CheckedSpace.from_json(row.space_json), parameters or [])
    queued = enqueue(database, row, params)
    chosen = ", ".join(f"{key}={value}" for key, value in params.items())
    tell(
        f"trial {queued.number} of study {row.name} is enqueued: {chosen}",
        then=_then(queued, row, controlled=has_controller(database, row)),
        undo=f"`spikebench cancel {row.name} {queued.number}`, when it has its turn",
    )


def _then(queued: Queued, row: StudyRow, *, controlled: bool) -> str:
    if queued.missing:
        trials = row.budget_trials + queued.missing
        return (
            f"nothing before there is room, the study's {row.budget_trials} trials are used up: its search command "
            f"with --trials {trials}, or `spikebench controller --study {row.name} --trials {trials}`"
        )
    if not controlled:
        return f"nothing before the study has a controller: {goes_on_by(row.name)}"
    return "it is tried before the sampler is asked again; what you have left out is sampled"
