"""`spikebench convert-checkpoint`: turn a published checkpoint into one of ours."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from configs.resolve import resolve
from orchestrator.commands.options import OVERRIDES, overrides_of
from trainers.published import convert_checkpoint

CONTEXT_SETTINGS = OVERRIDES


def command(
    ctx: typer.Context,
    weights: Annotated[Path, typer.Argument(help="Published file: an official repository's or STEP's.")],
    config: Annotated[str, typer.Option("--config", help="Configuration of the published variant.")],
    out: Annotated[Path, typer.Option("--out", help="Folder for the converted checkpoint.")],
) -> None:
    """Load a published checkpoint strictly and save it as one that `evaluate` and `model.pretrained` take."""
    found = convert_checkpoint(resolve(config, overrides_of(ctx)).config, weights, out)
    console = Console(highlight=False)
    console.print(
        f"{weights}: keys of {found.source}, {found.parameters:,} parameters, {found.classes} classes", soft_wrap=True
    )
    console.print(f"saved as {found.saved.path}; score it with", soft_wrap=True)
    console.print(f"  spikebench evaluate --checkpoint {out}", soft_wrap=True)
