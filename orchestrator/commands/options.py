"""Options that several commands share, and how those say what they did."""

from __future__ import annotations

import difflib
import os
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from rich.console import Console

from configs.keys import known_keys
from orchestrator.errors import OutputError

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

PerGpuOption = Annotated[
    int | None, typer.Option("--per-gpu", min=1, help="Trials at once on each GPU; one by default.", show_default=False)
]
GpuFractionOption = Annotated[
    float | None,
    typer.Option(
        "--gpu-fraction", min=0.01, max=1.0, help="Share of a GPU's memory for each trial.", show_default=False
    ),
]


def tell(done: str, *, then: str, undo: str) -> None:
    """Print what a command has done to a study, what follows from it, and what undoes it.

    Args:
        done: a sentence without its full stop.
        then: what follows without anybody doing more, or what it takes.
        undo: the command that takes it back, or that nothing does.
    """
    lines = f"{done}\n  then: {then}\n  undo: {undo}"
    Console(highlight=False).print(lines, soft_wrap=True, markup=False)


def goes_on_by(study: str) -> str:
    """Return what a person types to give a study a controller."""
    return f"its search command, or `spikebench controller --study {study}`"


def require_writable(folder: Path) -> None:
    """Raise unless a folder can be made or written; nothing is made yet.

    Raises:
        OutputError: it cannot, which every trial would find out by itself.
    """
    there = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())
    if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
        problem = "may not be written" if there.is_dir() else "is no folder"
        raise OutputError(f"trials cannot be kept in {folder}: {there} {problem}; give another --runs-dir")


def shares_of(per_gpu: int | None, gpu_fraction: float | None) -> dict[str, Any]:
    """Return how GPUs are shared, as `orchestrator.machine.slots.slots` takes it.

    Args:
        per_gpu: trials at once on each GPU.
        gpu_fraction: share of a GPU's memory for each trial.

    Raises:
        typer.BadParameter: both are given.
    """
    if per_gpu is not None and gpu_fraction is not None:
        raise typer.BadParameter("--per-gpu and --gpu-fraction say the same thing; give one")
    return {"per_gpu": per_gpu, "gpu_fraction": gpu_fraction}


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


OVERRIDES = {"allow_extra_args": True, "ignore_unknown_options": True}  # dotted keys of the configuration


def overrides_of(ctx: typer.Context) -> list[str]:
    """Return the arguments that are dotted overrides.

    Args:
        ctx: context of a command with the settings `OVERRIDES`.

    Raises:
        typer.BadParameter: an argument looks like an option of the command but is none.
    """
    options = [name for parameter in ctx.command.params for name in parameter.opts]
    for argument in ctx.args:
        name = argument.split("=", 1)[0]
        if name.startswith("-") and "." not in name and name.removeprefix("--") not in known_keys():
            near = difflib.get_close_matches(name, options)
            hint = f": did you mean {' or '.join(near)}?" if near else "; a key of the configuration has a dot in it"
            raise typer.BadParameter(f"no option {name}{hint}")
    return list(ctx.args)
