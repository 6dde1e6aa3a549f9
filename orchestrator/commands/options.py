"""Options that several commands share."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

StorageOption = Annotated[
    str | None,
    typer.Option(
        "--storage",
        help="Database URL, may hold ${VARIABLE}; default SPIKEBENCH_STORAGE or sqlite:///runs/spikebench.db.",
        show_default=False,
    ),
]
WorkersOption = Annotated[str, typer.Option("--workers", "-w", help="Trials at once on this machine, or auto.")]
ThreadsOption = Annotated[str, typer.Option("--threads", help="CPU threads of each trial, or auto.")]


def count_or_auto(text: str, option: str) -> int | Literal["auto"]:
    """Read "auto" or a whole number from 1 up.

    Args:
        text: what was given.
        option: name of the option, for the message.

    Raises:
        typer.BadParameter: it is neither.
    """
    if text == "auto":
        return "auto"
    if text.isdecimal() and int(text) >= 1:
        return int(text)
    raise typer.BadParameter(f"{option} takes a whole number from 1 up, or auto; got '{text}'")
