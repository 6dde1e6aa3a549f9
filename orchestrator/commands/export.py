"""`spikebench export`: a trial's configuration as a file that `spikebench train` runs."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from orchestrator.commands.options import StorageOption
from orchestrator.reproduction.export import RULE, export_trial, write_export
from orchestrator.storage.schema import open_ready
from orchestrator.storage.study import require_row


def command(
    study: Annotated[str, typer.Argument(help="Name of the study.")],
    trial: Annotated[int | None, typer.Argument(help=f"Number of the trial; by default {RULE}.", min=0)] = None,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="The file, which must not exist; STUDY_trial_N.yaml by default.")
    ] = None,
    storage: StorageOption = None,
) -> None:
    """Write a trial's whole configuration, with a comment that says where it is from and what it measured."""
    database = open_ready(storage)
    name = require_row(database, study).name
    number, text = export_trial(database, name, trial)
    path = out or Path(f"{name}_trial_{number:05d}.yaml")
    write_export(text, path)
    Console(highlight=False).print(
        f"trial {number} of {name}: {path}\ntrain it with: spikebench train --config {shlex.quote(str(path))}",
        markup=False,
        soft_wrap=True,
    )
